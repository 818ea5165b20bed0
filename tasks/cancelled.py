"""Give a flow run that was cancelled its message: `python -m tasks.cancelled FLOW_RUN_ID MESSAGE`."""

import argparse
import time
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.states import Cancelled

_WITHIN_SECONDS = 120.0
_POLL_SECONDS = 0.2


def main() -> None:
    """Wait until its worker has set it to Cancelled, and say the message; of a run that went on meanwhile, say nothing."""
    parser = argparse.ArgumentParser(prog="python -m tasks.cancelled", description=main.__doc__)
    parser.add_argument("flow_run", type=UUID)
    parser.add_argument("message")
    arguments = parser.parse_args()
    gives_up_at = time.monotonic() + _WITHIN_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < gives_up_at:
            state = client.read_flow_run(arguments.flow_run).state
            if state is not None and state.is_cancelled():
                client.set_flow_run_state(
                    arguments.flow_run, Cancelled(message=arguments.message), force=True
                )
            if state is None or not state.is_cancelling():
                return
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
