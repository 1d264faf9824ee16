"""Arrays that the operators' `samples` are made of: typical values, and for each dtype those where rules go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, float32, float64, int32, numpy_dtype

Array: TypeAlias = np.ndarray[Any, Any]

FLOATS = tuple(d for d in SUPPORTED if d.is_float)
INTEGERS = tuple(d for d in SUPPORTED if d.is_integer)
NUMBERS = (*INTEGERS, *FLOATS)
#: These have every shape in the samples of operators; the others, whose loops differ only in width, one odd one.
THOROUGH = frozenset({int32, float32, float64})

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
    of = numpy_dtype(dtype)
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(of)
    if dtype.is_integer:
        return rng.integers(-9 if dtype.is_signed else 0, 10, shape).astype(of)
    return np.asarray(rng.normal(size=shape) * 1.5).astype(of)


def edges(dtype: DType) -> Array:
    """Return the values where rules go wrong: signed zeros, NaN, infinities, subnormals, extremes, halves."""
    of = numpy_dtype(dtype)
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_integer:
        top = 1 << (dtype.bits - 1)
        negative = [-1, -7, -top, 1 - top] if dtype.is_signed else [top, top + 1, dtype.max - 1, 200]
        return np.array([0, 1, 2, 7, top - 1, dtype.max, *negative], of)
    tiny, least, largest = FLOAT_LIMITS[dtype.name]
    values = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, least, -least, tiny]
    return np.array([*values, largest, -largest], of)


#: Per float dtype the least normal number, the least one, the greatest.
FLOAT_LIMITS = {
    "float16": (2.0**-14, 2.0**-24, 65504.0),
    "bfloat16": (2.0**-126, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
    "float32": (2.0**-126, 2.0**-149, (2 - 2.0**-23) * 2.0**127),
    "float64": (2.0**-1022, 2.0**-1074, (2 - 2.0**-52) * 2.0**1023),
}


def edge_pairs(dtype: DType) -> tuple[Array, Array]:
    """Return every pair of :func:`edges` as two vectors."""
    e = edges(dtype)
    return np.repeat(e, len(e)), np.tile(e, len(e))


def arrays(rng: np.random.Generator, dtypes: tuple[DType, ...]) -> Iterator[Array]:
    """Yield typical arrays of each dtype: of every shape for some, of an odd one for all."""
    for dtype in dtypes:
        for shape in shapes_of(dtype, dtypes):
            yield draw(rng, dtype, *shape)


def shapes_of(dtype: DType, dtypes: tuple[DType, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the shapes in which samples of `dtype` come, in a list of samples of `dtypes`."""
    return SHAPES if is_thorough(dtype, dtypes) else ((3, 5),)


def is_thorough(dtype: DType, dtypes: tuple[DType, ...]) -> bool:
    """Tell whether `dtype` stands for others among `dtypes`, so that its samples are many."""
    return dtype in THOROUGH or (dtype is dtypes[0] and THOROUGH.isdisjoint(dtypes))
