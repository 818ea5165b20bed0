"""Training objectives. A stage is an objective, never a copy of the loop."""

from ups.training.objectives.objective import Loss, Objective

__all__ = ["Loss", "Objective"]
