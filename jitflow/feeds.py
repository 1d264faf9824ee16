"""Feeds as users give them into arrays by node, values of symbolic dims, and the nodes to compute.

All checks of what is fed are here, and all are made before anything is computed: names, dtypes, shapes, dims that must
agree, guards that inference left open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitflow.dtypes import DType, bfloat16, numpy_dtype
from jitflow.errors import FeedError, FeedIndexError, FeedTypeError, at_site
from jitflow.expr import Expr, Var
from jitflow.graph import Node, name_nodes, toposort
from jitflow.halves import nearest_half
from jitflow.simplify import evaluate_index, free_vars, split_linear
from jitflow.structure import find_node
from jitflow.types import Dim, dim_text, shape_text

Array = np.ndarray[Any, Any]


class Binding(NamedTuple):
    """What a run needs: arrays of fed nodes, the values of all dims, and the nodes in the order of computation."""

    arrays: dict[Node, Array]
    dims: dict[Var, int]
    order: list[Node]


def bind_feeds(fetches: Sequence[Node], feeds: Mapping[Any, Any]) -> Binding:
    """Return the arrays that `feeds` (by tensor or name) give to the graph below `fetches`, checked.

    Raises FeedError for a feed that is missing, unknown, not needed, given twice, or of another dtype or shape; and
    for dims that do not fit together. Raises FeedTypeError for what is no array of numbers at all.
    """
    if not isinstance(feeds, Mapping):
        raise FeedError(f"feeds must be a dict from tensors or names to values, got {type(feeds).__name__}")
    everything = toposort(fetches)
    names = name_nodes(everything)
    given = _resolve(feeds, names)
    order = toposort(fetches, stop=set(given))
    needed = set(order)
    unused = [node for node in given if node not in needed]
    dims_needed = open_dims(order, given) if unused else set()
    for node in unused:
        if not gives_dims(node, dims_needed):
            raise FeedError(at_site(f"feed {names[node]!r} is not needed for what is fetched", node.site))
    for node in order:
        if node.op.name == "placeholder" and node not in given:
            raise FeedError(at_site(f"placeholder {names[node]!r} ({node.type}) is not fed", node.site))
    arrays = {node: _located_feed(value, node, names[node]) for node, value in given.items()}
    dims = bind_dims(arrays, names)
    _check_dims_are_known(order, arrays, dims)
    check_guards(order, dims, skip=arrays)
    return Binding(arrays, dims, order)


def _resolve(feeds: Mapping[Any, Any], names: dict[Node, str]) -> dict[Node, Any]:
    """Return the feeds by node; those that are no part of the graph get a name too."""
    by_name = {name: node for node, name in names.items()}
    given: dict[Node, Any] = {}
    for key, value in feeds.items():
        node = find_node(key, by_name, FeedError, "feed")
        names.setdefault(node, node.name or repr(node))
        if node in given:
            raise FeedError(at_site(f"{names[node]!r} is fed twice", node.site))
        given[node] = value
    return given


def _located_feed(value: Any, node: Node, name: str) -> Array:
    try:
        return as_feed(value, node, name)
    except FeedError as error:
        raise type(error)(at_site(str(error), node.site)) from None


def as_feed(value: Any, node: Node, name: str) -> Array:
    """Return `value` as the array it stands for; it must have the dtype and rank of `node` and its literal dims.

    Arrays keep their dtype, which must be the declared one; Python numbers and lists of them take it, if nothing is
    lost but precision.
    """
    dtype, of = node.dtype, numpy_dtype(node.dtype)
    if isinstance(value, np.ma.MaskedArray):
        raise FeedTypeError(f"feed {name!r}: masked arrays are not supported; fill them first")
    if value is None:
        raise FeedTypeError(f"feed {name!r}: None is no array")
    if isinstance(value, (bool, int, float, list, tuple)) and not isinstance(value, np.generic):
        array = _from_python(value, dtype, name)
    else:
        array = np.asarray(value)
        if array.dtype != of:
            native = array.dtype.newbyteorder("=")
            if native != of or array.dtype.kind == "O":
                if array.dtype.kind not in "biuf" and array.dtype != bfloat16:
                    raise FeedTypeError(f"feed {name!r}: expected an array of {dtype}, got {type(value).__name__}")
                hint = f"; convert it with astype({dtype.name!r})"
                raise FeedError(f"feed {name!r}: expected dtype {dtype}, got {array.dtype}{hint}")
            array = array.astype(native)
    shape = node.shape
    expected = f"feed {name!r}: expected shape {shape_text(shape)}, got {shape_text(array.shape)}"
    if array.ndim != len(shape):
        raise FeedError(expected)
    for want, got in zip(shape, array.shape, strict=True):
        if isinstance(want, int) and want != got:
            raise FeedError(expected)
    return array


_ORDER = "bif"


def _from_python(value: Any, dtype: DType, name: str) -> Array:
    """Return a Python number or nested list as an array of `dtype`: bool fits integers, and both fit floats."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise FeedTypeError(f"feed {name!r}: {error}") from None
    if array.size == 0:
        return np.zeros(array.shape, numpy_dtype(dtype))
    if array.dtype == numpy_dtype(dtype):
        return array
    kind = "i" if array.dtype.kind == "u" else array.dtype.kind
    if kind not in _ORDER:
        raise FeedTypeError(f"feed {name!r}: expected numbers of {dtype}, got {array.dtype}")
    if _ORDER.index(kind) > _ORDER.index(dtype.kind.replace("u", "i")):
        raise FeedError(f"feed {name!r}: expected dtype {dtype}, got Python numbers of kind {array.dtype}")
    if dtype.is_integer and not (dtype.min <= int(array.min()) and int(array.max()) <= dtype.max):
        raise FeedError(f"feed {name!r}: a number is out of bounds for {dtype}")
    with np.errstate(all="ignore"):
        return nearest_half(array, numpy_dtype(dtype)) if dtype.is_half else np.asarray(array.astype(dtype.np))


# ---- dims


def open_dims(order: Sequence[Node], fed: Collection[Node]) -> set[Var]:
    """Return the dims that the nodes of `order` have and that those of them in `fed` do not determine."""
    used: set[Var] = set()
    known: set[Var] = set()
    for node in order:
        into = known if node in fed else used
        for d in node.shape if node in fed else dims_of(node):
            if not isinstance(d, int):
                into |= free_vars(d)
    return used - known


def gives_dims(node: Node, dims: Collection[Var]) -> bool:
    """Tell whether feeding `node` says something about any of `dims`."""
    return any(v in dims for d in node.shape for v in free_vars(d))


def bind_dims(arrays: Mapping[Node, Array], names: Mapping[Node, str]) -> dict[Var, int]:
    """Return the values of the dims in the types of fed nodes. FeedError where two feeds disagree."""
    dims: dict[Var, int] = {}
    origin: dict[Var, str] = {}
    later: list[tuple[Dim, int, str]] = []
    for node, array in arrays.items():
        for axis, (d, size) in enumerate(zip(node.shape, array.shape, strict=True)):
            place = f"axis {axis} of {names[node]!r}"
            if not isinstance(d, Var):
                later.append((d, size, place))
            elif dims.setdefault(d, size) != size:
                raise FeedError(f"dim {d.name} is {dims[d]} by {origin[d]} but {size} by {place}")
            else:
                origin.setdefault(d, place)
    for _ in range(len(later)):
        later = [item for item in later if not _solve(*item, dims)]
    return dims


def _solve(d: Dim, size: int, place: str, dims: dict[Var, int]) -> bool:
    """Check that `d` is `size`, or find the value of the one dim in it that is unknown. False if that must wait."""
    unknown = free_vars(d) - dims.keys()
    if not unknown:
        value = evaluate_index(d, dims)
        if value != size:
            raise FeedError(f"{dim_text(d)} is {value} by other feeds, but {place} has size {size}")
        return True
    if len(unknown) > 1:
        return False
    (var,) = unknown
    split = split_linear(d, var)
    if split is None:
        return False
    stride, rest = (evaluate_index(e, dims) for e in split)
    value, left = divmod(size - rest, stride) if stride else (0, 1)
    if left or value < 0:
        raise FeedError(f"{place} has size {size}, which {dim_text(d)} cannot be")
    dims[var] = value
    return True


def _check_dims_are_known(order: Sequence[Node], fed: Collection[Node], dims: Mapping[Var, int]) -> None:
    known = set(dims)
    for node in order:
        for d in node.shape if node in fed else dims_of(node):
            for var in free_vars(d) - known:
                raise FeedError(at_site(f"dim {var.name} of {node!r} is set by no feed", node.site))


def dims_of(node: Node) -> Iterator[Dim]:
    """Yield the dims in the type of `node` and in its attributes, which may have others."""
    yield from node.shape
    for _, value in node.attrs:
        yield from _dims_in(value)


def _dims_in(value: Any) -> Iterator[Dim]:
    """Yield the symbolic dims in attribute `value`."""
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, tuple):
        for x in value:
            yield from _dims_in(x)


def check_guards(order: Sequence[Node], dims: Mapping[Var, int], skip: Mapping[Node, Any]) -> None:
    """Check the equalities of dims that inference of the nodes of `order` left open, but not of those in `skip`."""
    for node in order:
        if node in skip:
            continue
        for left, right, why, is_index in node.guards:
            a, b = evaluate_index(left, dims), evaluate_index(right, dims)
            if a != b:
                error = FeedIndexError if is_index else FeedError
                raise error(at_site(f"{why}: {dim_text(left)} is {a}, {dim_text(right)} is {b}", node.site))
