"""Environment of the processes that compute: stages and tools."""

import os


def threading_environment(threads: int) -> dict[str, str]:
    """For a process's threads, and what CUDA's matrix products need to be repeatable.

    GNU OpenMP lets a waiting thread spin for milliseconds before it sleeps. With one more busy process than
    cores that makes every step wait for a thread that is not running: 20 to 40 times slower, measured. 10000
    turns cost 2 % on an idle machine and lose a factor 7 on a busy one; sleeping at once
    (OMP_WAIT_POLICY=passive) costs 80 %. Whoever sets a policy keeps it.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000"),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
