"""What `soak` concludes from what it sees."""

from random import Random

import pytest
from soak import something_grows

MEMORY, FILES, DISK = "memory, MB, of the server", "open files of the worker", "disk, MB: runs"


def samples(name: str, per_run: float, level: float, noise: float) -> list[dict[str, float]]:
    random = Random(0)
    return [
        {"run": number, "seconds": 1.0, name: level + per_run * number + random.uniform(-noise, noise)}
        for number in range(100)
    ]


@pytest.mark.parametrize(
    ("name", "per_run", "level", "noise", "grows"),
    [
        (MEMORY, 0.0, 200.0, 20.0, False),
        (MEMORY, 0.05, 200.0, 2.0, False),  # 4.5 MB of 200 in all
        (MEMORY, 0.5, 200.0, 20.0, True),
        (FILES, 0.0, 30.0, 1.0, False),
        (FILES, 0.1, 30.0, 1.0, True),
        (DISK, 1.0, 1.0, 0.0, False),  # shown, not judged
    ],
)
def test_growth_is_told_from_noise(name, per_run, level, noise, grows):
    assert something_grows(samples(name, per_run, level, noise), 10) is grows


def test_what_a_warm_up_takes_does_not_count():
    warm = samples(MEMORY, 0.0, 300.0, 5.0)
    for number in range(10):
        warm[number][MEMORY] = 30.0 * number
    assert something_grows(warm, 10) is False
