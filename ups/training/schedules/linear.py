"""A straight line (Defazio et al. 2023, arXiv:2310.07831, who find it the best for many problems)."""


def shape(progress: float) -> float:
    """See `ups.training.schedules`."""
    return 1 - progress
