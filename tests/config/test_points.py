"""What an encoder of points asks of a configuration."""

import pytest

from ups.config import load_configuration
from ups.config.encoders.points import PointEncoder
from ups.errors import ConfigurationError

FILE = "configs/burgers_points.yaml"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model.encoder.points": 100},
            "128 supernodes, the grid's points of burgers1d, are more than the 100",
        ),
        ({"model.encoder.points": 127, "model.encoder.radius": 0.25}, "write 128 or more"),
        (
            {"model.encoder.radius": 0.05},
            "none is within 0.05 of some supernode of burgers1d in one frame of",
        ),
        ({"model.encoder.radius": 0.3}, "model.encoder.radius"),
        ({"model.encoder.neighbours": 65}, "model.encoder.neighbours"),
        ({"model.encoder.smoothness": 3}, "model.encoder.smoothness"),
        ({"model.encoder.kind": "mesh"}, "model.encoder"),
        ({"model.encoder.heads": 5}, "heads 5 do not divide width 48"),
        ({"training.autoencoder.steps": 0}, "leaves the correction of the encoder untrained"),
        ({"loading.mode": "encode"}, "loading.mode: encode"),
        (
            {
                "training.operator.joint": {"begin": 0.5},
                "model.operator.linear_path": "none",
                "model.operator.conserve": False,
            },
            "training.operator.joint: trains the encoder of whole frames",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_key_and_remedy(changes, says):
    with pytest.raises(ConfigurationError, match=says):
        load_configuration(FILE, changes)


def test_neighbours_above_the_points():
    tiny = {
        "data.resolution": 8,
        "data.solver_resolution": 512,
        "model.latent.tokens": 8,
        "model.latent.dim": 1,
    }
    few = {"model.encoder.points": 12, "model.encoder.neighbours": 16, "model.encoder.radius": 0.25}
    kernels = {"model.operator.dilations": [1], "model.denoiser.dilations": [1]}
    with pytest.raises(ConfigurationError, match="16 are more than the 12 points of a frame"):
        load_configuration(FILE, tiny | few | kernels)


def test_a_linear_codec_is_behind_it():
    """What needs a linear codec, exact diffusion and fluxes, works beside the correction of points."""
    configuration = load_configuration(FILE)
    assert isinstance(configuration.model.encoder, PointEncoder)
    assert configuration.model.encoder.depth > 0
    assert configuration.model.operator.linear_path == "exact"


def test_the_word_grid_changes_nothing():
    """Neither what a configuration is written as, nor what stages are a function of."""
    plain = load_configuration("configs/burgers_tiny.yaml")
    named = load_configuration("configs/burgers_tiny.yaml", {"model.encoder.kind": "grid"})
    assert plain == named
    assert plain.model_dump() == named.model_dump()
    assert "kind" not in plain.model.encoder.model_dump()
