"""Matrix products: square, batched, transposed, skinny with constant weights, with what stands before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.bench.workloads.workload import Workload, family, random

_SQUARE = (64, 128, 256, 512, 1024, 2048)


@family(
    sizes=tuple((n, dtype) for dtype in ("float32", "float64") for n in _SQUARE),
    odd=((333, "float32"), (1001, "float32"), (333, "float64")),
    small=(5, "float32"),
)
def matmul(n: int, dtype: str) -> Workload:
    return _product(f"matmul {'f32' if dtype == 'float32' else 'f64'} {n}", (n, n), (n, n), dtype=dtype)


def _product(
    name: str,
    left: tuple[int, ...],
    right: tuple[int, ...],
    *,
    body: Callable[..., Any] = lambda xp, a, b: xp.matmul(a, b),
    flops: float | None = None,
    dtype: str = "float32",
    dims: Any = None,
) -> Workload:
    return Workload(
        name=name,
        bar=1.0,
        body=body,
        inputs=lambda: (random(*left, dtype=np.dtype(dtype)), random(*right, seed=1, dtype=np.dtype(dtype))),
        dims=dims,
        flops=2.0 * float(np.prod(left)) * right[-1] if flops is None else flops,
    )


@family(sizes=(), odd=((333,), (768,)), small=(5,))
def matmul_symbolic(n: int) -> Workload:
    """No extent is known when it is compiled."""
    return _product(f"matmul symbolic {n}", (n, n), (n, n), dims=(("m", "k"), ("k", "n")))


@family(sizes=((32, 128, 128, 128), (96, 128, 64, 128), (1000, 8, 8, 8)), odd=((7, 100, 33, 65),), small=(2, 3, 4, 5))
def batched(b: int, m: int, k: int, n: int) -> Workload:
    return _product(f"batched {b}x{m}x{k}x{n}", (b, m, k), (b, k, n))


@family(sizes=((256,), (1024,)), odd=((501,),), small=(5,))
def transposed_left(n: int) -> Workload:
    return _product(f"a.T @ b {n}", (n, n), (n, n), body=lambda xp, a, b: xp.matmul(xp.transpose(a), b))


@family(sizes=((256,), (1024,)), odd=((501,),), small=(5,))
def transposed_right(n: int) -> Workload:
    return _product(f"a @ b.T {n}", (n, n), (n, n), body=lambda xp, a, b: xp.matmul(a, xp.transpose(b)))


@family(sizes=((1024, 1024), (4096, 4096)), odd=((1001, 999),), small=(5, 7))
def vector_matrix(k: int, n: int) -> Workload:
    return _linear(f"vector @ matrix {k}x{n}", 1, k, n, bar=1.0, body=lambda xp, x, w: xp.matmul(x, w), bias=False)


@family(sizes=((4096, 4096),), odd=((999, 1001),), small=(5, 7))
def matrix_vector(m: int, k: int) -> Workload:
    return _product(f"matrix @ vector {m}x{k}", (m, k), (k, 1))


def _linear(
    name: str, rows: int, inner: int, outer: int, *, bar: float, body: Callable[..., Any], bias: bool = True
) -> Workload:
    """Return ``body(xp, x, weight[, bias])``: any number of rows, weights that do not change."""

    def constants() -> tuple[Any, ...]:
        weight = random(inner, outer, seed=1) * np.float32(inner**-0.5)
        return (weight, random(outer, seed=2)) if bias else (weight,)

    return Workload(
        name=name,
        bar=bar,
        body=body,
        inputs=lambda: (random(rows, inner),),
        constants=constants,
        dims=(("rows", inner),),
        flops=2.0 * rows * inner * outer,
    )


_SKINNY = ((32, 768, 3072), (8, 768, 3072), (128, 768, 768))


@family(sizes=tuple((n, n, n) for n in (16, 32, 64, 128)) + _SKINNY, odd=((13, 777, 1001),), small=(3, 5, 7))
def skinny(rows: int, inner: int, outer: int) -> Workload:
    """The right factor is constant."""
    return _linear(
        f"x @ W {rows}x{inner}->{outer}", rows, inner, outer, bar=1.5, body=lambda xp, x, w: xp.matmul(x, w), bias=False
    )


@family(sizes=_SKINNY, odd=((13, 777, 1001),), small=(3, 5, 7))
def epilogue(rows: int, inner: int, outer: int) -> Workload:
    def body(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        return xp.gelu(xp.linear(x, weight, bias))

    return _linear(f"gelu(x @ W + b) {rows}x{inner}->{outer}", rows, inner, outer, bar=1.5, body=body)


@family(sizes=_SKINNY, odd=((13, 777, 1001),), small=(3, 5, 7))
def prologue(rows: int, inner: int, outer: int) -> Workload:
    def body(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        return xp.relu(xp.linear(xp.rms_norm(x, None), weight, bias))

    return _linear(f"relu(rms_norm(x) @ W + b) {rows}x{inner}->{outer}", rows, inner, outer, bar=1.5, body=body)
