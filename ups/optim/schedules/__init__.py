"""Shapes of the learning-rate schedule, one file per kind, with `shape(progress, ...)`: 1 at progress 0, 0 at 1.

Settings have the same names in `ups/config/schedules`.
"""
