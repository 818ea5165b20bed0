"""Optimisers, learning-rate schedule and the exponential moving average of weights."""
