"""The trainings of a comparison, and its gates, as tasks."""

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed

from tasks.gpu import gpu
from tasks.retries import RETRIES
from tasks.stopping import ended_by_suspend, told_to_end
from ups.commands.tables import comparison_table, rows_of
from ups.pipeline.ab_gates import Gates, judged, require_passed
from ups.pipeline.comparison import Arm, Trained, train
from ups.pipeline.device import resolve

Json = dict[str, Any]


@task(name="train-arm", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def train_arm(
    arm: Json, seed: int, stage: str, comparison: str, root: str
) -> Any:  # a state, for `result_of`
    """Train one configuration with one seed; what this comparison has trained is read.

    Raises:
        UpsError: see `ups.pipeline.comparison.train`, and `tasks.gpu.gpu`.
        TerminationSignal: this machine shuts down.
    """
    chosen = Arm(**arm)
    on_gpu = resolve(chosen.load()).execution.device == "cuda"
    try:
        with ended_by_suspend(), gpu(needed=on_gpu):
            trained = train(chosen, seed, stage, comparison, root, on_line=get_run_logger().info)
    except TerminationSignal:
        if not told_to_end():
            raise
        return Cancelled(message="the checkpoint of what was trained is kept")
    return Completed(data=trained.to_json())


@task(name="judge", task_run_name="judge", cache_policy=NO_CACHE, persist_result=False)
def judge(trained: list[Json], gates: Json, stage: str, comparison: str) -> None:
    """Show the comparison beside this flow run.

    Raises:
        ComparisonError: a gate is not passed.
    """
    records = judged([Trained(**one) for one in trained], Gates(**gates))
    table = comparison_table(records, stage)
    create_table_artifact(key=f"comparison-{comparison}", description=str(table.title), table=rows_of(table))
    require_passed(records, where="gates")
