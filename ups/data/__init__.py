"""Data on disk and in batches: files of trajectories, their checks, and their splits.

Nothing here is inferred from a shape: what an axis means is fixed by the layout of a named problem.
"""
