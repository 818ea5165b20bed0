"""The one training loop, the one optimiser step, and exact resume, for every training stage."""
