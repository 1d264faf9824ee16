"""Vectors, the rows of a small matrix, into the vectors of its transpose, by shuffles of two at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from jitflow.expr import Expr, Shuffle

#: Binds a value that is used more than once, and returns its variable.
Bind: TypeAlias = Callable[[Expr], Expr]


def transposed(rows: Sequence[Expr], bind: Bind) -> list[Expr]:
    """Return the columns of `rows`: vector c holds lane c of each row.

    There must be two or more rows, with two or more lanes, a power of two of both. Where these are as many, n, each of
    log2(n) steps exchanges one bit of the number of the row with the same bit of the number of the lane, by n shuffles.
    Else rows are joined to longer vectors before, or columns cut out of longer ones after.
    """
    lanes = rows[0].type.lanes
    vectors = list(rows)
    if len(rows) > lanes:
        vectors = [_joined(rows[k::lanes], bind) for k in range(lanes)]
    count, width = len(vectors), vectors[0].type.lanes
    distance = 1
    while distance < count:
        low = tuple(l if not l & distance else width + l - distance for l in range(width))
        high = tuple(l + distance if not l & distance else width + l for l in range(width))
        for k in range(count):
            if not k & distance:
                a, b = vectors[k], vectors[k + distance]
                vectors[k], vectors[k + distance] = bind(Shuffle(a, low, b)), bind(Shuffle(a, high, b))
        distance *= 2
    if lanes <= len(rows):
        return vectors
    return [Shuffle(vectors[c % count], tuple(range(c - c % count, c - c % count + count))) for c in range(lanes)]


def _joined(vectors: Sequence[Expr], bind: Bind) -> Expr:
    """Return `vectors`, a power of two of them, one after the other in one vector."""
    while len(vectors) > 1:
        both = tuple(range(2 * vectors[0].type.lanes))
        vectors = [bind(Shuffle(a, both, b)) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]
