"""Readings of a forecast: the posterior of a linear Gaussian case, and what sensors see."""

import numpy as np
import pytest
import torch

from ups.config.conditioning import Observations
from ups.errors import ConfigurationError
from ups.evaluation.observations import Sensors, corrections
from ups.problems import PROBLEMS

LEADS, POINTS = 3, 4
SENSORS = Sensors(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 3]), 0, noise=0.3)


def sigma_points(root: torch.Tensor) -> torch.Tensor:
    """Members [M, D] whose mean is 0 and whose sample covariance is root @ root.T."""
    size = len(root)
    scaled = ((2 * size - 1) / 2) ** 0.5 * root.T
    return torch.cat([scaled, -scaled])


@pytest.mark.parametrize("inflation", [0.0, 2.0])
def test_of_gaussian_members_it_is_the_closed_posterior(inflation):
    generator = torch.Generator().manual_seed(0)
    size = LEADS * POINTS
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    covariance = root @ root.T
    innovation = torch.randn(3, generator=generator, dtype=torch.float64)
    observed = torch.zeros(3, size, dtype=torch.float64)
    observed[range(3), SENSORS.leads * POINTS + SENSORS.points] = 1
    noise = torch.diag(0.3**2 + inflation * (observed @ covariance @ observed.T).diagonal())
    # In the information form, another formula: (P^-1 + H' R^-1 H)^-1 H' R^-1 (y - H f).
    gain = observed.T @ noise.inverse()
    expected = torch.linalg.solve(covariance.inverse() + gain @ observed, gain @ innovation)
    members = sigma_points(root).view(1, -1, LEADS, POINTS, 1)
    usable = torch.ones(1, members.shape[1], dtype=torch.bool)
    found = corrections(members, usable, innovation[None], SENSORS, inflation)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-8, atol=1e-10)


def test_members_that_are_no_states_do_not_count():
    members = torch.randn(1, 6, LEADS, POINTS, 1, generator=torch.Generator().manual_seed(1))
    innovation = torch.ones(1, 3)
    usable = torch.tensor([[True, True, False, True, True, False]])
    broken = members.clone()
    broken[:, [2, 5]] = torch.nan
    expected = corrections(
        members[:, usable[0]], torch.ones(1, 4, dtype=torch.bool), innovation, SENSORS, 0.0
    )
    torch.testing.assert_close(corrections(broken, usable, innovation, SENSORS, 0.0), expected)


def test_sensors_without_noise_are_believed():
    members = torch.randn(1, 40, LEADS, POINTS, 1, generator=torch.Generator().manual_seed(2)).double()
    exact = Sensors(SENSORS.leads, SENSORS.points, 0, noise=0.0)
    innovation = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    found = corrections(members, torch.ones(1, 40, dtype=torch.bool), innovation, exact, 0.0)
    torch.testing.assert_close(exact.read(found), innovation, rtol=1e-6, atol=1e-6)


def of(sensors, times, **changes) -> Sensors:
    settings = Observations(sensors=sensors, times=times, noise=0.1)
    coordinates = [(torch.arange(8) + 0.5) / 8]
    arguments = {"time_step": 0.1, "frames": 6, "periodic": True} | changes
    return Sensors.of(settings, PROBLEMS["burgers1d"], coordinates, **arguments)


def test_sensors_stand_at_the_nearest_points():
    found = of([[0.01], [0.99], [0.5]], [0.1, 0.5])
    assert found.leads.tolist() == [0, 0, 0, 4, 4, 4]
    assert found.points.tolist() == [0, 7, 3, 0, 7, 3]
    assert of([[0.999]], [0.1], periodic=False).points.tolist() == [7]


def test_times_of_a_file_are_float32():
    """Hundreds of frames later a multiple of the first stamp is off by more than float64 would be."""
    interval = float(np.float32(9.95)) / 199
    settings = Observations(sensors=[[0.1]], times=[9.95, 0.05], noise=0.1)
    assert settings.problem_with(PROBLEMS["burgers1d"], interval, 200) is None


def test_readings_have_the_noise_that_is_said():
    truth = torch.zeros(4000, LEADS, POINTS, 1)
    readings = SENSORS.readings(truth, torch.Generator().manual_seed(0))
    assert readings.shape == (4000, 3)
    assert readings.std().item() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize(
    ("sensors", "times", "told"),
    [
        ([[1.2]], [0.1], "sensors: 1.2 is outside the domain of 1D Burgers, 0 <= x < 1: move the sensor"),
        ([[-0.1]], [0.1], "sensors: -0.1 is outside"),
        ([[0.1, 0.2]], [0.1], "sensors: \\[0.1, 0.2\\] has 2 coordinates, and 1D Burgers 1 axes"),
        ([[0.1]], [0.15], "times: 0.15 is no frame"),
        ([[0.1]], [0.6], "times: 0.6 is no frame of the forecast, which has one every 0.1 up to 0.5"),
    ],
)
def test_what_cannot_be_observed_is_told(sensors, times, told):
    with pytest.raises(ConfigurationError, match=told):
        of(sensors, times)
