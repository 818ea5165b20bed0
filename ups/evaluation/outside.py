"""Trajectories outside the training range: what an exact symmetry is worth there, and what is only learnt."""

from dataclasses import replace

import torch

from ups.config.stages.evaluate import Outside
from ups.data.dataset import Dataset
from ups.physics.generators import generator_of
from ups.problems.generated import FromSinusoids

SPLIT = "outside"


_NOTHING = Outside(amplitude=1.0, offset=0.0, parameter=1.0)


def each_by_itself(outside: Outside) -> list[Outside]:
    """Amplitude, offset and parameter one at a time, as far as they are others: a symmetry answers for one of them."""
    same = {"trajectories": outside.trajectories}
    return [
        _NOTHING.model_copy(update={name: value} | same)
        for name in ("amplitude", "offset", "parameter")
        if (value := getattr(outside, name)) != getattr(_NOTHING, name)
    ]


def outside_dataset(
    dataset: Dataset, data: FromSinusoids, outside: Outside, device: torch.device, split: str = "test"
) -> Dataset:
    """The first trajectories of a split with other amplitude, offset and parameter, solved by the data's own solver.

    dataset: with that split.
    """
    (parameter,) = dataset.parameters
    changed = data.model_copy(
        update={
            "amplitude": data.amplitude * outside.amplitude,
            "offset": data.offset + outside.offset,
            parameter: getattr(data, parameter) * outside.parameter,
        }
    )
    numbers = dataset.rows[dataset.splits[split]][: outside.trajectories]
    fields = generator_of(changed).solve(numbers, device)[:, :, :: data.stride].cpu().numpy()
    changes = (
        f"initial states x {outside.amplitude:g} {outside.offset:+g}, {parameter} x {outside.parameter:g}"
    )
    return replace(
        dataset,
        fields=fields,
        parameters={parameter: getattr(changed, parameter)},
        splits={SPLIT: torch.arange(len(fields)).numpy()},
        rows=numbers,
        title=f"{dataset.title}, {changes}",
    )
