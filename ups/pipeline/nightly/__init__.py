"""The nightly benchmark: a fixed suite, its history, and what a night shows against the nights before."""
