"""Conditioning that an equation, a budget or a domain does not allow is refused before anything runs."""

import pytest
from command_line import TINY

from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.config.sizes import KeptShape
from ups.errors import ConfigurationError

OBSERVED = {"sensors": [[0.25]], "times": [0.2], "noise": 0.01}


def load(ttc):
    return load_configuration(TINY, {"evaluation.ttc": ttc})


@pytest.mark.parametrize(
    ("ttc", "told"),
    [
        ({"scores": {"entropy": 1}}, "evaluation.ttc.scores.entropy: 1D Burgers with periodic boundary does not have it (it has residual, conservation, energy, maximum)"),
        ({"scores": {"boundary": 1}}, "scores.boundary: 1D Burgers"),
        ({"scores": {"momentum": 1}}, "evaluation.ttc.scores"),
        ({"scores": {}}, "evaluation.ttc.scores"),
        ({"scores": {"residual": 0}}, "evaluation.ttc.scores"),
        ({"max_calls": 2}, "evaluation.ttc.max_calls: 2 is below the 3 calls of one candidate of the diffusion model: raise it, or write models: [consistency]"),
        ({"models": ["consistency", "diffusion"], "max_calls": 18}, "evaluation.ttc.max_calls: 18, less 16 of other candidates, is below the 3 calls of one candidate of the diffusion model: raise it, lower members, or write models: [consistency]"),
        ({"models": ["diffusion", "consistency"], "max_calls": 48}, "max_calls: 48, less 48 of other candidates, is below the 1 calls of one candidate of the consistency model: raise it, lower members, or write models: [diffusion]"),
        ({"max_calls": 0, "models": ["consistency"]}, "evaluation.ttc.max_calls"),
        ({"max_seconds": 0}, "evaluation.ttc.max_seconds"),
        ({"models": ["diffusion", "diffusion"]}, "diffusion is named twice"),
        ({"selection": {"kind": "least_squares"}, "scores": {"energy": 1}}, "least_squares makes the residual least and nothing else"),
        ({"selection": {"kind": "wholes"}}, "evaluation.ttc.selection"),
        ({"observations": OBSERVED | {"sensors": [[1.5]]}}, "evaluation.ttc.observations.sensors: 1.5 is outside the domain of 1D Burgers"),
        ({"observations": OBSERVED | {"times": [0.21]}}, "evaluation.ttc.observations.times: 0.21 is no frame of the forecast"),
        ({"observations": OBSERVED | {"noise": -1}}, "evaluation.ttc.observations.noise"),
        ({"refinement": 0}, "evaluation.ttc.refinement"),
        ({"keep_totals": True, "scores": {"conservation": 1}}, "evaluation.ttc: scores: conservation is 0 for all candidates with keep_totals"),
        ({"refinement": 2, "scores": {"energy": 1}}, "evaluation.ttc: refinement: is of the residual, which is no score here"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(ttc, told):
    with pytest.raises(ConfigurationError) as refused:
        load(ttc)
    assert told in str(refused.value)


def test_it_is_off_by_default_and_whole_where_it_is_on():
    assert load_configuration(TINY).evaluation.ttc is None
    settings = load({}).evaluation.ttc
    assert settings is not None
    assert settings.selection.kind == "whole"
    assert load({"max_calls": 3, "observations": OBSERVED}).evaluation.ttc is not None


ADVECTION = {
    "source": "generated",
    "equation": "advection1d",
    "beta": 0.1,
    "trajectories": {"train": 16, "validation": 4, "test": 4},
    "resolution": 32,
    "solver_resolution": 64,
    "frames": 9,
    "frame_interval": 0.05,
}


def test_a_finer_grid_is_for_equations_that_are_solved_on_it():
    with pytest.raises(
        ConfigurationError, match=r"evaluation\.ttc\.refinement: no equation here is solved on"
    ):
        load_configuration(TINY, {"data": ADVECTION, "evaluation.ttc": {"refinement": 2}})
    load_configuration(TINY, {"data": ADVECTION, "evaluation.ttc": {}})


OUTFLOW = {key: value for key, value in ADVECTION.items() if key != "beta"} | {
    "equation": "compressible1d",
    "eta": 0.1,
    "boundary": "outflow",
}


def test_totals_are_kept_where_nothing_leaves_the_domain():
    ttc = {"keep_totals": True}
    load_configuration(TINY, {"data": ADVECTION, "evaluation.ttc": ttc})
    told = r"evaluation\.ttc\.keep_totals: 1D compressible Navier-Stokes with outflow boundary keeps no total: write false"
    with pytest.raises(ConfigurationError, match=told):
        load_configuration(TINY, {"data": OUTFLOW, "evaluation.ttc": ttc})


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        ("ttc", {}, "evaluation.ttc: null makes no row ttc"),
        ("ttc_oracle", {"ttc": {}, "small": 2}, "evaluation.small: 2 leaves out test-time conditioning"),
        ("ttc_observed", {"ttc": {}}, "evaluation.ttc.observations: null makes no row ttc_observed"),
        ("ttc_observed", {"ttc": {"observations": OBSERVED}}, None),
        ("operator", {}, None),
    ],
)
def test_a_gate_on_a_row_that_no_table_has_is_refused(model, settings, told):
    gate = {"model": model, "metric": "trajectory_relative_l2", "at_most": 1.0}
    overrides = {f"evaluation.{key}": value for key, value in settings.items()} | {"gates.test": [gate]}
    if told is None:
        load_configuration(TINY, overrides)
        return
    with pytest.raises(ConfigurationError) as refused:
        load_configuration(TINY, overrides)
    assert f"gates.test.0.model: {told}" in str(refused.value)


def test_candidates_and_a_second_table_take_room():
    def size(**settings):
        configuration = load_configuration(
            TINY, {f"evaluation.{key}": value for key, value in settings.items()}
        )
        return STAGES["evaluate"].bytes(configuration, {"burgers1d": KeptShape(9, (32,))}, {})

    ttc, outside = {"models": ["diffusion", "consistency"]}, {"amplitude": 2.0}
    assert size(ttc=ttc) - size() == 2 * 21 * 4 * (1 + 2 * 16)
    assert size(outside=outside) - size() == 500_000
    assert size(ttc=ttc, outside=outside, small=4) == size(small=4) == size()
