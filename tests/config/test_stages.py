"""Stages are found by their files and ordered by what they read."""

import pytest

from ups.config.schema import STAGES
from ups.config.stage import Stage, in_order


def stages(**inputs: tuple[str, ...]) -> dict[str, Stage]:
    return {
        name: Stage(name, read, settings=lambda *_: {}, bytes=lambda *_: 0) for name, read in inputs.items()
    }


def test_each_is_behind_what_it_reads():
    assert list(in_order(stages(c=("b", "a"), b=("a",), a=()))) == ["a", "b", "c"]
    assert list(in_order(dict(reversed(STAGES.items())))) == list(STAGES)


def test_a_reader_of_no_stage_and_a_circle_are_refused():
    with pytest.raises(ValueError, match=r"stages/b\.py: there is no stage a"):
        in_order(stages(b=("a",)))
    with pytest.raises(ValueError, match="cycle"):
        in_order(stages(a=("b",), b=("a",)))
