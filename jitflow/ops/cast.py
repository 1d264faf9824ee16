"""astype, and the promotion of operands to one dtype; every other operator takes inputs of a single dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, as_dtype, float32, float64, float_of, int64, numpy_dtype, promote
from jitflow.errors import DTypeError
from jitflow.expr import Expr, cast
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, as_operands, define_op, located
from jitflow.halves import nearest_half
from jitflow.ops.axes import check_device
from jitflow.ops.testdata import Array, draw, edges
from jitflow.public import public
from jitflow.types import TensorType


def cast_array(x: Array, dtype: DType) -> Array:
    """Return array `x` in `dtype`: float to integer truncates, saturates and sends NaN to 0; integers wrap."""
    of, source = numpy_dtype(dtype), as_dtype(x.dtype)
    with np.errstate(all="ignore"):
        if source.is_half:
            x = x.astype(np.float32)
        if dtype.is_half:
            return nearest_half(x, of)
        if not (source.is_float and dtype.is_integer):
            return np.asarray(x.astype(of))
        # 2**63 is a float but no int64, hence the comparison with max + 1, which float32 and float64 hold.
        high, low = float(dtype.max + 1), float(dtype.min)
        whole = np.trunc(x)
        inside = (whole < high) & (whole >= low)
        out = np.where(inside, whole, 0).astype(of)
        out = np.where(whole >= high, of.type(dtype.max), out)
        return np.asarray(np.where(whole < low, of.type(dtype.min), out))


def _infer(x: TensorType, *, dtype: DType) -> TensorType:
    return TensorType(dtype, x.shape)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for source in SUPPORTED:
        for dtype in SUPPORTED:
            yield Sample((edges(source),), {"dtype": dtype}, smooth=False)
    yield Sample((draw(rng, float64, 2, 3),), {"dtype": float64})
    yield Sample((draw(rng, float32),), {"dtype": int64}, smooth=False)
    yield Sample((draw(rng, float32, 0, 3),), {"dtype": int64}, smooth=False)
    near = [2.0**31 - 1, 2.0**31, 2.0**63, -(2.0**63), -(2.0**63) - 2048, 2.0**63 - 1024, 0.999, -0.999, 1e30]
    for dtype in SUPPORTED:
        yield Sample((np.array(near),), {"dtype": dtype}, smooth=False)
    # Ties that a detour over float64 would round twice.
    yield Sample((np.array([2**24 + 1, 2**54 + 2**30 + 1, 2**62 + 2**38 + 1]),), {"dtype": float32}, smooth=False)


astype_op: OpDef = define_op(
    "astype",
    infer=_infer,
    element=lambda index, x, *, dtype: _element(index, x, dtype),
    numpy=lambda x, *, dtype: cast_array(x, dtype),
    vjp=lambda ct, out, x, *, dtype: (astype_op(ct, dtype=x.dtype) if x.dtype.is_float and dtype.is_float else None,),
    samples=_samples,
    exact=True,
    storage=True,
)


def _element(index: Index, x: Reader, dtype: DType) -> Expr:
    return cast(x(*index), dtype)


@public()
def astype(x: Operand, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Node:
    """Return `x` with its elements converted to `dtype`.

    Floats become integers by truncation; what does not fit saturates, NaN gives 0. Integers wrap around into narrower
    ones. Anything becomes bool as ``x != 0``. To floats, the nearest value is taken (ties to even).

    Parameters
    ----------
    x
        Any tensor.
    dtype
        The dtype wanted: jitflow's, numpy's or its name.
    copy
        Accepted for the standard's sake; tensors are values.
    device
        Accepted for the standard's sake: None or "session", since the session that runs a graph chooses the device.

    Raises
    ------
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.astype(jf.constant([1.9, -1.9, 1e30]), jf.int32), {})
    array([         1,         -1, 2147483647], dtype=int32)
    """
    check_device(device, "astype")
    return as_dtype_of(as_node(x), checked_dtype(dtype))


def checked_dtype(dtype: Any) -> DType:
    """Return a dtype as users give it; errors carry their line."""
    try:
        return as_dtype(dtype)
    except DTypeError as error:
        raise located(error) from None


def as_dtype_of(x: Node, dtype: DType) -> Node:
    """Return `x` in `dtype`, as it is if it already has it."""
    return x if x.dtype is dtype else astype_op(x, dtype=dtype)


_KINDS = {"b": "bool", "i": "integers", "f": "floats"}


def check_kinds(what: str, dtype: DType, kinds: str) -> None:
    """Raise DTypeError unless `dtype` is of `kinds`: letters as of `DType.kind`, of which i stands for u too."""
    if dtype.kind.replace("u", "i") not in kinds:
        takes = " and ".join(_KINDS[k] for k in kinds)
        raise DTypeError(f"{what} takes {takes}, not {dtype}; convert with astype")


def as_numbers(x: Operand, what: str) -> Node:
    """Return `x` as a node of integers or floats; DTypeError for bool."""
    node = as_node(x)
    try:
        check_kinds(what, node.dtype, "if")
    except DTypeError as error:
        raise located(error) from None
    return node


def as_float(x: Operand) -> Node:
    """Return `x` as a node, bool and integers as float64."""
    node = as_node(x)
    return as_dtype_of(node, float_of(node.dtype))


def promoted(*xs: Operand) -> tuple[Node, ...]:
    """Return operands as nodes of the one dtype they promote to (NEP 50: Python scalars are weak)."""
    nodes = as_operands(*xs)
    dtype = nodes[0].dtype
    for x in nodes[1:]:
        dtype = promote(dtype, x.dtype)
    return tuple(as_dtype_of(x, dtype) for x in nodes)


def promoted_floats(*xs: Operand) -> tuple[Node, ...]:
    """Return operands as nodes of the one float dtype they promote to, float64 if that is bool or an integer."""
    return tuple(as_float(x) for x in promoted(*xs))
