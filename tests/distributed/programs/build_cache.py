"""Build the small cache as one rank of torchrun: `build_cache.py DIRECTORY [DEED READS]`.

The deed, "kill" or "terminate", is done by the last rank to itself when it reads for the READS-th time.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cached import build_small_cache, datasets

from ups.data.cache_source import CacheSource, source_of_dataset
from ups.errors import Interrupted
from ups.runtime.ranks import join_ranks

_DEEDS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}


def main(directory: Path, deed: signal.Signals | None = None, reads: int = 0) -> int:
    count = [0]

    def act() -> None:
        count[0] += 1
        if deed is not None and count[0] == reads:
            os.kill(os.getpid(), deed)

    def acting(source: CacheSource) -> CacheSource:
        def read(rows: np.ndarray) -> np.ndarray:
            act()
            return source.read(rows)

        return replace(source, read=read)

    with join_ranks("cpu", threads=1) as ranks:
        sources = {name: source_of_dataset(data) for name, data in datasets().items()}
        if ranks.rank == ranks.world - 1:
            sources = {name: acting(source) for name, source in sources.items()}
        try:
            build_small_cache(directory, sources=sources, ranks=ranks)
        except Interrupted as interruption:
            return interruption.exit_code
        ranks.barrier()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *(() if len(sys.argv) < 4 else (_DEEDS[sys.argv[2]], int(sys.argv[3])))))
