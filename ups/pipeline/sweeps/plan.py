"""What a sweep will do: what its members share, what is there already, and what the rest takes."""

from collections.abc import Mapping
from dataclasses import dataclass

from ups.config.sweep import trained_by
from ups.pipeline.execute import require_space
from ups.pipeline.plan import PlannedStage
from ups.pipeline.probe import Prediction
from ups.pipeline.sweeps.sweep import SweepRun


@dataclass(frozen=True)
class StageWork:
    """One stage of all members.

    Attributes:
        different: artifacts that members need, those that several share counted once.
        hits: of these, how many are sealed.
        bytes: of the rest, predicted.
        seconds: to build the rest, one after the other, as a probe of one member predicts; None without a probe.
    """

    stage: str
    members: int
    different: int
    hits: int
    bytes: int
    seconds: float | None = None


def work_by_stage(
    run: SweepRun, plans: Mapping[str, list[PlannedStage]], probed: Mapping[str, Prediction] | None = None
) -> list[StageWork]:
    """Of the stages up to the last that all members have.

    What a stage's inputs will hold is not known before they are built: artifacts count as different by the settings that lead to them.
    """
    keys = {member.name: trained_by(member.configuration, run.sweep.last) for member in run.members}
    found = []
    for index, planned in enumerate(next(iter(plans.values()))):
        stage = planned.name
        by_key = {keys[name][stage]: plan[index] for name, plan in plans.items()}
        missing = [one for one in by_key.values() if one.verdict == "MISS"]
        each = None if not probed or stage not in probed else probed[stage].seconds
        found.append(
            StageWork(
                stage,
                members=len(plans),
                different=len(by_key),
                hits=len(by_key) - len(missing),
                bytes=sum(one.predicted_bytes for one in missing),
                seconds=None if each is None else each * len(missing),
            )
        )
    return found


def require_room(run: SweepRun, work: list[StageWork]) -> None:
    """Refuse a sweep whose members together have no room on the disk.

    Raises:
        PreflightError: says how much is needed and how much is free.
    """
    require_space(run.store.artifacts, sum(one.bytes for one in work), "this sweep")
