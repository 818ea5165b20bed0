"""Optimisers, one file per kind, with `optimizer(model, ...)`; settings have the same names in `ups/config/optimizers`."""
