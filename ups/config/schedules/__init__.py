"""Settings of the learning-rate schedules, one file each; formulas have the same names in `ups/training/schedules`."""
