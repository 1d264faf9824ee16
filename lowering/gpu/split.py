"""A ``reduce`` group with few long rows into several GPU kernels: one block per row would leave most of the GPU idle.

Each stage is a kernel in which `splits` blocks share a row, each a run of neighbouring elements, and leave partial
results in global memory. The kernels after it begin by folding these, every block for itself, in the same fixed order;
a last kernel writes what has one element per row:

    kernel sum_0:  block b in 256: thread t in 256: ...  sum_parts[0, b] = sum of x[b*chunk : (b + 1)*chunk]
    kernel sum_1:  block b in 1:   thread t in 256: ...  sum[] = sum of sum_parts[0, :]

No atomics, so the same elements always meet in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jitflow.expr import INDEX, Buffer, Const, Expr, Load, Var, compare, const_index, eq
from jitflow.simplify import simplify_index
from lowering.fuse import FusionGroup
from lowering.gpu.fold import fold_block, new_accumulator
from lowering.gpu.rows import place_on, point_at, size_of
from lowering.gpu.schedule import GpuSchedule, power_of_two
from lowering.gpu.stages import Point, Stages, in_order
from lowering.loop_ir import Body, For, If, Kernel, Let, Stmt, Store
from lowering.reduction import Accumulator
from lowering.signature import Signature, unbound_dims
from lowering.trace import Element

#: Elements per thread below which another block is not worth its partial result.
LEAST_ITEMS = 8


@dataclass(frozen=True, eq=False)
class Split:
    """`rows` rows, each shared by `splits` blocks that take `chunk` elements each."""

    rows: int
    splits: int
    chunk: Expr


def split_of(group: FusionGroup, schedule: GpuSchedule) -> Split | None:
    """Return how the rows of `group` are split, or None where they are many or short."""
    count, length = size_of(group.rows), size_of(group.inner)
    if not isinstance(count, Const) or count.value == 0:
        return None
    rows = int(count.value)
    splits = schedule.splits // power_of_two(rows)
    if isinstance(length, Const):
        if length.value < schedule.split_from:
            return None
        splits = min(splits, power_of_two(int(length.value) // (schedule.threads * LEAST_ITEMS)))
    elif splits < schedule.unknown_splits:
        # The rows may turn out short, and then a kernel per stage costs more than idle multiprocessors.
        return None
    if splits < 2:
        return None
    step = splits * schedule.threads
    return Split(rows, splits, simplify_index((length + (step - 1)) // step * schedule.threads))


def build_split(
    group: FusionGroup, signature: Signature, schedule: GpuSchedule, split: Split, name: str, notes: tuple[str, ...]
) -> tuple[tuple[Kernel, ...], tuple[Buffer, ...]]:
    """Return the kernels of a ``reduce`` group in order, and the buffers of partial results between them."""
    shape = (const_index(split.rows), const_index(split.splits))
    parts: dict[tuple[Element, int], Buffer] = {}
    count = Stages(group, signature).count
    for number in range(count):
        for e, acc in Stages(group, signature).accumulators(number).items():
            for k, b in enumerate(acc.buffers):
                parts[e, k] = Buffer(f"{b.name}_parts{number}", b.dtype, shape, align=16)
    kernels: list[Kernel] = []
    last = count + (1 if Stages(group, signature).outputs else 0)
    for number in range(last):
        stages = Stages(group, signature)
        body, written = _kernel(group, stages, parts, schedule, split, number)
        used = [b for (e, _), b in parts.items() if stages.level[e[0]] <= number]
        params = (*signature.params, *used)
        reads = {*signature.leaves.values(), *(b for b in used if b not in written)}
        kernels.append(Kernel(f"{name}_{number}", params, unbound_dims(body, params), body, frozenset(reads), notes))
    return tuple(kernels), tuple(parts.values())


def _kernel(
    group: FusionGroup,
    stages: Stages,
    parts: dict[tuple[Element, int], Buffer],
    schedule: GpuSchedule,
    split: Split,
    number: int,
) -> tuple[Body, list[Buffer]]:
    """Return the kernel of stage `number` (the last one: of the row's outputs), and the partial results it writes."""
    is_last = number == stages.count
    splits = 1 if is_last else split.splits
    b, t, row, part = (Var(name, INDEX, floor=0) for name in ("b", "t", "row", "part"))
    body: list[Stmt] = [Let(row, simplify_index(b // splits)), Let(part, simplify_index(b % splits))]
    body += place_on(group.rows, row)
    for earlier in range(number):
        accumulators = stages.accumulators(earlier)
        for e, acc in accumulators.items():
            body += new_accumulator(acc)
            body += _fold_parts(acc, [parts[e, k] for k in range(len(acc.buffers))], row, t, schedule.threads, split)
            body += fold_block(acc, t, schedule.threads)
        body += stages.know(accumulators)
    written: list[Buffer] = []
    if is_last:
        body.append(If(eq(t, const_index(0)), stages.finish()))
    else:
        accumulators = stages.accumulators(number)
        length = size_of(group.inner)

        def loop(step: Callable[[Point], Body]) -> Body:
            def at(number: Expr, tested: bool = False) -> Body:
                position = simplify_index(part * split.chunk + (number * schedule.threads + t))
                lets, point = point_at(group.inner, length, position, const_index(0))
                inner = step(point)
                return (*lets, If(compare("lt", point.position, length), inner)) if tested else (*lets, *inner)

            rounds = simplify_index(split.chunk // schedule.threads)
            whole = in_order(rounds, schedule.items, at)
            if simplify_index(split.chunk * split.splits - length) == const_index(0):
                return whole
            # Only the last blocks reach beyond the row.
            inside = compare("le", simplify_index(part * split.chunk + split.chunk), length)
            return (If(inside, whole, in_order(rounds, 1, lambda c: at(c, tested=True))),)

        body += stages.run(number, accumulators, loop)
        stores: list[Stmt] = []
        for e, acc in accumulators.items():
            body += fold_block(acc, t, schedule.threads)
            for k, source in enumerate(acc.buffers):
                written.append(parts[e, k])
                stores.append(Store(parts[e, k], (row, part), Load(source, (const_index(0),))))
        if stores:
            body.append(If(eq(t, const_index(0)), tuple(stores)))
    thread = For(t, const_index(schedule.threads), tuple(body), "thread")
    return (For(b, const_index(split.rows * splits), (thread,), "block"),), written


def _fold_parts(acc: Accumulator, parts: list[Buffer], row: Expr, t: Expr, threads: int, split: Split) -> Body:
    """Return the statements that fold a row's partial results into the threads' own lanes."""
    c, s = Var("c", INDEX, floor=0), Var("s", INDEX, floor=0)
    load = tuple(
        Store(b, (const_index(1),), Load(source, (row, s))) for b, source in zip(acc.buffers, parts, strict=True)
    )
    fold: Body = (*load, *acc.halve(const_index(0), 1))
    rounds = -(-split.splits // threads)
    if split.splits % threads:
        fold = (If(compare("lt", s, const_index(split.splits)), fold),)
    return (For(c, const_index(rounds), (Let(s, simplify_index(c * threads + t)), *fold)),)
