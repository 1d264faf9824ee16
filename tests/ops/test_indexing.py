"""``x[key]`` against numpy for random keys, on known and on symbolic shapes, and its errors."""

from __future__ import annotations

import random

import numpy as np
import pytest

from jitflow.autodiff import gradients
from jitflow.dtypes import bool_, float64, int32, int64
from jitflow.errors import (
    DTypeError,
    FeedError,
    FeedIndexError,
    IndexRangeError,
    LimitError,
    ShapeError,
    StaticIndexError,
)
from jitflow.graph import Node, make_constant, make_placeholder
from jitflow.interp import interpret, interpret_nodes
from jitflow.ops.elementwise import multiply
from jitflow.ops.index import take, take_along_axis
from jitflow.ops.indexing import getitem
from jitflow.ops.movement import permute_dims, roll
from jitflow.ops.reduce import sum
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
    with pytest.raises(DTypeError, match=r"boolean mask gives a shape that depends on data; use where\(mask, x, y\)"):
        getitem(x, make_placeholder("mask", bool_, (2, 3)))
    with pytest.raises(DTypeError, match="False is no index"):
        getitem(x, np.array(False))
    with pytest.raises(StaticIndexError, match=r"a mask of size 3 along axis 0 of \(2, 3\)"):
        getitem(x, np.array([True, False, True]))
    with pytest.raises(StaticIndexError, match=r"3 indices for 2 axes"):
        getitem(x, np.zeros((2, 3, 1), bool))
    with pytest.raises(DTypeError, match="must be integers"):
        getitem(x, np.array([0.5]))
    with pytest.raises(ShapeError, match=r"gather: indices of: shapes \(2,\) and \(3,\) do not broadcast"):
        getitem(x, ([0, 1], [1, 1, 2]))
    with pytest.raises(StaticIndexError, match=r"index -4 is out of range for axis 1 of \(2, 3\)"):
        getitem(x, ([0, 1], [1, -4]))
    with pytest.raises(DTypeError, match=r"cannot use dict as a tensor|\{\} is no index"):
        getitem(x, {})


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


def random_advanced_key(rng: random.Random, shape: tuple[int, ...]) -> tuple:
    """Return a key with arrays of indices that broadcast, perhaps a mask, among slices, integers, None and ``...``."""
    common = tuple(rng.choice([1, 2, 3]) for _ in range(rng.randint(0, 2)))
    key: list = []
    axis = 0
    used = rng.randint(1, len(shape))
    while axis < used:
        n, kind = shape[axis], rng.random()
        if kind < 0.45:
            own = tuple(d if rng.random() < 0.7 else 1 for d in common[rng.randint(0, len(common)) :])
            values = np.array([rng.randrange(-n, n) for _ in range(int(np.prod(own)))], rng.choice(["i1", "i4", "i8"]))
            key.append(values.reshape(own))
        elif kind < 0.55 and not common:
            key.append(np.array([rng.random() < 0.5 for _ in range(n)]))
            common = (int(key[-1].sum()),)
        elif kind < 0.75:
            key.append(rng.randrange(-n, n))
        else:
            key.append(slice(random_bound(rng, n), random_bound(rng, n), rng.choice([None, 2, -1])))
        axis += 1
    if rng.random() < 0.3 and not (axis == len(shape) and len(key) == axis and rng.random() < 0.5):
        key.insert(rng.randint(0, len(key)), Ellipsis)
    for _ in range(rng.randint(0, 2)):
        key.insert(rng.randint(0, len(key)), None)
    return tuple(key)


def key_text(key: tuple) -> str:
    return ", ".join(str(k.tolist()) if isinstance(k, np.ndarray) else str(k) for k in key)


def test_random_keys_with_several_arrays_index_as_in_numpy() -> None:
    rng = random.Random(3)
    fetches, expected, feeds = [], [], {}
    done = 0
    while done < 300:
        shape = tuple(rng.choice([1, 2, 3, 4]) for _ in range(rng.randint(1, 4)))
        key = random_advanced_key(rng, shape)
        a = np.arange(float(np.prod(shape))).reshape(shape)
        try:
            want = a[key]
        except IndexError:
            with pytest.raises((ShapeError, IndexError)):
                getitem(a, key)
            continue
        done += 1
        x = symbolic(f"x{done}", *shape)
        node = getitem(x, key)
        np.testing.assert_array_equal(interpret_nodes([node], {x: a})[0], want, err_msg=f"{shape}: {key_text(key)}")
        if done <= 60:
            fetches.append(as_tensor(node))
            expected.append(want)
            feeds[as_tensor(x)] = a
    with Session(fetches) as session:
        for got, want in zip(session.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_arrays_of_indices_and_masks_index_symbolic_axes() -> None:
    x = symbolic("x", "n", "m", 3)
    i, j = make_placeholder("i", int32, as_shape(("k",))), make_placeholder("j", int64, as_shape((2, 1)))
    mask = np.array([True, False, True, True])
    nodes = [
        getitem(x, (i, slice(None), [0])),
        getitem(x, (i, j)),
        getitem(x, (slice(None), mask, -1)),
        getitem(x, (j, ..., i)),
    ]
    assert [repr(n.type) for n in nodes] == ["f64[k, m]", "f64[2, k, 3]", "f64[n, 3]", "f64[2, k, m]"]
    a, where = np.arange(60.0).reshape(5, 4, 3), (np.array([0, -1, 2], np.int32), np.array([[1], [-1]]))
    want = [a[where[0], :, [0]], a[where], a[:, mask, -1], a[where[1], ..., where[0]]]
    for got, expected in zip(interpret(nodes, {x: a, i: where[0], j: where[1]}), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(FeedError, match=r"reshape of \(n, m, 3\) to \(n, 4, 3\): m\*n\*3 is 45, n\*12 is 60"):
        interpret(nodes[2], {x: a[:, :3]})
    with pytest.raises(IndexRangeError, match=r"gather: index 4 at \(0, 0\) is out of range for axis 1 of size 4"):
        interpret(nodes[1], {x: a, i: [0, 1, 1], j: [[4], [0]]})
    square = getitem(x, np.ones((2, 10), bool))
    with pytest.raises(FeedError, match=r"reshape of"):  # 2 * 10 == 5 * 4, but these are not its axes
        interpret(square, {x: a})


def test_a_mask_without_elements_picks_nothing_of_any_size() -> None:
    a, x = np.arange(6.0).reshape(3, 2), symbolic("x", "n", 2)
    masks = [np.zeros(shape, bool) for shape in ((0,), (3, 0), (0, 2))]
    keys = [*((mask,) for mask in masks), (slice(None), masks[0]), (0, masks[0])]
    built = [as_tensor(getitem(source, key)) for key in keys for source in (a, x)]
    for values in (interpret(built, {x: a}), Session(built).run(built, {as_tensor(x): a})):
        assert [v.shape for v in values] == [a[key].shape for key in keys for _ in range(2)]
    with pytest.raises(StaticIndexError, match=r"a mask of size 3 along axis 1 of \(3, 2\)"):
        getitem(a, np.zeros((0, 3), bool))


def test_a_constant_mask_is_its_positions() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    masks = [x > 7, x[0] % 2 == 0, x[:, 0, 0] > 5, np.zeros((2, 3), bool), x > 99, [True, False]]
    keys = [
        (masks[0],), (slice(None), masks[1]), (masks[2],), (masks[2], ..., 1), (masks[3],), (masks[4],), (masks[5],),
        (masks[2], None, slice(1)), (..., [True, False, False, True]), (np.array([[0], [0]]), masks[1][0][:3]),
        (make_constant(masks[1][:2, :3]),),
    ]  # fmt: skip
    for key in keys:
        native = tuple(k.attr("value").array if isinstance(k, Node) else k for k in key)
        np.testing.assert_array_equal(interpret_nodes([getitem(x, key)], {})[0], x[native], err_msg=key_text(key))


def test_f43_every_array_of_a_gather_is_checked_in_compiled_code() -> None:
    x, i = symbolic("x", 3, "m"), make_placeholder("i", int64, (4,))
    y = as_tensor(getitem(x, ([0, 1, 2, 2], i)))
    a = np.arange(15.0).reshape(3, 5)
    with Session(y) as session:
        good = np.array([4, -5, 0, 1])
        np.testing.assert_array_equal(session.run(y, {as_tensor(x): a, as_tensor(i): good}), a[[0, 1, 2, 2], good])
        for bad in (5, -6, 2**40, -(2**40)):
            with pytest.raises(IndexError, match=r"gather .* at position 2 of its indices\n  at .*\.py:\d+$"):
                session.run(y, {as_tensor(x): a, as_tensor(i): np.array([0, 0, bad, 9])})


def test_slopes_of_gathers_are_those_of_numpys_add_at() -> None:
    x, i = symbolic("x", "n", 4, 2), make_placeholder("i", int64, as_shape(("k",)))
    rng = np.random.default_rng(0)
    a, rows = rng.normal(size=(3, 4, 2)), np.array([2, -1, 0, 2, 2])
    cols = [3, 0, 0, 3, -1]
    cases = [(getitem(x, (i, cols)), (rows, cols)), (getitem(x, (slice(None), cols, ..., 1)), np.s_[:, cols, ..., 1])]
    along = np.argsort(a, axis=1)
    cases.append((take_along_axis(x, along, axis=1), None))
    for node, key in cases:
        (g,) = gradients(as_tensor(sum(multiply(node, node))), [as_tensor(x)])
        want = np.zeros_like(a)
        if key is None:
            want = 2 * a  # each element is taken once
        else:
            np.add.at(want, key, 2 * a[key])
        fed = {x: a} | ({i: rows} if node is cases[0][0] else {})
        np.testing.assert_allclose(interpret(g, fed), want, rtol=1e-14)


def test_take_along_axis_broadcasts_the_other_axes() -> None:
    x, i = np.arange(24).reshape(2, 3, 4), np.array([[[2], [0], [-1]]])
    node = take_along_axis(x, i)
    np.testing.assert_array_equal(interpret_nodes([node], {})[0], np.take_along_axis(x, i, -1))
    with pytest.raises(ShapeError, match=r"take_along_axis: shapes \(2, 3\) and \(2, 2\) do not broadcast"):
        take_along_axis(x, np.zeros((2, 2, 1), np.int64))
    with pytest.raises(ShapeError, match="same rank"):
        take_along_axis(x, np.zeros(3, np.int64))
    with pytest.raises(StaticIndexError, match="axis 3 is out of range for rank 3"):
        take_along_axis(x, i, axis=3)


def test_roll_and_axes_that_are_no_ints_are_refused() -> None:
    with pytest.raises(DTypeError, match=r"roll: a shift must be an int, got 1\.5"):
        roll(np.zeros(3), 1.5)
    with pytest.raises(DTypeError, match="roll: a shift must be an int, got True"):
        roll(np.zeros(3), True)
    with pytest.raises(DTypeError, match="permute_dims: axes must be a tuple of ints, got 1"):
        permute_dims(np.zeros(3), 1)


def test_numbers_beyond_64_bits_are_bounds_like_any_others() -> None:
    x, huge = symbolic("x", "n"), 10**30
    nodes = [
        getitem(x, k)
        for k in (np.s_[:huge], np.s_[-huge:], np.s_[huge:], np.s_[::huge], np.s_[::-huge], np.s_[huge:0:-1])
    ]
    a = np.arange(5.0)
    want = [a, a, a[:0], a[:1], a[4:], a[:0:-1]]
    tensors = [as_tensor(n) for n in nodes]
    for got, compiled, expected in zip(
        interpret(nodes, {x: a}), Session(tensors).run(tensors, {as_tensor(x): a}), want, strict=True
    ):
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(compiled, expected)
    for k in (huge, -huge, 2**60):
        with pytest.raises(StaticIndexError, match=rf"index {k} is out of range for axis 0 of \(n,\)"):
            getitem(x, k)
    with pytest.raises(LimitError, match=r"roll: shifts \(1000\d*,\) are beyond 2\*\*60"):
        roll(x, huge)
