"""Arrays that the operators' `samples` are made of: typical values, and for each dtype those where rules go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, DType

Array: TypeAlias = np.ndarray[Any, Any]

FLOATS = tuple(d for d in SUPPORTED if d.is_float)
INTEGERS = tuple(d for d in SUPPORTED if d.is_integer)
NUMBERS = (*INTEGERS, *FLOATS)

#: Nothing, one, an odd number, several axes.
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (0,), (3, 5), (2, 0, 3), (2, 3, 2))
#: Pairs that broadcast: against 0-d, along either side, on both sides at once, to nothing.
BROADCASTS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((5,), (5,)),
    ((3, 4), ()),
    ((3, 1), (4,)),
    ((2, 1, 3), (1, 4, 1)),
    ((0, 1), (1, 3)),
)


def draw(rng: np.random.Generator, dtype: DType, *shape: int) -> Array:
    """Return typical values: bits, small integers, or floats of both signs around 1."""
    assert dtype.np is not None
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(dtype.np)
    if dtype.is_integer:
        return rng.integers(-9, 10, shape).astype(dtype.np)
    return np.asarray(rng.normal(size=shape) * 1.5).astype(dtype.np)


def edges(dtype: DType) -> Array:
    """Return the values where rules go wrong: signed zeros, NaN, infinities, subnormals, extremes, halves."""
    assert dtype.np is not None
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_integer:
        return np.array([0, 1, -1, 2, -7, dtype.min, dtype.min + 1, dtype.max], dtype.np)
    info = np.finfo(dtype.np)
    tiny, least = float(info.tiny), float(info.smallest_subnormal)
    values = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, least, -least, tiny]
    return np.array([*values, float(info.max), -float(info.max)], dtype.np)


def edge_pairs(dtype: DType) -> tuple[Array, Array]:
    """Return every pair of :func:`edges` as two vectors."""
    e = edges(dtype)
    return np.repeat(e, len(e)), np.tile(e, len(e))


def arrays(rng: np.random.Generator, dtypes: tuple[DType, ...]) -> Iterator[Array]:
    """Yield one typical array per shape and dtype."""
    for dtype in dtypes:
        for shape in SHAPES:
            yield draw(rng, dtype, *shape)
