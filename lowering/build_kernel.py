"""An operator that states its own loops (`jitflow.kernel`) into a kernel: the builder that its rule writes to.

For a CPU, `rows` become a parallel loop, and `independent` loops and `columns` are vectorized; working memory is
scratch. For a GPU, a column of a row is a thread's (all is one thread's, if the rule has no rows), the loops inside are
serial, and working memory is a global temporary with a part for each thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from jitflow.dtypes import DType, index, int64
from jitflow.errors import CompilerBug
from jitflow.expr import (
    INDEX,
    Buffer,
    Const,
    Expr,
    Load,
    Scalar,
    Var,
    as_index,
    cast,
    compare,
    const,
    const_index,
    lift,
)
from jitflow.graph import Node
from jitflow.simplify import simplify_index
from jitflow.types import Dim, TensorType, dim_of
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Alloc, Body, For, If, Let, Stmt, Store, While
from lowering.nest import nest, position_on
from lowering.signature import Signature
from lowering.trace import check_index, literal_of, unflatten_index

#: Threads of a GPU block that each work on a row of their own.
ROW_THREADS = 128


class _Memory:
    """A buffer as a rule sees it; `prefix` are subscripts that the rule does not know of."""

    def __init__(self, buffer: Buffer, type: TensorType, prefix: tuple[Expr, ...] = ()) -> None:
        self.buffer, self.type, self.prefix = buffer, type, prefix

    def __call__(self, *subscripts: Expr | int) -> Expr:
        return Load(self.buffer, self.at(subscripts))

    def at(self, subscripts: tuple[Expr | int, ...]) -> tuple[Expr, ...]:
        if len(subscripts) != self.type.rank:
            raise CompilerBug(f"{self.buffer.name} of rank {self.type.rank} is used with {len(subscripts)} subscripts")
        return (*self.prefix, *(simplify_index(as_index(s)) for s in subscripts))


class _Literal:
    """A constant of one element, which is no memory but a number in the code."""

    def __init__(self, value: Const, type: TensorType) -> None:
        self.value, self.type = value, type

    def __call__(self, *subscripts: Expr | int) -> Expr:
        return self.value


class _Variable:
    """A register. Memory holds no indices, so a variable of dtype index is kept as an int64."""

    def __init__(self, builder: _Builder, buffer: Buffer, dtype: DType) -> None:
        self._builder, self._buffer, self._dtype = builder, buffer, dtype

    def get(self) -> Expr:
        return cast(Load(self._buffer, (const_index(0),)), self._dtype)

    def set(self, value: Scalar) -> None:
        new = cast(lift(value, self.get()), self._buffer.dtype)
        self._builder.append(Store(self._buffer, (const_index(0),), new))


class _Builder:
    """Implements :class:`jitflow.kernel.KernelBuilder`."""

    def __init__(self, node: Node, signature: Signature, for_gpu: bool) -> None:
        self.node, self.signature, self.for_gpu = node, signature, for_gpu
        self.temporaries: list[Buffer] = []
        self._bodies: list[list[Stmt]] = [[]]
        self._row: Expr | None = None
        self._row_count: Expr = const_index(1)
        #: Inside `rows`: the extents of its columns, and on a GPU the thread's own column.
        self._columns: tuple[Dim | Expr, ...] | None = None
        self._column: tuple[Expr, ...] = ()
        self._rows_done = False
        #: The last `if_` if its condition was known: where it stood, and whether it held.
        self._decided: tuple[list[Stmt], int, bool] | None = None

    def append(self, s: Stmt) -> None:
        if self._rows_done:
            raise CompilerBug(f"the kernel rule of {self.node.op.name!r} goes on after its rows")
        self._bodies[-1].append(s)

    def finished(self) -> Body:
        """Return the statements of the whole rule."""
        (body,) = self._bodies
        if not self.for_gpu or self._rows_done:
            return tuple(body)
        block, thread = Var("b", INDEX, floor=0), Var("t", INDEX, floor=0)
        return (For(block, const_index(1), (For(thread, const_index(1), tuple(body), "thread"),), "block"),)

    @contextmanager
    def _inside(self) -> Iterator[list[Stmt]]:
        self._bodies.append([])
        yield self._bodies[-1]
        self._bodies.pop()

    @contextmanager
    def rows(self, *extents: Dim | Expr, columns: Sequence[Dim | Expr] = ()) -> Iterator[tuple[Expr, ...]]:
        if len(self._bodies) != 1:
            raise CompilerBug(f"the kernel rule of {self.node.op.name!r} has rows inside of something else")
        self._columns = tuple(columns)
        if self.for_gpu:
            with self._gpu_rows(_axes("i", (*extents, *columns))) as subscripts:
                self._column = subscripts[len(extents) :]
                yield subscripts[: len(extents)]
        else:
            axes = _axes("i", extents)
            with self._inside() as body:
                yield tuple(map(position_on, axes))
            for s in nest(axes, tuple(body), first="parallel"):
                self.append(s)
        self._columns = None
        self._rows_done = True

    @contextmanager
    def columns(self) -> Iterator[tuple[Expr, ...]]:
        if self._columns is None:
            raise CompilerBug(f"the kernel rule of {self.node.op.name!r} has columns outside of rows")
        if self.for_gpu:
            yield self._column
            return
        with self.independent(*self._columns) as subscripts:
            yield subscripts

    @contextmanager
    def _gpu_rows(self, axes: list[Axis]) -> Iterator[tuple[Expr, ...]]:
        count: Expr = const_index(1)
        for a in axes:
            count = simplify_index(count * a.extent)
        block, thread, row = (Var(name, INDEX, floor=0) for name in ("b", "t", "row"))
        self._row, self._row_count = row, count
        subscripts = [Var(a.var.name, INDEX, floor=0) for a in axes]
        with self._inside() as body:
            yield tuple(subscripts)
        places = unflatten_index(row, [a.extent for a in axes])
        lets = [Let(var, place) for var, place in zip(subscripts, places, strict=True)]
        guarded = If(compare("lt", row, count), (*lets, *body))
        mine = (Let(row, block * ROW_THREADS + thread), guarded)
        blocks = simplify_index((count + (ROW_THREADS - 1)) // ROW_THREADS)
        self.append(For(block, blocks, (For(thread, const_index(ROW_THREADS), mine, "thread"),), "block"))

    @contextmanager
    def loop(self, name: str, extent: Dim | Expr) -> Iterator[Expr]:
        var = Var(name, INDEX, floor=0)
        with self._inside() as body:
            yield var
        self.append(For(var, simplify_index(as_index(extent)), tuple(body)))

    @contextmanager
    def independent(self, *extents: Dim | Expr) -> Iterator[tuple[Expr, ...]]:
        axes = _axes("j", extents)
        with self._inside() as body:
            yield tuple(map(position_on, axes))
        for s in nest(axes, tuple(body), last="serial" if self.for_gpu else "vectorized"):
            self.append(s)

    @contextmanager
    def while_(self, cond: Expr) -> Iterator[None]:
        with self._inside() as body:
            yield
        self.append(While(cond, tuple(body)))

    @contextmanager
    def if_(self, cond: Expr) -> Iterator[None]:
        before = len(self.temporaries)
        with self._inside() as body:
            yield
        if isinstance(cond, Const):
            self._decide(body, bool(cond.value), before)
            self._decided = self._bodies[-1], len(self._bodies[-1]), bool(cond.value)
        else:
            self.append(If(cond, tuple(body)))

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        here, decided = self._bodies[-1], self._decided
        if decided is not None and decided[0] is here and decided[1] == len(here):
            before = len(self.temporaries)
            with self._inside() as body:
                yield
            self._decide(body, not decided[2], before)
            self._decided = None
            return
        last = here[-1] if here else None
        if not isinstance(last, If) or last.otherwise:
            raise CompilerBug(f"the kernel rule of {self.node.op.name!r} has an otherwise without an if_")
        with self._inside() as body:
            yield
        here[-1] = If(last.cond, last.then, tuple(body))

    def _decide(self, body: list[Stmt], is_run: bool, temporaries: int) -> None:
        """Keep `body` without its condition, which is known, or drop it and the temporaries made since."""
        if is_run:
            self._bodies[-1].extend(body)
        else:
            del self.temporaries[temporaries:]

    def let(self, name: str, value: Expr) -> Expr:
        if isinstance(value, (Const, Var)):
            return value
        var = Var(name, value.type)
        self.append(Let(var, value))
        return var

    def variable(self, name: str, dtype: DType, value: Scalar) -> _Variable:
        buffer = Buffer(name, int64 if dtype is index else dtype, (1,), "register")
        self.append(Alloc(buffer))
        made = _Variable(self, buffer, dtype)
        made.set(value)
        return made

    def memory(self, name: str, dtype: DType, *shape: Dim | Expr) -> _Memory:
        sizes = tuple(simplify_index(as_index(d)) for d in shape)
        of = TensorType(dtype, tuple(dim_of(d) for d in sizes))
        if not self.for_gpu:
            buffer = Buffer(name, dtype, sizes, "scratch")
            self.append(Alloc(buffer))
            return _Memory(buffer, of)
        buffer = Buffer(f"{name}{len(self.temporaries)}", dtype, (self._row_count, *sizes))
        self.temporaries.append(buffer)
        return _Memory(buffer, of, (const_index(0) if self._row is None else self._row,))

    def store(self, target: _Memory, subscripts: tuple[Expr | int, ...], value: Scalar) -> None:
        at = target.at(subscripts)
        self.append(Store(target.buffer, at, lift(value, Load(target.buffer, at))))

    def check_index(self, given: Expr, extent: Dim | Expr, position: Expr) -> Expr:
        checks = self.signature.checks
        if checks is None:
            raise CompilerBug(f"{self.node!r} is not fallible, but checks an index")
        statements: list[Stmt] = []
        found = check_index(statements, checks, self.node, given, as_index(extent), position, None)
        for s in statements:
            self.append(s)
        return found


def _axes(name: str, extents: tuple[Dim | Expr, ...]) -> list[Axis]:
    return [Axis(Var(f"{name}{k}", INDEX, floor=0), simplify_index(as_index(d))) for k, d in enumerate(extents)]


def build_kernel(group: FusionGroup, signature: Signature, *, for_gpu: bool = False) -> tuple[Body, tuple[Buffer, ...]]:
    """Return the statements of a ``kernel`` group, and the global temporaries that they use (on a GPU)."""
    (node,) = group.members
    rule = node.op.kernel
    assert rule is not None
    builder = _Builder(node, signature, for_gpu)
    rule(builder, _Memory(signature.outputs[node], node.type), *_readers(node, signature.leaves), **dict(node.attrs))
    return builder.finished(), tuple(builder.temporaries)


def _readers(node: Node, leaves: Mapping[Node, Buffer]) -> Iterator[_Memory | _Literal]:
    for x in node.inputs:
        if x in leaves:
            yield _Memory(leaves[x], x.type)
        else:
            value = literal_of(x)
            assert value is not None
            yield _Literal(const(value, x.dtype), x.type)
