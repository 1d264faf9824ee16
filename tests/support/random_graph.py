"""Random graphs of front-end calls with feeds, from a plain seeded generator: for properties of passes and of text.

Values include NaN, infinities, signed zeros, subnormals and extreme integers; shapes include empty, one and symbolic.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jitflow as jf
from jitflow.tensor import Tensor

SPECIAL = [0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 5e-324, 3.5, -2.5, 1e30]
DTYPES = (jf.float32, jf.float64, jf.int32, jf.int64, jf.bool_)


class RandomGraph(NamedTuple):
    """`fetches` can be evaluated with `feeds`."""

    fetches: list[Tensor]
    feeds: dict[Tensor, np.ndarray[Any, Any]]
    nodes: list[Tensor]


def random_array(rng: random.Random, dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return an array in which special values are common."""
    size = int(np.prod(shape, dtype=int))
    if dtype == jf.bool_:
        return np.array([rng.random() < 0.5 for _ in range(size)], bool).reshape(shape)
    if not dtype.is_float:
        extremes = [0, 1, -1, 2, dtype.min, dtype.max]
        values = [rng.choice(extremes) if rng.random() < 0.3 else rng.randint(-9, 9) for _ in range(size)]
        return np.array(values, dtype.np).reshape(shape)
    numbers = [rng.choice(SPECIAL) if rng.random() < 0.3 else rng.uniform(-3, 3) for _ in range(size)]
    with np.errstate(all="ignore"):
        return np.array(numbers, np.float64).astype(dtype.np).reshape(shape)


def random_graph(seed: int, size: int = 12) -> RandomGraph:
    """Return a graph of about `size` calls on a few placeholders, constants and variables."""
    rng = random.Random(seed)
    n, m = rng.choice([0, 1, 2, 3, 5]), rng.choice([1, 2, 4])
    known = {"n": n, "m": m}
    shapes: list[tuple[Any, ...]] = [("n",), ("n", 3), ("m", "n"), (2, 3), (), (1,), (3,), ("n", 1)]
    feeds: dict[Tensor, np.ndarray[Any, Any]] = {}
    pool: list[Tensor] = []
    for k in range(rng.randint(1, 3)):
        dtype, shape = rng.choice(DTYPES), rng.choice(shapes)
        x = jf.placeholder(f"x{k}", dtype, shape)
        feeds[x] = random_array(rng, dtype, tuple(known.get(d, d) for d in shape))
        pool.append(x)
    for k in range(rng.randint(1, 3)):
        dtype, literal = rng.choice(DTYPES), rng.choice([(), (3,), (1,), (2, 3)])
        values = random_array(rng, dtype, literal)
        if rng.random() < 0.5 and dtype != jf.bool_:
            values = np.full(literal, rng.choice([0, 1, 2]) if dtype.is_integer else rng.choice([0.0, -0.0, 1.0, 0.5]))
            values = values.astype(dtype.np)
        pool.append(jf.constant(values) if rng.random() < 0.7 else jf.variable(f"v{k}", values))
    for _ in range(size):
        call = rng.choice(CALLS)
        try:
            made = call(rng, pool)
        except (jf.ShapeError, jf.DTypeError, jf.GraphError):
            continue
        pool.append(made)
        if rng.random() < 0.1:
            pool.append(made.named(f"named_{len(pool)}"))
    used = [t for t in pool if t not in feeds] or pool
    fetches = [used[-1], *rng.sample(used, min(2, len(used)))]
    return RandomGraph(list(dict.fromkeys(fetches)), feeds, pool)


Call = Callable[[random.Random, list[Tensor]], Tensor]


def _unary(*functions: Callable[..., Tensor]) -> list[Call]:
    return [lambda rng, pool, f=f: f(rng.choice(pool)) for f in functions]  # type: ignore[misc]


def _binary(*functions: Callable[..., Tensor]) -> list[Call]:
    return [lambda rng, pool, f=f: f(rng.choice(pool), rng.choice(pool)) for f in functions]  # type: ignore[misc]


def _scalar(*functions: Callable[..., Tensor]) -> list[Call]:
    numbers = [0, 1, -1, 2, 0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 4.0, 1e300, float("nan")]
    return [
        lambda rng, pool, f=f: f(rng.choice(pool), rng.choice(numbers))  # type: ignore[misc]
        for f in functions
    ]


def _axis(rng: random.Random, x: Tensor) -> int:
    if not x.ndim:
        raise jf.ShapeError("no axis")
    return rng.randrange(-x.ndim, x.ndim)


def _reduce(function: Callable[..., Tensor]) -> Call:
    def call(rng: random.Random, pool: list[Tensor]) -> Tensor:
        x = rng.choice(pool)
        axis = None if rng.random() < 0.3 else _axis(rng, x)
        return function(x, axis=axis, keepdims=rng.random() < 0.3)

    return call


def _reshape(rng: random.Random, pool: list[Tensor]) -> Tensor:
    return jf.reshape(rng.choice(pool), rng.choice([(-1,), (1, -1), (-1, 1), (3, -1), (1, 1, -1)]))


def _permute(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.permute_dims(x, rng.sample(range(x.ndim), x.ndim))


def _slice(rng: random.Random, pool: list[Tensor]) -> Tensor:
    ends = [None, 0, 1, 2, -1, -2]
    x = rng.choice(pool)
    if not x.ndim:
        return x[None]
    return x[slice(rng.choice(ends), rng.choice(ends), rng.choice([None, 1, 2, -1]))]


def _roll(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.roll(x, rng.randint(-2, 2), axis=_axis(rng, x))


def _flip(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.flip(x, axis=_axis(rng, x))


def _pad(rng: random.Random, pool: list[Tensor]) -> Tensor:
    return jf.pad(rng.choice(pool), (rng.randint(0, 2), rng.randint(0, 2)), constant_values=rng.choice([0, 1]))


def _concat(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.concat([x, rng.choice(pool) if rng.random() < 0.5 else x], axis=_axis(rng, x))


def _stack(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.stack([x, x], axis=rng.randint(0, x.ndim))


def _where(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.where(x > 0 if x.dtype != jf.bool_ else x, rng.choice(pool), rng.choice(pool))


def _astype(rng: random.Random, pool: list[Tensor]) -> Tensor:
    return jf.astype(rng.choice(pool), rng.choice(DTYPES))


def _broadcast(rng: random.Random, pool: list[Tensor]) -> Tensor:
    x = rng.choice(pool)
    return jf.broadcast_to(x, (rng.choice([1, 2, "n"]), *x.shape))


CALLS: list[Call] = [
    *_unary(jf.negative, jf.abs, jf.sign, jf.floor, jf.ceil, jf.round, jf.sqrt, jf.exp, jf.tanh, jf.logical_not),
    *_unary(jf.relu, jf.square, jf.isnan),
    *_binary(jf.add, jf.subtract, jf.multiply, jf.divide, jf.maximum, jf.minimum, jf.equal, jf.less),
    *_binary(jf.logical_and, jf.logical_or, jf.floor_divide, jf.remainder),
    *(3 * _scalar(jf.add, jf.subtract, jf.multiply, jf.divide)),
    *_scalar(jf.maximum, jf.minimum, jf.pow, jf.floor_divide),
    *(_reduce(f) for f in (jf.sum, jf.max, jf.mean, jf.any, jf.argmax)),
    *(2 * [_reshape, _permute, _slice, _roll, _flip, _pad, _concat, _stack, _where, _astype, _broadcast]),
    lambda rng, pool: jf.softmax(rng.choice(pool)),
]
