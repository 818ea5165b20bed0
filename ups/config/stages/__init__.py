"""One file per stage: its settings, what it reads, what its result is a function of. See `ups.config.stage`."""
