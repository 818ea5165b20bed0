"""Conditioning that an equation, a budget or a domain does not allow is refused before anything runs."""

import pytest
from command_line import TINY

from ups.config import load_configuration
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
        ({"max_calls": 0, "models": ["consistency"]}, "evaluation.ttc.max_calls"),
        ({"max_seconds": 0}, "evaluation.ttc.max_seconds"),
        ({"models": ["diffusion", "diffusion"]}, "diffusion is named twice"),
        ({"selection": {"kind": "least_squares"}, "scores": {"energy": 1}}, "least_squares makes the residual least and nothing else"),
        ({"selection": {"kind": "wholes"}}, "evaluation.ttc.selection"),
        ({"observations": OBSERVED | {"sensors": [[1.5]]}}, "evaluation.ttc.observations.sensors: 1.5 is outside the domain of 1D Burgers"),
        ({"observations": OBSERVED | {"times": [0.21]}}, "evaluation.ttc.observations.times: 0.21 is no frame of the forecast"),
        ({"observations": OBSERVED | {"noise": -1}}, "evaluation.ttc.observations.noise"),
        ({"refinement": 0}, "evaluation.ttc.refinement"),
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
