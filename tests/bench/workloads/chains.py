"""Elementwise chains: with and without transcendental functions, in cache and out of it, aligned and not."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.workloads.workload import Array, Workload, count, family, random

#: 32K elements fit in the second-level cache, 1M in the third, 16M in none.
_SIZES = ((1 << 15,), (1 << 20,), (1 << 24,))
_ODD = ((1_000_003,),)


def _bar(n: int) -> float:
    return 1.0 if n >= 1 << 24 else 1.5


def _three(n: int) -> tuple[Array, ...]:
    return tuple(random(n, seed=k) for k in range(3))


@family(sizes=_SIZES, odd=_ODD, small=(33,))
def gelu_tanh(n: int) -> Workload:
    return Workload(
        name=f"gelu_tanh(a+b) {count(n)}",
        bar=_bar(n),
        body=lambda xp, a, b: xp.gelu(a + b, approximate="tanh"),
        inputs=lambda: (random(n), random(n, seed=1)),
        dims=(("n",),) * 2,
    )


@family(sizes=((1 << 15,), (1 << 20,)), odd=_ODD, small=(33,))
def gelu(n: int) -> Workload:
    return Workload(
        name=f"gelu(a+b) {count(n)}",
        bar=_bar(n),
        body=lambda xp, a, b: xp.gelu(a + b),
        inputs=lambda: (random(n), random(n, seed=1)),
        dims=(("n",),) * 2,
    )


def _relu_chain(xp: Any, a: Any, b: Any, c: Any) -> Any:
    return xp.relu(a * b + c)


@family(sizes=_SIZES, odd=_ODD, small=(33,))
def relu_chain(n: int) -> Workload:
    return Workload(
        name=f"relu(a*b+c) {count(n)}",
        bar=_bar(n),
        body=_relu_chain,
        inputs=lambda: _three(n),
        dims=(("n",),) * 3,
    )


@family(sizes=(), odd=((1 << 15,), (1 << 20,)), small=(33,))
def relu_unaligned(n: int) -> Workload:
    """The inputs start four bytes after a multiple of 64."""
    return Workload(
        name=f"relu(a*b+c) unaligned {count(n)}",
        bar=_bar(n),
        body=_relu_chain,
        inputs=lambda: tuple(a[1:] for a in _three(n + 1)),
        dims=(("n",),) * 3,
    )


@family(sizes=(), odd=((1024, 1024),), small=(3, 5))
def relu_strided(rows: int, columns: int) -> Workload:
    """The inputs are every other column of larger arrays."""
    return Workload(
        name=f"relu(a*b+c) strided {rows}x{columns}",
        bar=1.5,
        body=_relu_chain,
        inputs=lambda: tuple(a.reshape(rows, -1)[:, ::2] for a in _three(2 * rows * columns)),
        dims=(("rows", columns),) * 3,
        read=2 * 3 * 4 * rows * columns,
    )


@family(sizes=_SIZES, odd=_ODD, small=(33,))
def long_chain(n: int) -> Workload:
    def body(xp: Any, a: Any, b: Any, c: Any) -> Any:
        return xp.exp(-(a * a)) * xp.tanh(b) + xp.log(c * c + 1.0) * (a - b) / (xp.exp(c) + 1.0)

    return Workload(
        name=f"exp, tanh, log {count(n)}",
        bar=_bar(n),
        body=body,
        inputs=lambda: _three(n),
        dims=(("n",),) * 3,
    )


def _options(n: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(0)
    return rng.uniform(10, 50, n), rng.uniform(10, 50, n), rng.uniform(1, 2, n)


@family(sizes=((1 << 20,),), odd=((999_983,),), small=(33,))
def black_scholes(n: int) -> Workload:
    """The price of European calls: spot, strike and time to expiry vary, rate and volatility are fixed."""
    rate, volatility = 0.1, 0.2

    def body(xp: Any, spot: Any, strike: Any, time: Any) -> Any:
        spread = volatility * xp.sqrt(time)
        d1 = (xp.log(spot / strike) + (rate + 0.5 * volatility * volatility) * time) / spread
        d2 = d1 - spread
        cdf1, cdf2 = (0.5 + 0.5 * xp.erf(d * 0.7071067811865476) for d in (d1, d2))
        return spot * cdf1 - strike * xp.exp(-rate * time) * cdf2

    return Workload(
        name=f"Black-Scholes f64 {count(n)}",
        bar=1.5,
        body=body,
        inputs=lambda: _options(n),
        dims=(("n",),) * 3,
        tolerance=1e-9,
    )
