"""Diffusion in EDM form: noise levels, preconditioning, sampler, consistency parametrisation."""
