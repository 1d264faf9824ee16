"""Tensors: operators, indexing, methods and facts; what they refuse, and with which advice."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.tensor import Tensor, as_tensor


def run(t: Tensor, **feeds: Any) -> np.ndarray:
    return jf.interpret(t, feeds)


@pytest.fixture
def x() -> Tensor:
    return jf.placeholder("x", jf.float64, (2, 3))


X = np.array([[1.5, -2.0, 3.0], [4.0, 0.5, -1.0]])


# ---- identity


def test_there_is_one_tensor_per_node(x: Tensor) -> None:
    assert as_tensor(x.node) is x
    assert x + 1.0 is x + 1.0
    assert len({x, as_tensor(x.node), x + 1.0, x + 1.0}) == 2
    assert {x: 1}[x] == 1


def test_a_tensor_keeps_its_node_alive_and_not_the_other_way_round() -> None:
    t = jf.placeholder("t", jf.float32, ())
    node, gone = weakref.ref(t.node), weakref.ref(t)
    kept = t.node
    del t
    gc.collect()
    assert gone() is None
    again = as_tensor(kept)
    assert again.node is kept
    del kept, again
    gc.collect()
    assert node() is None


def test_threads_that_wrap_a_node_at_the_same_time_get_the_same_tensor() -> None:
    for _ in range(50):
        node = jf.placeholder("t", jf.float32, ()).node
        gate = threading.Barrier(4)
        found: list[Tensor] = []

        def wrap(node: Any = node, gate: Any = gate, found: Any = found) -> None:
            gate.wait()
            found.append(as_tensor(node))

        threads = [threading.Thread(target=wrap) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len({id(t) for t in found}) == 1


def test_equality_builds_a_node_and_identity_is_is(x: Tensor) -> None:
    y = x == 1.5
    assert isinstance(y, Tensor)
    assert y.dtype is jf.bool_
    assert run(y, x=X).tolist() == (X == 1.5).tolist()
    assert run(x != 1.5, x=X).tolist() == (X != 1.5).tolist()
    assert (x == "no tensor") is False
    assert (x != None) is True  # noqa: E711


def test_copies_are_the_tensor_itself_and_pickles_are_refused(x: Tensor) -> None:
    assert copy.copy(x) is x
    assert copy.deepcopy({"a": [x]})["a"][0] is x
    with pytest.raises(TypeError, match=r"Tensors are not pickled: write the graph as text with jf\.show_graph"):
        pickle.dumps(x)
    with pytest.raises(TypeError, match="nodes are not pickled"):
        pickle.dumps(x.node)


def test_tensors_cannot_be_made_by_hand_or_changed(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"Tensors are made by jf\.placeholder"):
        Tensor()
    with pytest.raises(AttributeError):
        x.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="Tensors are immutable"):
        x[0] = 1.0


# ---- facts


def test_shape_compares_equal_to_a_plain_tuple_and_symbolic_dims_to_their_names() -> None:
    t = jf.placeholder("t", jf.float32, ("batch", 64, None))
    assert t.shape[:2] == ("batch", 64)
    assert t.shape != ("batch", 65, "n")
    assert isinstance(t.shape, tuple)
    assert (t + 1.0).shape == t.shape
    assert jf.concat([t, t]).shape[0] == 2 * t.shape[0]
    assert t.ndim == 3
    assert jf.zeros((2, 3)).shape == (2, 3)
    assert jf.zeros(()).shape == ()
    assert jf.zeros((2, 3)).size == 6
    assert jf.placeholder("u", jf.float32, ("n", 2)).size == 2 * jf.placeholder("v", jf.float32, ("n",)).shape[0]


def test_two_fresh_dims_are_different() -> None:
    a, b = jf.placeholder("a", jf.float32, (None,)), jf.placeholder("b", jf.float32, (None,))
    assert a.shape != b.shape
    assert jf.placeholder("c", jf.float32, ("n",)).shape == jf.placeholder("d", jf.int32, ("n",)).shape


def test_dtype_compares_to_numpys(x: Tensor) -> None:
    assert x.dtype == np.float64
    assert x.dtype == jf.float64
    assert x.dtype != np.float32
    assert (x > 0).dtype == np.bool_


def test_repr_says_name_or_operator_dtype_and_shape(x: Tensor) -> None:
    assert repr(x) == "Tensor('x', float64, (2, 3))"
    assert repr(jf.exp(x)) == "Tensor(exp, float64, (2, 3))"
    assert repr(jf.placeholder("s", jf.int32, ("n",))) == "Tensor('s', int32, (n,))"


def test_a_named_tensor_is_the_same_value_found_by_name(x: Tensor) -> None:
    h = (x * 2.0).named("hidden")
    assert h.name == "hidden"
    assert h.shape == x.shape
    assert (x * 2.0).named("hidden") is h
    assert (x * 2.0).named("other") is not h
    assert jf.interpret(h + 1.0, {"hidden": np.zeros((2, 3))}).tolist() == np.ones((2, 3)).tolist()
    with pytest.raises(jf.GraphError, match="'' cannot be a name"):
        x.named("")
    with pytest.raises(jf.GraphError, match="a name is a string, got int"):
        x.named(3)  # type: ignore[arg-type]


# ---- operators

BINARY: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("+", lambda a, b: a + b),
    ("-", lambda a, b: a - b),
    ("*", lambda a, b: a * b),
    ("/", lambda a, b: a / b),
    ("//", lambda a, b: a // b),
    ("%", lambda a, b: a % b),
    ("**", lambda a, b: a**b),
    ("<", lambda a, b: a < b),
    ("<=", lambda a, b: a <= b),
    (">", lambda a, b: a > b),
    (">=", lambda a, b: a >= b),
    ("==", lambda a, b: a == b),
    ("!=", lambda a, b: a != b),
]


@pytest.mark.parametrize(("name", "op"), BINARY, ids=[name for name, _ in BINARY])
def test_binary_operators_take_numbers_arrays_and_lists_on_both_sides(name: str, op: Any, x: Tensor) -> None:
    positive = np.abs(X) + 0.5
    others: list[Any] = [2, 0.5, np.float64(1.5), np.array([1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]]
    for other in others:
        value = np.asarray(other) if isinstance(other, list) else other
        for built, expected in ((op(x, other), op(positive, value)), (op(other, x), op(value, positive))):
            assert isinstance(built, Tensor), (name, other)
            assert built.dtype == expected.dtype
            np.testing.assert_allclose(run(built, x=positive), expected, rtol=1e-14)


def test_bitwise_operators_are_logical_on_bool() -> None:
    i = jf.placeholder("i", jf.int32, (4,))
    values = np.array([1, 6, -3, 0], np.int32)
    for built, expected in (
        (i & 3, values & 3),
        (5 | i, 5 | values),
        (i ^ 1, values ^ 1),
        (~i, ~values),
        (i << 2, values << 2),
        (i >> 1, values >> 1),
        (1 << (i & 3), 1 << (values & 3)),
        ((i > 0) & (i < 5), (values > 0) & (values < 5)),
        ((i > 0) | (i < -1), (values > 0) | (values < -1)),
        (~(i > 0), ~(values > 0)),
        ((i > 0) ^ True, (values > 0) ^ True),
    ):
        found = run(built, i=values)
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()


def test_unary_operators(x: Tensor) -> None:
    assert +x is x
    assert run(-x, x=X).tolist() == (-X).tolist()
    assert run(abs(x), x=X).tolist() == abs(X).tolist()


def test_matmul_on_both_sides(x: Tensor) -> None:
    w = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(run(x @ w, x=X), X @ w)
    np.testing.assert_allclose(run(np.ones((5, 2)) @ x, x=X), np.ones((5, 2)) @ X)
    np.testing.assert_allclose(run(x @ [1.0, 2.0, 3.0], x=X), X @ [1.0, 2.0, 3.0])


def test_foreign_operands_are_left_to_python(x: Tensor) -> None:
    with pytest.raises(TypeError, match="unsupported operand type"):
        x + "a"
    with pytest.raises(TypeError, match="unsupported operand type"):
        None * x

    class Other:
        def __radd__(self, other: Any) -> str:
            return "mine"

    assert x + Other() == "mine"


# ---- indexing and methods


def test_indexing_is_numpys(x: Tensor) -> None:
    for key in (
        0, -1, (1, 2), slice(None), slice(1, None), (slice(None), slice(None, None, -1)), (..., 1), (None, 0),
        (slice(0, 0),), (slice(None), None, 1), ..., (0, ..., slice(2)), (np.int64(1), -2),
    ):  # fmt: skip
        found, expected = run(x[key], x=X), X[key]
        assert found.shape == expected.shape, key
        assert found.tolist() == expected.tolist(), key


def test_an_integer_tensor_selects(x: Tensor) -> None:
    rows = jf.placeholder("rows", jf.int64, ("k",))
    assert run(x[rows], x=X, rows=np.array([1, 1, 0])).tolist() == X[[1, 1, 0]].tolist()
    assert run(x[:, [2, 0]], x=X).tolist() == X[:, [2, 0]].tolist()


def test_methods_are_the_functions_of_the_same_name(x: Tensor) -> None:
    pairs: list[tuple[Tensor, Any]] = [
        (x.sum(), X.sum()),
        (x.sum(0), X.sum(0)),
        (x.sum(axis=1, keepdims=True), X.sum(axis=1, keepdims=True)),
        (x.sum(dtype=jf.float32), X.sum(dtype=np.float32)),
        (x.prod(1), X.prod(1)),
        (x.mean(-1), X.mean(-1)),
        (x.var(0, correction=1), X.var(0, ddof=1)),
        (x.std(), X.std()),
        (x.max(1), X.max(1)),
        (x.min(axis=(0, 1)), X.min(axis=(0, 1))),
        ((x > 0).any(0), (X > 0).any(0)),
        ((x > 0).all(), (X > 0).all()),
        (x.argmax(1), X.argmax(1)),
        (x.argmin(), X.argmin()),
        (x.astype(jf.int32), X.astype(np.int32)),
        (x.astype("float32"), X.astype(np.float32)),
        (x.clip(-1.0, 2.0), X.clip(-1, 2)),
        (x[None].squeeze(0), X),
        (x.take([2, 0], axis=1), X.take([2, 0], axis=1)),
        (x.reshape(3, 2), X.reshape(3, 2)),
        (x.reshape((-1,)), X.reshape(-1)),
        (x.reshape(-1), X.reshape(-1)),
        (x.transpose(), X.T),
        (x.transpose(1, 0), X.T),
        (x.transpose((0, 1)), X),
        (x.flatten(), X.ravel()),
        (x.ravel(), X.ravel()),
        (x.T, X.T),
        (x[None].mT, X.T[None]),
        (x.swapaxes(0, 1), X.T),
        (x.repeat(2), X.repeat(2)),
        (x.repeat([1, 0, 2], axis=1), X.repeat([1, 0, 2], axis=1)),
        (x.round(), X.round()),
    ]
    for built, expected in pairs:
        found = run(built, x=X)
        assert found.dtype == np.asarray(expected).dtype
        assert found.shape == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_transpose_reverses_all_axes() -> None:
    t = jf.placeholder("t", jf.float32, ("n", 3, 4))
    assert t.T.shape == (4, 3, "n")
    assert t.mT.shape == ("n", 4, 3)
    assert jf.zeros((3,)).T.shape == (3,)
    with pytest.raises(jf.ShapeError, match=r"x.mT needs two axes or more, got shape \(3,\)"):
        _ = jf.zeros((3,)).mT


def test_tensors_with_a_literal_first_axis_have_a_length_and_can_be_unpacked(x: Tensor) -> None:
    assert len(x) == 2
    a, b = x
    assert a is x[0]
    assert run(b, x=X).tolist() == X[1].tolist()
    assert [t.shape for t in jf.zeros((3, 2))] == [(2,)] * 3


# ---- what a tensor refuses


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (bool, "has no truth value before it is run; choose by jf.where(condition, x, y), combine conditions by & | ~"),
        (
            float,
            "float(tensor) is not possible: Tensor('s', float64, ()) has no value before it is run; use jf.interpr",
        ),
        (int, "int(tensor) is not possible"),
        (complex, "complex(tensor) is not possible"),
        (lambda s: [1, 2][s], "list indices must be integers or slices, not Tensor"),
        (lambda s: range(s), "'Tensor' object cannot be interpreted as an integer"),
        (np.asarray, "making an array of a Tensor is not possible"),
        (lambda s: np.array([s, 1.0]), "making an array of a Tensor is not possible"),
        (len, "len(tensor) is not possible: Tensor('s', float64, ()) has no axes"),
        (list, "iterating over a Tensor is not possible: Tensor('s', float64, ()) has no axes"),
        (lambda s: s.item(), "tensor.item() is not possible"),
        (lambda s: s.numpy(), "tensor.numpy() is not possible"),
        (lambda s: 1.0 in s, "'in' is not possible on a Tensor: use jf.any(tensor == value)"),
        (lambda s: s if s > 0 else -s, "has no truth value before it is run"),
        (lambda s: 0 < s < 1, "has no truth value before it is run"),
        (lambda s: s in [1.0, 2.0], "compare Tensors for identity by 'is'"),
    ],
)
def test_what_needs_a_value_raises_type_error_with_advice(call: Callable[[Tensor], Any], message: str) -> None:
    s = jf.placeholder("s", jf.float64, ())
    with pytest.raises(TypeError) as caught:
        call(s)
    assert message in str(caught.value)


def test_a_symbolic_axis_has_no_length() -> None:
    t = jf.placeholder("t", jf.float64, ("batch", 2))
    for call in (len, list):
        with pytest.raises(TypeError, match=r"dim batch of Tensor\('t', float64, \(batch, 2\)\) is symbolic"):
            call(t)


# ---- sources


def test_placeholders_take_every_spelling_of_dtype_and_shape() -> None:
    assert jf.placeholder("a", "float32", 3).shape == (3,)
    assert jf.placeholder("a", np.dtype("int64"), [2, 3]).dtype is jf.int64
    assert jf.placeholder("a", bool, "n").shape == ("n",)
    assert jf.placeholder(None, float, ()).name is None
    n = jf.placeholder("a", jf.float32, ("n",)).shape[0]
    assert jf.placeholder("b", jf.float32, (2 * n + 1, n)).shape == (2 * n + 1, "n")
    assert jf.placeholder("a", jf.float32, ()) is not jf.placeholder("a", jf.float32, ())


def test_constants_and_variables_copy_what_they_are_given() -> None:
    a = np.array([1.0, 2.0])
    c, v = jf.constant(a), jf.variable("v", a)
    a[0] = 9.0
    assert run(c).tolist() == [1.0, 2.0]
    assert run(v + 0.0).tolist() == [1.0, 2.0]
    assert jf.variable("v", a) is not jf.variable("v", a)
    assert jf.constant(a) is jf.constant(a)


def test_constants_get_numpys_dtypes_or_the_one_asked_for() -> None:
    assert [jf.constant(v).dtype for v in (1, 1.0, True, [1, 2], [1, 2.5])] == [
        jf.int64, jf.float64, jf.bool_, jf.int64, jf.float64,
    ]  # fmt: skip
    assert jf.constant(1, jf.float32).dtype is jf.float32
    assert run(jf.constant([1.9, -1.9, np.nan], jf.int32)).tolist() == [1, -1, 0]
    assert jf.constant(np.array([1, 2], ">i4")).dtype is jf.int32
    assert run(jf.constant(np.array([1, 258], ">i4"))).tolist() == [1, 258]
    assert run(jf.constant(np.arange(6.0).reshape(2, 3)[:, ::-2])).tolist() == [[2, 0], [5, 3]]
    assert jf.constant(np.zeros((0, 3))).shape == (0, 3)


def test_lists_of_integers_are_exact_and_must_fit() -> None:
    large, largest = 2**63 + 1, 2**64 - 1
    assert run(jf.asarray([[large, 3], [largest, True]], dtype=jf.uint64)).tolist() == [[large, 3], [largest, 1]]
    assert run(jf.asarray([2**70, -1], dtype=jf.float32)).tolist() == [2.0**70, -1.0]
    assert run(jf.asarray([-(2**63), 2**63 - 1], dtype=jf.int64)).tolist() == [-(2**63), 2**63 - 1]
    assert run(jf.asarray([], dtype=jf.uint8)).shape == (0,)
    assert run(jf.asarray([300, 0], dtype=jf.bool_)).tolist() == [True, False]
    # Numbers with a point are converted as astype does, and arrays wrap.
    assert run(jf.asarray([300.5, -1], dtype=jf.uint8)).tolist() == [255, 0]
    assert run(jf.asarray([np.int64(300)], dtype=jf.uint8)).tolist() == [44]
    for value, dtype in (([1, 300], jf.uint8), ((-1,), jf.uint64), ([[2**64]], jf.uint64), ([2**63, -1], jf.int64)):
        with pytest.raises(jf.OutOfBoundsError, match=rf"Python integer -?\d+ is out of bounds for {dtype.name}"):
            jf.asarray(value, dtype=dtype)
    with pytest.raises(jf.DTypeError, match="its elements are no numbers"):
        jf.asarray([2**70, "1"], dtype=jf.float32)


def test_asarray_passes_tensors_through(x: Tensor) -> None:
    assert jf.asarray(x) is x
    assert jf.asarray(x, dtype=jf.float32).dtype is jf.float32
    assert jf.asarray(2.5) is jf.constant(2.5)


def test_a_tensor_is_no_dtype(x: Tensor) -> None:
    for call in (lambda: x.astype(x), lambda: jf.zeros(2, dtype=x), lambda: jf.asarray(1, dtype=x)):
        with pytest.raises(jf.DTypeError, match=r"Tensor\('x', float64, \(2, 3\)\) is no dtype"):
            call()


def test_asarray_takes_the_standards_arguments(x: Tensor) -> None:
    assert jf.asarray(x, copy=False, device="session") is x
    assert jf.asarray([1, 2], copy=True).dtype is jf.int64
    with pytest.raises(TypeError, match="positional argument"):
        jf.asarray(x, jf.float32)  # type: ignore[misc]
    with pytest.raises(jf.DeviceError, match="asarray: a tensor cannot be on device 'cpu'"):
        jf.asarray(x, device="cpu")
    with pytest.raises(TypeError, match="making an array of a Tensor is not possible"):
        jf.asarray([x, x])


def test_attributes_differ_by_bits_and_by_type() -> None:
    assert jf.arange(0.0, 2.0) is jf.arange(0.0, 2.0)
    assert jf.arange(-0.0, 2.0) is not jf.arange(0.0, 2.0)
    x = jf.placeholder("x", jf.float64, (3,))
    assert jf.var(x, correction=0.0) is not jf.var(x, correction=-0.0)


def test_constants_differ_by_bits() -> None:
    assert jf.constant(0.0) is not jf.constant(-0.0)
    assert jf.constant(0) is not jf.constant(False)
    assert jf.constant(0) is not jf.constant(0.0)
    assert jf.constant(float("nan")) is jf.constant(float("nan"))
    assert jf.constant(-float("nan")) is not jf.constant(float("nan"))
    assert run(jf.copysign(1.0, -float("nan"))) == -1.0


def test_the_user_line_is_the_site_of_a_node(x: Tensor) -> None:
    y = jf.exp(x)
    z = x.named("there") * np.ones(3)
    for t in (x, y, z):
        assert t.node.site is not None
        assert "test_tensor.py:" in t.node.site
    assert np.tanh(x).node.site.split(":")[0].endswith("test_tensor.py")
