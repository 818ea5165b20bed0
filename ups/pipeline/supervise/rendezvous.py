"""Where the agents of several machines meet for one launch.

The first machine hosts it at UPS_ENDPOINT, and says so in the stage's work directory, where `ups join` reads it, and need no
setting of their own. The address is an environment variable, as UPS_ROOT is: it belongs to the place where a run happens, and a
configuration runs in many places. Rejected: torchrun's static rendezvous, in which every machine is given a number, and one
that comes too early or too late meets another launch.
"""

import os
import re
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from ups.errors import PreflightError

ENDPOINT_VARIABLE = "UPS_ENDPOINT"
RENDEZVOUS_FILE = "rendezvous.json"
WAIT_SECONDS = 300  # for all machines to come


@dataclass(frozen=True)
class Rendezvous:
    """One launch on several machines, as one of them sees it.

    Attributes:
        endpoint: HOST:PORT of the first machine.
        nodes: how many machines.
        identity: of the launch; an agent of another one does not get in.
        wait_seconds: after which an agent gives up.
        hosts: whether this is the first machine.
    """

    endpoint: str
    nodes: int
    identity: str
    wait_seconds: int
    hosts: bool = True

    @classmethod
    def here(cls, nodes: int) -> "Rendezvous":
        """A new one, hosted by this machine.

        Raises:
            PreflightError: UPS_ENDPOINT is missing or malformed, or another process listens there.
        """
        endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
        if not re.fullmatch(r"(\[[\w:.]+\]|[\w.-]+):\d+", endpoint):
            raise PreflightError(
                f"is {endpoint!r}, and execution.nodes is {nodes}",
                where=ENDPOINT_VARIABLE,
                fix="on the first machine, set it to HOST:PORT, an address by which all others reach it and a free port",
            )
        rendezvous = cls(endpoint, nodes, uuid.uuid4().hex, WAIT_SECONDS)
        try:
            # As torch does it: at all addresses, and a port that was just left counts as free.
            socket.create_server(("", rendezvous.address[1])).close()
        except (OSError, OverflowError) as error:
            raise PreflightError(
                f"cannot listen at {endpoint}: {error}", where=ENDPOINT_VARIABLE, fix="choose a free port"
            ) from error
        return rendezvous

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), int(port)

    def listens(self) -> bool:
        """Whether its host answers: a launch that was killed leaves the file of a rendezvous that is over."""
        try:
            socket.create_connection(self.address, timeout=2).close()
        except OSError:
            return False
        return True

    def agent_options(self) -> list[str]:
        """Options of torchrun."""
        # Agents are numbered in the order of their addresses, and rank 0, which writes, belongs on the machine that holds
        # the lock. The others' addresses serve for nothing else: any text
        # does that sorts behind every host name.
        own = self.address[0] if self.hosts else f"~{socket.gethostname()}"
        return [
            f"--nnodes={self.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.endpoint}",
            f"--rdzv-id={self.identity}",
            f"--rdzv-conf=is_host={int(self.hosts)},join_timeout={self.wait_seconds}",
            f"--local-addr={own}",
        ]

    def error_file(self) -> str:
        """The name under which the agent of a machine that is not the first writes its error file."""
        return f"{self.identity}-{socket.gethostname()}-{os.getpid()}.json"

    def has_lost_another(self, directory: Path) -> bool:
        """On the first machine: whether there is such a file."""
        return self.hosts and any(directory.glob(f"{self.identity}-*.json"))
