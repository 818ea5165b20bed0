"""What the equation keeps of the first frame: members of conserving models have it, and candidates can be given it."""

from typing import Any, Literal

import pytest
import torch
from test_rollout import SAMPLER, STUDENT
from tiny import build, fresh
from torch import Tensor

from ups.evaluation.ensembles import consistency_forecasters, diffusion_forecasters
from ups.evaluation.forecaster import OperatorForecasts, operator_forecaster
from ups.evaluation.rollout import decoded_rollout
from ups.evaluation.totals import with_totals
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.models.operators.operator import conserved_channels
from ups.models.residual import ResidualNetwork
from ups.models.shape import ProblemShape
from ups.problems import PROBLEMS
from ups.problems.ideal_gas import to_conserved

POINTS, LEADS = 32, 3
CASES = [
    (name, variables)
    for name, problem in PROBLEMS.items()
    for variables in (("primitive", "conserved") if problem.conserved_fields else ("primitive",))
    if "periodic" in problem.boundaries
]


def shape_of(equation: str, variables: Literal["primitive", "conserved"]) -> ProblemShape:
    channels = tuple(range(len(PROBLEMS[equation].fields)))
    return ProblemShape(equation, (POINTS,), (8,), channels, "periodic", variables)


def states(shape: ProblemShape, *sizes: int, seed: int = 0) -> Tensor:
    """[*sizes, x, C] of a density and a pressure around 3, and other fields around 0.5."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.3 * torch.randn(*sizes, POINTS, shape.channels, generator=generator, dtype=torch.float64)
    level = [3.0 if field.positive else 0.5 for field in shape.problem.fields]
    primitive = noise + torch.tensor(level)
    return to_conserved(primitive) if shape.variables == "conserved" else primitive


@pytest.mark.parametrize("conserve", [True, "fluxes"])
@pytest.mark.parametrize(("equation", "variables"), CASES)
def test_members_of_conserving_models_keep_totals_in_physical_fields(equation, variables, conserve):
    shape = shape_of(equation, variables)
    described: dict[str, Any] = {"shapes": {"gas": shape}, "latent_dim": 4 * shape.channels}
    network = {"width": 16, "depth": 0, "heads": 2, "ratio": 2}
    codec = fresh("codec", encoder=network, decoder=network, **described)
    operator = build("operator", seed=5, scale=0.05, conserve=conserve, **described)
    diffusion, consistency = (build(kind, seed=6, **described) for kind in ("diffusion", "consistency"))
    assert isinstance(codec, Codec)
    assert isinstance(operator, LatentOperator)
    assert isinstance(diffusion, ResidualNetwork)
    assert isinstance(consistency, ResidualNetwork)
    own = codec.of("gas")
    for statistic in own.statistics.buffers():
        statistic.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(statistic)))
    operator.set_from_codec(own)
    forecasts = OperatorForecasts(operator, own)
    first, kept = states(shape, 2).float(), conserved_channels(shape)
    assert kept == [c for c, field in enumerate(shape.fields) if field.conserved]
    assert kept
    for forecaster in (
        operator_forecaster(forecasts),
        *diffusion_forecasters(forecasts, diffusion, members=3, **SAMPLER),
        *consistency_forecasters(forecasts, consistency, members=3, **STUDENT),
    ):
        made = decoded_rollout(
            forecaster, own, first, None, torch.full((shape.scalars,), -3.0), LEADS, time_step=0.05,
            parameters={parameter.name: 0.1 for parameter in shape.problem.parameters}, generator=torch.Generator(),
        )  # fmt: skip
        assert (made - first[:, None, None]).abs().max() > 0.1
        drift = made.mean(dim=3) - first.mean(dim=1)[:, None, None]
        assert drift[..., kept].abs().max() < 1e-4 * first.abs().max(), forecaster.name


@pytest.mark.parametrize(("equation", "variables"), CASES)
def test_candidates_are_moved_to_the_totals_of_their_first_frame(equation, variables):
    shape = shape_of(equation, variables)
    first, candidates = states(shape, 2), states(shape, 2, 4, LEADS, seed=1)
    found = with_totals(candidates, first, shape)

    def totals(fields: Tensor) -> Tensor:
        converted = variables == "primitive" and shape.problem.conserved_fields
        return (to_conserved(fields) if converted else fields).mean(dim=-2)

    start = totals(first)[:, None, None]
    assert (totals(candidates) - start).abs().max() > 1e-2
    torch.testing.assert_close(totals(found), start.expand(totals(found).shape), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(with_totals(found, first, shape), found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("equation", ["burgers1d", "advection1d"])
def test_no_error_grows_where_the_truth_has_these_totals(equation):
    shape = shape_of(equation, "primitive")
    truth = states(shape, 1)
    candidates = truth[:, None, None] + states(shape, 1, 8, LEADS, seed=2)
    before, after = (
        (fields - truth[:, None, None]).norm(dim=3)
        for fields in (candidates, with_totals(candidates, truth, shape))
    )
    assert (after < before).all()
