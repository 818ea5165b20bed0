"""Prefect tasks: argument in, torchrun or a library call, artifact out."""
