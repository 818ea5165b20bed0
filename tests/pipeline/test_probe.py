"""A probe predicts what its two small chains say, and leaves nothing."""

import json

import pytest
from command_line import TINY

from ups.commands.main import main
from ups.commands.predictions import total
from ups.config import load_configuration
from ups.pipeline.probe import Prediction, _grown, _Measured, _predicted, _sizes, _small


def test_what_grows_is_on_a_line_and_nothing_gets_faster():
    assert _grown(1.0, 3.0, 10, 20, 110) == pytest.approx(21.0)
    assert _grown(3.0, 2.0, 10, 20, 110) == 3.0
    assert _grown(3.0, 2.0, 10, 10, 10) == 3.0


def test_a_training_takes_its_steps_its_validations_and_the_rest():
    configuration = load_configuration(
        TINY,
        {
            "data.trajectories": {"train": 900, "validation": 100, "test": 50},
            "training.operator.steps": 1001,
            "training.operator.validate_every": 500,
        },
    )
    few = _Measured(trajectories=20, validated=4, rest=5.0, step=0.1, validation=0.4, memory=1.0)
    more = _Measured(trajectories=60, validated=12, rest=6.0, step=0.12, validation=1.2, memory=1.4)
    found = _predicted("operator", few, more, configuration)
    rest = 6.0 + (1000 - 60) * 1.0 / 40  # it reads what it trains on and validates with
    validation = 1.2 + (100 - 12) * 0.8 / 8
    assert found.seconds == pytest.approx(rest + 1001 * 0.1 + 4 * validation)
    assert found.seconds_per_step == 0.1
    assert found.memory == pytest.approx(1.4 + (1000 - 60) * 0.01)
    nothing = _Measured(trajectories=20, validated=4, rest=5.0, step=None, validation=0.0, memory=None)
    assert _predicted("autoencoder", nothing, nothing, configuration).memory is None


def test_probes_are_valid_and_ask_for_no_more_than_there_is():
    scarce = {"data.trajectories": {"train": 20, "validation": 3, "test": 2}}
    configuration = load_configuration(TINY, scarce)
    for train in _sizes(configuration):
        small = load_configuration(TINY, scarce | _small(configuration, train))
        assert small.data.counts.train <= 20
        assert small.data.counts.validation <= 3
    fraction = {"training.operator.residual_fraction": 0.02, "data.trajectories.train": 500}
    few, more = _sizes(load_configuration(TINY, fraction))
    assert few * 0.02 >= 2
    assert more > few


@pytest.mark.parametrize(("small", "scored", "kept"), [(20, None, 16 // 4), (2, None, 2), (20, 1, 1)])
def test_a_small_evaluation_has_the_trajectories_that_a_probe_leaves(small, scored, kept):
    overrides = {"data.trajectories.validation": 50, "evaluation.small": small}
    configuration = load_configuration(TINY, overrides)
    train = _sizes(configuration)[0]
    probed = load_configuration(TINY, overrides | _small(configuration, train, scored=scored))
    assert (train, probed.evaluation.small) == (16, kept)
    assert probed.problems["burgers1d"].counts.test == (4 if scored is None else scored)


def test_what_a_machine_costs_makes_a_prediction_a_price():
    predictions = {
        "operator": Prediction("operator", 1800.0, None, None),
        "diffusion": Prediction("diffusion", 1800.0, None, None),
    }
    assert " USD" not in total(predictions, load_configuration(TINY))
    paid = load_configuration(TINY, {"resources.hourly_rate_usd": 2.5, "seeds": 3})
    assert "in all 60 min, 2.50 USD for each of 3 seeds" in total(predictions, paid)


@pytest.mark.slow
@pytest.mark.long
def test_the_tiny_chain_is_predicted(tmp_path, capsys):
    arguments = [
        "plan",
        str(TINY),
        "--root",
        str(tmp_path),
        "--set",
        "execution.device=cpu",
        "--probe",
        "--json",
    ]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(0 < row["seconds"] < 300 for row in rows)
    trained = {row["stage"] for row in rows if row["seconds_per_step"] is not None}
    assert {"operator", "diffusion", "consistency"} <= trained
    assert not list(tmp_path.glob(".probe-*"))
    assert not (tmp_path / "runs").exists()
    batches = [*arguments[:-2], "--batch-size-of", "operator", "--json"]
    assert main(batches) == 0
    found = json.loads(capsys.readouterr().out)
    assert [record["batch_size"] for record in found] == [
        found[0]["batch_size"] * 2**k for k in range(len(found))
    ]
    assert all(record["samples_per_second"] > 0 for record in found)
