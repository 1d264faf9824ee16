"""Losses: how far predictions are from what they should be, per element and reduced to their mean or sum.

float16 and bfloat16 are computed in float32 up to the reduced result, which is rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from jitflow.dtypes import DType, as_dtype, float32, float64, int64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, located, make_constant
from jitflow.ops.activations import softplus_op
from jitflow.ops.axes import as_number, check_axis, normalize_axis
from jitflow.ops.broadcast import reduce_sum_op, spread
from jitflow.ops.cast import as_dtype_of, as_float, cast_array, check_kinds, promoted, promoted_floats
from jitflow.ops.compare import equal_op, greater_equal_op, less_op
from jitflow.ops.creation import arange_op, dim_size
from jitflow.ops.elementwise import abs_op, add_op, multiply_op, negative_op, subtract_op
from jitflow.ops.logic import logical_and_op
from jitflow.ops.maths import number
from jitflow.ops.movement import reshape_to
from jitflow.ops.reduce import mean, sum
from jitflow.ops.selection import where_op
from jitflow.ops.softmax import logsumexp_op
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.ops.widen import widened_input
from jitflow.public import public
from jitflow.types import TensorType, shape_text, unify


def _widened(*xs: Operand) -> tuple[DType, tuple[Node, ...]]:
    """Return the dtype of a loss of `xs`, and them as floats of the dtype in which it is computed."""
    nodes = promoted_floats(*xs)
    return nodes[0].dtype, tuple(widened_input(x) for x in nodes)


def _reduced(loss: Node, reduction: str, dtype: DType, what: str) -> Node:
    if reduction == "mean":
        loss = mean(loss)
    elif reduction == "sum":
        loss = sum(loss)
    elif reduction != "none":
        raise located(GraphError(f"{what}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}"))
    return as_dtype_of(loss, dtype)


@public("nn")
def mse(x: Operand, y: Operand, /, *, reduction: str = "mean") -> Node:
    """Return the mean of ``(x - y)**2``.

    Parameters
    ----------
    x, y
        Tensors that broadcast; integers and bool are taken as float64.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each element.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    GraphError
        For another reduction.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.mse(jf.constant([1.0, 2.0]), jf.constant([1.0, 4.0])), {})
    array(2.)
    """
    dtype, (a, b) = _widened(x, y)
    difference = subtract_op(a, b)
    return _reduced(multiply_op(difference, difference), reduction, dtype, "mse")


@public("nn")
def huber(x: Operand, y: Operand, /, *, delta: float = 1.0, reduction: str = "mean") -> Node:
    """Return the mean of Huber's loss: ``d*d/2`` where d = |x - y| is at most `delta`, else ``delta * (d - delta/2)``.

    Parameters
    ----------
    x, y
        Tensors that broadcast; integers and bool are taken as float64.
    delta
        Where the parabola goes over into a line; positive.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each element.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    GraphError
        If `delta` is not positive, or for another reduction.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.huber(jf.constant([1.0, 9.0]), 0.0, reduction="none"), {})
    array([0.5, 8.5])
    """
    delta = as_number(delta, "huber: delta")
    if not delta > 0:
        raise located(GraphError(f"huber: delta must be positive, got {delta}"))
    dtype, (a, b) = _widened(x, y)
    d = abs_op(subtract_op(a, b))
    parabola = multiply_op(multiply_op(d, d), number(0.5, d))
    line = multiply_op(subtract_op(d, number(delta / 2, d)), number(delta, d))
    return _reduced(where_op(less_op(d, number(delta, d)), parabola, line), reduction, dtype, "huber")


@public("nn")
def binary_cross_entropy_with_logits(logits: Operand, targets: Operand, /, *, reduction: str = "mean") -> Node:
    """Return the mean of ``-t*log(p) - (1 - t)*log(1 - p)`` with p = sigmoid(logit), exact also where p is nearly t.

    Parameters
    ----------
    logits
        Any numbers; integers are taken as float64.
    targets
        Numbers from 0 to 1, or bools; the two broadcast.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each element.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    GraphError
        For another reduction.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.binary_cross_entropy_with_logits(jf.constant([0.0, 800.0]), 1.0, reduction="none"), {})
    array([0.69314718, 0.        ])
    """
    dtype, (x, t) = _widened(logits, targets)
    wrong, right = softplus_op(x), softplus_op(negative_op(x))
    loss = add_op(multiply_op(t, right), multiply_op(subtract_op(number(1, t), t), wrong))
    return _reduced(loss, reduction, dtype, "binary_cross_entropy_with_logits")


def _infer_cross_entropy(logits: TensorType, labels: TensorType, *, axis: int) -> TensorType:
    what = f"cross_entropy of logits {shape_text(logits.shape)} along axis {axis}"
    check_axis("cross_entropy", axis, logits.shape)
    check_kinds("cross_entropy", logits.dtype, "f")
    rows = logits.shape[:axis] + logits.shape[axis + 1 :]
    if labels.dtype is not logits.dtype and not labels.dtype.is_integer:
        raise DTypeError(f"{what}: labels are integers, or probabilities of its dtype, not {labels.dtype}")
    wanted = rows if labels.dtype.is_integer else logits.shape
    if labels.rank != len(wanted):
        raise ShapeError(f"{what}: labels of shape {shape_text(wanted)} are needed, got {shape_text(labels.shape)}")
    for d, n in zip(labels.shape, wanted, strict=True):
        unify(d, n, f"{what}: labels {shape_text(labels.shape)}")
    return TensorType(logits.dtype, rows)


def _expand_cross_entropy(logits: Node, labels: Node, *, axis: int) -> Node:
    """The logarithm of the sum of exponentials, less the logit of the label; of probabilities their mean of that."""
    rank, count = len(logits.shape), logits.shape[axis]
    total = logsumexp_op(logits, axes=(axis,))
    zero = number(0, logits)
    if labels.dtype.is_float:
        share = multiply_op(labels, subtract_op(spread(total, logits.shape, (axis,)), logits))
        # An impossible class of probability 0 costs nothing, though its logit may be -inf.
        share = where_op(equal_op(labels, zero), zero, share)
        return reduce_sum_op(share, axes=(axis,), dtype=logits.dtype)
    chosen = as_dtype_of(labels, int64)
    classes = reshape_to(
        arange_op(start=0, step=1, size=count, dtype=int64), tuple(count if k == axis else 1 for k in range(rank))
    )
    hits = equal_op(spread(chosen, logits.shape, (axis,)), classes)
    picked = reduce_sum_op(where_op(hits, logits, zero), axes=(axis,), dtype=logits.dtype)
    is_class = logical_and_op(
        greater_equal_op(chosen, make_constant(0, int64)), less_op(chosen, dim_size(count, int64))
    )
    return where_op(is_class, subtract_op(total, picked), number(math.nan, logits))


def _numpy_cross_entropy(logits: Array, labels: Array, *, axis: int) -> Array:
    dtype = as_dtype(logits.dtype)
    rows = np.moveaxis(logits.astype(np.float64), axis, -1)
    with np.errstate(all="ignore"):
        # Adding logarithms one by one keeps what a difference of large numbers would lose.
        surprise = np.logaddexp.reduce(rows, axis=-1, keepdims=True, initial=-np.inf) - rows
        if as_dtype(labels.dtype).is_float:
            chances = np.moveaxis(labels.astype(np.float64), axis, -1)
            return cast_array(np.where(chances == 0, 0, chances * surprise).sum(axis=-1), dtype)
        out = np.full(labels.shape, np.nan)
        for place in np.ndindex(*labels.shape):
            if 0 <= labels[place] < rows.shape[-1]:
                out[place] = surprise[(*place, int(labels[place]))]
        return cast_array(out, dtype)


def _samples_cross_entropy(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axis in (((5,), 0), ((3, 4), 1), ((3, 4), 0), ((2, 5, 3), 1), ((0, 4), 1)):
        rows = shape[:axis] + shape[axis + 1 :]
        logits = draw(rng, float64, *shape)
        yield Sample((logits, rng.integers(0, shape[axis], rows)), {"axis": axis})
        chances = np.abs(draw(rng, float64, *shape))
        yield Sample((logits, chances), {"axis": axis})
    for dtype in FLOATS:
        logits = draw(rng, dtype, 3, 37)
        yield Sample((logits, np.array([0, 36, 5], np.uint8)), {"axis": 1}, smooth=False)
        yield Sample((logits, np.array([-1, 37, 2])), {"axis": 1}, smooth=False)
        yield Sample((logits, np.abs(draw(rng, dtype, 3, 37))), {"axis": 1}, smooth=False)
    impossible = np.array([[0.0, -np.inf, 1.0], [0.0, -np.inf, 1.0]])
    yield Sample((impossible, np.array([0, 1])), {"axis": 1}, smooth=False)
    yield Sample((impossible, np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])), {"axis": 1}, smooth=False)
    x = draw(rng, float32, 2, 3)
    labels = np.array([0, 1])
    yield Sample((x, labels), {"axis": 2}, ShapeError, "cross_entropy: axis 2 is out of range for")
    yield Sample((x, labels), {"axis": 0}, ShapeError, r"labels \(2,\): 2 and 3 differ")
    yield Sample((x, x[0]), {"axis": 1}, ShapeError, r"labels of shape \(2, 3\) are needed, got \(3,\)")
    yield Sample((x, labels > 0), {"axis": 1}, DTypeError, "labels are integers, or probabilities .* not bool")
    yield Sample((labels, labels), {"axis": 0}, DTypeError, "cross_entropy takes floats, not int64")


#: The loss of each row of logits; integers name the class, floats are the probabilities of all.
cross_entropy_op: OpDef = define_op(
    "cross_entropy",
    infer=_infer_cross_entropy,
    expand=_expand_cross_entropy,
    numpy=_numpy_cross_entropy,
    samples=_samples_cross_entropy,
    costly=True,
)


@public("nn")
def cross_entropy(logits: Operand, labels: Operand, /, *, axis: int = -1, reduction: str = "mean") -> Node:
    """Return the mean of ``-log(softmax(logits)[label])``.

    Parameters
    ----------
    logits
        Scores of the classes along `axis`; integers are taken as float64.
    labels
        The right classes, as integers of the shape of `logits` without `axis`; or their probabilities, as floats of the
        shape of `logits`. An integer that names no class makes the loss NaN.
    axis
        The axis of the classes.
    reduction
        ``"mean"`` over everything but the classes, ``"sum"``, or ``"none"`` for the loss of each.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        If the labels have another shape.
    DTypeError
        If the labels are bools.
    GraphError
        For another reduction.

    Examples
    --------
    >>> import jitflow as jf
    >>> logits = jf.constant([[0.0, 0.0], [-800.0, 800.0]])
    >>> jf.interpret(jf.nn.cross_entropy(logits, jf.constant([0, 0]), reduction="none"), {})
    array([6.93147181e-01, 1.60000000e+03])
    """
    x, target = as_node(logits), as_node(labels)
    if target.dtype.is_float:
        x, target = promoted(x, target)
    x = as_float(x)
    loss = cross_entropy_op(x, target, axis=normalize_axis(axis, len(x.shape), "cross_entropy"))
    return _reduced(loss, reduction, loss.dtype, "cross_entropy")
