"""consistency: settings of its training."""

from pydantic import Field

from ups.config.sizes import training_bytes
from ups.config.stage import Stage, latent_training_settings, operator_modules, training_modules
from ups.config.stages.diffusion import denoiser_weights
from ups.config.training import Training
from ups.problems.generated import LEARNT_SPLITS
from ups.section import Count, Positive


class ConsistencyTraining(Training):
    """Distillation of the diffusion model into one and two calls."""

    intervals: Count = Field(default=8, ge=2, description="intervals of noise levels")
    second_sigma: Positive = Field(default=3.0, description="noise level of the second call")


STAGE = Stage(
    "consistency",
    inputs=("download", "cache_encode", "operator", "diffusion"),
    settings=lambda c, _: (
        latent_training_settings(c, "consistency") | {"noise": c.training.diffusion.noise.model_dump()}
    ),
    bytes=lambda c, shapes, _: training_bytes(denoiser_weights(c, shapes), len(shapes)),
    section=("training.consistency", ConsistencyTraining),
    splits=lambda _: LEARNT_SPLITS,
    found_by_name=lambda c: [*training_modules(c, "consistency"), *operator_modules(c)],
)
