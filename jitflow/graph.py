"""The dataflow graph: interned, immutable nodes, and what an operator is.

A :class:`Node` is one tensor: an operator applied to nodes, with attributes and an inferred type. Nodes are made by
:func:`make_node` only, so a node without a valid type cannot exist; the same operator on the same inputs with the same
attributes *is* the same node. Equality is identity, and every analysis may keep results in a dict. Where the user
wrote it (`site`, the first place wins) and its Tensor are no part of a node's identity. Nodes never own buffers.

Everything here is iterative: a graph may be 10^5 nodes deep.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeAlias

import numpy as np

from jitflow.dtypes import DType, as_dtype, bool_, float64, int64, numpy_dtype, promote, promote_weak
from jitflow.errors import DTypeError, GraphError, JitflowError, OutOfBoundsError, at_site
from jitflow.expr import Expr, round_to
from jitflow.fork import after_fork_in_child
from jitflow.halves import nearest_half
from jitflow.types import Guard, Shape, TensorType, begin_guards, check_shape, end_guards

Attrs: TypeAlias = tuple[tuple[str, Any], ...]
#: What op functions accept as an operand: a Node, something with a `.node` (a Tensor), an array, a Python scalar.
Operand: TypeAlias = Any

#: Nodes in one graph; over it compilation is refused rather than left to run for hours.
MAX_NODES = 2_000_000
#: Arrays of more bytes are compared by their SHA-256.
MAX_KEPT_BYTES = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """One call of an operator to test: arrays for its inputs, attributes, and the error it must raise, if any."""

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    raises: type[JitflowError] | None = None
    match: str = ""
    #: Whether the vjp may be compared with central differences here (false at kinks and poles).
    smooth: bool = True


class Index(tuple[Expr, ...]):
    """The output subscripts an element rule is asked for, one index expression per axis; `type` is that output's."""

    type: TensorType

    def __new__(cls, subscripts: Iterable[Expr], type: TensorType) -> Index:
        self = super().__new__(cls, subscripts)
        self.type = type
        return self


class Reader(Protocol):
    """An input as an element rule sees it: ``x(i, j)`` is its element there, ``x.type`` its type.

    Subscripts are index expressions, one per axis. An element that is only valid under a condition must be read in an
    arm of a ``Select`` on that condition: ``select(i < n, x(i), y(i - n))``. Nothing is read elsewhere.
    """

    @property
    def type(self) -> TensorType: ...

    def __call__(self, *subscripts: Expr) -> Expr: ...


@dataclass(frozen=True, eq=False)
class OpDef:
    """An operator: everything the rest of jitflow knows about it.

    - `infer(*types, **attrs) -> TensorType` raises ShapeError or DTypeError in the user's terms.
    - `numpy(*arrays, **attrs) -> array` is the oracle's rule; `dims` is passed as a keyword if it names it.
    - one of `element(index, *readers, **attrs) -> Expr`, the value at one output index (fusable by construction);
      `expand(*nodes, **attrs) -> Node`, the same written with other operators; and `kernel(builder, out, *readers,
      **attrs)`, the loops that fill the output (`jitflow.kernel`), for what is not one element at a time.
    - `vjp(ct, out, *inputs, **attrs) -> tuple[Node | None, ...]`: cotangents of the inputs; None: not differentiable.
    - `samples(rng)` yields :class:`Sample` objects, from which the tests of every operator are made.
    - `exact`: folding it by numpy gives the compiled bits (no rounding anywhere), so constants may be folded.
    - `source`: made from nothing but attributes and run-time arrays (placeholder, variable, constant).
    - `costly`: an element takes many instructions, so that computing it twice is worse than storing it.
    - `movement`: an element is some element of an input (or a fill value): index arithmetic only.
    - `storage`: elements are stored, moved, selected or converted, but nothing is computed: it takes float16 and
      bfloat16 as they are, while other operators compute them as float32 (`jitflow.ops.widen`). Implied by `movement`.
    - `fallible`: some values of the inputs are errors, found while it runs (`IndexRangeError`).
    - `ulp`: by how many units in the last place compiled code and the numpy rule may differ; 0: not at all, or, of an
      `expand` that is not exact, by what sums of its inputs may.
    - `scale(*arrays, **attrs)`: the magnitudes whose last places are meant, from those of the inputs (a sum that
      cancels is as exact as its terms are large); None: those of the result.
    - `needs_dims`: the `numpy` rule has a parameter `dims`; found out by `define_op`.
    """

    name: str
    infer: Callable[..., TensorType]
    numpy: Callable[..., Any] | None = None
    element: Callable[..., Expr] | None = None
    expand: Callable[..., Node] | None = None
    kernel: Callable[..., None] | None = None
    vjp: Callable[..., tuple[Node | None, ...]] | None = None
    samples: Callable[[np.random.Generator], Iterable[Sample]] | None = None
    exact: bool = False
    source: bool = False
    costly: bool = False
    movement: bool = False
    storage: bool = False
    fallible: bool = False
    ulp: float = 0.0
    scale: Callable[..., Any] | None = None
    needs_dims: bool = False

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __call__(self, *inputs: Node, **attrs: Any) -> Node:
        return make_node(self, inputs, attrs)


#: Every operator by name, filled by :func:`define_op` as the modules of `jitflow.ops` are imported.
OPS: dict[str, OpDef] = {}


def define_op(name: str, **fields: Any) -> OpDef:
    """Define operator `name`; see :class:`OpDef` for the fields. A name is defined once."""
    if name in OPS:
        raise GraphError(f"operator {name!r} is defined twice")
    numpy_rule = fields.get("numpy")
    if numpy_rule is not None and "needs_dims" not in fields:
        code = getattr(numpy_rule, "__code__", None)
        fields["needs_dims"] = (
            code is not None and "dims" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        )
    op = OpDef(name, **fields)
    if not op.source and [op.element, op.expand, op.kernel].count(None) != 2:
        raise GraphError(f"operator {name!r} needs exactly one of element, expand and kernel")
    OPS[name] = op
    return op


class Node:
    """One tensor of the graph. Made by :func:`make_node`; immutable; equal only to itself.

    `guards` are the equalities of dims that its inference could not decide. `site` is the user's ``file:line``.
    """

    __slots__ = ("__weakref__", "attrs", "guards", "inputs", "op", "serial", "site", "tensor", "type")

    op: OpDef
    inputs: tuple[Node, ...]
    attrs: Attrs
    type: TensorType
    guards: tuple[Guard, ...]
    site: str | None
    serial: int
    #: A weak reference to the Tensor that wraps this node, kept by `jitflow.tensor`.
    tensor: Any

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    def attr(self, name: str, default: Any = None) -> Any:
        """Return attribute `name`, or `default`."""
        for key, value in self.attrs:
            if key == name:
                return value
        return default

    @property
    def name(self) -> str | None:
        """The name the user gave it, or None."""
        found = self.attr("name")
        return found if isinstance(found, str) else None

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"<{self.op.name}{label}: {self.type!r}>"

    def __reduce__(self) -> Any:
        raise TypeError("nodes are not pickled; write the graph as text instead")


_NODES: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()
_LOCK = threading.RLock()
_SERIAL = count()


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.RLock()


after_fork_in_child(_renew_lock)


def make_node(op: OpDef, inputs: Sequence[Node], attrs: dict[str, Any] | None = None) -> Node:
    """Return the node of `op` on `inputs` with `attrs`, inferring its type.

    Errors of inference get the user's file:line appended. Attributes must be hashable; ones whose value is None are
    left out of the key but passed on as given.
    """
    items: Attrs = tuple(sorted(attrs.items())) if attrs else ()
    # Types are part of the key, and floats count by their bits: 0 == False == -0.0 must not merge nodes.
    key = (
        op.name,
        tuple(map(id, inputs)),
        tuple((k, v.__class__, v.hex() if v.__class__ is float else v) for k, v in items),
    )
    try:
        found = _NODES.get(key)
    except TypeError:
        raise located(DTypeError(f"{op.name}: {_unhashable(items)}")) from None
    if found is not None and all(a is b for a, b in zip(found.inputs, inputs, strict=True)):
        return found
    outer = begin_guards()
    try:
        if attrs and "name" in attrs:
            check_name(attrs["name"])
        inferred = op.infer(*(x.type for x in inputs), **(attrs or {}))
        check_shape(inferred.shape)
    except JitflowError as error:
        end_guards(outer)
        raise located(error) from None
    except BaseException:
        end_guards(outer)
        raise
    guards = end_guards(outer)
    node = Node()
    node.op, node.inputs, node.attrs, node.type, node.guards = op, tuple(inputs), items, inferred, guards
    node.site = user_site()
    node.serial = next(_SERIAL)
    node.tensor = None
    with _LOCK:
        return _NODES.setdefault(key, node)


def _unhashable(items: Attrs) -> str:
    """Say which attribute can be none: they are numbers, text and tuples of them."""
    for name, value in items:
        try:
            hash(value)
        except TypeError:
            return f"{name} cannot be {value!r}"
    return "an attribute cannot be hashed"


def check_name(name: Any) -> None:
    """Raise GraphError unless `name` can name a node: comments of generated code hold it, on one line."""
    if not isinstance(name, str):
        raise GraphError(f"a name is a string, got {type(name).__name__}")
    if not name or not name.isprintable():
        raise GraphError(f"{name!r} cannot be a name: it must be one line of printable characters")


def located(error: JitflowError) -> JitflowError:
    """Return `error` with the user's file:line at the end of its message, once."""
    text = str(error)
    if "\n  at " in text:
        return error
    return type(error)(at_site(text, user_site()))


@contextmanager
def within(what: str) -> Iterator[None]:
    """Let errors of the operators that `what` consists of begin with the name of what the user called."""
    try:
        yield
    except JitflowError as error:
        raise located(type(error)(f"{what}: {error}")) from None


_OWN = tuple(str(Path(__file__).resolve().parent) + sep for sep in ("/", "\\"))


_place = threading.local()


@contextmanager
def sited(site: str | None) -> Iterator[None]:
    """Give `site` to the nodes made in the block: they stand for a node that the user wrote there."""
    outer: str | None = getattr(_place, "site", None)
    _place.site = site
    try:
        yield
    finally:
        _place.site = outer


def user_site() -> str | None:
    """Return ``file:line`` of the innermost frame outside jitflow's front end (or of :func:`sited`), or None."""
    site: str | None = getattr(_place, "site", None)
    if site is not None:
        return site
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith(_OWN):
            return f"{filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


# ---- sources


class ArrayData:
    """A read-only array as an attribute: compared and hashed by dtype, shape and bits, never by Python equality.

    It is a copy, unless the array is `owned`: contiguous, and given up by its maker (large weights read from a file).
    """

    __slots__ = ("__weakref__", "array", "key")

    def __init__(self, array: np.ndarray[Any, Any], *, owned: bool = False) -> None:
        fixed = array if owned else np.ascontiguousarray(array).reshape(array.shape)
        if not owned and (fixed is array or fixed.base is not None or fixed.flags.writeable):
            fixed = fixed.copy()
        fixed.setflags(write=False)
        self.array = fixed
        raw = fixed.reshape(-1).view(np.uint8)
        data = raw.tobytes() if raw.size <= MAX_KEPT_BYTES else hashlib.sha256(raw.data).digest()
        self.key = (fixed.dtype.name, fixed.shape, data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayData) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return f"array({self.array.dtype}, {self.array.shape})"


_UNIQUE = count(1)


def _infer_source(*, dtype: DType, shape: Shape, **_: Any) -> TensorType:
    return TensorType(dtype, shape)


def _infer_constant(*, value: ArrayData) -> TensorType:
    return TensorType(as_dtype(value.array.dtype), value.array.shape)


def _infer_variable(*, value: ArrayData, **_: Any) -> TensorType:
    return _infer_constant(value=value)


placeholder_op = define_op("placeholder", infer=_infer_source, source=True)
variable_op = define_op("variable", infer=_infer_variable, source=True)
constant_op = define_op("constant", infer=_infer_constant, numpy=lambda *, value: value.array, source=True, exact=True)


def make_placeholder(name: str | None, dtype: DType, shape: Shape) -> Node:
    """Return a new input; never the same node as another, even of the same name and type."""
    attrs: dict[str, Any] = {"dtype": dtype, "shape": shape, "uid": next(_UNIQUE)}
    if name is not None:
        attrs["name"] = name
    return make_node(placeholder_op, (), attrs)


def make_variable(name: str | None, value: np.ndarray[Any, Any] | ArrayData) -> Node:
    """Return a new variable that starts as a copy of `value`."""
    fixed = value if isinstance(value, ArrayData) else ArrayData(value)
    attrs: dict[str, Any] = {"value": fixed, "uid": next(_UNIQUE)}
    if name is not None:
        attrs["name"] = name
    return make_node(variable_op, (), attrs)


def make_constant(value: Any, dtype: DType | None = None) -> Node:
    """Return the constant `value`, converted to `dtype` if that is given."""
    if dtype is not None and type(value) in (bool, int, float) and value == value:
        # The bits of a float, since -0.0 == 0.0 (not of a NaN, whose sign hex omits); and its type, since True == 1.
        return _scalar_constant(type(value).__name__, value.hex() if type(value) is float else value, dtype)
    if dtype is not None and isinstance(value, (bool, int, float)):
        array = scalar_array(value, dtype)
    else:
        array = np.asarray(value) if dtype is None or dtype.is_half else np.asarray(value, dtype=numpy_dtype(dtype))
        if dtype is not None and dtype.is_half:
            array = nearest_half(array, numpy_dtype(dtype))
        native = numpy_dtype(as_dtype(array.dtype))
        if array.dtype != native:
            array = array.astype(native)
    return make_node(constant_op, (), {"value": ArrayData(array)})


@lru_cache(maxsize=1024)
def _scalar_constant(kind: str, key: bool | int | str, dtype: DType) -> Node:
    """Return a Python scalar of type `kind` as a constant. Graphs repeat few of them, so that most need no array."""
    value = float.fromhex(key) if isinstance(key, str) else key
    return make_node(constant_op, (), {"value": ArrayData(scalar_array(value, dtype))})


def scalar_array(value: bool | int | float, dtype: DType) -> np.ndarray[Any, Any]:
    """Return a Python scalar as a 0-d array of `dtype`; OutOfBoundsError if an integer does not fit."""
    if dtype.kind in "iu" and isinstance(value, int) and not dtype.min <= value <= dtype.max:
        raise OutOfBoundsError(at_site(f"Python integer {value} is out of bounds for {dtype.name}", user_site()))
    try:
        # ml_dtypes would round twice, and takes no large integer.
        number = round_to(float(value), dtype) if dtype.is_half else value
        with np.errstate(all="ignore"):
            return np.asarray(number, dtype=numpy_dtype(dtype))
    except OverflowError:
        raise OutOfBoundsError(
            at_site(f"Python integer {value} is out of bounds for {dtype.name}", user_site())
        ) from None


# ---- operands


def as_node(x: Operand) -> Node:
    """Return operand `x` as a node: a Node, a Tensor, an array or a Python scalar (int64, float64 or bool)."""
    if isinstance(x, Node):
        return x
    node = getattr(x, "node", None)
    if isinstance(node, Node):
        return node
    if isinstance(x, bool):
        return make_constant(x, bool_)
    if isinstance(x, int):
        return make_constant(x, int64)
    if isinstance(x, float):
        return make_constant(x, float64)
    if isinstance(x, (np.ndarray, np.generic, list, tuple)):
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise DTypeError(at_site(f"cannot make a constant of {type(x).__name__}: {error}", user_site())) from None
        if array.dtype.kind == "O":
            raise DTypeError(at_site(f"cannot make a constant of {x!r}: its elements are no numbers", user_site()))
        try:
            return make_constant(array)
        except JitflowError as error:
            raise located(error) from None
    raise DTypeError(at_site(f"cannot use {type(x).__name__} as a tensor", user_site()))


def is_weak(x: Operand) -> bool:
    """Tell whether `x` is a Python scalar, which takes the dtype of what it meets (NEP 50)."""
    return type(x) in (bool, int, float)


def as_operands(*xs: Operand) -> tuple[Node, ...]:
    """Return operands as nodes; Python scalars take the dtype that they and the others promote to."""
    if not any(is_weak(x) for x in xs):
        return tuple(as_node(x) for x in xs)
    strong = [as_node(x) for x in xs if not is_weak(x)]
    if not strong:
        return tuple(as_node(x) for x in xs)
    dtype = strong[0].dtype
    for x in strong[1:]:
        dtype = promote(dtype, x.dtype)
    out = []
    rest = iter(strong)
    for x in xs:
        if is_weak(x):
            out.append(make_constant(x, promote_weak(dtype, type(x))))
        else:
            out.append(next(rest))
    return tuple(out)


# ---- walking


def toposort(roots: Iterable[Node], stop: frozenset[Node] | set[Node] = frozenset()) -> list[Node]:
    """Return the nodes that `roots` depend on, inputs before users, in a stable order. Nodes of `stop` are leaves."""
    done: set[Node] = set()
    order: list[Node] = []
    for root in roots:
        if root in done:
            continue
        stack: list[tuple[Node, Iterator[Node]]] = [(root, iter(() if root in stop else root.inputs))]
        done.add(root)
        while stack:
            node, rest = stack[-1]
            for x in rest:
                if x not in done:
                    done.add(x)
                    stack.append((x, iter(() if x in stop else x.inputs)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def name_nodes(order: Sequence[Node]) -> dict[Node, str]:
    """Return a unique name for each node: the user's, or ``op_N`` counted in topological order.

    Raises GraphError when two different nodes carry the same name, naming both sites.
    """
    names: dict[Node, str] = {}
    taken: dict[str, Node] = {}
    for node in order:
        if node.name is not None:
            other = taken.setdefault(node.name, node)
            if other is not node:
                raise GraphError(
                    f"two nodes are named {node.name!r}: {other!r} at {other.site} and {node!r} at {node.site}"
                )
            names[node] = node.name
    number_nodes(order, names)
    return names


def number_nodes(order: Iterable[Node], names: dict[Node, str]) -> None:
    """Name the nodes of `order` that `names` lacks ``op_N``, with numbers that are not taken."""
    taken = set(names.values())
    counters: dict[str, int] = {}
    for node in order:
        if node in names:
            continue
        while True:
            n = counters.get(node.op.name, 0)
            counters[node.op.name] = n + 1
            name = f"{node.op.name}_{n}"
            if name not in taken:
                break
        names[node] = name
        taken.add(name)
