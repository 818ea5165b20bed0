"""Training objectives. A stage is an objective, never a copy of the loop."""

from ups.objectives.objective import Loss, Objective

__all__ = ["Loss", "Objective"]
