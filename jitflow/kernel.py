"""What a kernel rule writes its loops with: the interfaces that lowering implements (`lowering.build_kernel`).

Most operators give one element at a time (`element`) or are written with others (`expand`). What is neither (sorting,
scans, scatters) says how it fills its output, as statements::

    def _kernel_running_sum(b: KernelBuilder, out: Memory, x: Memory) -> None:
        n, m = x.type.shape
        with b.rows(n) as (i,):  # independent of each other: spread over workers
            total = b.variable("total", x.type.dtype, 0)
            with b.loop("k", m) as k:  # in order
                total.set(total.get() + x(i, k))
                b.store(out, (i, k), total.get())

Where the same is done at all positions of further axes, these are the *columns* of a row: vectors on a CPU, threads of
their own on a GPU::

        with b.rows(*before, columns=after) as i:
            with b.loop("k", m) as k, b.columns() as j:
                b.store(out, (*i, k, *j), ...)

A rule calls the builder while it runs; nothing it builds is computed then. Such an operator is a group of its own: its
inputs are read from memory, its output is written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from jitflow.dtypes import DType
from jitflow.expr import Expr, Scalar
from jitflow.types import Dim, TensorType


class Memory(Protocol):
    """An array that a kernel rule may read and write: ``m(i, j)`` is its element there as an expression."""

    @property
    def type(self) -> TensorType: ...

    def __call__(self, *subscripts: Expr | int) -> Expr: ...


class Variable(Protocol):
    """A scalar that changes while a kernel runs. `get` reads it *where the expression is used*: bind it with `let`."""

    def get(self) -> Expr: ...

    def set(self, value: Scalar) -> None: ...


class KernelBuilder(Protocol):
    """Appends statements to a kernel, in the order of the calls; ``with`` blocks are loops and branches.

    Expressions follow `jitflow.expr`: a value that is used twice, or whose memory may change, is bound by `let`.
    Subscripts are index expressions; ``jitflow.expr.cast(e, jitflow.dtypes.index)`` makes one of data, which the rule
    must have proven or clamped to be in range.
    """

    def rows(
        self, *extents: Dim | Expr, columns: Sequence[Dim | Expr] = ()
    ) -> AbstractContextManager[tuple[Expr, ...]]:
        """Loop over independent subscripts, one per extent. At most once, as the last statement of the kernel.

        Only `let` may come before it. Working memory allocated inside belongs to one row. `columns` are the extents of
        `columns` below; a row that has some writes its output there only.
        """

    def columns(self) -> AbstractContextManager[tuple[Expr, ...]]:
        """Loop over the columns of the row, which are independent too; any number of times, inside `rows`.

        What may be inside of `independent` may be here. One that has no columns is entered once, with no subscripts.
        """

    def loop(self, name: str, extent: Dim | Expr) -> AbstractContextManager[Expr]:
        """Loop over 0 .. `extent` - 1 in order."""

    def independent(self, *extents: Dim | Expr) -> AbstractContextManager[tuple[Expr, ...]]:
        """Loop over subscripts in any order, the last one as vector code: no iteration reads what another one writes.

        Only `let`, `store`, `if_` and `check_index` may be inside, variables of the iteration's own, and a `loop` whose
        extent is the same for all iterations.
        """

    def while_(self, cond: Expr) -> AbstractContextManager[None]:
        """Repeat as long as `cond`, computed before each iteration, is true."""

    def if_(self, cond: Expr) -> AbstractContextManager[None]:
        """Run the block if `cond` is true."""

    def otherwise(self) -> AbstractContextManager[None]:
        """Run the block if the condition of the `if_` just before was false."""

    def let(self, name: str, value: Expr) -> Expr:
        """Compute `value` here, and return the variable that holds it."""

    def variable(self, name: str, dtype: DType, value: Scalar) -> Variable:
        """Return a scalar that starts as `value`."""

    def memory(self, name: str, dtype: DType, *shape: Dim | Expr) -> Memory:
        """Return working memory of `shape`, whose contents are undefined: of the row inside `rows`, else shared."""

    def store(self, target: Memory, subscripts: tuple[Expr | int, ...], value: Scalar) -> None:
        """Write `value` to `target` at `subscripts`."""

    def check_index(self, given: Expr, extent: Dim | Expr, position: Expr) -> Expr:
        """Return index `given`, counted from the end if negative, and clamped to 0 .. `extent` - 1.

        Where it was out of range the run fails, naming the smallest `position` (row-major, in the array of indices).
        Only for operators that are `fallible`. With an extent of 0 nothing may be read at the result.
        """
