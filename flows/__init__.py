"""Prefect flows: a body reads like the method section of a paper."""
