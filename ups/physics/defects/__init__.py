"""By how much states miss an equation: one file per equation, found by its name.

An evolution has `advanced(states [n, *grid, C], refinement=..., time_step=..., parameters=..., boundary=...)`: primitive
states one frame later, by our own solver on a grid `refinement` times finer. What a forecast's next frame differs
from it is its defect. A map has `residual(fields [n, *grid, C], parameters=...)`, of the same shape.

Rejected: differences in time between the stored frames. Fronts move several points from frame to frame: on 64 test trajectories
of Burgers' equation, trapezoid in time and spectral in space, the residual of the truth is 0.090, and the operator's whole error
1.02e-3.
"""
