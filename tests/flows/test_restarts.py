"""Whatever is killed, and whenever: it ends with the same bits, nothing is lost, left behind, or done twice.

One run suffers all faults, one after the other, as it would in a bad week: a run for each fault would spend most of its time on
starting processes. The server's database is PostgreSQL, as of a server that stands.
"""

import time
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from command_line import TINY, ups
from launches import launches, steps_done_again
from marked_processes import MARKER_VARIABLE, marked
from orchestra import Orchestra, end
from postgres import Postgres
from struck_run import STAGES, WRONG, StruckRun, overrides, remove, results

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

STRUCK = ("consistency",)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    yield postgres
    postgres.close()


@pytest.fixture(scope="module")
def orchestra(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    directory = tmp_path_factory.mktemp("restarts")
    settings = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.url,
        MARKER_VARIABLE: directory.as_posix(),
    }
    orchestra = Orchestra(directory, **settings)
    orchestra.deploy()
    yield orchestra
    orchestra.stop()


@pytest.fixture(scope="module")
def uninterrupted(orchestra: Orchestra) -> dict[str, Any]:
    """What all others have to equal: the results of a run to which nothing happens."""
    settings = [f"--set={key}={value}" for key, value in overrides(STRUCK).items()]
    done = ups("run", TINY, "--root", orchestra.root, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return results(orchestra.latest_run())


@pytest.mark.parametrize("stages", [STRUCK, STAGES], ids=["one training", "any stage"])
@pytest.mark.parametrize("seed", range(10))
def test_everything_happens_to_a_run(orchestra, postgres, uninterrupted, record_property, stages, seed):
    remove(orchestra.root, STAGES[STAGES.index(stages[0]) :])
    run = StruckRun(orchestra, postgres, stages, overrides(STRUCK), seed)
    run.counted["runs struck by everything"] = 1
    try:
        ended = run.live()
        end(orchestra.worker)
        left = [pid for pid in marked(orchestra.environment[MARKER_VARIABLE]) if pid != orchestra.server.pid]
        run.counted["orphans"] += len(left)
        assert results(ended) == uninterrupted
        expect_none_of(run.counted)
    finally:
        record_property("counted", dict(run.counted))
        record_property("seconds from cancel to the last process's end", run.cancel_seconds)
        end(orchestra.worker)


@pytest.mark.parametrize("seed", range(20))
def test_of_two_runs_of_one_configuration_one_works_and_one_waits(
    orchestra, uninterrupted, record_property, seed
):
    remove(orchestra.root, STAGES[STAGES.index(*STRUCK) :])
    earlier = orchestra.runs()
    counted = Counter({"pairs of runs at once": 1} | dict.fromkeys(WRONG, 0))
    orchestra.start_worker()
    try:
        flow_runs = [orchestra.run(overrides(STRUCK))]
        time.sleep(Random(seed).uniform(0, 5))
        flow_runs.append(orchestra.run(overrides(STRUCK)))
        assert [orchestra.final_state(flow_run) for flow_run in flow_runs] == ["Completed"] * 2
        runs = [run for run in orchestra.runs() if run not in earlier]
        counted["double work"] = steps_done_again(launches(runs, *STRUCK))
        counted["double work"] += sum((run / "logs" / "evaluate.log").exists() for run in runs) - 1
        counted["orphans"] = len(orchestra.stage_processes())
        assert [results(run) for run in runs] == [uninterrupted] * 2
        expect_none_of(counted)
    finally:
        record_property("counted", dict(counted))
        end(orchestra.worker)


def expect_none_of(counted: Counter[str]) -> None:
    wrong = {what: counted[what] for what in WRONG}
    assert not any(wrong.values()), wrong
