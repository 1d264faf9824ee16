"""Where graphs begin: placeholders, variables and constants, made of names, shapes and arrays as users give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from jitflow.dtypes import DType, as_dtype, numpy_dtype
from jitflow.errors import DTypeError, GraphError, JitflowError
from jitflow.graph import Node, located, make_constant, make_placeholder, make_variable, scalar_array
from jitflow.ops import cast
from jitflow.ops.axes import check_device
from jitflow.tensor import Tensor, as_tensor, checked_name
from jitflow.types import as_shape


def placeholder(name: str | None, dtype: Any, shape: Any) -> Tensor:
    """Return an input, fed in every run that needs it.

    Parameters
    ----------
    name : str or None
        What to call it in feeds, messages and dumps. Two placeholders of one name cannot be in the same session.
    dtype : dtype
        ``jf.float32`` or anything numpy takes for it.
    shape : tuple
        Each dim is an int, a name (the same name is the same dim everywhere), ``None`` (a dim like no other), or
        arithmetic on dims of other Tensors, such as ``2 * x.shape[0]``.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.placeholder("images", jf.float32, ("batch", 28, 28))
    Tensor('images', float32, (batch, 28, 28))
    """
    if name is not None:
        checked_name(name)
    try:
        return as_tensor(make_placeholder(name, as_dtype(dtype), as_shape(shape)))
    except JitflowError as error:
        label = "" if name is None else f" {name!r}"
        raise located(type(error)(f"placeholder{label}: {error}")) from None


def variable(name: str | None, value: Any) -> Tensor:
    """Return a variable: state that a session owns and that starts as a copy of `value`.

    Parameters
    ----------
    name : str or None
        What to call it in messages and dumps.
    value : array, number or nested list
        Its first value, which also fixes dtype and shape.

    Examples
    --------
    >>> import jitflow as jf
    >>> import numpy as np
    >>> jf.variable("weights", np.zeros((3, 2), np.float32))
    Tensor('weights', float32, (3, 2))
    """
    if name is not None:
        checked_name(name)
    try:
        return as_tensor(make_variable(name, _as_array(value, "variable")))
    except JitflowError as error:
        raise located(error) from None


def constant(value: Any, dtype: Any = None) -> Tensor:
    """Return `value` as a Tensor that never changes.

    Parameters
    ----------
    value : array, number or nested list
        Copied. Numbers and lists get numpy's dtype: int64, float64 or bool.
    dtype : dtype, optional
        The dtype to convert to.

    Raises
    ------
    DTypeError
        If `value` is no array of numbers, or jitflow has no such dtype.
    OutOfBoundsError
        For a Python integer, alone or in a list, that `dtype` does not hold.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.constant([1.0, 2.0], jf.float32)
    Tensor(constant, float32, (2,))
    """
    try:
        to = None if dtype is None else as_dtype(dtype)
        if to is not None and isinstance(value, (bool, int, float)):
            return as_tensor(make_constant(value, to))
        if to is not None and isinstance(value, (list, tuple)):
            value = _integers_as(value, to)
        array = _as_array(value, "constant")
        return as_tensor(make_constant(array if to is None else cast.cast_array(array, to)))
    except JitflowError as error:
        raise located(error) from None


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """Return `obj` as a Tensor: a Tensor is returned as it is (or converted to `dtype`), all else is a constant.

    Parameters
    ----------
    obj : Tensor, array, number or nested list
    dtype : dtype, optional
        The dtype to convert to.
    device : optional
        Accepted for the standard's sake: None or "session", since the session that runs a graph chooses the device.
    copy : bool, optional
        Tensors are values, which nobody can change, so True changes nothing. Constants are copied: False is an error.

    Raises
    ------
    GraphError
        For a `copy` of False of anything but a Tensor.
    DTypeError
        If `obj` is no array of numbers, or jitflow has no such dtype.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.asarray([1, 2], dtype=jf.float32)
    Tensor(constant, float32, (2,))
    """
    check_device(device, "asarray")
    if isinstance(obj, Tensor):
        return obj if dtype is None else as_tensor(cast.astype(obj.node, dtype))
    if copy is False:
        _refuse_to_share(obj, "asarray")
    return constant(obj, dtype)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """Return an array of another library, in memory that the CPU reaches, as a constant; a Tensor as it is.

    Errors of the other library are passed on: AttributeError if it has no DLPack, BufferError for memory of a GPU.

    Parameters
    ----------
    x : array
        Copied: constants never change.
    device : optional
        None or "session", since the session that runs a graph chooses the device.
    copy : bool, optional
        False is an error.

    Raises
    ------
    GraphError
        For a `copy` of False of anything but a Tensor.
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> import numpy as np
    >>> jf.from_dlpack(np.arange(3))
    Tensor(constant, int64, (3,))
    """
    check_device(device, "from_dlpack")
    if isinstance(x, Tensor):
        return x
    if copy is False:
        _refuse_to_share(x, "from_dlpack")
    return constant(np.from_dlpack(x))


def _refuse_to_share(x: Any, what: str) -> NoReturn:
    raise located(GraphError(f"{what}: a constant is a copy of this {type(x).__name__}, so copy=False is impossible"))


def _integers_as(value: Sequence[Any], dtype: DType) -> Any:
    """Return a nested list of Python integers as an array of `dtype` if numpy's own array would not do; else `value`.

    numpy makes float64 of integers that are now below 0 and now above the largest int64, objects of larger ones.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        return value
    kind = array.dtype.kind
    if kind != "O" and not dtype.is_integer:
        return value
    if kind in "biu" and (not array.size or (dtype.min <= int(array.min()) and int(array.max()) <= dtype.max)):
        return value
    items = np.array(value, dtype=object)
    if not all(isinstance(x, int) for x in items.flat):
        return value
    return np.array([scalar_array(x, dtype) for x in items.flat], numpy_dtype(dtype)).reshape(items.shape)


def _as_array(value: Any, what: str) -> np.ndarray[Any, Any]:
    """Return `value` as a native ndarray of a supported dtype; DTypeError says what `what` cannot be made of."""
    if isinstance(value, (Tensor, Node)):
        raise DTypeError(f"a {what} needs values, got {value!r}; use jf.asarray to pass Tensors through")
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"a {what} cannot have masked elements; fill them first, as value.filled(0)")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DTypeError(f"cannot make a {what} of this {type(value).__name__}: {error}") from None
    if array.dtype.kind == "O":
        raise DTypeError(f"cannot make a {what} of {type(value).__name__}: its elements are no numbers")
    try:
        native = numpy_dtype(as_dtype(array.dtype))
    except DTypeError as error:
        raise DTypeError(f"cannot make a {what}: {error}") from None
    return array if array.dtype == native else array.astype(native)
