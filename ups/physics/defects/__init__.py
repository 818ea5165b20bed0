"""By how much states miss an equation: one file per equation, found by its name.

An evolution has `advanced(states [n, *grid, C], refinement=..., time_step=..., parameters=..., boundary=...)`: primitive
states one frame later, by our own solver on a grid `refinement` times finer. What a forecast's next frame differs
from it is its defect. A map has `residual(fields [n, *grid, C], parameters=...)`, of the same shape.

Rejected: differences in time between the stored frames. Fronts move several points from frame to frame, so their error
is a hundred times that of a forecast whose errors are thousandths.
"""
