"""Test trajectories outside the training range are solved by the data's own solver, from the same initial states."""

import numpy as np
import torch
from command_line import TINY

from ups.config import load_configuration
from ups.config.stages.evaluate import Outside
from ups.data.dataset import Dataset
from ups.evaluation.outside import SPLIT, each_by_itself, outside_dataset
from ups.physics.generators import generator_of
from ups.problems import PROBLEMS
from ups.problems.equations.burgers1d import GeneratedBurgers

CPU = torch.device("cpu")


def test_initial_states_and_parameter_are_those_that_were_asked_for():
    data = load_configuration(TINY).data
    assert isinstance(data, GeneratedBurgers)
    rows = np.array([3, 5, 7])
    fields = generator_of(data).solve(rows, CPU).numpy()
    dataset = Dataset(
        problem=PROBLEMS["burgers1d"],
        names=("u",),
        known=np.ones((data.frames, 1), dtype=bool),
        times=np.arange(data.frames) * data.frame_interval,
        coordinates=((np.arange(32) + 0.5) / 32,),
        parameters={"nu": data.nu},
        boundary="periodic",
        splits={"validation": np.arange(1), "test": np.arange(3)},
        rows=rows,
        title="tiny",
        version="test",
        fields=fields,
    )
    asked = Outside(amplitude=2.0, offset=1.0, parameter=0.5, trajectories=2)
    beyond = outside_dataset(dataset, data, asked, CPU)
    np.testing.assert_allclose(beyond.split(SPLIT)[:, 0], 2 * fields[:2, 0] + 1, atol=1e-5)
    assert beyond.parameters == {"nu": data.nu / 2}
    assert np.abs(beyond.split(SPLIT)[:, -1] - (2 * fields[:2, -1] + 1)).max() > 1e-2
    amplitude, parameter = each_by_itself(asked.model_copy(update={"offset": 0.0}))
    assert amplitude == Outside(amplitude=2.0, offset=0.0, parameter=1.0, trajectories=2)
    assert parameter == Outside(amplitude=1.0, offset=0.0, parameter=0.5, trajectories=2)
    same = outside_dataset(dataset, data, Outside(amplitude=1.0, offset=0.0), CPU)
    np.testing.assert_array_equal(same.split(SPLIT), fields)
    (other,) = outside_dataset(dataset, data, asked, CPU, "validation").rows
    assert other == rows[0]
