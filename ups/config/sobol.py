"""Sobol's sequence, with the direction numbers of Joe and Kuo (2008, "Constructing Sobol sequences with better two-dimensional
projections", new-joe-kuo-6), moved by a digital shift.

Rejected: torch's SobolEngine, which gives the same points (a test compares them). A sweep would start a process with torch
each time its file is read, where whoever checks or plans one has no other need of it.
"""

import random
from collections.abc import Iterator

# Of each dimension after the first: degree and inner coefficients of its polynomial, and its first direction numbers.
_DIMENSIONS = (
    (1, 0, (1,)),
    (2, 1, (1, 3)),
    (3, 1, (1, 3, 1)),
    (3, 2, (1, 1, 1)),
    (4, 1, (1, 1, 3, 3)),
    (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)),
    (5, 4, (1, 1, 5, 5, 5)),
    (5, 7, (1, 1, 7, 11, 19)),
    (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)),
)
MOST_DIMENSIONS = len(_DIMENSIONS) + 1
_BITS = 30


def sobol(dimensions: int, samples: int, seed: int) -> Iterator[tuple[float, ...]]:
    """Points of the unit cube, [0, 1) in each of at most `MOST_DIMENSIONS` dimensions; another seed, another shift.

    Of the first 2^k, every dimension has one in each of 2^k equal parts.
    """
    shifts = random.Random(seed)
    shift = [shifts.getrandbits(_BITS) for _ in range(dimensions)]
    directions = [_directions(dimension) for dimension in range(dimensions)]
    point = [0] * dimensions
    for number in range(samples):
        yield tuple((value ^ moved) / 2**_BITS for value, moved in zip(point, shift, strict=True))
        changed = (~number & (number + 1)).bit_length() - 1  # the lowest bit that is 0
        point = [value ^ own[changed] for value, own in zip(point, directions, strict=True)]


def _directions(dimension: int) -> list[int]:
    if dimension == 0:
        return [1 << (_BITS - 1 - bit) for bit in range(_BITS)]
    degree, inner, first = _DIMENSIONS[dimension - 1]
    found = [value << (_BITS - 1 - bit) for bit, value in enumerate(first)]
    for bit in range(degree, _BITS):
        value = found[bit - degree] ^ (found[bit - degree] >> degree)
        for back in range(1, degree):
            if inner >> (degree - 1 - back) & 1:
                value ^= found[bit - back]
        found.append(value)
    return found
