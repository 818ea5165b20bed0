"""The equations, one file each: `PROBLEM`, the declaration, and the settings of its generator.

Generators have the same names in `ups/physics/generators`.
"""
