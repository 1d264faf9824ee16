"""Reverse-mode gradients: a scalar node and the nodes to differentiate by become the nodes of the gradients.

Cotangents flow from the loss to its inputs in reverse topological order, through the `vjp` rule of each operator; where
several meet they are added, in the order of the consumers. An `expand` operator without a rule of its own is
differentiated as what it expands to. Iterative: a graph may be 10^5 nodes deep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitflow.dtypes import promote_weak
from jitflow.errors import CompilerBug, DTypeError, GraphError, JitflowError, ShapeError
from jitflow.graph import Node, as_node, is_weak, located, make_constant, make_node, toposort
from jitflow.ops import creation, elementwise
from jitflow.ops.cast import as_dtype_of
from jitflow.ops.widen import is_widened, widened_attrs, widened_input
from jitflow.tensor import Tensor, as_tensor
from jitflow.types import same_dim, shape_text


def gradients(loss: Any, wrt: Any, *, ct: Any = None) -> Any:
    """Return the gradients of `loss` with respect to each Tensor of `wrt`, as Tensors of the same graph.

    Parameters
    ----------
    loss : Tensor
        What to differentiate: a floating 0-d Tensor, unless `ct` is given.
    wrt : Tensor, or list, tuple or dict of Tensors
        What to differentiate by: placeholders, variables or any other floating Tensors. The result has this structure.
    ct : Tensor or array, optional
        The cotangent of `loss`, of its dtype and shape: the result is then the vector-Jacobian product.

    Returns
    -------
    Tensor, list, tuple or dict
        Gradients of the shape and dtype of the Tensors of `wrt`; zeros where `loss` does not depend on one.

    Raises
    ------
    ShapeError
        If `loss` is not 0-d and there is no `ct`, or `ct` has another shape.
    DTypeError
        If `loss` or something in `wrt` is not floating.
    GraphError
        If an operator in between has no gradient.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.placeholder("x", jf.float64, ("n",))
    >>> jf.interpret(jf.gradients(jf.sum(x * x), x), {x: [1.0, 2.0, 3.0]})
    array([2., 4., 6.])
    """
    try:
        if isinstance(wrt, Mapping):
            found = gradient_nodes(_tensor(loss), [_tensor(x) for x in wrt.values()], ct)
            return {key: as_tensor(g) for key, g in zip(wrt, found, strict=True)}
        if isinstance(wrt, (list, tuple)):
            found = gradient_nodes(_tensor(loss), [_tensor(x) for x in wrt], ct)
            return type(wrt)(as_tensor(g) for g in found)
        return as_tensor(gradient_nodes(_tensor(loss), [_tensor(wrt)], ct)[0])
    except JitflowError as error:
        raise located(error) from None


def _tensor(x: Any) -> Node:
    if not isinstance(x, (Tensor, Node)):
        raise DTypeError(f"gradients are taken of Tensors with respect to Tensors, got {type(x).__name__}")
    return as_node(x)


def gradient_nodes(loss: Node, wrt: Sequence[Node], ct: Any = None) -> list[Node]:
    """Return the gradient of `loss` for each node of `wrt`; see `gradients`."""
    if not loss.dtype.is_float:
        raise DTypeError(f"gradients: the loss must be floating, got {loss!r}")
    for x in wrt:
        if not x.dtype.is_float:
            raise DTypeError(f"gradients: cannot differentiate by {x!r}, which is not floating")
    return _backward(loss, wrt, _seed(loss, ct), stop=frozenset())


def _seed(loss: Node, ct: Any) -> Node:
    if ct is None:
        if loss.type.rank:
            raise ShapeError(
                f"gradients: the loss must be 0-d, got shape {shape_text(loss.shape)}; reduce it by jf.sum or jf.mean, "
                "or give its cotangent as ct"
            )
        return make_constant(1.0, loss.dtype)
    seed = make_constant(ct, promote_weak(loss.dtype, type(ct))) if is_weak(ct) else as_node(ct)
    if seed.dtype is not loss.dtype:
        raise DTypeError(f"gradients: ct has dtype {seed.dtype}, the loss {loss.dtype}")
    if not _may_be_same(seed, loss):
        raise ShapeError(f"gradients: ct has shape {shape_text(seed.shape)}, the loss {shape_text(loss.shape)}")
    return seed


def _may_be_same(a: Node, b: Node) -> bool:
    return len(a.shape) == len(b.shape) and all(
        same_dim(x, y) is not False for x, y in zip(a.shape, b.shape, strict=True)
    )


def _backward(loss: Node, wrt: Sequence[Node], seed: Node, stop: frozenset[Node]) -> list[Node]:
    """Return the cotangents that arrive at `wrt` when `seed` arrives at `loss`; nodes of `stop` are taken as inputs."""
    order = toposort([loss], stop)
    targets = set(wrt)
    active: set[Node] = set()
    for node in order:
        if node in targets or (node not in stop and any(x in active for x in node.inputs)):
            active.add(node)
    arrived: dict[Node, list[Node]] = {loss: [seed]}
    total: dict[Node, Node] = {}
    for node in reversed(order):
        if node not in active or node not in arrived:
            continue
        parts = arrived.pop(node)
        ct = parts[0]
        for part in parts[1:]:
            ct = elementwise.add(ct, part)
        if node in targets:
            total[node] = ct
        if node in stop or not any(x in active for x in node.inputs):
            continue
        for x, share in zip(node.inputs, _vjp(node, ct), strict=True):
            if x in active and share is not None:
                arrived.setdefault(x, []).append(share)
    return [total[x] if x in total else creation.full(x.shape, 0.0, dtype=x.dtype) for x in wrt]


def _vjp(node: Node, ct: Node) -> Sequence[Node | None]:
    """Return the cotangents of the inputs of `node`; None where nothing flows: to integers and bools."""
    op, inputs, attrs = node.op, node.inputs, dict(node.attrs)
    if is_widened(node):
        # As the node itself: in float32, and rounded once at the end.
        wide = make_node(op, [widened_input(x) for x in inputs], widened_attrs(attrs))
        shares = zip(_vjp(wide, widened_input(ct)), inputs, strict=True)
        return [None if g is None else as_dtype_of(g, x.dtype) for g, x in shares]
    if op.vjp is None:
        if op.expand is not None:
            # The depth of this recursion is how deep composite operators are defined by others: a few levels.
            unique = list(dict.fromkeys(x for x in inputs if x.dtype.is_float))
            inner = _backward(op.expand(*inputs, **attrs), unique, ct, frozenset(inputs))
            found = dict(zip(unique, inner, strict=True))
            # An input that stands in several places has one cotangent, which counts once.
            return [found.pop(x, None) for x in inputs]
        if not node.dtype.is_float:
            return [None] * len(inputs)
        raise GraphError(f"gradients: operator {op.name} has no gradient\n  at {node.site}")
    parts = op.vjp(ct, node, *inputs, **attrs)
    if len(parts) != len(inputs):
        raise CompilerBug(f"the vjp rule of {op.name} gives {len(parts)} cotangents for {len(inputs)} inputs")
    for x, part in zip(inputs, parts, strict=True):
        if part is not None and (part.dtype is not x.dtype or not _may_be_same(part, x)):
            raise CompilerBug(f"the vjp rule of {op.name} gives {part.type!r} for an input {x.type!r}")
    return parts
