"""The combination of candidates, with weights of its own at every lead, that misses the equation least.

With u the uncorrected forecast, x_m what candidate m adds to it and S the solver's step, of which S(u) and every S(u + x_m) are
known from the scores, the combination u + X w, X = (x_1 ... x_M), misses at lead k

    d_k + X_k w_k - P_k w_(k-1),      d = u_k - S(u_(k-1)),   P_k = (S(u + x_m) - S(u)) of the frames before,

up to products of the small x. The weights make the sum of its squares and of ridge * |w|^2 least, the ridge in units of
the mean square of X's and P's columns: M equations per lead, coupled to the leads beside it, solved by elimination. At the first lead
there is nothing before; of a map, X is there the change of the residual.

So the candidates are the basis of a reduced model, solved once by space-time least squares (Choi and Carlberg 2019, SIAM J. Sci. Comput.
41, with one linear step): a generative model gives every trajectory a basis of its own.

All weights 0 is the uncorrected forecast; one of them 1 at every lead is that candidate. On Burgers' equation this gains three times what
the best choice among the same candidates could gain by knowing the truth: their errors are in many places at once, so that
none of them is better in most of them.
"""

import torch
from torch import Tensor

from ups.config.selections.least_squares import LeastSquares
from ups.evaluation.physical_scores import Scored


def options(settings: LeastSquares) -> list[float]:
    """See `ups.evaluation.selections`."""
    return list(settings.ridges)


def span(_settings: LeastSquares, _leads: int) -> int:
    """See `ups.evaluation.selections`."""
    return 1


def selected(scored: Scored, _settings: LeastSquares, ridge: float) -> Tensor:
    """See `ups.evaluation.selections`."""
    usable = scored.costs.isfinite().all(dim=2)
    usable = usable & usable[:, :1]  # without a residual of the forecast itself nothing is known
    fields, moved = (values.flatten(3).double() for values in (scored.fields, scored.moved))
    forecast = fields[:, 0]
    kept = usable[:, 1:, None, None]
    columns = torch.where(kept, fields[:, 1:] - fields[:, :1], 0.0).transpose(1, 2)  # [n, t, M, Q C]
    before = torch.where(kept, moved[:, 1:] - moved[:, :1], 0.0).transpose(1, 2)
    missed = torch.where(usable[:, :1, None], forecast - moved[:, 0], 0.0)
    here = torch.cat([columns[:, :1] - before[:, :1], columns[:, 1:]], dim=1)
    weights = _weights(here, before, missed, ridge)
    return (
        (forecast + torch.einsum("ntm,ntmq->ntq", weights, columns))
        .to(scored.fields)
        .view_as(scored.fields[:, 0])
    )


def _weights(here: Tensor, before: Tensor, missed: Tensor, ridge: float) -> Tensor:
    """[n, t, M]: least squares of missed_k + here_k w_k - before_k w_(k-1), by block elimination."""
    count = here.shape[2]
    unit = (here.square() + before.square()).sum(dim=3).mean(dim=(1, 2)).clamp_min(1e-30)
    diagonal = here @ here.transpose(2, 3) + ridge * unit[:, None, None, None] * torch.eye(
        count, dtype=here.dtype, device=here.device
    )
    diagonal[:, :-1] += before[:, 1:] @ before[:, 1:].transpose(2, 3)
    right = -(here @ missed[..., None])
    right[:, :-1] += before[:, 1:] @ missed[:, 1:, :, None]
    beside = -(here[:, 1:] @ before[:, 1:].transpose(2, 3))  # of w_(k-1) in the equations of w_k
    leads = here.shape[1]
    reduced, values = [diagonal[:, 0]], [right[:, 0]]
    for lead in range(1, leads):
        ratio = torch.linalg.solve(reduced[-1], beside[:, lead - 1].transpose(1, 2)).transpose(1, 2)
        reduced.append(diagonal[:, lead] - ratio @ beside[:, lead - 1].transpose(1, 2))
        values.append(right[:, lead] - ratio @ values[-1])
    weights = [torch.linalg.solve(reduced[-1], values[-1])]
    for lead in range(leads - 2, -1, -1):
        known = values[lead] - beside[:, lead].transpose(1, 2) @ weights[-1]
        weights.append(torch.linalg.solve(reduced[lead], known))
    return torch.stack(weights[::-1], dim=1)[..., 0]
