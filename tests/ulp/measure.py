"""Operators into their largest errors: over all float32, or over many float64 and pairs; and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import jitflow as jf
from jitflow import config
from jitflow.dtypes import DType, float32
from jitflow.graph import make_placeholder
from jitflow.numpy_protocol import UFUNCS
from jitflow.tensor import as_tensor
from jitflow.types import named_dim
from tests.ulp.errors import Array, errors, exact_values, from_f64
from tests.ulp.functions import EVEN, ODD, Subject, arguments, exact_function, subjects

#: float32 numbers that are tried at a time: so few that numpy's temporary arrays keep their memory, instead of getting
#: fresh pages each time, which takes longer than all else.
CHUNK = 1 << 14
#: Pieces of a scan, the unit of progress and of parallel work.
PIECES = 256

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Worst:
    """The largest error, where it is, and of how many arguments. `where` is empty while no error was found."""

    ulp: float
    where: tuple[float, ...]
    tried: int

    def joined(self, other: Worst) -> Worst:
        larger = other if other.ulp > self.ulp else self
        return Worst(larger.ulp, larger.where, self.tried + other.tried)


NOTHING = Worst(0.0, (), 0)


@cache
def compiled(label: str, dtype: DType, target: str | None) -> Callable[..., Array]:
    """Return the operator on vectors of `dtype`, compiled alone; ``out=`` takes the result."""
    subject = subjects()[label]
    inputs = [make_placeholder(name, dtype, (named_dim("n"),)) for name in ("x", "y")[: subject.arity]]
    node = as_tensor(subject.node(*inputs))
    with config.override(target_cpu=target):
        session = jf.Session(node)
    function: Callable[..., Array] = session.function([as_tensor(x) for x in inputs], node)
    return function


def is_measured(subject: Subject, dtype: DType) -> bool:
    """Tell whether there is something to measure `subject` against in `dtype`."""
    return subject.has_exact_values or (dtype is float32 and subject.arity == 1)


# ---- every float32


def scan(subject: Subject, target: str | None, every: int, jobs: int, progress: Progress) -> Worst:
    """Return the largest error of a function of one float32 over every n-th bit pattern.

    The reference is the numpy rule in float64, whose own error of a few ULP is below 1e-8 of one of float32.
    """
    work = [(subject.label, target, every, k) for k in range(PIECES)]
    worst = NOTHING
    for k, found in enumerate(_mapped(work, jobs)):
        worst = worst.joined(found)
        progress(f"{subject.label} float32: {100 * (k + 1) // PIECES}%, {worst.ulp:.3f} ULP")
    return worst


def _mapped(work: list[tuple[str, str | None, int, int]], jobs: int) -> Iterator[Worst]:
    if jobs == 1:
        yield from (scan_piece(*w) for w in work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(scan_piece, *zip(*work, strict=True))


def scan_piece(label: str, target: str | None, every: int, piece: int) -> Worst:
    """Return the largest error over one of PIECES ranges of bit patterns."""
    subject, function = subjects()[label], compiled(label, float32, target)
    size = (1 << 32) // PIECES
    begin = piece * size + -(piece * size) % every
    steps = np.arange(0, CHUNK * every, every, dtype=np.uint32)
    out = np.empty(CHUNK, np.float32)
    worst = NOTHING
    for start in range(begin, (piece + 1) * size, CHUNK * every):
        count = min(CHUNK, -(-((piece + 1) * size - start) // every))
        x = (steps[:count] + np.uint32(start)).view(np.float32)
        got = function(x, out=out[:count])
        if is_mirrored(subject, x, got, function):
            worst = worst.joined(Worst(0.0, (), count))
        else:
            worst = worst.joined(compare_singles(subject, x, got, worst.ulp))
    return worst


def is_mirrored(subject: Subject, x: Array, got: Array, function: Callable[..., Array]) -> bool:
    """Tell whether all `x` are negative and their results, bit for bit, those of -x, which are measured elsewhere."""
    if subject.op.name not in ODD | EVEN or not np.signbit(x).all():
        return False
    other = function(-x)
    if subject.op.name in ODD:
        np.negative(other, out=other)
    return bool(((got.view(np.uint32) == other.view(np.uint32)) | (np.isnan(got) & np.isnan(other))).all())


def compare_singles(subject: Subject, x: Array, got: Array, beyond: float) -> Worst:
    """Return the largest error of `got` at float32 `x`, if it is larger than `beyond`, which is at least 1/2.

    Where the exact result rounds to what was got there is nothing to measure: most of the work is spared.
    """
    nearest, exact = _references(subject, x)
    at = np.flatnonzero(got.view(np.uint32) != nearest.view(np.uint32))
    at = at[~(np.isnan(got[at]) & np.isnan(nearest[at]))]
    if not at.size or (not subject.op.exact and not _estimates(got[at], exact[at]).max() > beyond):
        # The nearest number is up to half a unit away.
        return Worst(0.0 if subject.op.exact else 0.5, (), x.size)
    if subject.op.exact:
        error = np.full(at.size, np.inf)
    else:
        scale = subject.scale(x[at].astype(np.float64))
        error = errors(got[at], from_f64(exact[at]), scale)
        # The sign of a zero is part of the result.
        error[(exact[at] == 0) & (np.signbit(got[at]) != np.signbit(exact[at]))] = np.inf
    k = int(error.argmax())
    return Worst(float(error[k]), (float(x[at[k]]),), x.size)


def _references(subject: Subject, x: Array) -> tuple[Array, Array]:
    """Return the float32 that is right and the float64 it is rounded from."""
    if subject.op.exact:
        nearest = subject.in_numpy(x)
        return nearest, nearest
    with np.errstate(all="ignore"):
        exact = subject.in_numpy(x.astype(np.float64))
        return exact.astype(np.float32), exact


def _estimates(got: Array, exact: Array) -> Array:
    """Return errors in ULP as `errors` does, quickly; infinite where it has to be asked."""
    with np.errstate(all="ignore"):
        exponent = exact.view(np.int64) & np.int64(0x7FF << 52)
        least = np.int64((1023 - 126) << 52)
        unit = (np.maximum(exponent, least) - np.int64(23 << 52)).view(np.float64)
        error = np.abs(got - exact) / unit
    error[~np.isfinite(error) | (exact == 0)] = np.inf
    return error


# ---- many arguments against mpmath


def sample(subject: Subject, dtype: DType, target: str | None, n: int, seed: int, progress: Progress) -> Worst:
    """Return the largest error over about `n` arguments of `dtype`, against mpmath with 140 bits."""
    xs = arguments(subject, dtype, n, seed)
    got = compiled(subject.label, dtype, target)(*xs)
    worst = NOTHING
    for start in range(0, xs[0].size, 2000):
        part = tuple(x[start : start + 2000] for x in xs)
        worst = worst.joined(compare_exactly(subject, part, got[start : start + 2000]))
        progress(f"{subject.label} {dtype}: {100 * (start + 1) // max(xs[0].size, 1)}%, {worst.ulp:.3f} ULP")
    return worst


def compare_exactly(subject: Subject, xs: tuple[Array, ...], got: Array) -> Worst:
    """Return the largest error of `got` at `xs`."""
    if not got.size:
        return NOTHING
    if subject.op.exact:
        want = subject.in_numpy(*xs)
        kind = np.uint32 if want.dtype == np.float32 else np.uint64
        wrong = (got.view(kind) != want.view(kind)) & ~(np.isnan(got) & np.isnan(want))
        error = np.where(wrong, np.inf, 0.0)
    else:
        wide = [x.astype(np.float64) for x in xs]
        error = errors(got, exact_values(exact_function(subject), *wide), subject.scale(*wide))
    k = int(error.argmax())
    where = tuple(float(x[k]) for x in xs) if error[k] > 0 else ()
    return Worst(float(error[k]), where, got.size)


def error_at(subject: Subject, dtype: DType, target: str | None, where: tuple[float, ...]) -> float:
    """Return the error at one argument."""
    xs = tuple(np.full(3, v, dtype.np) for v in where)
    got = compiled(subject.label, dtype, target)(*xs)
    if subject.arity == 1 and dtype is float32:
        return compare_singles(subject, xs[0], got, 0.0).ulp
    return compare_exactly(subject, xs, got).ulp


# ---- cost


def cost(subject: Subject, dtype: DType, seconds: float = 0.3) -> float | None:
    """Return numpy's time over ours for 2^15 ordinary numbers, one after the other in turn; None without a ufunc."""
    ufunc = _ufuncs().get(subject.op.name)
    if ufunc is None or subject.attrs:
        return None
    rng = np.random.default_rng(0)
    low, high = {"acosh": (1.0, 10.0)}.get(subject.op.name, (-0.99, 0.99) if subject.op.name[:1] == "a" else (0.1, 5.0))
    xs = [rng.uniform(low, high, 1 << 15).astype(dtype.np) for _ in range(subject.arity)]
    ours, out = compiled(subject.label, dtype, None), np.empty_like(xs[0])
    best = [math.inf, math.inf]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for k, call in enumerate((lambda: ufunc(*xs, out=out), lambda: ours(*xs, out=out))):
            begin = time.perf_counter()
            call()
            call()
            best[k] = min(best[k], time.perf_counter() - begin)
    return best[0] / best[1]


@cache
def _ufuncs() -> dict[str, Any]:
    """Return numpy's functions by the names that operators have here."""
    known = {function.__name__: name for name, function in UFUNCS.items() if hasattr(np, name)}
    return {name: getattr(np, theirs) for name, theirs in known.items()}
