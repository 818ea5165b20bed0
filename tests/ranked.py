"""Functions run by several ranks: real processes that talk over gloo."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from ups.runtime.ranks import join_ranks

LIMIT_SECONDS = 240.0  # of a rank, which may have to compile

# The ranks of a test session are forked from one process, which has imported torch once and computed nothing.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["torch._dynamo", "ups.training.loop", "ups.models.build"])


def run_ranks(function: Callable[..., Any], world: int, *arguments: Any) -> list[Any]:
    """`function(ranks, *arguments)` on `world` ranks; their results in order of the ranks.

    The function is found by name in its module, and takes and returns what can be pickled.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, members = [], []
    for rank in range(world):
        mine, theirs = _processes.Pipe()
        # A forked process would have the environment of when the first one was forked.
        environment = os.environ | {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        member = _processes.Process(target=_rank, args=(theirs, environment, function, arguments))
        member.start()
        theirs.close()
        pipes.append(mine)
        members.append(member)
    results: dict[Connection, Any] = {}
    try:
        while missing := [pipe for pipe in pipes if pipe not in results]:
            ready = wait(missing, LIMIT_SECONDS)
            assert ready, f"ranks {[pipes.index(pipe) for pipe in missing]} of {world} say nothing"
            # EOFError: one ended without a result; its traceback is printed. The others are not waited for, as by torchrun: one
            # that was in a collective then may hang in gloo until that is timed out.
            results |= {pipe: pipe.recv() for pipe in ready}
        for member in members:
            member.join(5)
        return [results[pipe] for pipe in pipes]
    finally:
        for pipe in pipes:
            pipe.close()
        for member in members:
            member.kill()
            member.join()


def _rank(
    pipe: Connection, environment: dict[str, str], function: Callable[..., Any], arguments: tuple
) -> None:
    os.environ |= environment
    with join_ranks("cpu", threads=1) as ranks:
        # Bytes, and not `pipe.send`, for which every tensor is a file descriptor of both processes as long as it lives.
        pipe.send_bytes(pickle.dumps(function(ranks, *arguments)))
