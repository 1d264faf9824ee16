"""The workloads of the benchmark: each a jitflow graph, the same in numpy, and what of the machine it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import jitflow as jf

Array = np.ndarray[Any, Any]


class Workload(NamedTuple):
    """`build` gives the inputs and the output of a graph, `numpy` the same result of arrays, `bar` the goal.

    The bar is numpy's time over ours. `flops` and `nbytes` are what one run must at least do and move.
    """

    name: str
    build: Callable[[], tuple[list[Any], Any]]
    arrays: tuple[Array, ...]
    numpy: Callable[..., Array]
    bar: float
    flops: int
    nbytes: int


def workloads() -> Iterator[Workload]:
    """Yield every workload, smallest first."""
    for n in (32_768, 1_000_003, 16_000_000):
        yield _chain(n)
        yield _gelu(n)
    for rows, columns in ((4096, 1024), (4095, 1023), (256, 16_384), (10_000, 10)):
        yield _softmax(rows, columns)
        yield _layer_norm(rows, columns)
    for n in (64, 256, 512, 1024, 2048):
        yield _matmul(n, np.float32)
    yield _matmul(1024, np.float64)
    yield _linear(32, 768, 3072)
    yield _linear(1, 4096, 4096)
    yield _sum(4096, 4096, 1)
    yield _sum(4096, 4096, 0)


def _random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _chain(n: int) -> Workload:
    def build() -> tuple[list[Any], Any]:
        a, b, c = (jf.placeholder(name, jf.float32, ("n",)) for name in "abc")
        return [a, b, c], jf.relu(a * b + c)

    arrays = tuple(_random(n, seed=k) for k in range(3))
    return Workload(
        f"relu(a*b+c) {n}", build, arrays, lambda a, b, c: np.maximum(a * b + c, np.float32(0)), 2.0, 3 * n, 16 * n
    )


def _gelu(n: int) -> Workload:
    def build() -> tuple[list[Any], Any]:
        a, b = (jf.placeholder(name, jf.float32, ("n",)) for name in "ab")
        return [a, b], jf.gelu(a + b, approximate="tanh")

    def by_numpy(a: Array, b: Array) -> Array:
        x = a + b
        half, one = np.float32(0.5), np.float32(1)
        return half * x * (one + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)))

    return Workload(f"gelu(a+b) {n}", build, (_random(n), _random(n, seed=1)), by_numpy, 2.0, 40 * n, 12 * n)


def _softmax(rows: int, columns: int) -> Workload:
    def build() -> tuple[list[Any], Any]:
        x = jf.placeholder("x", jf.float32, ("rows", columns))
        return [x], jf.softmax(x)

    def by_numpy(x: Array) -> Array:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    n = rows * columns
    return Workload(f"softmax {rows}x{columns}", build, (_random(rows, columns),), by_numpy, 3.0, 20 * n, 8 * n)


def _layer_norm(rows: int, columns: int) -> Workload:
    def build() -> tuple[list[Any], Any]:
        x = jf.placeholder("x", jf.float32, ("rows", columns))
        scale, bias = (jf.placeholder(name, jf.float32, (columns,)) for name in ("scale", "bias"))
        return [x, scale, bias], jf.layer_norm(x, scale, bias)

    def by_numpy(x: Array, scale: Array, bias: Array) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + np.float32(1e-5)) * scale + bias

    n = rows * columns
    arrays = (_random(rows, columns), _random(columns, seed=1), _random(columns, seed=2))
    return Workload(f"layer_norm {rows}x{columns}", build, arrays, by_numpy, 3.0, 8 * n, 8 * n)


def _matmul(n: int, dtype: Any) -> Workload:
    def build() -> tuple[list[Any], Any]:
        a, b = (jf.placeholder(name, dtype, (n, n)) for name in "ab")
        return [a, b], a @ b

    arrays = (_random(n, n, dtype=dtype), _random(n, n, seed=1, dtype=dtype))
    size = np.dtype(dtype).itemsize
    return Workload(f"matmul {np.dtype(dtype).name} {n}", build, arrays, np.matmul, 0.9, 2 * n**3, 3 * size * n * n)


def _linear(rows: int, inner: int, outer: int) -> Workload:
    weight, bias = _random(inner, outer, seed=1), _random(outer, seed=2)

    def build() -> tuple[list[Any], Any]:
        x = jf.placeholder("x", jf.float32, ("rows", inner))
        return [x], jf.relu(x @ jf.constant(weight) + jf.constant(bias))

    def by_numpy(x: Array) -> Array:
        return np.maximum(x @ weight + bias, np.float32(0))

    flops, nbytes = 2 * rows * inner * outer, 4 * (inner * outer + rows * (inner + outer))
    return Workload(f"linear {rows}x{inner}->{outer}", build, (_random(rows, inner),), by_numpy, 0.9, flops, nbytes)


def _sum(rows: int, columns: int, axis: int) -> Workload:
    def build() -> tuple[list[Any], Any]:
        x = jf.placeholder("x", jf.float32, ("rows", columns))
        return [x], jf.sum(x, axis=axis)

    n = rows * columns
    return Workload(
        f"sum {rows}x{columns} axis {axis}", build, (_random(rows, columns),), lambda x: x.sum(axis=axis), 1.0, n, 4 * n
    )
