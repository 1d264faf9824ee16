"""`Session.run`: structures, dtypes and shapes of results, and that they belong to the caller."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from tests.support.bits import same_bits

Array = np.ndarray[Any, Any]

RNG = np.random.default_rng(7)
IMAGES = RNG.standard_normal((5, 6)).astype(np.float32)
WEIGHTS = RNG.standard_normal((6, 3)).astype(np.float32)


class Model:
    """The example of the design: one softmax layer with a symbolic batch."""

    def __init__(self) -> None:
        self.x = jf.placeholder("x", jf.float32, ("batch", 6))
        self.w = jf.variable("w", WEIGHTS)
        self.hidden = (self.x @ self.w).named("hidden")
        self.y = jf.softmax(self.hidden + 1.0, axis=-1).named("y")
        self.total = jf.sum(self.y).named("total")
        self.session = jf.Session([self.y, self.total])


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    m = Model()
    with m.session:
        yield m


def expected(images: Array = IMAGES) -> Array:
    h = images.astype(np.float64) @ WEIGHTS.astype(np.float64) + 1.0
    e = np.exp(h - h.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_a_tensor_gives_an_array(model: Model) -> None:
    got = model.session.run(model.y, {model.x: IMAGES})
    assert type(got) is np.ndarray
    assert got.dtype == np.float32
    assert got.shape == (5, 3)
    np.testing.assert_allclose(got, expected(), rtol=1e-5)


def test_a_name_gives_an_array(model: Model) -> None:
    got = model.session.run("y", {"x": IMAGES})
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, expected(), rtol=1e-5)


def test_a_list_gives_a_list_in_the_same_order(model: Model) -> None:
    got = model.session.run([model.total, "y"], {"x": IMAGES})
    assert type(got) is list
    assert [a.shape for a in got] == [(), (5, 3)]


def test_a_tuple_gives_a_tuple(model: Model) -> None:
    got = model.session.run((model.y, model.total), {"x": IMAGES})
    assert type(got) is tuple
    assert [a.shape for a in got] == [(5, 3), ()]


def test_a_dict_gives_a_dict_with_the_same_keys_in_the_same_order(model: Model) -> None:
    got = model.session.run({"b": model.y, 3: model.total, "a": "hidden"}, {"x": IMAGES})
    assert type(got) is dict
    assert list(got) == ["b", 3, "a"]
    np.testing.assert_allclose(got["b"], expected(), rtol=1e-5)
    np.testing.assert_allclose(got["a"], IMAGES @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_structures_may_be_nested(model: Model) -> None:
    got = model.session.run({"a": [model.y, (model.total,)], "b": []}, {"x": IMAGES})
    assert type(got["a"]) is list
    assert type(got["a"][1]) is tuple
    assert got["b"] == []
    np.testing.assert_allclose(got["a"][0], expected(), rtol=1e-5)


def test_a_named_tuple_stays_one(model: Model) -> None:
    pair = namedtuple("pair", "probabilities total")
    got = model.session.run(pair(model.y, model.total), {"x": IMAGES})
    assert type(got) is pair
    assert got.probabilities.shape == (5, 3)
    assert got.total.shape == ()


@pytest.mark.parametrize("nothing", [[], (), {}])
def test_f10_no_fetch_gives_no_result(model: Model, nothing: Any) -> None:
    for got in (model.session.run(nothing), model.session.run(nothing, {})):
        assert type(got) is type(nothing)
        assert len(got) == 0


def test_a_session_of_nothing_runs_nothing() -> None:
    with jf.Session([]) as session:
        assert session.run([]) == []
        assert session.run((), {}) == ()


def test_a_session_is_made_of_a_tensor_list_tuple_or_dict(model: Model) -> None:
    for fetches in (model.y, [model.y], (model.y, model.total), {"y": model.y}):
        with jf.Session(fetches) as session:
            np.testing.assert_allclose(session.run(model.y, {"x": IMAGES}), expected(), rtol=1e-5)


def test_a_0_d_result_stays_an_array(model: Model) -> None:
    for got in (
        model.session.run(model.total, {"x": IMAGES}),
        model.session.run([model.total], {"x": IMAGES})[0],
        model.session.run({"t": "total"}, {"x": IMAGES})["t"],
    ):
        assert type(got) is np.ndarray
        assert got.shape == ()
        assert got.dtype == np.float32
        got[...] = 0.0


def test_results_are_fresh_writable_contiguous_and_alias_nothing() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 4))
    c = jf.constant(np.arange(4, dtype=np.float32))
    v = jf.variable("v", np.ones(4, np.float32))
    turned = jf.permute_dims(x, (1, 0))
    same = jf.reshape(x, (-1, 4))
    fetches = [x, same, turned, x[1:], c, v, x + 0.0, jf.broadcast_to(c, (2, 4)), x, c]
    feed = np.arange(12, dtype=np.float32).reshape(3, 4)
    with jf.Session(fetches) as session:
        first = session.run(fetches, {x: feed})
        second = session.run(fetches, {x: feed})
        want = [feed, feed, feed.T, feed[1:], c0(), np.ones(4), feed, np.tile(c0(), (2, 1)), feed, c0()]
        for got, w in zip(first, want, strict=True):
            assert type(got) is np.ndarray
            assert got.flags.c_contiguous
            assert got.flags.writeable
            assert got.flags.owndata
            assert got.base is None
            np.testing.assert_array_equal(got, w)
        everything = [*first, *second, feed]
        for i, a in enumerate(everything):
            for b in everything[:i]:
                assert not np.shares_memory(a, b)
        for got in first:
            got[...] = -1
        # What the caller does to results changes nothing: neither variables nor constants nor later results.
        for got, w in zip(session.run(fetches, {x: feed}), want, strict=True):
            np.testing.assert_array_equal(got, w)


def c0() -> Array:
    return np.arange(4, dtype=np.float32)


def test_a_fed_node_that_is_fetched_gives_a_copy_of_the_feed(model: Model) -> None:
    for key in (model.x, "x"):
        got = model.session.run(model.x, {key: IMAGES})
        np.testing.assert_array_equal(got, IMAGES)
        assert not np.shares_memory(got, IMAGES)


def test_a_node_fetched_twice_gives_two_arrays(model: Model) -> None:
    a, b, (c,) = model.session.run([model.y, "y", (model.y,)], {"x": IMAGES})
    assert same_bits(a, b)
    assert same_bits(a, c)
    assert not np.shares_memory(a, b)
    assert not np.shares_memory(b, c)


def test_feeds_are_left_as_they_are(model: Model) -> None:
    feed = IMAGES.copy()
    model.session.run([model.y, model.total, model.x], {model.x: feed})
    assert same_bits(feed, IMAGES)


def test_another_fetch_set_compiles_once_and_is_then_cached(model: Model) -> None:
    with jf.Session([model.y]) as session:
        before = session.compilations
        session.run([model.y, model.hidden], {"x": IMAGES})
        once = session.compilations
        assert once == before + 1
        for feed in (IMAGES, IMAGES[:2], np.zeros((0, 6), np.float32)):
            session.run([model.y, "hidden"], {"x": feed})
            session.run(("y", model.hidden), {model.x: feed})
            session.run({"a": "y", "b": model.hidden}, {model.x: feed})
            session.run(model.y, {"x": feed})
        assert session.compilations == once


def test_everything_named_at_creation_is_compiled_then(model: Model) -> None:
    with jf.Session([model.y, model.total]) as session:
        before = session.compilations
        assert before == 1
        session.run([model.y, model.total], {"x": IMAGES})
        assert session.compilations == before


def test_one_session_runs_every_batch_without_compiling_again(model: Model) -> None:
    before = model.session.compilations
    for n in (0, 1, 2, 3, 7, 8, 9, 16, 17, 31, 64, 65, 100, 1000):
        images = RNG.standard_normal((n, 6)).astype(np.float32)
        got = model.session.run([model.y, model.total], {model.x: images})
        np.testing.assert_allclose(got[0], expected(images), rtol=1e-5)
        assert got[1].shape == ()
    assert model.session.compilations == before


def test_any_inner_node_can_be_fetched_by_tensor_and_by_name(model: Model) -> None:
    np.testing.assert_allclose(model.session.run(model.hidden, {"x": IMAGES}), IMAGES @ WEIGHTS, rtol=1e-5, atol=1e-6)
    assert same_bits(
        model.session.run("add_0", {"x": IMAGES}), model.session.run("hidden", {"x": IMAGES}) + np.float32(1)
    )


def test_what_is_fetched_along_changes_no_bit(model: Model) -> None:
    alone = model.session.run(model.y, {"x": IMAGES})
    for others in (["hidden"], ["total"], ["hidden", "total", "add_0", "w"]):
        assert same_bits(model.session.run(["y", *others], {"x": IMAGES})[0], alone)


def test_a_node_that_is_no_part_of_the_session_cannot_be_fetched(model: Model) -> None:
    foreign = model.y * 2.0
    with pytest.raises(jf.GraphError, match="no part of this session"):
        model.session.run(foreign, {"x": IMAGES})
    with pytest.raises(jf.GraphError, match="unknown fetch 'nope'"):
        model.session.run("nope", {"x": IMAGES})
    with pytest.raises(jf.GraphError, match="did you mean 'hidden'"):
        model.session.run("hiden", {"x": IMAGES})
    for junk in (None, 3, 1.5, b"y", object(), np.zeros(2), {model.y}, jf.Session):
        with pytest.raises((jf.GraphError, TypeError)):
            model.session.run(junk, {"x": IMAGES})
    np.testing.assert_allclose(model.session.run("y", {"x": IMAGES}), expected(), rtol=1e-5)


def test_f9_building_on_after_creation_leaves_the_session_as_it_was(model: Model) -> None:
    names = dict(model.session._nodes)
    other = jf.exp(model.y).named("y2")
    unnamed = model.hidden + 5.0
    assert dict(model.session._nodes) == names
    assert "y2" not in names
    np.testing.assert_allclose(model.session.run("y", {"x": IMAGES}), expected(), rtol=1e-5)
    del other, unnamed


def test_sessions_share_nodes_and_nothing_else(model: Model) -> None:
    with jf.Session([model.y]) as a, jf.Session([model.y]) as b:
        ra, rb = a.run(model.y, {"x": IMAGES}), b.run(model.y, {"x": IMAGES})
        assert same_bits(ra, rb)
        a.close()
        assert same_bits(b.run(model.y, {"x": IMAGES}), rb)


def test_variables_belong_to_the_session_and_copy_their_first_value() -> None:
    start = np.arange(3, dtype=np.float64)
    v = jf.variable("v", start)
    y = v * 2.0
    start[:] = 100
    with jf.Session([y, v]) as session:
        np.testing.assert_array_equal(session.run(y), [0, 2, 4])
        got = session.run(v)
        got[:] = 50
        np.testing.assert_array_equal(session.run(v), [0, 1, 2])


def test_a_graph_without_placeholders_runs_without_feeds() -> None:
    y = jf.sum(jf.constant([1.0, 2.5])) * 2.0
    with jf.Session(y) as session:
        assert session.run(y) == 7.0
        assert session.run(y, {}) == 7.0
        assert session.run(y, None) == 7.0


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
def test_every_dtype_comes_back_as_it_went_in(dtype: str) -> None:
    x = jf.placeholder("x", dtype, ("n", 2))
    y = jf.flip(x, axis=1)
    feed = np.array([[0, 1], [1, 1], [1, 0]], dtype)
    with jf.Session([x, y]) as session:
        got = session.run([x, y], {x: feed})
    assert [a.dtype for a in got] == [np.dtype(dtype)] * 2
    np.testing.assert_array_equal(got[0], feed)
    np.testing.assert_array_equal(got[1], feed[:, ::-1])


def test_dtypes_of_results_follow_the_rules_of_the_design() -> None:
    i = jf.placeholder("i", jf.int32, (3,))
    b = jf.placeholder("b", jf.bool, (3,))
    f = jf.placeholder("f", jf.float32, (3,))
    d = jf.placeholder("d", jf.float64, (3,))
    cases: dict[str, tuple[jf.Tensor, Any]] = {
        "int32 + python int": (i + 1, np.int32),
        "int32 + python float": (i + 1.0, np.float64),
        "float32 + python float": (f * 2.5, np.float32),
        "float32 + python int": (f - 1, np.float32),
        "bool + python int": (b + 1, np.int64),
        "int32 + float32": (i + f, np.float64),
        "float32 + float64": (f + d, np.float64),
        "int / int": (i / i, np.float64),
        "exp of int32": (jf.exp(i), np.float64),
        "exp of float32": (jf.exp(f), np.float32),
        "sum of int32": (jf.sum(i), np.int64),
        "sum of bool": (jf.sum(b), np.int64),
        "sum of float32": (jf.sum(f), np.float32),
        "prod of int32": (jf.prod(i), np.int64),
        "argmax": (jf.argmax(f), np.int64),
        "argmin": (jf.argmin(i), np.int64),
        "comparison": (f < d, np.bool_),
        "mean of int32": (jf.mean(i), np.float64),
        "arange": (jf.arange(3), np.int64),
        "arange of floats": (jf.arange(0.0, 3.0), np.float64),
        "zeros": (jf.zeros((3,)), np.float64),
        "numpy scalar is strong": (f + np.float64(1), np.float64),
    }
    feeds = {
        i: np.array([1, 2, 3], np.int32),
        b: np.array([True, False, True]),
        f: np.array([1, 2, 3], np.float32),
        d: np.array([3, 2, 1], np.float64),
    }
    tensors = {k: t for k, (t, _) in cases.items()}
    with jf.Session(tensors) as session:
        got = session.run(tensors, feeds)
    want = jf.interpret(tensors, feeds)
    for name, (tensor, dtype) in cases.items():
        assert tensor.dtype == dtype, name
        assert got[name].dtype == np.dtype(dtype), name
        assert want[name].dtype == np.dtype(dtype), name
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, err_msg=name)
    assert got["sum of bool"] == 2
    assert got["mean of int32"] == 2.0


def test_var_divides_by_n_unless_told() -> None:
    x = jf.placeholder("x", jf.float64, ("n",))
    fetches = [jf.var(x), jf.var(x, correction=1)]
    feed = np.array([1.0, 2.0, 4.0, 9.0])
    with jf.Session(fetches) as session:
        a, b = session.run(fetches, {x: feed})
    np.testing.assert_allclose([a, b], [np.var(feed), np.var(feed, ddof=1)], rtol=1e-14)


def test_interpret_has_the_structures_of_run(model: Model) -> None:
    feeds = {model.x: IMAGES}
    assert type(jf.interpret(model.y, feeds)) is np.ndarray
    assert type(jf.interpret(model.total, feeds)) is np.ndarray
    assert type(jf.interpret([model.y], feeds)) is list
    assert type(jf.interpret((model.y, model.total), feeds)) is tuple
    assert list(jf.interpret({"p": model.y}, feeds)) == ["p"]
    assert jf.interpret([], {}) == []
    np.testing.assert_allclose(jf.interpret(model.y, {"x": IMAGES}), expected(), rtol=1e-5)
    np.testing.assert_allclose(jf.interpret(model.total, {model.hidden: np.zeros((4, 3), np.float32)}), 4.0, rtol=1e-6)


def test_a_call_that_comes_again_does_the_same() -> None:
    """The session remembers how calls were written: every spelling twice, in every order of the feeds."""
    x, y = (jf.placeholder(name, jf.float32, ("n",)) for name in "xy")
    difference = (x - y).named("difference")
    same = (x - y) * 1.0
    a, b = np.float32([1, 2, 3]), np.float32([10, 20, 30])
    with jf.Session([difference, same, jf.exp(x)]) as session:
        for _ in range(3):
            for feeds in ({x: a, y: b}, {y: b, x: a}, {"y": b, "x": a}, {"x": a, y: b}, {x: [1.0, 2.0, 3.0], y: b}):
                got = session.run(difference, feeds)
                np.testing.assert_array_equal(got, a - b)
                got[:] = 0  # the caller's own
                assert session.run("difference", feeds).tolist() == [-9, -18, -27]
                for kind in (list, tuple):
                    both = session.run(kind([difference, same]), feeds)
                    assert type(both) is kind
                    assert not np.shares_memory(*both)
                    np.testing.assert_array_equal(both, [a - b, a - b])
                    (swapped, _) = session.run(kind(["difference", difference]), feeds)
                    np.testing.assert_array_equal(swapped, a - b)
        assert session.compilations == 3  # at creation, difference alone, and with `same`
        for bad in ({x: a.astype(np.float64), y: b}, {x: a[:2], y: b}, {x: None, y: b}):
            with pytest.raises(jf.FeedError):
                session.run(difference, bad)
        with pytest.raises(jf.FeedError, match="'x' is fed twice"):
            session.run(difference, {x: a, "x": a, y: b})
        with pytest.raises(jf.FeedError, match=r"'y' .* is not fed"):
            session.run(difference, {x: a})
    with pytest.raises(jf.ClosedError):
        session.run(difference, {x: a, y: b})
