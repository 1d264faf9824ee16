"""Sum, variance, maximum and its place, along each axis and over all, of tall, wide and three-dimensional arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.workloads.workload import Workload, family, random

_TALL, _WIDE, _CUBE = (32_768, 32), (32, 32_768), (64, 128, 128)
#: Of 1M numbers, which fit in a cache, and (for the sum) of 16M, which do not.
_SIZES = tuple((shape, axis) for shape in (_TALL, _WIDE, _CUBE) for axis in (*range(len(shape)), None))
_LARGE = tuple(((4096, 4096), axis) for axis in (0, 1, None))
_ODD = tuple(((4095, 1023), axis) for axis in (0, 1, None))
_SMALL = ((5, 9), 0)


def _reduction(name: str, shape: tuple[int, ...], axis: int | None) -> Workload:
    def body(xp: Any, x: Any) -> Any:
        return getattr(xp, name)(x, axis=axis)

    return Workload(
        name=f"{name} {'x'.join(map(str, shape))} {'all' if axis is None else f'axis {axis}'}",
        bar=1.5,
        body=body,
        # Not around zero, where a sum would be nothing but its rounding errors.
        inputs=lambda: (random(*shape) + np.float32(1),),
        # Wide enough for whoever adds a million numbers one after the other.
        tolerance=0.0 if name in ("max", "argmax") else 3e-4,
        options={"axis": axis, "function": name},
    )


@family(sizes=(*_SIZES, *_LARGE), odd=_ODD, small=_SMALL)
def sum(shape: tuple[int, ...], axis: int | None) -> Workload:
    return _reduction("sum", shape, axis)


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def var(shape: tuple[int, ...], axis: int | None) -> Workload:
    return _reduction("var", shape, axis)


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def max(shape: tuple[int, ...], axis: int | None) -> Workload:
    return _reduction("max", shape, axis)


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def argmax(shape: tuple[int, ...], axis: int | None) -> Workload:
    return _reduction("argmax", shape, axis)
