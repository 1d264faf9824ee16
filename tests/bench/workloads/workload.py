"""What is measured: a computation written once, its inputs, the goal, and what it must at least do and move.

A workload's `body` is written against a small name space of array functions (`peers/namespace.py` lists them), so that
the same lines make the float64 reference, the graph of jitflow and the program of every peer that has such functions.
A family makes workloads of different sizes: those of the benchmark, odd ones that nobody tunes for, and a small one
for tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Sizes = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """One computation at one size: ``body(xp, *inputs, *constants)`` returns one array.

    `dims` are the shapes as a graph declares them, names standing for symbolic dims (default: all fixed). The ceiling
    rests on `flops` multiplications and additions that no algorithm avoids (0 where what counts is memory), and on the
    bytes `read` (default: all inputs and constants) and `written` (default: the result). `tolerance` is the error
    allowed, as a part of the largest absolute value of the reference. `options` is what peers with a form of their own
    must know besides the arrays.
    """

    name: str
    bar: float
    body: Callable[..., Any]
    inputs: Callable[[], tuple[Array, ...]]
    constants: Callable[[], tuple[Array, ...]] = tuple
    dims: tuple[tuple[int | str, ...], ...] | None = None
    flops: float = 0.0
    read: int | None = None
    written: int | None = None
    tolerance: float = 2e-5
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    family: str = ""
    section: str = ""
    odd: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
    """Workloads of one kind: ``make(*sizes)`` for each of `sizes`, of `odd` and for the one `small`."""

    make: Callable[..., Workload]
    sizes: tuple[Sizes, ...]
    odd: tuple[Sizes, ...]
    small: Sizes

    @property
    def section(self) -> str:
        """The module that it is written in."""
        return self.make.__module__.rpartition(".")[2]

    def workload(self, sizes: Sizes, *, odd: bool = False) -> Workload:
        """Return the workload of these sizes."""
        return dataclasses.replace(self.make(*sizes), family=self.make.__name__, section=self.section, odd=odd)

    def workloads(self) -> Iterator[Workload]:
        """Yield those of the benchmark, then the odd ones."""
        yield from (self.workload(s) for s in self.sizes)
        yield from (self.workload(s, odd=True) for s in self.odd)


#: In the order in which they were written.
FAMILIES: list[Family] = []


def family(
    *, sizes: tuple[Sizes, ...], small: Sizes, odd: tuple[Sizes, ...] = ()
) -> Callable[[Callable[..., Workload]], Callable[..., Workload]]:
    """Make the function below, which returns a workload of given sizes, a family of the benchmark."""

    def add(make: Callable[..., Workload]) -> Callable[..., Workload]:
        FAMILIES.append(Family(make, sizes, odd, small))
        return make

    return add


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Return standard normal numbers: the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype, copy=False)


def count(n: int) -> str:
    """Return `n` as people say it: 32K, 1M, 1000003."""
    for size, letter in ((1 << 20, "M"), (1 << 10, "K")):
        if n % size == 0 and n:
            return f"{n // size}{letter}"
    return str(n)
