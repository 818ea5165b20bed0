"""Universal Physics Stack: from PDE data to an evaluated, calibrated, re-usable neural surrogate."""

__version__ = "0.1.0"
