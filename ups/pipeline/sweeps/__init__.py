"""Sweeps: members of a file, what of them is done, when one ends early, and who came where."""
