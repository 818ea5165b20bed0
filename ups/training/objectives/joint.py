"""Operator, encoder and decoder trained together, from fields: the end of the operator's training."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_by_frame
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.runtime.precision import full_float32
from ups.training.objectives.objective import Loss, Objective
from ups.training.objectives.operator import RolloutLoss


class JointModel(nn.Module):
    """An operator and the codec in whose latents it works, as one model to train."""

    def __init__(self, operator: LatentOperator, codec: Codec) -> None:
        super().__init__()
        self.operator, self.codec = operator, codec
        self.codec.autoencoder.requires_grad_(True)

    @property
    def network(self) -> nn.Module:
        """The operator's."""
        return self.operator.network

    def forward(self, latents: Tensor, scalars: Tensor, problem: str, stride: int = 1) -> Tensor:
        """As the operator's."""
        return self.operator(latents, scalars, problem, stride)


@dataclass(frozen=True)
class JointSettings:
    """Attributes:
    start: training step from which encoder and decoder move too.
    encoder_weight, decoder_weight: of the inverse losses.
    ramp: steps over which these weights grow from 0, evenly; see `JointLoss.prepare`.
    every: steps from one with inverse losses to the next.
    queries: grid points at which the decoded encoding is compared, drawn at random; None: all.
    """

    start: int
    encoder_weight: float
    decoder_weight: float
    ramp: int
    every: int
    queries: int | None


class JointLoss(Objective):
    """The operator's loss; from a step on with encoder and decoder in it, and their inverse losses (UPT, section 3.2;
    Alkin et al. 2024, arXiv:2402.12365).

    L_inv_enc: relative L2 between fields and the decoding of their encoding. It moves encoder and decoder.
    L_inv_dec: relative L2 between predicted latents and the encoding of their decoding. It moves encoder and
        decoder; the prediction is a constant in it, for otherwise the operator could lower it by predicting what is easy
        to encode.

    Before, it is the operator's loss and nothing else, bit by bit. From then on fields are encoded anew, whatever the
    cache holds, and errors are to the fields themselves: errors to the fields' decoded encoding would vanish for
    a codec that maps everything to zero.
    """

    def __init__(self, frozen: RolloutLoss, moving: RolloutLoss, settings: JointSettings) -> None:
        """frozen, moving: the operator's loss before and after the codec moves."""
        self.frozen, self.moving, self.settings = frozen, moving, settings
        self._share = torch.ones((), device=next(frozen.codec.parameters()).device)

    def prepare(self, step: int) -> None:
        after, ramp = max(0, step - self.settings.start), self.settings.ramp
        self._share.fill_(after / ramp if after < ramp else 1.0)

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if not isinstance(model, JointModel):
            raise TypeError(f"this objective trains a JointModel, not a {type(model).__name__}")
        settings, after = self.settings, batch.step - self.settings.start
        model.codec.autoencoder.requires_grad_(after >= 0)
        if after < 0:
            return self.frozen(model, batch, generator)
        anew = replace(batch, latents=None)
        loss = self.moving(model, anew, generator)
        if after % settings.every:
            return loss
        inverse_encoder, inverse_decoder = self._inverse(model, anew, generator)
        total = loss.total + self._share * (
            settings.encoder_weight * inverse_encoder + settings.decoder_weight * inverse_decoder
        )
        terms = loss.terms | {"L_inv_enc": inverse_encoder, "L_inv_dec": inverse_decoder}
        return Loss(total, terms)

    def variant(self, batch: Batch) -> Hashable:
        settings, after = self.settings, batch.step - self.settings.start
        if after < 0:
            return False, self.frozen.variant(batch)
        return True, self.moving.variant(batch), after % settings.every == 0

    def _inverse(self, model: JointModel, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """L_inv_enc of the windows' last frames, and L_inv_dec of one prediction of each."""
        codec = model.codec.of(batch.problem)
        window = self.moving.window(batch, generator)
        assert window.normalised is not None
        encoder, decoder = codec.autoencoder.encoder, codec.autoencoder.decoder
        # In the norm of the physical field: that of a field in its frame may be nothing.
        unit = window.unit.flatten(1, -2)
        error = (codec.normalised_fields(window.states[:, -1:])[:, 0] - window.normalised[:, -1]).flatten(
            1, -2
        ) * unit
        sizes = window.fields[:, -1].flatten(1, -2)
        if self.settings.queries is not None and self.settings.queries < error.shape[1]:
            order = torch.rand(error.shape[1], generator=generator, device=generator.device).argsort()
            chosen = order[: self.settings.queries].to(error.device)
            error, sizes = error[:, chosen], sizes[:, chosen]
        inverse_encoder = relative_l2_by_frame(error.unsqueeze(1), sizes.unsqueeze(1)).mean()
        with torch.no_grad():
            predicted = model(window.states[:, 0], window.scalars, batch.problem, batch.stride)
        raw = codec.statistics.raw(predicted).float()
        with full_float32(raw.device):
            again = encoder(decoder.grid(raw, batch.problem), batch.problem)
        error = (again - raw) / codec.statistics.latent_deviation
        inverse_decoder = relative_l2_by_frame(error.unsqueeze(1), predicted.unsqueeze(1)).mean()
        return inverse_encoder, inverse_decoder
