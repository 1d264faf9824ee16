"""Tensors: what users hold. Operators, methods and numpy functions on a :class:`Tensor` build nodes; no logic here.

There is one Tensor per Node as long as anyone holds it, so Tensors are compared and hashed by identity and serve as
keys of feeds. `lift` makes a public function, which returns Tensors, of an operator function, which returns Nodes.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NoReturn, ParamSpec

import numpy as np

from jitflow import numpy_protocol
from jitflow.dtypes import DType
from jitflow.errors import DeviceError, GraphError, JitflowError, LimitError, ShapeError
from jitflow.fork import after_fork_in_child
from jitflow.graph import Node, check_name, located
from jitflow.ops import (
    at,
    cast,
    compare,
    elementwise,
    exponential,
    index,
    indexing,
    logic,
    movement,
    naming,
    rearranging,
    reduce,
    scan,
    selection,
    sorting,
)
from jitflow.ops.axes import DEVICE, Axis, check_device
from jitflow.ops.matmul import matmul
from jitflow.public import SPACES
from jitflow.types import SymDim, element_count, public_dim, shape_text

P = ParamSpec("P")
#: Versions of the array API standard that `jitflow` answers to; each extends the one before.
API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
_LOCK = threading.Lock()


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.Lock()


after_fork_in_child(_renew_lock)


def as_tensor(node: Node) -> Tensor:
    """Return the Tensor of `node`: the same one as long as it is alive."""
    known = node.tensor
    tensor: Tensor | None = None if known is None else known()
    if tensor is not None:
        return tensor
    with _LOCK:
        tensor = None if node.tensor is None else node.tensor()
        if tensor is None:
            tensor = object.__new__(Tensor)
            tensor.node = node
            node.tensor = weakref.ref(tensor)
        return tensor


@functools.cache
def lift(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return operator function `function` as users call it: Tensors where it gives Nodes, else the same."""

    @functools.wraps(function)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        try:
            made = function(*args, **kwargs)
        except RecursionError:
            raise _too_deep(function) from None
        except JitflowError as error:
            raise _of(function, error) from None
        return as_tensor(made) if isinstance(made, Node) else type(made)(map(as_tensor, made))

    _describe(lifted, function)
    return lifted


def functions_of(space: str) -> dict[str, Callable[..., Any]]:
    """Return the functions that operators make public in name space `space`, by name, lifted."""
    return {name: lift(function) for name, function in sorted(SPACES[space].items())}


def _too_deep(function: Callable[..., Any]) -> JitflowError:
    """Return the error for a list that holds itself, or nearly: graphs themselves may be as deep as they like."""
    return located(LimitError(f"{function.__name__}: an argument is nested too deeply"))


def _of(function: Callable[..., Any], error: JitflowError) -> JitflowError:
    """Return `error` with the name of the function that the user called at the beginning, if it is not there yet."""
    name, text = function.__name__, str(error)
    return error if re.match(rf"{name}\b", text) else located(type(error)(f"{name}: {text}"))


def _describe(lifted: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Make `lifted` read as users are to see `function`."""
    lifted.__module__ = "jitflow"
    lifted.__doc__ = re.sub(r"^( *)Node$", r"\1Tensor", function.__doc__ or "", flags=re.MULTILINE)
    given = inspect.signature(function)  # takes a tenth of a millisecond, and there are hundreds of functions
    result = str(given.return_annotation).replace("Node", "Tensor")
    lifted.__signature__ = given.replace(return_annotation=result)  # type: ignore[attr-defined]


def _is_operand(x: object) -> bool:
    return isinstance(x, (Tensor, Node, bool, int, float, np.ndarray, np.generic, list, tuple))


def _operator(function: Callable[[Any, Any], Node]) -> Callable[[Tensor, Any], Any]:
    """Return the method of a binary operator. For operands that are no tensors Python goes on looking."""

    def method(self: Tensor, other: Any) -> Any:
        try:
            return as_tensor(function(self.node, other)) if _is_operand(other) else NotImplemented
        except JitflowError as error:
            raise _of(function, error) from None

    return method


def _reflected(function: Callable[[Any, Any], Node]) -> Callable[[Tensor, Any], Any]:
    """Return the method of a binary operator whose left operand is no Tensor."""

    def method(self: Tensor, other: Any) -> Any:
        try:
            return as_tensor(function(other, self.node)) if _is_operand(other) else NotImplemented
        except JitflowError as error:
            raise _of(function, error) from None

    return method


class Tensor:
    """A value in a graph that has not been computed yet.

    Made by `placeholder`, `variable`, `constant` and every function of jitflow; immutable. It has a dtype and a shape,
    whose dims may be symbolic, and a value only in a run: see `Session`, `interpret`. ``==`` builds a comparison like
    any other operator; to ask whether two names are the same Tensor, use ``is``.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("batch", 3))
    >>> y = jf.exp(x[:, 1:]) * 2.0
    >>> y
    Tensor(multiply, float32, (batch, 2))
    >>> y.shape == ("batch", 2)
    True
    """

    __slots__ = ("__weakref__", "node")

    node: Node

    #: numpy's operators leave an ndarray with a Tensor to `__array_ufunc__`; older array types look at this.
    __array_priority__ = 1000

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Tensors are made by jf.placeholder, jf.variable, jf.constant and the functions of jitflow")

    # ---- what it is

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.node.dtype

    @property
    def shape(self) -> tuple[int | SymDim, ...]:
        """The dims: ints, or symbolic dims, which equal their names. It compares equal to a plain tuple."""
        return tuple(public_dim(d) for d in self.node.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.node.type.rank

    @property
    def size(self) -> int | SymDim:
        """The number of elements."""
        return public_dim(element_count(self.node.shape))

    @property
    def device(self) -> str:
        """Always "session": the session that runs a graph chooses the device."""
        return DEVICE

    def to_device(self, device: Any, /, *, stream: None = None) -> Tensor:
        """Return it as it is; for code that is written for any array library.

        Raises
        ------
        DeviceError
            For another `device` than "session", or a `stream`.
        """
        check_device(device, "to_device")
        if stream is not None:
            raise located(DeviceError("to_device: a tensor that has not been computed is on no stream"))
        return self

    def __array_namespace__(self, /, *, api_version: str | None = None) -> ModuleType:
        if api_version not in (None, *API_VERSIONS):
            raise located(GraphError(f"there is no version {api_version!r} of the array API here: {API_VERSIONS}"))
        return sys.modules["jitflow"]

    @property
    def name(self) -> str | None:
        """The name given to it, or None."""
        return self.node.name

    def __repr__(self) -> str:
        label = self.node.op.name if self.name is None else repr(self.name)
        return f"Tensor({label}, {self.dtype}, {shape_text(self.node.shape)})"

    def named(self, name: str) -> Tensor:
        """Return the same value under `name`, by which it can be fetched and fed and which dumps show.

        Examples
        --------
        >>> import jitflow as jf
        >>> x = jf.placeholder("x", jf.float32, ())
        >>> jf.Session(jf.exp(x).named("y")).run("y", {"x": 0.0})
        array(1., dtype=float32)
        """
        return as_tensor(naming.named(self.node, checked_name(name)))

    # ---- operators

    __add__, __radd__ = _operator(elementwise.add), _reflected(elementwise.add)
    __sub__, __rsub__ = _operator(elementwise.subtract), _reflected(elementwise.subtract)
    __mul__, __rmul__ = _operator(elementwise.multiply), _reflected(elementwise.multiply)
    __truediv__, __rtruediv__ = _operator(elementwise.divide), _reflected(elementwise.divide)
    __floordiv__, __rfloordiv__ = _operator(elementwise.floor_divide), _reflected(elementwise.floor_divide)
    __mod__, __rmod__ = _operator(elementwise.remainder), _reflected(elementwise.remainder)
    __pow__, __rpow__ = _operator(exponential.pow), _reflected(exponential.pow)
    __matmul__, __rmatmul__ = _operator(matmul), _reflected(matmul)
    __and__, __rand__ = _operator(logic.bitwise_and), _reflected(logic.bitwise_and)
    __or__, __ror__ = _operator(logic.bitwise_or), _reflected(logic.bitwise_or)
    __xor__, __rxor__ = _operator(logic.bitwise_xor), _reflected(logic.bitwise_xor)
    __lshift__, __rlshift__ = _operator(logic.bitwise_left_shift), _reflected(logic.bitwise_left_shift)
    __rshift__, __rrshift__ = _operator(logic.bitwise_right_shift), _reflected(logic.bitwise_right_shift)
    __lt__, __le__ = _operator(compare.less), _operator(compare.less_equal)
    __gt__, __ge__ = _operator(compare.greater), _operator(compare.greater_equal)
    __eq__ = _operator(compare.equal)
    __ne__ = _operator(compare.not_equal)
    __hash__ = object.__hash__

    def __neg__(self) -> Tensor:
        return as_tensor(elementwise.negative(self.node))

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return as_tensor(elementwise.abs(self.node))

    def __invert__(self) -> Tensor:
        return as_tensor(logic.bitwise_invert(self.node))

    def __getitem__(self, key: Any) -> Tensor:
        return as_tensor(indexing.getitem(self.node, key))

    @property
    def at(self) -> Updates:
        """``x.at[key].set(value)``: this tensor with ``x[key]`` replaced; see `Updates`."""
        return Updates(self)

    # ---- methods that numpy users type without thinking

    # The standard's functions take `axis` by keyword only; methods take it as the first argument too, as numpy's do.

    def sum(self, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
        """Return the sum over `axis` (None: over all); see `jitflow.sum`."""
        return as_tensor(reduce.sum(self.node, axis=axis, dtype=dtype, keepdims=keepdims))

    def prod(self, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
        """Return the product over `axis` (None: over all); see `jitflow.prod`."""
        return as_tensor(reduce.prod(self.node, axis=axis, dtype=dtype, keepdims=keepdims))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the mean over `axis` (None: over all); see `jitflow.mean`."""
        return as_tensor(reduce.mean(self.node, axis=axis, keepdims=keepdims))

    def var(self, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        """Return the variance over `axis` (None: over all); see `jitflow.var`."""
        return as_tensor(reduce.var(self.node, axis=axis, correction=correction, keepdims=keepdims))

    def std(self, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        """Return the standard deviation over `axis` (None: over all); see `jitflow.std`."""
        return as_tensor(reduce.std(self.node, axis=axis, correction=correction, keepdims=keepdims))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the greatest element over `axis` (None: over all), NaN if there is one; see `jitflow.max`."""
        return as_tensor(reduce.max(self.node, axis=axis, keepdims=keepdims))

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the least element over `axis` (None: over all), NaN if there is one; see `jitflow.min`."""
        return as_tensor(reduce.min(self.node, axis=axis, keepdims=keepdims))

    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return whether any element over `axis` (None: over all) is true; see `jitflow.any`."""
        return as_tensor(reduce.any(self.node, axis=axis, keepdims=keepdims))

    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return whether all elements over `axis` (None: over all) are true; see `jitflow.all`."""
        return as_tensor(reduce.all(self.node, axis=axis, keepdims=keepdims))

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the position of the first greatest element along `axis`; see `jitflow.argmax`."""
        return as_tensor(reduce.argmax(self.node, axis=axis, keepdims=keepdims))

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the position of the first least element along `axis`; see `jitflow.argmin`."""
        return as_tensor(reduce.argmin(self.node, axis=axis, keepdims=keepdims))

    def cumsum(self, axis: int | None = None, dtype: Any = None) -> Tensor:
        """Return the running sums along `axis` (None: of all elements in row-major order); see `cumulative_sum`."""
        x = movement.reshape(self.node, (-1,)) if axis is None else self.node
        return as_tensor(scan.cumulative_sum(x, axis=axis, dtype=dtype))

    def cumprod(self, axis: int | None = None, dtype: Any = None) -> Tensor:
        """Return the running products along `axis` (None: of all elements); see `jitflow.cumulative_prod`."""
        x = movement.reshape(self.node, (-1,)) if axis is None else self.node
        return as_tensor(scan.cumulative_prod(x, axis=axis, dtype=dtype))

    def argsort(self, axis: int = -1, descending: bool = False) -> Tensor:
        """Return the positions of the elements in ascending order along `axis`; see `jitflow.argsort`."""
        return as_tensor(sorting.argsort(self.node, axis=axis, descending=descending))

    def searchsorted(self, v: Any, side: str = "left", sorter: Any = None) -> Tensor:
        """Return where the elements of `v` belong in this sorted vector; see `jitflow.searchsorted`."""
        return as_tensor(sorting.searchsorted(self.node, v, side=side, sorter=sorter))

    def astype(self, dtype: Any, copy: bool = True) -> Tensor:
        """Return the elements converted to `dtype`; see `jitflow.astype`."""
        return as_tensor(cast.astype(self.node, dtype))

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """Return the elements, those outside `min` .. `max` replaced by the nearest bound; see `jitflow.clip`."""
        return as_tensor(selection.clip(self.node, min, max))

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Tensor:
        """Return it without axes of size 1; see `jitflow.squeeze`."""
        return as_tensor(movement.squeeze(self.node, axis))

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        """Return the elements at `indices` along `axis`; see `jitflow.take`."""
        return as_tensor(index.take(self.node, indices, axis=axis))

    def reshape(self, *shape: Any) -> Tensor:
        """Return the elements in another shape, given as one tuple or as several dims; one dim may be -1."""
        return as_tensor(movement.reshape(self.node, shape[0] if len(shape) == 1 else shape))

    def transpose(self, *axes: Any) -> Tensor:
        """Return the axes in another order, given as one tuple or as several numbers; reversed by default."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return as_tensor(movement.permute_dims(self.node, order or range(self.ndim)[::-1]))

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Return it with two axes exchanged; see `jitflow.swapaxes`."""
        return as_tensor(rearranging.swapaxes(self.node, axis1, axis2))

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        """Return it with elements repeated along `axis`; see `jitflow.repeat`."""
        return as_tensor(rearranging.repeat(self.node, repeats, axis=axis))

    def round(self) -> Tensor:
        """Return the elements rounded to whole numbers, halves to even; see `jitflow.round`."""
        return as_tensor(elementwise.round(self.node))

    def flatten(self) -> Tensor:
        """Return the elements in row-major order as one axis."""
        return as_tensor(movement.reshape(self.node, (-1,)))

    ravel = flatten

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.transpose()

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        if self.ndim < 2:
            raise located(ShapeError(f"x.mT needs two axes or more, got shape {shape_text(self.node.shape)}"))
        return as_tensor(movement.permute_dims(self.node, (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)))

    # ---- numpy's functions

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Tensor:
        return as_tensor(numpy_protocol.apply_ufunc(ufunc, method, inputs, kwargs))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = numpy_protocol.apply_function(func, args, kwargs)
        if isinstance(result, (list, tuple)):
            return type(result)(as_tensor(x) if isinstance(x, Node) else x for x in result)
        return as_tensor(result) if isinstance(result, Node) else result

    # ---- what a value could do and a Tensor cannot

    def _no_value(self, wanted: str) -> NoReturn:
        raise TypeError(
            f"{wanted} is not possible: {self!r} has no value before it is run; "
            "use jf.interpret(tensor, feeds) or jf.Session([tensor]).run(tensor, feeds)"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self._no_value("making an array of a Tensor")

    def __dlpack__(self, **_: Any) -> NoReturn:
        self._no_value("exporting a Tensor by DLPack")

    def __dlpack_device__(self) -> NoReturn:
        self._no_value("exporting a Tensor by DLPack")

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} has no truth value before it is run; choose by jf.where(condition, x, y), "
            "combine conditions by & | ~, and compare Tensors for identity by 'is'"
        )

    def __float__(self) -> NoReturn:
        self._no_value("float(tensor)")

    def __int__(self) -> NoReturn:
        self._no_value("int(tensor)")

    def __complex__(self) -> NoReturn:
        self._no_value("complex(tensor)")

    def item(self) -> NoReturn:
        """Raise TypeError: a Tensor has no value before it is run."""
        self._no_value("tensor.item()")

    def numpy(self) -> NoReturn:
        """Raise TypeError: a Tensor has no value before it is run."""
        self._no_value("tensor.numpy()")

    def _length(self, wanted: str) -> int:
        if not self.ndim:
            raise TypeError(f"{wanted} is not possible: {self!r} has no axes")
        first = self.node.shape[0]
        if not isinstance(first, int):
            raise TypeError(f"{wanted} is not possible: dim {shape_text((first,))[1:-2]} of {self!r} is symbolic")
        return first

    def __len__(self) -> int:
        return self._length("len(tensor)")

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(self._length("iterating over a Tensor")))

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError("'in' is not possible on a Tensor: use jf.any(tensor == value)")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError("Tensors are immutable: build a new one, for example with jf.where or jf.concat")

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Tensors are not pickled: write the graph as text with jf.show_graph")


class Updates:
    """``x.at``, which takes a key: ``x.at[key].set(value)`` is `x` after ``x[key] = value``, as a new Tensor.

    A key is any that ``x[key]`` takes, or a computed boolean mask. ``set``, ``add``, ``multiply``, ``min`` and
    ``max`` change the elements that it picks; ``get`` returns them. Where an index is named several times,
    ``set`` keeps the last value and the others apply all, in row-major order of the indices. Values broadcast to the
    elements picked; those of a computed mask are the same for all of them.

    Raises
    ------
    DTypeError
        If the dtype of the tensor does not hold the value.
    ShapeError
        If the value does not broadcast.
    IndexRangeError
        While the graph runs, for an index outside its axis; nothing is written then.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([1, 2, 3, 4])
    >>> jf.interpret([x.at[1:3].set(0), x.at[[0, 0, 3]].add(10)], {})
    [array([1, 0, 0, 4]), array([21,  2,  3, 14])]
    """

    __slots__ = ("_key", "_x")

    def __init__(self, x: Tensor, key: Any = ...) -> None:
        self._x, self._key = x, key

    def __getitem__(self, key: Any) -> Updates:
        return Updates(self._x, key)

    def __repr__(self) -> str:
        return f"{self._x!r}.at[{self._key!r}]"

    def _changed(self, value: Any, mode: str) -> Tensor:
        return as_tensor(at.update_at(self._x.node, self._key, value, mode))

    def set(self, value: Any) -> Tensor:
        """Return the tensor with the elements replaced by `value`."""
        return self._changed(value, "set")

    def add(self, value: Any) -> Tensor:
        """Return the tensor with `value` added to the elements."""
        return self._changed(value, "add")

    def multiply(self, value: Any) -> Tensor:
        """Return the tensor with the elements multiplied by `value`."""
        return self._changed(value, "mul")

    def min(self, value: Any) -> Tensor:
        """Return the tensor with each element the lesser of it and `value`."""
        return self._changed(value, "min")

    def max(self, value: Any) -> Tensor:
        """Return the tensor with each element the greater of it and `value`."""
        return self._changed(value, "max")

    def get(self) -> Tensor:
        """Return the elements themselves."""
        return self._x[self._key]


def checked_name(name: Any) -> str:
    """Return `name` if it can name a node; errors carry the user's line."""
    try:
        check_name(name)
    except JitflowError as error:
        raise located(error) from None
    return str(name)
