"""Softmax and norms along rows of 16 to 32K numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bench.workloads.workload import Array, Workload, family, random

_SIZES = ((65_536, 16), (256, 768), (8192, 128), (4096, 1024), (128, 32_768))
_ODD = ((4095, 1023), (1000, 77))
_SMALL = (3, 19)


def _rows(name: str, rows: int, columns: int, body: Callable[..., Any], weights: int = 0) -> Workload:
    def constants() -> tuple[Array, ...]:
        return tuple(random(columns, seed=k) for k in range(1, 1 + weights))

    return Workload(
        name=f"{name} {rows}x{columns}",
        bar=1.2,
        body=body,
        inputs=lambda: (random(rows, columns),),
        constants=constants,
        dims=(("rows", columns),),
        tolerance=1e-5,
    )


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def softmax(rows: int, columns: int) -> Workload:
    return _rows("softmax", rows, columns, lambda xp, x: xp.softmax(x))


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def log_softmax(rows: int, columns: int) -> Workload:
    return _rows("log_softmax", rows, columns, lambda xp, x: xp.log_softmax(x))


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def layer_norm(rows: int, columns: int) -> Workload:
    return _rows("layer_norm", rows, columns, lambda xp, x, scale, bias: xp.layer_norm(x, scale, bias), 2)


@family(sizes=_SIZES, odd=_ODD, small=_SMALL)
def rms_norm(rows: int, columns: int) -> Workload:
    return _rows("rms_norm", rows, columns, lambda xp, x, scale: xp.rms_norm(x, scale), 1)
