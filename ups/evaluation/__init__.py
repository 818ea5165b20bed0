"""Scoring: full rollouts of decoded physical fields against the float32 source."""
