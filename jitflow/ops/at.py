"""``x.at[key].set(v)`` and its kin: a tensor with some elements replaced, or changed, at any key that indexes it.

A block of slices and integers is index arithmetic (`update_slice`), which fuses with its neighbours; one array of
indices is a scatter along its axis; several, or arrays among slices, are a scatter to positions in row-major order; and
a mask that is computed is a choice between two tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64, int64
from jitflow.errors import DTypeError, GraphError, ShapeError, StaticIndexError
from jitflow.expr import Expr
from jitflow.graph import (
    Index,
    Node,
    OpDef,
    Operand,
    Reader,
    Sample,
    as_node,
    constant_op,
    define_op,
    located,
    make_constant,
    within,
)
from jitflow.ops.axes import Dims
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.creation import arange_op
from jitflow.ops.elementwise import add_op, multiply_op
from jitflow.ops.indexing import ParsedKey, getitem, parse_key
from jitflow.ops.movement import reshape_to
from jitflow.ops.scattering import MODES, as_updates, scatter_op
from jitflow.ops.selection import maximum_op, minimum_op, where_op
from jitflow.ops.slicing import Slices, block_places, guarded, numpy_positions, slice_op
from jitflow.ops.testdata import Array, draw
from jitflow.types import Shape, TensorType, element_count, same_dim, shape_text

_COMBINE: dict[str, Callable[..., Node]] = {
    "set": lambda old, new: new,
    "add": add_op,
    "mul": multiply_op,
    "min": minimum_op,
    "max": maximum_op,
}


# ---- update_slice


def _infer_update(x: TensorType, v: TensorType, *, starts: Slices, steps: tuple[int, ...]) -> TensorType:
    if v.dtype is not x.dtype:
        raise DTypeError(f"update_slice: {v.dtype} into {x.dtype}; convert with astype")
    if not x.rank == v.rank == len(starts) == len(steps):
        raise ShapeError(
            f"update_slice: {shape_text(v.shape)} is no block of {shape_text(x.shape)}: one slice per axis"
        )
    assert slice_op.infer is not None
    slice_op.infer(x, starts=starts, sizes=v.shape, steps=steps)
    return x


def _element_update(index: Index, x: Reader, v: Reader, *, starts: Slices, steps: tuple[int, ...]) -> Expr:
    places, inside = block_places(index, x.type.shape, v.type.shape, starts, steps)
    return guarded(inside, v(*places), x(*index))


def _numpy_update(x: Array, v: Array, *, starts: Slices, steps: tuple[int, ...], dims: Dims) -> Array:
    out = np.array(x)
    out[numpy_positions(starts, v.shape, steps, dims)] = v
    return out


def _vjp_update(ct: Node, out: Node, x: Node, v: Node, *, starts: Slices, steps: tuple[int, ...]) -> tuple[Node, Node]:
    zeros = broadcast_to(make_constant(0, ct.dtype), v.shape)
    kept = update_slice_op(ct, zeros, starts=starts, steps=steps)
    return kept, slice_op(ct, starts=starts, sizes=v.shape, steps=steps)


def _samples_update(rng: np.random.Generator) -> Iterator[Sample]:
    for size, shape, starts, steps in (
        ((3,), (7,), (2,), (1,)),
        ((4,), (7,), (6,), (-2,)),
        ((4,), (8,), (0,), (2,)),
        ((1, 5), (3, 5), (1, 4), (1, -1)),
        ((2, 20), (4, 37), (1, 3), (1, 1)),
        ((4, 0), (4, 6), (0, 1), (1, 3)),
        ((0, 3), (0, 3), (0, 0), (1, 1)),
        ((), (), (), ()),
    ):
        yield Sample((draw(rng, float64, *shape), draw(rng, float64, *size)), {"starts": starts, "steps": steps})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 5), draw(rng, dtype, 2)), {"starts": (4,), "steps": (-3,)})
    x, v = draw(rng, float32, 3), draw(rng, float32, 2)
    attrs = {"starts": (1,), "steps": (1,)}
    yield Sample((x, v), {"starts": (2,), "steps": (1,)}, ShapeError, r"axis 0 of \(3,\) has no element 3")
    yield Sample((x, v[None]), attrs, ShapeError, r"\(1, 2\) is no block of \(3,\)")
    yield Sample((x, v.astype(float)), attrs, DTypeError, "float64 into float32")


#: `x` with the block that a slice reads (see `slice`) replaced by `v`.
update_slice_op: OpDef = define_op(
    "update_slice",
    infer=_infer_update,
    element=_element_update,
    numpy=_numpy_update,
    vjp=_vjp_update,
    samples=_samples_update,
    exact=True,
    movement=True,
)


# ---- updates at any key


def update_at(x: Operand, key: Any, value: Operand, mode: str) -> Node:
    """Return `x` with the elements ``x[key]`` changed by `value`, by a mode of `scatter`."""
    node = as_node(x)
    if mode not in MODES:
        raise located(GraphError(f"at: unknown mode {mode!r}"))
    if node.dtype.is_bool and mode != "set":
        raise located(DTypeError(f"at: mode {mode!r} takes integers and floats, not bool"))
    new = as_updates(value, node.dtype, "at")
    mask = _computed_mask(key)
    if mask is not None:
        return _where(node, mask, new, mode)
    parsed = parse_key(node, key)
    if not parsed.arrays:
        return _update_block(node, parsed, new, mode)
    axis = _only_axis(parsed)
    if axis is not None:
        (indices,) = parsed.arrays.values()
        return _scatter(node, indices, new, axis, mode)
    # Where each element that the key picks lies in x: then it is a scatter to a line of all elements.
    count = element_count(node.shape)
    line = arange_op(start=0, step=1, size=count, dtype=int64)
    places = getitem(reshape_to(line, node.shape), key)
    return reshape_to(_scatter(reshape_to(node, (count,)), places, new, 0, mode), node.shape)


def _spread(new: Node, shape: Shape) -> Node:
    """Return a value broadcast to the elements that a key picks."""
    with within("at"):
        return broadcast_to(new, shape)


def _scatter(x: Node, indices: Node, new: Node, axis: int, mode: str) -> Node:
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    count = element_count(indices.shape)
    flat = reshape_to(_spread(new, (*before, *indices.shape, *after)), (*before, count, *after))
    return scatter_op(x, reshape_to(indices, (count,)), flat, axis=axis, mode=mode)


def _update_block(x: Node, parsed: ParsedKey, new: Node, mode: str) -> Node:
    full = [parsed.slices.get(k, (0, n, 1)) for k, n in enumerate(x.shape)]
    sizes: Shape = tuple(size for _, size, _ in full)
    block = reshape_to(_spread(new, parsed.picked_shape()), sizes)
    if not full:
        return _COMBINE[mode](x, block)
    starts, steps = tuple(start for start, _, _ in full), tuple(step for _, _, step in full)
    if mode != "set":
        block = _COMBINE[mode](slice_op(x, starts=starts, sizes=sizes, steps=steps), block)
    return update_slice_op(x, block, starts=starts, steps=steps)


def _only_axis(parsed: ParsedKey) -> int | None:
    """Return the axis of the key's array if it has one only and takes all other axes as they are; else None."""
    if len(parsed.arrays) != 1 or len(parsed.shape) != len(parsed.x.shape):
        return None
    for k, (start, size, step) in parsed.slices.items():
        if start != 0 or step != 1 or same_dim(size, parsed.x.shape[k]) is not True:
            return None
    return None if None in parsed.shape else next(iter(parsed.arrays))


def _computed_mask(key: Any) -> Node | None:
    """Return the mask that `key` is, if it is one that is not known when the graph is built."""
    item = key[0] if isinstance(key, tuple) and len(key) == 1 else key
    node = item if isinstance(item, Node) else getattr(item, "node", None)
    return node if isinstance(node, Node) and node.dtype.is_bool and node.op is not constant_op else None


def _where(x: Node, mask: Node, new: Node, mode: str) -> Node:
    """Return `x` changed where `mask`, whose axes are the first ones of `x`, is true."""
    rank = len(mask.shape)
    if rank > len(x.shape) or any(same_dim(n, m) is False for n, m in zip(x.shape, mask.shape, strict=False)):
        what = f"at: a mask of shape {shape_text(mask.shape)} for {shape_text(x.shape)}"
        raise located(StaticIndexError(what))
    rest = x.shape[rank:]
    if len(new.shape) > len(rest):
        what = f"at: a value of shape {shape_text(new.shape)} where a mask picks elements of shape {shape_text(rest)}"
        raise located(ShapeError(f"{what}; how many there are depends on the run, so the value is the same for all"))
    chosen = broadcast_to(reshape_to(mask, (*mask.shape, *(1 for _ in rest))), x.shape)
    changed = _COMBINE[mode](x, broadcast_to(_spread(new, rest), x.shape))
    return where_op(chosen, changed, x)
