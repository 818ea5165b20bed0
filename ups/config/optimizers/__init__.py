"""Settings of the optimisers, one file each; what they do has the same names in `ups/training/optimizers`."""
