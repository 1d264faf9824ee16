"""One tensor into several along an axis: unstack, split, array_split, hsplit, vsplit, dsplit. Each part is a slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitflow.errors import ShapeError
from jitflow.graph import Node, Operand, as_node, located
from jitflow.ops.axes import as_int, normalize_axis
from jitflow.ops.indexing import getitem
from jitflow.ops.movement import reshape_to
from jitflow.ops.slicing import slice_axes
from jitflow.public import public
from jitflow.types import SymDim, dim_text, shape_text


def _known_size(x: Node, axis: int, what: str) -> int:
    n = x.shape[axis]
    if not isinstance(n, int):
        shape = shape_text(x.shape)
        raise located(ShapeError(f"{what}: into how many depends on dim {dim_text(n)}, axis {axis} of {shape}"))
    return n


@public()
def unstack(x: Operand, /, *, axis: int = 0) -> tuple[Node, ...]:
    """Return the slices of `x` along `axis`, which they lack.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For a symbolic axis: how many slices there are must be known.

    Examples
    --------
    >>> import jitflow as jf
    >>> a, b = jf.unstack(jf.constant([[1, 2], [3, 4]]), axis=1)
    >>> jf.interpret(b, {})
    array([2, 4])
    """
    node = as_node(x)
    k = normalize_axis(axis, len(node.shape), "unstack")
    shape = (*node.shape[:k], *node.shape[k + 1 :])
    parts = (slice_axes(node, {k: (i, 1, 1)}) for i in range(_known_size(node, k, "unstack")))
    return tuple(reshape_to(part, shape) for part in parts)


@public()
def split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Node]:
    """Return `x` cut along `axis` into equal parts, or at the places given, as ``np.split`` does.

    Parameters
    ----------
    x
        Any tensor.
    indices_or_sections
        The number of parts; or the ascending places where parts begin, which may be dims.
    axis
        The axis to cut.

    Raises
    ------
    ShapeError
        If equal parts are not possible, or the number of elements to share out is symbolic.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        For a number of parts that is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> [part.shape for part in jf.split(jf.zeros((6, 2)), 3)]
    [(2, 2), (2, 2), (2, 2)]
    >>> [part.shape for part in jf.split(jf.zeros((6, 2)), [1, 4])]
    [(1, 2), (3, 2), (2, 2)]
    """
    return _split(x, indices_or_sections, axis, "split", equal=True)


@public()
def array_split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Node]:
    """Return `x` cut along `axis` as `split` does, but the first parts may be longer by one element.

    Raises
    ------
    ShapeError
        For a number of parts below one, or a symbolic axis to share out.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        For a number of parts that is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> [part.shape for part in jf.array_split(jf.zeros((5,)), 3)]
    [(2,), (2,), (1,)]
    """
    return _split(x, indices_or_sections, axis, "array_split", equal=False)


def _split(x: Operand, sections: Any, axis: int, what: str, equal: bool) -> list[Node]:
    node = as_node(x)
    k = normalize_axis(axis, len(node.shape), what)
    if isinstance(sections, (list, tuple, range)) or (isinstance(sections, np.ndarray) and sections.ndim == 1):
        places: list[Any] = [p if isinstance(p, SymDim) else as_int(p, f"{what}: a place") for p in sections]
        starts, stops = [None, *places], [*places, None]
        return [getitem(node, (*[slice(None)] * k, slice(a, b))) for a, b in zip(starts, stops, strict=True)]
    count = as_int(sections, f"{what}: the number of parts")
    if count < 1:
        raise located(ShapeError(f"{what}: the number of parts must be positive, got {count}"))
    size, longer = divmod(_known_size(node, k, what), count)
    if equal and longer:
        where = f"axis {k} of {shape_text(node.shape)}"
        raise located(ShapeError(f"{what}: {where} does not divide into {count} equal parts"))
    parts = []
    start = 0
    for i in range(count):
        extent = size + (i < longer)
        parts.append(slice_axes(node, {k: (start, extent, 1)}))
        start += extent
    return parts


@public()
def hsplit(x: Operand, indices_or_sections: int | Sequence[int]) -> list[Node]:
    """Return `x` cut along its second axis, a vector along its only one; see `split`.

    Raises
    ------
    ShapeError
        For a tensor without axes, and as `split`.

    Examples
    --------
    >>> import jitflow as jf
    >>> [part.shape for part in jf.hsplit(jf.zeros((2, 4)), 2)]
    [(2, 2), (2, 2)]
    """
    node = _of_rank(x, 1, "hsplit")
    return _split(node, indices_or_sections, 1 if len(node.shape) > 1 else 0, "hsplit", equal=True)


@public()
def vsplit(x: Operand, indices_or_sections: int | Sequence[int]) -> list[Node]:
    """Return `x` cut along its first axis; see `split`.

    Raises
    ------
    ShapeError
        For a tensor of fewer than two axes, and as `split`.

    Examples
    --------
    >>> import jitflow as jf
    >>> [part.shape for part in jf.vsplit(jf.zeros((4, 3)), [1])]
    [(1, 3), (3, 3)]
    """
    return _split(_of_rank(x, 2, "vsplit"), indices_or_sections, 0, "vsplit", equal=True)


@public()
def dsplit(x: Operand, indices_or_sections: int | Sequence[int]) -> list[Node]:
    """Return `x` cut along its third axis; see `split`.

    Raises
    ------
    ShapeError
        For a tensor of fewer than three axes, and as `split`.

    Examples
    --------
    >>> import jitflow as jf
    >>> [part.shape for part in jf.dsplit(jf.zeros((2, 3, 4)), 2)]
    [(2, 3, 2), (2, 3, 2)]
    """
    return _split(_of_rank(x, 3, "dsplit"), indices_or_sections, 2, "dsplit", equal=True)


def _of_rank(x: Operand, least: int, what: str) -> Node:
    node = as_node(x)
    if len(node.shape) < least:
        raise located(ShapeError(f"{what}: a tensor of rank {least} or more is needed, got {shape_text(node.shape)}"))
    return node
