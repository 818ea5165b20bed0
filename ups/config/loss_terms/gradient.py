"""Settings of the loss term `gradient`."""

from ups.config.loss_term import LossTerm


class GradientTerm(LossTerm):
    """Relative L2 of the differences between neighbouring points: what makes fronts count."""
