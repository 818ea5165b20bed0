"""Equations: initial states, classical solvers and exact solutions, one equation per file.

The solvers make training data and serve as the classical baseline of the benchmark tables. They take
plain arguments and tensors; rows of a batch never influence one another.
"""
