"""The operators to measure, found in the operator table; their exact values; the arguments that are hard for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import mpmath
import numpy as np
import scipy.special

import jitflow.ops  # noqa: F401  (fills OPS)
from jitflow.dtypes import DType, float32
from jitflow.errors import JitflowError
from jitflow.graph import OPS, Node, OpDef, make_node, make_placeholder
from tests.ulp.errors import Array


@dataclass(frozen=True)
class Subject:
    """One operator of floats that works element by element, with its attributes."""

    op: OpDef
    arity: int
    attrs: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.attrs.items())
        return f"{self.op.name}({given})" if given else self.op.name

    def node(self, *inputs: Node) -> Node:
        return make_node(self.op, inputs, self.attrs)

    def in_numpy(self, *xs: Array) -> Array:
        """Return what the operator's numpy rule gives: for float64 within a few ULP of the exact result."""
        if self.op.name == "erf" and xs[0].dtype == np.float64:
            return np.asarray(scipy.special.erf(xs[0]))  # the rule calls math.erf number by number
        assert self.op.numpy is not None
        with np.errstate(all="ignore"):
            return np.asarray(self.op.numpy(*xs, **self.attrs))

    @property
    def has_exact_values(self) -> bool:
        """Whether errors can be measured beyond float32: mpmath has the function, or every bit is numpy's."""
        return self.op.exact or self.label in _EXACT or hasattr(mpmath, self.op.name)

    def scale(self, *xs: Array) -> Array | None:
        """Return the magnitudes that errors are relative to, if not those of the results (see `OpDef.scale`)."""
        if self.op.scale is None:
            return None
        with np.errstate(all="ignore"):
            return np.asarray(self.op.scale(*(np.abs(x) for x in xs), **self.attrs))


@cache
def subjects() -> dict[str, Subject]:
    """Return every operator that gives a float for one or two floats, element by element, by label."""
    found: dict[str, Subject] = {}
    for name in sorted(OPS):
        op = OPS[name]
        if op.source or op.movement or op.numpy is None or op.samples is None:
            continue
        for attrs in _attributes(op):
            for arity in (1, 2):
                subject = Subject(op, arity, attrs)
                if _is_elementwise(subject):
                    found[subject.label] = subject
    return found


def _attributes(op: OpDef) -> list[dict[str, Any]]:
    """Return the different attributes that the samples of `op` have."""
    assert op.samples is not None
    found: dict[str, dict[str, Any]] = {}
    for sample in op.samples(np.random.default_rng(0)):
        if sample.raises is None:
            found.setdefault(repr(sample.attrs), sample.attrs)
    return list(found.values())


def _is_elementwise(subject: Subject) -> bool:
    """Tell whether `subject` takes float32, gives float32, and treats each element like the others and alone."""
    try:
        node = subject.node(*(make_placeholder(None, float32, (3,)) for _ in range(subject.arity)))
    except (JitflowError, TypeError):
        return False
    names_a_dtype = any(isinstance(v, DType) for v in subject.attrs.values())
    if node.shape != (3,) or node.dtype is not float32 or subject.op.needs_dims or names_a_dtype:
        return False
    values = np.array([0.3, 1.7, -2.6], np.float32)
    whole = subject.in_numpy(*[values] * subject.arity)
    alone = [subject.in_numpy(*[values[k : k + 1]] * subject.arity) for k in range(3)]
    return np.array_equal(whole, np.concatenate(alone), equal_nan=True)


#: Functions f with f(-x) = -f(x), and with f(-x) = f(x), exactly. Where compiled code has the same bits on either side,
#: one of them need not be compared with anything.
ODD = frozenset({"asin", "asinh", "atan", "atanh", "cbrt", "erf", "sin", "sinh", "tan", "tanh"})
EVEN = frozenset({"cos", "cosh"})


# ---- exact values


def _bounded(fn: Callable[[Any], Any], bound: float) -> Callable[[Any], Any]:
    """Return `fn`, constant beyond `bound`, where mpmath would need astronomically many digits."""
    return lambda x: fn(min(max(x, -bound), bound))


def _erfc_gelu(x: Any) -> Any:
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _tanh_gelu(x: Any) -> Any:
    z = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf(0.044715) * x**3)
    return x * _sigmoid(2 * z)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-min(max(x, mpmath.mpf(-(10**5))), mpmath.mpf(10**5))))


#: What mpmath has under another name, or not at all, or only for numbers of moderate size.
_EXACT: dict[str, Callable[..., Any]] = {
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "erf": _bounded(mpmath.erf, 40),
    "erfc": _bounded(mpmath.erfc, 40),
    "exp2": lambda x: mpmath.power(2, x),
    "gelu(approximate='none')": _erfc_gelu,
    "gelu(approximate='tanh')": _tanh_gelu,
    "log_sigmoid": lambda x: min(x, 0) - mpmath.log1p(mpmath.exp(-min(abs(x), 5000))),
    "log10": lambda x: mpmath.log(x, 10),
    "log2": lambda x: mpmath.log(x, 2),
    "logaddexp": lambda x, y: max(x, y) + mpmath.log1p(mpmath.exp(-min(abs(x - y), 5000))),
    "pow": mpmath.power,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "softplus": lambda x: max(x, 0) + mpmath.log1p(mpmath.exp(-min(abs(x), 5000))),
    "tanh": _bounded(mpmath.tanh, 1000),
}


def exact_function(subject: Subject) -> Callable[..., Any]:
    """Return the function on numbers of mpmath."""
    function: Callable[..., Any] = _EXACT.get(subject.label) or getattr(mpmath, subject.op.name)
    return function


# ---- arguments


def arguments(subject: Subject, dtype: DType, n: int, seed: int) -> tuple[Array, ...]:
    """Return `n` arguments of all magnitudes, around the places where formulas change, and hard ones.

    Only such whose result is finite and does not underflow to nothing; fewer, if these are hard to find.
    """
    rng = np.random.default_rng([seed, *subject.label.encode()])
    found: list[tuple[Array, ...]] = []
    while sum(xs[0].size for xs in found) < n and len(found) < 10:
        xs: tuple[Array, ...] = (_numbers(rng, dtype, n),) if subject.arity == 1 else _pairs(rng, dtype, n)
        with np.errstate(all="ignore"):
            value = subject.in_numpy(*(x.astype(np.float64) for x in xs)).astype(dtype.np)
        keep = np.isfinite(value) & (value != 0)
        keep &= np.logical_and.reduce([np.isfinite(x) for x in xs])
        found.append(tuple(x[keep] for x in xs))
    return tuple(np.concatenate(parts)[: max(n, 1)] for parts in zip(*found, strict=True))


def _numbers(rng: np.random.Generator, dtype: DType, n: int) -> Array:
    kind = np.int32 if dtype is float32 else np.int64
    digits = 24 if dtype is float32 else 53
    top = 89.5 if dtype is float32 else 745.5
    info = np.iinfo(kind)
    m = n // 10
    near = rng.choice([0.25, 0.5, 1.0, 2.0, math.pi / 2, math.pi, 10.0], m)
    whole = rng.integers(1, 1 << 40, m).astype(np.float64)
    parts = [
        rng.integers(info.min, info.max, 2 * m, kind).view(dtype.np),
        rng.uniform(-1, 1, 2 * m),
        rng.uniform(-4, 4, 2 * m),
        rng.uniform(-top, top, m),
        rng.choice([-1, 1], m) * near * (1 + rng.choice([-1, 1], m) * 2.0 ** -rng.uniform(1, digits, m)),
        rng.choice([-1, 1], m) * 2.0 ** rng.uniform(-digits, 7, m),
        whole * (math.pi / 2),  # the nearest floats are next to zeros and poles of the trigonometric functions
        np.array([6381956970095103.0 * 2.0**797, 5.319372648326541e255, 16367173.0 * 2.0**72]),
    ]
    with np.errstate(over="ignore"):
        return np.concatenate([p.astype(dtype.np) for p in parts])


def _pairs(rng: np.random.Generator, dtype: DType, n: int) -> tuple[Array, Array]:
    """Return pairs of numbers: independent ones, ones of similar size, and for powers results of every size."""
    reach = 126 if dtype is float32 else 1022
    m = n // 4
    sizes = 2.0 ** rng.uniform(-reach, reach, m)
    near_one = 1 + rng.choice([-1, 1], m) * 2.0 ** -rng.uniform(0, 12, m)
    with np.errstate(all="ignore"):
        firsts = [
            rng.permutation(_numbers(rng, dtype, m)),
            rng.choice([-1, 1], m) * sizes * rng.uniform(1, 2, m),
            rng.uniform(0, 3, m),
            near_one,
        ]
        seconds = [
            _numbers(rng, dtype, m),
            rng.choice([-1, 1], m) * sizes * rng.uniform(0.1, 10, m),
            rng.uniform(-3, 3, m),
            rng.uniform(-reach, reach, m) / np.log2(near_one),
        ]
        count = min(len(firsts[0]), len(seconds[0]))
        firsts[0], seconds[0] = firsts[0][:count], seconds[0][:count]
        x, y = (np.concatenate([p.astype(dtype.np) for p in parts]) for parts in (firsts, seconds))
    return x, y
