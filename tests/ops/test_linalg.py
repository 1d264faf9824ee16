"""Linear algebra against numpy: products of vectors and matrices, norms, and gradients of products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.graph import as_node, toposort
from jitflow.rewrite import rewrite

RNG = np.random.default_rng(5)


def array(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    if np.dtype(dtype) == np.bool_:
        return RNG.integers(0, 2, shape).astype(dtype)
    return (RNG.normal(size=shape) * 4).astype(dtype)


def check_all(cases: list[tuple[Callable[..., jf.Tensor], Callable[..., Any], tuple[np.ndarray, ...]]]) -> None:
    """Fail unless each jitflow function, interpreted and compiled in one session, gives what numpy's does."""
    fetches = [f(*(jf.constant(a) for a in args)) for f, _, args in cases]
    compiled, interpreted = jf.Session(fetches).run(fetches), jf.interpret(fetches, {})
    for k, (_, g, args) in enumerate(cases):
        expected = np.asarray(g(*args))
        for got in (compiled[k], interpreted[k]):
            assert got.dtype == expected.dtype, k
            assert got.shape == expected.shape, k
            rtol = 1e-12 if got.dtype != np.float32 else 2e-6
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol, err_msg=f"case {k}")


def test_matmul_of_vectors_and_stacks_in_every_dtype() -> None:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((4, 2, 3), (3,)),
        ((3,), (4, 3, 2)),
        ((4, 1, 2, 3), (5, 3, 2)),
        ((0,), (0,)),
        ((2, 0), (0,)),
    ]
    dtypes = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
    dtypes += [np.float32, np.float64]
    check_all([(jf.matmul, np.matmul, (array(*a), array(*b))) for a, b in shapes])
    check_all(
        [
            (jf.matmul, np.matmul, (np.abs(array(*a)).astype(d), np.abs(array(*b)).astype(d)))
            for d in dtypes
            for a, b in (((3,), (3,)), ((2, 5), (5, 3)))
        ]
    )


#: The function, the shapes of its operands, its keyword arguments: numpy's of the same name is the oracle.
PRODUCTS: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("tensordot", [(2, 3, 4), (3, 4, 5)], {}),
    ("tensordot", [(2, 3), (3, 4)], {"axes": 1}),
    ("tensordot", [(2, 3), (4,)], {"axes": 0}),
    ("tensordot", [(2, 3, 4), (4, 3, 2)], {"axes": ((0, 2), (2, 0))}),
    ("tensordot", [(2, 3, 4), (5, 3)], {"axes": (1, 1)}),
    ("tensordot", [(2, 3), (5, 3)], {"axes": ((-1,), (-1,))}),
    ("tensordot", [(2, 0), (0, 3)], {"axes": 1}),
    ("dot", [(3,), (3,)], {}),
    ("dot", [(2, 3), (3,)], {}),
    ("dot", [(2, 3), (4, 3, 5)], {}),
    ("dot", [(), (2, 3)], {}),
    ("inner", [(3,), (3,)], {}),
    ("inner", [(2, 3), (4, 5, 3)], {}),
    ("inner", [(2,), ()], {}),
    ("outer", [(2,), (3,)], {}),
    ("outer", [(0,), (3,)], {}),
    ("kron", [(2,), (3,)], {}),
    ("kron", [(2, 3), (4, 5)], {}),
    ("kron", [(3,), (2, 2)], {}),
    ("kron", [(2, 1, 2), (3,)], {}),
    ("cross", [(3,), (3,)], {}),
    ("cross", [(5, 3), (5, 3)], {}),
    ("cross", [(4, 1, 3), (2, 3)], {}),
    ("cross", [(3, 4), (3, 4)], {"axis": 0}),
    ("diagonal", [(2, 3, 4)], {}),
    ("diagonal", [(3, 4)], {"offset": 2}),
    ("diagonal", [(3, 4)], {"offset": -1}),
    ("diagonal", [(3, 4)], {"offset": 9}),
    ("diagonal", [(0, 4)], {}),
    ("trace", [(3, 4)], {}),
    ("trace", [(2, 3, 3)], {"offset": 1}),
    ("vecdot", [(4, 3), (4, 3)], {}),
    ("vecdot", [(2, 4, 3), (3,)], {}),
    ("vecdot", [(3, 4), (3, 4)], {"axis": 0}),
    ("vecdot", [(4, 1, 3), (5, 3)], {}),
]


def case(name: str, shapes: list[tuple[int, ...]], keywords: dict[str, Any]) -> Any:
    mine = getattr(jf.linalg, name, None) or getattr(jf, name)
    theirs = getattr(np.linalg, name, None) or getattr(np, name)
    return (
        lambda *a: mine(*a, **keywords),
        lambda *a: theirs(*a, **keywords),
        tuple(array(*s) for s in shapes),
    )


def test_products_are_those_of_numpy() -> None:
    check_all([case(*given) for given in PRODUCTS])


def test_norms_are_those_of_numpy() -> None:
    cases: list[Any] = []
    for order in (2, 1, 0, 3, 0.5, -1, -2, np.inf, -np.inf):
        cases.append(case("vector_norm", [(7,)], {"ord": order}))
        cases.append(case("vector_norm", [(2, 3, 4)], {"axis": (0, 2), "ord": order, "keepdims": True}))
        cases.append(case("vector_norm", [(2, 3)], {"ord": order}))
    for order in ("fro", 1, -1, np.inf, -np.inf):
        cases.append(case("matrix_norm", [(3, 4)], {"ord": order}))
        cases.append(case("matrix_norm", [(2, 4, 3)], {"ord": order, "keepdims": True}))
    check_all(cases)


def test_a_norm_of_halves_does_not_overflow_on_the_way() -> None:
    x = jf.constant(np.full(100, 300, np.float16))
    assert jf.Session(y := jf.linalg.vector_norm(x)).run(y, {}) == 3000


def test_the_gradient_of_a_norm_is_zero_where_the_norm_is() -> None:
    x = jf.constant(np.array([[3.0, -4.0], [0.0, 0.0]]))
    for order, expected in ((2, [0.6, -0.8]), (1, [1, -1]), (3, np.array([9, -16]) / 91 ** (2 / 3))):
        norm = jf.linalg.vector_norm(x, axis=1, ord=order)
        got = jf.interpret(jf.gradients(jf.sum(norm), x), {})
        np.testing.assert_allclose(got, [expected, [0, 0]], rtol=1e-12)


def test_bool_products_ask_whether_any_pair_is_true() -> None:
    a, b = array(3, 4, dtype=np.bool_), array(4, 2, dtype=np.bool_)
    check_all(
        [
            (lambda x, y: jf.tensordot(x, y, axes=1), lambda x, y: np.tensordot(x, y, axes=1), (a, b)),
            (jf.kron, np.kron, (a, b)),
            (jf.dot, np.dot, (a, b)),
            (jf.outer, np.outer, (a[0], b[:, 0])),
        ]
    )


def test_a_diagonal_of_a_symbolic_matrix() -> None:
    x = jf.placeholder("x", jf.float64, ("n", "m"))
    ys = [jf.linalg.diagonal(x, offset=k) for k in (-2, 0, 1)]
    session = jf.Session(ys)
    for n, m in ((4, 4), (2, 5), (5, 2), (1, 1)):
        a = array(n, m)
        for y, k in zip(session.run(ys, {x: a}), (-2, 0, 1), strict=True):
            np.testing.assert_array_equal(y, np.diagonal(a, k))


def products(loss: jf.Tensor, wrt: jf.Tensor) -> list[tuple[Any, Any]]:
    """Return the shapes of the factors of the matrix products that the gradient of `loss` comes down to."""
    node = as_node(jf.gradients(loss, wrt))
    order = toposort([rewrite([node])[node]])
    return [(n.inputs[0].shape, n.inputs[1].shape) for n in order if n.op.name == "matmul"]


def test_the_gradient_of_a_shared_weight_is_one_product_over_rows_and_batch() -> None:
    x = jf.placeholder("x", jf.float32, (6, 5, 3))
    w = jf.placeholder("w", jf.float32, (3, 4))
    v = jf.placeholder("v", jf.float32, (6, 1, 3, 2))
    assert products(jf.sum(x @ w), w) == [((3, 30), (30, 4))]
    # One batch axis is the factor's own, along the other it is shared.
    assert products(jf.sum(jf.reshape(x, (6, 5, 1, 3)) @ v), v) == [((6, 3, 5), (6, 5, 2))]


def test_gradients_of_broadcast_products() -> None:
    ct = RNG.normal(size=(4, 5, 2, 3))
    a, b = jf.constant(array(4, 1, 2, 6)), jf.constant(array(5, 6, 3))
    da, db = jf.interpret(jf.gradients(a @ b, [a, b], ct=ct), {})
    x, y = jf.interpret([a, b], {})
    np.testing.assert_allclose(da, np.einsum("pqmn,qkn->pmk", ct, y)[:, None], rtol=1e-12)
    np.testing.assert_allclose(db, np.einsum("pqmn,pmk->qkn", ct, x[:, 0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: jf.tensordot(x, x.T), jf.ShapeError, r"tensordot of \(2, 3\) and \(3, 2\): axes 0 and 0 differ"),
        (lambda x: jf.tensordot(x, x, axes=1), jf.ShapeError, "axes 1 and 0 differ: 3 and 2"),
        (lambda x: jf.tensordot(x, x, axes=3), jf.ShapeError, r"axes 3 of \(2, 3\)"),
        (lambda x: jf.tensordot(x, x, axes=((0, 1), (0,))), jf.ShapeError, "2 axes of x1 cannot be contracted with 1"),
        (lambda x: jf.tensordot(x, x, axes=((0, 0), (0, 1))), jf.ShapeError, "name an axis twice"),
        (lambda x: jf.vecdot(x, x[0, :2]), jf.ShapeError, "axis -1: 3 and 2 differ"),
        (lambda x: jf.vecdot(x, x[0], axis=0), jf.ShapeError, "not counted from the end"),
        (lambda x: jf.linalg.outer(x, x), jf.ShapeError, "outer takes two vectors"),
        (lambda x: jf.linalg.cross(x, x, axis=0), jf.ShapeError, "axis 0 must have size 3"),
        (lambda x: jf.linalg.cross(x > 0, x > 0), jf.DTypeError, "not bool"),
        (lambda x: jf.linalg.diagonal(x[0]), jf.ShapeError, "at least two axes"),
        (lambda x: jf.linalg.vector_norm(x, ord="fro"), jf.GraphError, "ord must be a number"),
        (lambda x: jf.linalg.vector_norm(x, axis=2), jf.ShapeError, "axis 2 is out of range"),
        (lambda x: jf.linalg.matrix_norm(x[0]), jf.ShapeError, "at least two axes"),
        (lambda x: jf.linalg.matrix_norm(x, ord="nuc"), jf.GraphError, "'fro', 1, -1, inf and -inf are"),
        (lambda x: jf.linalg.matrix_norm(x, ord=2), jf.GraphError, "ord 2 is not supported"),
        (lambda x: jf.linalg.matrix_norm(x, ord=np.ones(2)), jf.DTypeError, "ord must be a number, got array"),
        (lambda x: jf.linalg.matrix_norm(x, ord=None), jf.DTypeError, "ord must be a number, got None"),
        (lambda x: jf.matmul(x, 2.0), jf.ShapeError, "use multiply"),
    ],
)
def test_errors_are_in_the_users_terms(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call(jf.zeros((2, 3)))
    assert "test_linalg.py" in str(caught.value)
