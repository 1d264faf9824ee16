"""``x[key]`` against numpy for random keys, on known and on symbolic shapes, and its errors."""

from __future__ import annotations

import random

import numpy as np
import pytest

from jitflow.dtypes import float64, int64
from jitflow.errors import DTypeError, FeedError, FeedIndexError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.graph import Node, make_placeholder
from jitflow.interp import interpret, interpret_nodes
from jitflow.ops.index import getitem, take
from jitflow.session import Session
from jitflow.tensor import as_tensor
from jitflow.types import SymDim, as_shape, named_dim
from tests.support.eval_element import evaluate_element


def symbolic(name: str, *shape: int | str) -> Node:
    return make_placeholder(name, float64, as_shape(shape))


def random_bound(rng: random.Random, n: int) -> int | None:
    return rng.choice([None, None, 0, 1, -1, n, -n, n + 2, -n - 2, rng.randrange(-n - 1, n + 2)])


def random_key(rng: random.Random, shape: tuple[int, ...]) -> tuple:
    """Return a key of slices, integers, None and perhaps an ellipsis for an array of `shape`."""
    key: list = []
    for n in shape[: rng.randint(0, len(shape))]:
        if n and rng.random() < 0.3:
            key.append(rng.randrange(-n, n))
        else:
            key.append(slice(random_bound(rng, n), random_bound(rng, n), rng.choice([None, 1, 2, 3, -1, -2, -5])))
    if rng.random() < 0.4 and len(key) == len(shape):
        key.insert(rng.randint(0, len(key)), Ellipsis)
    for _ in range(rng.randint(0, 2)):
        key.insert(rng.randint(0, len(key)), None)
    return tuple(key)


def test_random_keys_index_as_in_numpy() -> None:
    rng = random.Random(0)
    for _ in range(600):
        shape = tuple(rng.choice([0, 1, 2, 3, 5, 8]) for _ in range(rng.randint(0, 3)))
        key = random_key(rng, shape)
        x = np.arange(float(np.prod(shape))).reshape(shape)
        expected = x[key]
        got = interpret_nodes([getitem(x, key)], {})[0]
        np.testing.assert_array_equal(got, expected, err_msg=f"{shape}{key}")


def test_random_keys_of_symbolic_axes_are_clamped_as_in_numpy() -> None:
    rng = random.Random(1)
    names = ("n", "m", "k")
    for _ in range(400):
        planned = tuple(rng.choice([1, 2, 3, 5, 8]) for _ in range(rng.randint(1, 3)))
        key = random_key(rng, planned)
        x = symbolic("x", *names[: len(planned)])
        node = getitem(x, key)
        for shape in (planned, tuple(rng.choice([0, 1, 4, 9]) for _ in planned)):
            a = np.arange(float(np.prod(shape))).reshape(shape)
            try:
                expected = a[key]
            except IndexError:
                with pytest.raises(FeedError, match="has no element"):
                    interpret_nodes([node], {x: a})
                continue
            got = interpret_nodes([node], {x: a})[0]
            assert got.shape == expected.shape, f"{shape}{key}"
            np.testing.assert_array_equal(got, expected, err_msg=f"{shape}{key}")


def test_reads_of_symbolic_slices_stay_inside() -> None:
    rng = random.Random(2)
    n = named_dim("n")
    for _ in range(200):
        key = slice(random_bound(rng, 5), random_bound(rng, 5), rng.choice([1, 2, -1, -3]))
        node = getitem(symbolic("x", "n"), key)
        if node.op.name != "slice":
            continue
        for size in (0, 1, 4, 5, 7):
            a = np.arange(float(size))
            got = evaluate_element(node.op, [node.inputs[0].type], [a], dict(node.attrs), node.type, {n: size})
            np.testing.assert_array_equal(got, a[key])


def test_dims_of_symbolic_slices_read_as_one_would_write_them() -> None:
    x = symbolic("x", "n", 4)
    texts = {
        "x[:]": getitem(x, slice(None)),
        "x[1:]": getitem(x, slice(1, None)),
        "x[:-1]": getitem(x, slice(None, -1)),
        "x[:3]": getitem(x, slice(3)),
        "x[-3:]": getitem(x, slice(-3, None)),
        "x[::2]": getitem(x, slice(None, None, 2)),
        "x[::-1]": getitem(x, slice(None, None, -1)),
    }
    assert {k: repr(node.type) for k, node in texts.items()} == {
        "x[:]": "f64[n, 4]",
        "x[1:]": "f64[max(0, n - 1), 4]",
        "x[:-1]": "f64[max(0, n - 1), 4]",
        "x[:3]": "f64[min(n, 3), 4]",
        "x[-3:]": "f64[min(n, 3), 4]",
        "x[::2]": "f64[(n + 1)//2, 4]",
        "x[::-1]": "f64[n, 4]",
    }
    assert texts["x[:]"] is x


def test_bounds_may_be_dims() -> None:
    x, y = symbolic("x", "n"), symbolic("y", "m")
    m = SymDim(named_dim("m"))
    node = getitem(x, slice(m, None))
    for n, k in ((7, 3), (3, 7), (3, 0)):
        a = np.arange(float(n))
        got = interpret([node, y], {x: a, y: np.zeros(k)})[0]
        np.testing.assert_array_equal(got, a[k:])
    assert interpret([getitem(x, m), y], {x: np.arange(5.0), y: np.zeros(2)})[0] == 2.0
    with pytest.raises(FeedError, match="has no element"):
        interpret([getitem(x, m), y], {x: np.arange(5.0), y: np.zeros(5)})
    with pytest.raises(ShapeError, match=r"bound m - 3 may be negative"):
        getitem(x, slice(m - 3, None))


def test_an_integer_outside_its_axis_is_an_error_as_early_as_can_be() -> None:
    with pytest.raises(StaticIndexError, match=r"index 3 is out of range for axis 0 of \(3,\)\n  at .*\.py:\d+$"):
        getitem(np.zeros(3), 3)
    with pytest.raises(StaticIndexError, match=r"index -4 is out of range for axis 1 of \(2, 3\)"):
        getitem(np.zeros((2, 3)), (0, -4))
    x = symbolic("x", "n")
    for k, too_few in ((5, 5), (-3, 2), (0, 0), (-1, 0)):
        node = getitem(x, k)
        with pytest.raises(FeedIndexError, match=r"slice: axis 0 of \(n,\) has no element"):
            interpret(node, {x: np.zeros(too_few)})
        tensor = as_tensor(node)
        with (
            Session(tensor) as session,
            pytest.raises(FeedError, match=r"slice: axis 0 of .* has no element") as caught,
        ):
            session.run(tensor, {as_tensor(x): np.zeros(too_few)})
        assert isinstance(caught.value, IndexError)
        enough = np.arange(too_few + 1.0)
        assert interpret(node, {x: enough}) == enough[k]


def test_keys_that_make_no_sense_are_refused() -> None:
    x = np.zeros((2, 3))
    with pytest.raises(StaticIndexError, match=r"3 indices for 2 axes, shape \(2, 3\)"):
        getitem(x, (0, 0, 0))
    with pytest.raises(StaticIndexError, match="once only"):
        getitem(x, (..., ...))
    with pytest.raises(ShapeError, match="step of axis 0 must be a literal other than 0"):
        getitem(x, slice(None, None, 0))
    with pytest.raises(DTypeError, match="is no bound of a slice"):
        getitem(x, slice(1.5))
    with pytest.raises(DTypeError, match="no index"):
        getitem(x, 1.0)
    with pytest.raises(DTypeError, match="no index"):
        getitem(x, True)
    with pytest.raises(DTypeError, match="boolean mask"):
        getitem(x, np.array([True, False]))
    with pytest.raises(DTypeError, match="must be integers"):
        getitem(x, np.array([0.5]))
    with pytest.raises(DTypeError, match="at most one index array"):
        getitem(x, ([0], [1]))


def test_an_index_array_among_slices_and_integers_is_numpys() -> None:
    x = np.arange(120).reshape(2, 3, 4, 5)
    i, square = np.array([1, 0, -1]), np.array([[0, 1], [1, 0]])
    keys = [
        i[:2],
        (slice(None), i),
        (..., i),
        (None, i % 2, None),
        (slice(None), slice(1, 3), square),
        (1, i),
        (i % 2, 2),
        (1, slice(None), i),
        (slice(None), i, slice(None), 2),
        (slice(None), 1, i),
        (slice(None), i, 2),
        (0, square, 1, slice(None, None, -1)),
        ([0, 1],),
        (slice(None), []),
    ]
    for key in keys:
        native = tuple(np.array(k, np.int64) if isinstance(k, list) else k for k in key) if type(key) is tuple else key
        got = interpret_nodes([getitem(x, key)], {})[0]
        np.testing.assert_array_equal(got, x[native], err_msg=str(key))


def test_f43_take_names_the_first_bad_index() -> None:
    x = symbolic("x", "n", 2)
    i = make_placeholder("i", int64, as_shape(("k",)))
    node = take(x, i, axis=0)
    a = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(interpret(node, {x: a, i: [2, -3]}), a[[2, -3]])
    with pytest.raises(IndexRangeError, match=r"index 3 at 1 is out of range for axis 0 of size 3\n  at .*\.py:\d+$"):
        interpret(node, {x: a, i: [0, 3, -4]})
    with pytest.raises(IndexError):
        interpret(node, {x: a[:0], i: [0]})
    assert interpret(node, {x: a[:0], i: []}).shape == (0, 2)
    with pytest.raises(ShapeError, match="axis is needed"):
        take(a, [0])
