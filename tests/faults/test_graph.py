"""F1 to F10: what graphs can get wrong, and how deep they may be."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow import session as session_module
from tests.support.bits import same_bits

HEAD = 'graph 1:\n  x: f32[2] = placeholder(name="x")\n'


def test_f1_a_cycle_is_listed() -> None:
    text = "graph 1:\n  a: f32[2] = add(b, b)\n  b: f32[2] = exp(c)\n  c: f32[2] = exp(a)\n  return a\n"
    with pytest.raises(jf.GraphError, match="cycle: a -> b -> c -> a"):
        jf.parse_graph(text)
    with pytest.raises(jf.GraphError, match="cycle: a -> a"):
        jf.parse_graph("graph 1:\n  a: f32[2] = exp(a)\n  return a\n")


def test_f2_an_unknown_op_or_attribute_is_named_with_the_nearest() -> None:
    with pytest.raises(jf.GraphError, match="unknown operator 'expp'; did you mean 'exp'"):
        jf.parse_graph(HEAD + "  a: f32[2] = expp(x)\n  return a\n")
    with pytest.raises(jf.GraphError, match="softmax has no attribute 'axs'; did you mean 'axis'"):
        jf.parse_graph(HEAD + "  a: f32[2] = softmax(x, axs=0)\n  return a\n")


def test_f4_a_dangling_input_is_named() -> None:
    with pytest.raises(jf.GraphError, match="'a' reads 'y', which is not defined"):
        jf.parse_graph(HEAD + "  a: f32[2] = exp(y)\n  return a\n")


def test_f5_a_tensor_of_another_session_is_refused_and_named() -> None:
    x, z = jf.placeholder("x", jf.float32, (2,)), jf.placeholder("z", jf.float32, (2,))
    with jf.Session(jf.exp(x)) as session:
        for use in (
            lambda: session.run(jf.exp(z), {z: [1, 2]}),
            lambda: session.run(jf.exp(x) + z, {x: [1, 2], z: [1, 2]}),
            lambda: session.function([z], jf.exp(x)),
            lambda: session.function([x], jf.exp(z)),
            lambda: session.dump("loops", z),
        ):
            with pytest.raises((jf.GraphError, jf.FeedError), match="no part of this session's graph"):
                use()


def chain(x: jf.Tensor, length: int) -> jf.Tensor:
    """Return a value at the end of `length` nodes, of several kinds."""
    y = x
    for k in range(length // 4):
        y = jf.maximum(y * 1.0001, -1.0) + 0.5 if k % 7 else jf.flip(jf.tanh(y), axis=0) - x
    return y


def build_run_and_delete(length: int) -> None:
    x = jf.placeholder("x", jf.float32, (16,))
    y = chain(x, length)
    feed = np.linspace(-2, 2, 16, dtype=np.float32)
    limit = sys.getrecursionlimit()
    with jf.Session([y]) as session:
        got = session.run(y, {x: feed})
        np.testing.assert_allclose(got, jf.interpret(y, {x: feed}), rtol=1e-4)
        assert session.dump("plan")
    assert sys.getrecursionlimit() == limit
    del y, session
    gc.collect()


def test_f7_a_chain_of_8000_nodes_builds_compiles_runs_and_is_deleted() -> None:
    build_run_and_delete(8_000)


@pytest.mark.slow
def test_f7_a_chain_of_100000_nodes_builds_compiles_runs_and_is_deleted() -> None:
    build_run_and_delete(100_000)


def test_f7_shared_nodes_cost_no_more_than_others() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = x
    for _ in range(200):
        y = (y + y) * 0.5  # 2**200 paths
    with jf.Session(y) as session:
        np.testing.assert_array_equal(session.run(y, {x: [1, -3]}), [1, -3])


def test_f7_many_fetches_and_many_inputs() -> None:
    inputs = [jf.placeholder(f"x{k}", jf.float32, (3,)) for k in range(300)]
    level: list[jf.Tensor] = inputs
    while len(level) > 1:
        level = [a + b for a, b in zip(level[::2], level[1::2], strict=False)] + level[len(level) & ~1 :]
    fetches = [jf.exp(inputs[0]) * float(k) for k in range(300)]
    feeds = {t: np.full(3, k, np.float32) for k, t in enumerate(inputs)}
    with jf.Session([level[0], *fetches]) as session:
        assert session.run(level[0], feeds).tolist() == [300 * 299 / 2] * 3
        for k, a in enumerate(session.run(fetches, {inputs[0]: [0, 0, 0]})):
            assert a.tolist() == [k] * 3
        f = session.function(inputs, level[0])
        assert same_bits(f(*feeds.values()), session.run(level[0], feeds))


def test_f7_as_many_symbolic_dims_as_one_likes() -> None:
    inputs = [jf.placeholder(f"x{k}", jf.float32, (f"n{k}",)) for k in range(10)]
    y = sum((jf.sum(jf.exp(x)) for x in inputs), start=jf.constant(np.float32(0)))
    joined = jf.concat(inputs) * 2.0
    with jf.Session([y, joined]) as session:
        feeds = {x: np.zeros(k, np.float32) for k, x in enumerate(inputs)}
        total, all_of_them = session.run([y, joined], feeds)
    assert total == sum(range(10))
    assert all_of_them.shape == (sum(range(10)),)


def test_f8_a_graph_over_the_limit_is_refused_with_count_and_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_NODES", 10)
    x = jf.placeholder("x", jf.float32, (2,))
    with pytest.raises(jf.LimitError, match="41 nodes, over the limit of 10"):
        jf.Session(plain_chain(x, 20))


def plain_chain(x: jf.Tensor, length: int) -> jf.Tensor:
    y = x
    for k in range(length):
        y = y + float(k)
    return y


BAD_AXES: list[Any] = [2, -3, (0, 0), (0, -2), (0, 5), 1.5, "0", (0.0,), 2**70]


@pytest.mark.parametrize("axis", BAD_AXES, ids=str)
def test_f18_a_duplicate_or_missing_axis_is_refused(axis: Any) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 3))
    for function in (jf.sum, jf.max, jf.mean, jf.flip, jf.var, jf.all):
        with pytest.raises((jf.ShapeError, jf.DTypeError)) as caught:
            function(x, axis=axis)
        assert "test_graph.py:" in str(caught.value).splitlines()[-1]
        assert "axis" in str(caught.value) or "axes" in str(caught.value)
    if isinstance(axis, int):
        for function in (jf.argmax, jf.softmax, jf.expand_dims if axis not in (2, -3) else jf.argmin):
            with pytest.raises(jf.ShapeError):
                function(x, axis=axis)


def test_f13_too_many_elements_are_refused_and_nothing_wraps() -> None:
    for make in (
        lambda: jf.placeholder("x", jf.float32, (2**40, 2**40)),
        lambda: jf.zeros((2**31, 2**31)),
        lambda: jf.placeholder("x", jf.float32, (2**64,)),
        lambda: jf.arange(10**30),
        lambda: jf.broadcast_to(jf.zeros((2**31, 1), dtype=jf.bool), (2**31, 2**31)),
        lambda: jf.zeros((2**31, 1)) + jf.zeros((2**31,)),
        lambda: jf.pad(jf.placeholder("x", jf.float32, (3,)), ((2**62, 2**62),)),
        lambda: jf.concat([jf.zeros((2**59,))] * 3),
    ):
        with pytest.raises(jf.ShapeError, match=r"test_graph\.py"):
            make()


def test_f15_the_greatest_of_nothing_is_refused() -> None:
    for function in (jf.max, jf.min, jf.argmax, jf.argmin):
        with pytest.raises(ValueError, match="no elements"):
            function(jf.zeros((0,)))
        with pytest.raises(ValueError, match="no elements"):
            function(jf.zeros((3, 0)), axis=1)
        assert function(jf.zeros((3, 0)), axis=0).shape == (0,)


def test_f17_a_rank_over_the_limit_is_refused() -> None:
    x = jf.placeholder("x", jf.float32, (1,) * 64)
    with jf.Session(jf.exp(x)) as session:
        assert session.run(jf.exp(x), {x: np.zeros((1,) * 64, np.float32)}).shape == (1,) * 64
    for make in (
        lambda: jf.placeholder("y", jf.float32, (1,) * 65),
        lambda: jf.expand_dims(x, axis=0),
        lambda: jf.stack([x, x]),
    ):
        with pytest.raises(jf.LimitError, match="rank 65 is over the limit of 64"):
            make()


def test_f19_nothing_is_narrowed_silently() -> None:
    i = jf.placeholder("i", jf.int32, (2,))
    x = jf.placeholder("x", jf.float32, (2,))
    for make in (
        lambda: i + 2**40,
        lambda: i * -(2**31) - 2**31 - 1,
        lambda: jf.take(x, x),
        lambda: x[x],
        lambda: x[1.0],
        lambda: jf.reshape(x, (2.0,)),
        lambda: jf.full((2,), 2**40, dtype=jf.int32),
        lambda: jf.full((2,), 2**80),
    ):
        with pytest.raises((jf.DTypeError, jf.ShapeError)):
            make()
    assert (i + 1.5).dtype == jf.float64
    assert (i + np.int64(1)).dtype == jf.int64


def test_f38_shifts_by_the_width_or_more_are_defined() -> None:
    x = jf.placeholder("x", jf.int32, (6,))
    n = jf.placeholder("n", jf.int32, (6,))
    values = np.array([1, -1, 5, -8, 2**31 - 1, -(2**31)], np.int32)
    fetches = [x << n, x >> n]
    with jf.Session(fetches) as session:
        for width in (0, 1, 31, 32, 33, 64, 2**31 - 1, -1, -(2**31)):
            feeds = {x: values, n: np.full(6, width, np.int32)}
            left, right = session.run(fetches, feeds)
            for got, want in zip((left, right), jf.interpret(fetches, feeds), strict=True):
                assert same_bits(got, want)
            if width >= 32:
                assert left.tolist() == [0] * 6
                assert right.tolist() == [0, -1, 0, -1, 0, -1]
            elif width >= 0:
                np.testing.assert_array_equal(left, values << np.int32(width))
                np.testing.assert_array_equal(right, values >> np.int32(width))


def test_f38_shifts_by_a_literal_and_of_one_number() -> None:
    x, one = jf.placeholder("x", jf.int32, (3,)), jf.placeholder("one", jf.int32, ())
    fetches = [x << 32, x >> 32, one << 32, one >> 32, one << 31, one >> 33]
    values = np.array([-3, 0, 7], np.int32)
    with jf.Session(fetches) as session:
        got = session.run(fetches, {x: values, one: np.int32(-3)})
    assert [g.tolist() for g in got] == [[0, 0, 0], [-1, 0, 0], 0, -1, -(2**31), -1]


# ---- indices


def test_f43_a_bad_index_is_an_index_error_with_the_node_and_the_first_bad_position() -> None:
    table = jf.placeholder("table", jf.float32, ("n", 3))
    index = jf.placeholder("index", jf.int64, (2, None))
    y = jf.take(table, index, axis=0).named("picked")
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert issubclass(jf.IndexRangeError, IndexError)
    with jf.Session([y, y * 2.0]) as session:
        good = np.array([[0, 3, -1], [-4, 2, 1]])
        np.testing.assert_array_equal(session.run(y, {table: rows, index: good}), rows[good])
        for bad, position in (
            ([[0, 1, 4], [9, 0, 0]], 2),
            ([[0, 1, 2], [3, -5, 4]], 4),
            ([[2**62, 0, 0], [0, 0, 0]], 0),
            ([[0, 0, 0], [0, 0, -(2**63)]], 5),
        ):
            for run in (
                lambda f: session.run(y, f),
                lambda f: session.run([y * 2.0, y], f),
                lambda f: session.function([table, index], y)(f[table], f[index]),
                lambda f: session.function([table, index], y, native=False)(f[table], f[index]),
            ):
                with pytest.raises(jf.IndexRangeError) as caught:
                    run({table: rows, index: np.array(bad)})
                text = str(caught.value)
                assert "take 'picked'" in text or "take 'take_0'" in text
                assert f"position {position} " in text
                assert "test_graph.py:" in text.splitlines()[-1]
            with pytest.raises(IndexError, match=rf"at \({position // 3}, {position % 3}\) "):
                jf.interpret(y, {table: rows, index: np.array(bad)})
        # After the error everything is as before.
        np.testing.assert_array_equal(session.run(y, {table: rows, index: good}), rows[good])
        assert session.run(y, {table: rows, index: np.zeros((2, 0), np.int64)}).shape == (2, 0, 3)
        empty = np.zeros((0, 3), np.float32)
        with pytest.raises(IndexError, match="position 0"):
            session.run(y, {table: empty, index: np.zeros((2, 1), np.int64)})
        assert session.run(y, {table: empty, index: np.zeros((2, 0), np.int64)}).shape == (2, 0, 3)


def test_f43_the_node_of_the_first_bad_gather_is_named_among_several() -> None:
    table, i = jf.placeholder("table", jf.float64, (4,)), jf.placeholder("i", jf.int32, ("n",))
    first = jf.take(table, i).named("first")
    second = jf.take(first, i + 1).named("second")
    with jf.Session(second) as session:
        assert session.run(second, {table: np.arange(4.0), i: [0, 1, 1, 0]}).tolist() == [1, 1, 1, 1]
        with pytest.raises(IndexError, match="'first'"):
            session.run(second, {table: np.arange(4.0), i: [0, 7, 0, 0]})
        with pytest.raises(IndexError, match="'second'"):
            session.run(second, {table: np.arange(4.0), i: [0, 3, 0, 0]})


def test_f43_a_constant_bad_index_is_refused_in_the_run() -> None:
    y = jf.take(jf.constant([1.0, 2.0]), jf.constant([0, 5]))
    with jf.Session(y) as session, pytest.raises(IndexError, match="position 1"):
        session.run(y)


# ---- sizes


@pytest.mark.slow
def test_f14_more_than_two_to_the_31_elements() -> None:
    n = 2**31 + 11
    index = jf.arange(n)
    fetches = [jf.sum(index % 2), jf.argmax(jf.where(index == n - 3, 1, 0)), jf.sum(jf.arange(n) * 0 + 1)]
    with jf.Session(fetches) as session:
        odd, place, count = session.run(fetches)
    assert odd == n // 2
    assert place == n - 3
    assert count == n
    x = jf.placeholder("x", jf.bool, ("n",))
    y = jf.flip(x)
    feed = np.zeros(n, np.bool_)
    feed[1] = feed[n - 5] = True
    with jf.Session(y) as session:
        got = session.run(y, {x: feed})
    assert np.flatnonzero(got).tolist() == [4, n - 2]


def test_f46_results_that_cannot_exist_are_memory_errors_before_anything_runs() -> None:
    names = "xyz"
    x, y, z = (jf.placeholder(n, jf.bool, (n,)) for n in names)
    big = np.broadcast_to(np.True_, (1 << 22,))
    cube = x[:, None, None] & y[None, :, None] & z[None, None, :]
    square = jf.where(x[:, None] & y[None, :], 1.0, 2.0)
    scratch = jf.sum(jf.softmax(square) @ square.T)
    cases = {
        "more than 63 bits": (cube, "2\\*\\*63 bytes"),
        "an output": (square, f"{8 << 44} bytes"),
        "intermediate results": (scratch, r"\d{14,} bytes"),
    }
    for name, (fetch, text) in cases.items():
        inputs = [x, y, z] if fetch is cube else [x, y]
        with jf.Session(fetch) as session:
            with pytest.raises(MemoryError, match=text) as caught:
                session.run(fetch, dict.fromkeys(inputs, big))
            assert isinstance(caught.value, jf.JitflowError), name
            for native in (None, False):
                f = session.function(inputs, fetch, native=native)
                with pytest.raises(MemoryError, match=text):
                    f(*[big] * len(inputs))
            small = dict.fromkeys(inputs, np.ones(2, np.bool_))
            assert session.run(fetch, small).shape == jf.interpret(fetch, small).shape
    with pytest.raises(MemoryError) as caught:
        jf.interpret(square, {x: big, y: big})
    assert isinstance(caught.value, jf.JitflowError)
