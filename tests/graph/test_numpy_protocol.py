"""numpy's functions applied to Tensors: they build nodes with numpy's values, or say why not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.numpy_protocol import FUNCTIONS, UFUNCS
from jitflow.tensor import Tensor

A = np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]])


@pytest.mark.parametrize("name", sorted(UFUNCS))
def test_every_ufunc_gives_numpys_values_and_dtype(name: str) -> None:
    ufunc: Any = getattr(np, name)
    if name.startswith("bitwise") or name in ("invert", "left_shift", "right_shift"):
        values = np.array([[5, 1, 7], [0, 2, 3]])
    elif name in ("sqrt", "log", "power", "float_power"):
        values = np.abs(A)
    else:
        values = A
    x = jf.placeholder("x", values.dtype, values.shape)
    other = values.T if name == "matmul" else np.abs(values[:1]) + 1
    if name == "fabs" or ufunc.nin == 1:
        calls = [((x,), (values,))]
    else:
        calls = [((x, other), (values, other)), ((other, x), (other, values))]
    for args, arrays in calls:
        built = ufunc(*args)
        assert isinstance(built, Tensor)
        with np.errstate(all="ignore"):
            expected = ufunc(*arrays)
        found = jf.interpret(built, {x: values})
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-14)


FUNCTION_CALLS: list[Callable[[Any], Any]] = [
    lambda x: np.sum(x),
    lambda x: np.sum(x, axis=0, keepdims=True),
    lambda x: np.sum(x, 1),
    lambda x: np.sum(x, dtype=np.float32),
    lambda x: np.prod(x, axis=1),
    lambda x: np.mean(x, axis=0),
    lambda x: np.mean(x, dtype=np.float64),
    lambda x: np.cumsum(x),
    lambda x: np.sort(x, axis=0),
    lambda x: np.sort(x, axis=None, kind="stable"),
    lambda x: np.argsort(x),
    lambda x: np.searchsorted(np.sort(x[0]), x, side="right"),
    lambda x: np.median(x, axis=1),
    lambda x: np.histogram(x, 4)[0],
    lambda x: np.quantile(x, 0.3, axis=0, keepdims=True),
    lambda x: np.percentile(x, [0, 50, 90]),
    lambda x: np.cumprod(x, axis=1),
    lambda x: np.cumulative_sum(x, axis=0, include_initial=True),
    lambda x: np.cumulative_prod(x, axis=1),
    lambda x: np.var(x, ddof=1),
    lambda x: np.std(x, axis=1),
    lambda x: np.max(x, axis=1),
    lambda x: np.amax(x),
    lambda x: np.min(x, axis=1),
    lambda x: np.amin(x, 0),
    lambda x: np.any(x > 0, axis=0),
    lambda x: np.all(x > 0),
    lambda x: np.argmax(x, axis=1),
    lambda x: np.argmin(x),
    lambda x: np.reshape(x, (3, 2)),
    lambda x: np.ravel(x),
    lambda x: np.transpose(x),
    lambda x: np.transpose(x, (1, 0)),
    lambda x: np.matrix_transpose(x),
    lambda x: np.swapaxes(x, 0, -1),
    lambda x: np.moveaxis(x, 0, 1),
    lambda x: np.expand_dims(x, 1),
    lambda x: np.squeeze(np.expand_dims(x, 1)),
    lambda x: np.broadcast_to(x, (2, 2, 3)),
    lambda x: np.concatenate([x, x]),
    lambda x: np.concatenate((x, A), axis=1),
    lambda x: np.concat([A, x], axis=None),
    lambda x: np.stack([x, A], axis=2),
    lambda x: np.flip(x),
    lambda x: np.roll(x, 1),
    lambda x: np.roll(x, 1, axis=1),
    lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=7.0),
    lambda x: np.clip(x, -1.0, 1.0),
    lambda x: np.clip(x, min=0.0),
    lambda x: np.take(x, [0, 2], axis=1),
    lambda x: np.take(x, [0, 5]),
    lambda x: np.where(x > 0, x, -x),
    lambda x: np.where(A > 0, x, 0.0),
    lambda x: np.round(x),
    lambda x: np.around(x),
    lambda x: np.dot(x, np.ones(3)),
    lambda x: np.dot(np.ones((4, 2)), x),
    lambda x: np.dot(x, 2.0),
    lambda x: np.dot(x, np.ones((2, 3, 4))),
    lambda x: np.outer(x, A),
    lambda x: np.cross(x, A),
    lambda x: np.cross(np.transpose(x), A, axisa=0, axisc=0),
    lambda x: np.cross(np.transpose(x), A.T, axis=0),
    lambda x: np.einsum("ij,kj->ik", x, A),
    lambda x: np.einsum(x, [0, 1], [1]),
    lambda x: np.inner(x, A),
    lambda x: np.kron(x, A),
    lambda x: np.tensordot(x, A),
    lambda x: np.tensordot(x, A, axes=((1,), (1,))),
    lambda x: np.linalg.norm(x),
    lambda x: np.linalg.norm(x, axis=1, ord=1),
    lambda x: np.linalg.norm(x, ord=np.inf),
    lambda x: np.linalg.norm(x, ord="fro", axis=(1, 0), keepdims=True),
    lambda x: np.linalg.cross(x, A),
    lambda x: np.linalg.diagonal(x, offset=1),
    lambda x: np.linalg.matmul(x, A.T),
    lambda x: np.linalg.matrix_norm(x, ord=1),
    lambda x: np.linalg.matrix_transpose(x),
    lambda x: np.linalg.outer(x[0], A[1]),
    lambda x: np.linalg.tensordot(x, A, axes=2),
    lambda x: np.linalg.trace(x),
    lambda x: np.linalg.vecdot(x, A),
    lambda x: np.linalg.vector_norm(x, axis=0, ord=3),
    lambda x: np.zeros_like(x),
    lambda x: np.ones_like(x, dtype=np.int32),
    lambda x: np.full_like(x, 2.5),
    lambda x: np.full_like(np.empty_like(x), 2.5),
    lambda x: np.permute_dims(x, (1, 0)),
    lambda x: np.vstack([x, A[0]]),
    lambda x: np.hstack((A, x)),
    lambda x: np.hstack([x[0], A[1]]),
    lambda x: np.dstack([x, A]),
    lambda x: np.column_stack([x, [1.0, 2.0]]),
    lambda x: np.unstack(x, axis=1),
    lambda x: np.split(x, 3, axis=1),
    lambda x: np.split(x, [1]),
    lambda x: np.array_split(x, 2, 1),
    lambda x: np.hsplit(x, [1, 2]),
    lambda x: np.vsplit(x, 2),
    lambda x: np.dsplit(x[None], 3),
    lambda x: np.tile(x, (2, 1, 2)),
    lambda x: np.repeat(x, 2),
    lambda x: np.repeat(x, [1, 0, 2], axis=1),
    lambda x: np.rot90(x),
    lambda x: np.rot90(x, k=-1, axes=(1, 0)),
    lambda x: np.atleast_1d(x[0, 0]),
    lambda x: np.atleast_2d(x[0], A),
    lambda x: np.atleast_3d(x),
    lambda x: np.broadcast_arrays(x, A[:, :1]),
    lambda x: np.meshgrid(x[0], A[1]),
    lambda x: np.meshgrid(x[0], A[1], indexing="ij"),
    lambda x: np.linspace(x[0, 0], 3.0, 4),
    lambda x: np.linspace(x[0, 0], 3.0, 4, endpoint=False, dtype=np.float32),
    lambda x: np.tril(x),
    lambda x: np.triu(x, 1),
    lambda x: np.diag(x),
    lambda x: np.diag(x[0], k=-1),
    lambda x: np.diagonal(x, 1),
    lambda x: np.diagonal(np.tile(x, (2, 1, 1)), axis1=0, axis2=2),
    lambda x: np.trace(x),
    lambda x: np.trace(x, offset=-1, dtype=np.float32),
    lambda x: np.diff(x),
    lambda x: np.diff(x, n=2, axis=0, prepend=0.0, append=A),
    lambda x: np.take_along_axis(x, np.array([[1], [-1]]), axis=1),
    lambda x: np.take_along_axis(x, np.array([[1], [-1]])),
    lambda x: np.take(x, [0, 5, -7], mode="wrap"),
    lambda x: np.take(x, [0, 5, -7], axis=1, mode="clip"),
    lambda x: np.count_nonzero(x, axis=0),
    lambda x: np.count_nonzero(x > 0, axis=1, keepdims=True),
    lambda x: np.isclose(x, A + 1e-9),
    lambda x: np.allclose(x, A, rtol=0.1),
    lambda x: np.array_equal(x, A),
    lambda x: np.isin(x, [2.0, 3.0]),
    lambda x: np.isin(x, A[0], invert=True),
    lambda x: np.nan_to_num(np.log(x)),
    lambda x: np.nan_to_num(np.log(x), nan=-1.0, neginf=7.0),
    lambda x: np.isposinf(1.0 / (x - 2.0)),
    lambda x: np.isneginf(-1.0 / (x - 2.0)),
    lambda x: np.flipud(x),
    lambda x: np.fliplr(x),
]


def test_every_function_of_the_table_is_called_here() -> None:
    called: set[str] = set()
    for call in FUNCTION_CALLS:
        called.update(call.__code__.co_names)
    names = {f.__name__ for f in FUNCTIONS} | {"amax", "amin", "concat", "around"}
    refused = {"nonzero", "flatnonzero", "argwhere", "unique", "unique_values", "bincount"}
    assert names - called <= {"shape", "ndim", "size"} | refused


@pytest.mark.parametrize("call", FUNCTION_CALLS)
def test_functions_give_numpys_values_and_dtype(call: Callable[[Any], Any]) -> None:
    x = jf.placeholder("x", jf.float64, (2, 3))
    with np.errstate(all="ignore"):
        several, wanted = call(x), call(A)
    assert isinstance(several, type(wanted) if isinstance(wanted, (list, tuple)) else Tensor)
    pairs = zip(several, wanted, strict=True) if isinstance(several, (list, tuple)) else [(several, wanted)]
    for built, expected in pairs:
        assert isinstance(built, Tensor)
        found = jf.interpret(built, {x: A} if 'name="x"' in jf.show_graph(built) else {})
        assert found.dtype == np.asarray(expected).dtype
        assert found.shape == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_facts_of_a_tensor_come_as_facts() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 3))
    assert np.shape(x) == ("n", 3)
    assert np.ndim(x) == 2
    assert np.size(jf.zeros((2, 3))) == 6


def test_numpy_operands_on_the_left_build_nodes() -> None:
    x = jf.placeholder("x", jf.float32, (3,))
    a = np.array([1.0, 2.0, 3.0], np.float32)
    for built in (a * x, a + x, a - x, a / x, a @ x, a < x, a == x, np.float32(2) * x, np.float64(2) ** x):
        assert isinstance(built, Tensor)
    assert (a * x).dtype is jf.float32
    assert (np.float64(2) * x).dtype is jf.float64
    assert (2.0 * x).dtype is jf.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: np.spacing(x), "np.spacing does not take Tensors: jitflow has no operator for it"),
        (lambda x: np.add.reduce(x), "np.add.reduce does not take Tensors: use jitflow's reductions, such as jf.sum"),
        (lambda x: np.add.outer(x, x), "np.add.outer does not take Tensors"),
        (lambda x: np.exp(x, out=np.zeros((2, 3))), "np.exp: a Tensor cannot be written into an array"),
        (lambda x: np.exp(x, where=A > 0), "np.exp with Tensors has no parameter 'where'"),
        (lambda x: np.linalg.inv(x), "np.inv does not take Tensors: use jitflow's functions, or np.inv on the result"),
        (lambda x: np.partition(x, 1), "np.partition does not take Tensors"),
        (lambda x: np.sort(x, order="f"), "np.sort: Tensors have no fields to order by"),
        (lambda x: np.sum(x, out=np.zeros(())), "np.sum: a Tensor cannot be written into an array (out=)"),
        (lambda x: np.sum(x, where=A > 0), "unexpected keyword argument 'where'"),
        (lambda x: np.max(x, initial=0.0), "max() got an unexpected keyword argument 'initial'"),
        (lambda x: np.reshape(x, (6,), order="F"), "np.reshape: Tensors have no memory order 'F'"),
        (lambda x: np.round(x, 2), "np.round: Tensors are rounded to whole numbers only"),
        (lambda x: np.take(x, [0], mode="fill"), "np.take: mode must be 'raise', 'wrap' or 'clip', got 'fill'"),
        (lambda x: np.meshgrid(x, x, sparse=True), "np.meshgrid: sparse grids of Tensors are what broadcasting does"),
        (lambda x: np.linspace(x, 1.0, retstep=True), "np.linspace: Tensors have no retstep and no axis"),
        (lambda x: np.nan_to_num(x, copy=False), "np.nan_to_num: a Tensor cannot be changed in place"),
        (lambda x: np.where(x > 0), "np.where with Tensors takes a condition and two values"),
    ],
)
def test_what_has_no_meaning_for_tensors_is_a_type_error_with_advice(call: Callable[[Any], Any], message: str) -> None:
    x = jf.placeholder("x", jf.float64, (2, 3))
    with pytest.raises(TypeError) as caught:
        call(x)
    assert message in str(caught.value)


def test_an_array_cannot_be_updated_in_place_by_a_tensor() -> None:
    x = jf.placeholder("x", jf.float64, (3,))
    a = np.zeros(3)
    with pytest.raises(TypeError, match="cannot be written into an array"):
        a += x
    with pytest.raises(TypeError, match="making an array of a Tensor is not possible"):
        a[:] = x


def test_a_dtype_argument_converts() -> None:
    x = jf.placeholder("x", jf.float64, (3,))
    assert np.add(x, 1.0, dtype=np.float32).dtype is jf.float32


def test_building_by_numpy_warns_of_nothing() -> None:
    x = jf.placeholder("x", jf.float64, (3,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.divide(x, 0.0)
        np.float64(0.0) / x
        np.log(jf.constant([-1.0, 0.0]))


@pytest.mark.parametrize("function", [np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.unique_values])
def test_what_has_a_shape_that_depends_on_data_says_so(function: Any) -> None:
    x = jf.placeholder("x", jf.float64, (2, 3))
    with pytest.raises(jf.DataDependentShapeError, match=r"would depend on the values of .*\n  at .*\.py:\d+$"):
        function(x)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint64"])
@pytest.mark.parametrize("mode", ["wrap", "clip"])
def test_take_with_indices_that_do_not_count_the_axis(dtype: str, mode: str) -> None:
    info = np.iinfo(dtype)
    a, at = np.arange(300.0), np.array([info.max if dtype != "uint64" else 299, info.min, 7], dtype)
    i = jf.placeholder("i", getattr(jf, dtype), (3,))
    for shape in ((300,), ("n",)):
        x = jf.placeholder("x", jf.float64, shape)
        y = np.take(x, i, mode=mode)
        np.testing.assert_array_equal(jf.Session(y).run(y, {x: a, i: at}), np.take(a, at.astype(np.int64), mode=mode))
