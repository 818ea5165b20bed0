"""Mirrors of a run's metrics.jsonl in outside services."""
