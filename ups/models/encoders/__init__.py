"""Encoders: what becomes latent tokens. One file per kind, with `encoder(shapes, latent_dim=..., ...)`, found by name.

Their settings have the same names in `ups/config/encoders`.
"""
