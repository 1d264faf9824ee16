"""Feeds: what arrays, scalars and lists are taken, what is refused, and feeding nodes inside the graph."""

from __future__ import annotations

import array
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from tests.support.bits import same_bits

Array = np.ndarray[Any, Any]


class Net:
    def __init__(self) -> None:
        self.x = jf.placeholder("x", jf.float32, ("n", 4))
        self.i = jf.placeholder("i", jf.int32, ())
        self.h = jf.exp(self.x).named("h")
        self.y = (jf.flip(self.h, axis=0) * 2.0).named("y")
        self.z = (self.y + self.i.astype(jf.float32)).named("z")
        self.session = jf.Session([self.y, self.z])


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    n = Net()
    with n.session:
        yield n


X = np.random.default_rng(3).standard_normal((6, 4)).astype(np.float32)


def layouts(values: Array) -> dict[str, Array]:
    """Return arrays equal to `values` in every layout numpy can make."""
    n, m = values.shape
    kind = values.dtype
    wide = np.zeros((2 * n, 3 * m), kind)
    wide[::2, ::3] = values
    raw = np.zeros(values.nbytes + 64, np.uint8)
    unaligned = raw[1 : 1 + values.nbytes].view(kind).reshape(n, m)
    unaligned[...] = values
    read_only = values.copy()
    read_only.setflags(write=False)
    frozen = np.frombuffer(values.tobytes(), kind).reshape(n, m)
    five = np.zeros((2, n, 1, m, 2), kind)
    five[1, :, 0, :, 1] = values
    return {
        "plain": values.copy(),
        "fortran": np.asfortranarray(values),
        "transposed": values.T.copy().T,
        "steps": wide[::2, ::3],
        "negative steps": values[::-1, ::-1].copy()[::-1, ::-1],
        "one negative": values[::-1].copy()[::-1],
        "unaligned": unaligned,
        "read-only": read_only,
        "of bytes": frozen,
        "part of five axes": five[1, :, 0, :, 1],
        "offset": np.concatenate([values[:1], values])[1:],
    }


@pytest.mark.parametrize("name", list(layouts(X)))
def test_f24_f25_f27_feeds_of_any_layout_are_read_right(net: Net, name: str) -> None:
    feed = layouts(X)[name]
    before = feed.copy()
    want = net.session.run(net.y, {net.x: X})
    assert same_bits(net.session.run(net.y, {net.x: feed}), want)
    for native in (None, False):
        f = net.session.function([net.x], net.y, native=native)
        assert same_bits(f(feed), want)
    assert same_bits(np.ascontiguousarray(feed), np.ascontiguousarray(before))


def test_f24_zero_strides_are_read_right(net: Net) -> None:
    for feed in (
        np.broadcast_to(np.float32(1.5), (5, 4)),
        np.broadcast_to(X[0], (5, 4)),
        np.broadcast_to(X[:5, :1], (5, 4)),
        np.lib.stride_tricks.as_strided(X, (3, 4), (4, 4)),
    ):
        assert same_bits(net.session.run(net.y, {"x": feed}), net.session.run(net.y, {"x": feed.copy()}))


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
def test_every_dtype_in_every_layout(dtype: str) -> None:
    x = jf.placeholder("x", dtype, (5, 4))
    y = jf.where(x == x, jf.flip(x, axis=1), x)
    values = (np.arange(20).reshape(5, 4) % 7 - 3).astype(dtype)
    with jf.Session(y) as session:
        want = session.run(y, {x: values})
        np.testing.assert_array_equal(want, values[:, ::-1])
        for name, feed in layouts(values).items():
            assert same_bits(session.run(y, {x: feed}), want), name


def test_f15_zero_size_feeds(net: Net) -> None:
    for feed in (np.zeros((0, 4), np.float32), np.zeros((4, 0), np.float32).T, X[3:3], X[::-1][6:]):
        got = net.session.run([net.y, net.h], {"x": feed})
        assert [a.shape for a in got] == [(0, 4), (0, 4)]
        assert got[0].dtype == np.float32
        assert net.session.function([net.x], net.y)(feed).shape == (0, 4)


def test_f16_0_d_feeds(net: Net) -> None:
    want = net.session.run(net.y, {"x": X}) + np.float32(3)
    for feed in (
        np.array(3, np.int32),
        np.int32(3),
        3,
        np.array([3, 9], np.int32)[0],
        np.array([9, 3], np.int32)[1:][0],
    ):
        assert same_bits(net.session.run(net.z, {net.x: X, net.i: feed}), want)


def test_f26_byte_swapped_feeds_are_converted(net: Net) -> None:
    want = net.session.run(net.z, {net.x: X, net.i: 3})
    assert same_bits(net.session.run(net.z, {net.x: X.astype(">f4"), net.i: np.array(3, ">i4")}), want)
    f = net.session.function([net.x, net.i], net.z)
    assert same_bits(f(X.astype(">f4")[::-1][::-1], np.array(3, ">i4")), want)


def test_memory_maps_and_subclasses_and_buffers_are_arrays(net: Net) -> None:
    want = net.session.run(net.y, {"x": X})

    class Sub(np.ndarray[Any, Any]):
        pass

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, X)
        mapped = np.load(path, mmap_mode="r")
        assert isinstance(mapped, np.memmap)
        buffer = memoryview(array.array("f", X.reshape(-1).tolist())).cast("B").cast("f", list(X.shape))
        for feed in (mapped, X.view(Sub), X.view(np.recarray), buffer):
            got = net.session.run(net.y, {"x": feed})
            assert type(got) is np.ndarray
            assert same_bits(got, want)
            assert same_bits(net.session.function([net.x], net.y)(feed), want)
        mapped_out = np.lib.format.open_memmap(Path(folder) / "y.npy", "w+", np.float32, X.shape)
        net.session.function([net.x], net.y)(mapped, out=mapped_out)
        assert same_bits(np.asarray(mapped_out), want)
        del mapped, mapped_out


class Holder:
    """An array of another library: it offers ``__array__`` and nothing else."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_f30_objects_with_an_array_are_converted(net: Net) -> None:
    assert same_bits(net.session.run(net.y, {"x": Holder(X)}), net.session.run(net.y, {"x": X}))
    with pytest.raises(jf.FeedError):
        net.session.run(net.y, {"x": Holder(X.astype(np.float64))})


def test_f31_an_array_method_that_raises_passes_its_exception_on(net: Net) -> None:
    with pytest.raises(ZeroDivisionError, match="theirs"):
        net.session.run(net.y, {"x": Holder(ZeroDivisionError("theirs"))})
    assert net.session.run(net.y, {"x": X}).shape == (6, 4)


@pytest.mark.parametrize(
    "feed",
    [
        None,
        "abc",
        b"abcd",
        object(),
        {},
        {1.0},
        np.ma.masked_array(X, mask=X > 0),
        np.array([["a"] * 4]),
        np.array([[None] * 4]),
        np.array([[object()] * 4]),
        np.zeros((2, 4), "datetime64[s]"),
        np.zeros((2, 4), "timedelta64[s]"),
        np.zeros((2, 4), [("a", np.float32)]),
        np.zeros((2, 4), np.complex64),
        np.zeros((2, 4), np.longdouble),
        [[1.0, 2.0, 3.0, 4.0], [1.0]],
        [[1.0, 2.0, 3.0, None]],
        [["1", "2", "3", "4"]],
        [[1j] * 4],
        lambda: X,
        jf,
        np.ndarray,
        1 + 2j,
    ],
    ids=lambda f: type(f).__name__,
)
def test_f20_f30_what_is_no_array_of_numbers_is_refused(net: Net, feed: Any) -> None:
    for run in (
        lambda: net.session.run(net.y, {"x": feed}),
        lambda: net.session.function([net.x], net.y)(feed),
        lambda: jf.interpret(net.y, {net.x: feed}),
    ):
        with pytest.raises((jf.FeedError, jf.DTypeError)) as caught:
            run()
        assert isinstance(caught.value, jf.JitflowError)
        assert "x" in str(caught.value)


def test_a_tensor_is_no_value(net: Net) -> None:
    for run in (
        lambda: net.session.run(net.y, {net.x: net.x}),
        lambda: net.session.function([net.x], net.y)(net.x),
        lambda: jf.interpret(net.y, {net.x: net.x}),
    ):
        with pytest.raises(TypeError):
            run()


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64", "bool", "uint8", "uint32", "complex64"])
def test_f23_another_dtype_is_refused_and_said(net: Net, dtype: str) -> None:
    feed = np.ones((2, 4), dtype)
    for run in (
        lambda: net.session.run(net.y, {"x": feed}),
        lambda: net.session.function([net.x], net.y)(feed),
        lambda: net.session.function([net.x], net.y, native=False)(feed),
        lambda: jf.interpret(net.y, {net.x: feed}),
    ):
        with pytest.raises((jf.FeedError, jf.DTypeError)) as caught:
            run()
        assert "float32" in str(caught.value)
        assert dtype in str(caught.value) or "ndarray" in str(caught.value)
        assert "x" in str(caught.value)


def test_f23_float64_for_float32_is_a_feed_error_at_the_users_line(net: Net) -> None:
    with pytest.raises(jf.FeedError, match=r"takes float32 of shape \(n, 4\), got float64") as caught:
        net.session.run(net.y, {"x": X.astype(np.float64)})
    assert str(caught.value).splitlines()[-1].startswith("  at ")
    assert "test_feeds.py" in str(caught.value).splitlines()[-1]
    for feed in (np.float64(1), np.int64(1), np.array(1, np.int64), np.bool_(True)):
        with pytest.raises(jf.FeedError, match="int32"):
            net.session.run(net.z, {"x": X, "i": feed})


def test_python_scalars_and_lists_convert_weakly() -> None:
    f = jf.placeholder("f", jf.float32, ())
    d = jf.placeholder("d", jf.float64, (2,))
    i = jf.placeholder("i", jf.int32, (2, 2))
    b = jf.placeholder("b", jf.bool, ())
    fetches = [f, d, i, b]

    with jf.Session(fetches) as session:

        def run(*values: Any) -> list[Array]:
            both = session.run(fetches, dict(zip(fetches, values, strict=True)))
            for a, w in zip(both, jf.interpret(fetches, dict(zip(fetches, values, strict=True))), strict=True):
                assert same_bits(a, w)
            assert [a.dtype for a in both] == [np.float32, np.float64, np.int32, np.bool_]
            return both

        got = run(1.5, [1.0, 2.0], [[1, 2], [3, 4]], True)
        assert got[0] == 1.5
        np.testing.assert_array_equal(got[2], [[1, 2], [3, 4]])
        got = run(3, (1, 2), ((1, True), [False, 4]), False)
        np.testing.assert_array_equal(got[1], [1.0, 2.0])
        np.testing.assert_array_equal(got[2], [[1, 1], [0, 4]])
        got = run(float("nan"), [float("inf"), -0.0], [[0, 0], [0, 0]], True)
        assert np.isnan(got[0])
        assert np.signbit(got[1][1])
        got = run(0.1, [True, 2], [[-(2**31), 2**31 - 1], [0, 0]], True)
        assert got[0] == np.float32(0.1)
        good: dict[Any, Any] = {f: 1.5, d: [1.0, 2.0], i: [[1, 2], [3, 4]], b: True}
        bad = [
            (i, [[1.5, 2], [3, 4]]),
            (i, 1.0),
            (b, 1),
            (b, 0.0),
            (i, [[2**31, 0], [0, 0]]),
            (i, [[-(2**31) - 1, 0], [0, 0]]),
        ]
        bad += [(f, [1.0]), (d, 1.0), (d, [1.0]), (d, [1.0, 2.0, 3.0]), (d, [[1.0, 2.0]]), (i, [1, 2]), (d, [])]
        for node, value in bad:
            for run_ in (lambda f: session.run(fetches, f), lambda f: jf.interpret(fetches, f)):
                with pytest.raises(jf.FeedError):
                    run_({**good, node: value})


# ---- which nodes are fed


def test_f22_a_missing_feed_is_named_with_its_line(net: Net) -> None:
    for run in (lambda f: net.session.run(net.z, f), lambda f: jf.interpret(net.z, f)):
        with pytest.raises(jf.FeedError, match=r"placeholder 'i' .* is not fed") as caught:
            run({net.x: X})
        assert "test_feeds.py:" in str(caught.value).splitlines()[-1]
    with pytest.raises(jf.FeedError, match="'x'"):
        net.session.run(net.y)


def test_f22_a_feed_that_the_fetches_do_not_need_is_refused(net: Net) -> None:
    for run in (lambda f, t: net.session.run(t, f), lambda f, t: jf.interpret(t, f)):
        with pytest.raises(jf.FeedError, match="'i'"):
            run({net.x: X, net.i: 3}, net.y)
        with pytest.raises(jf.FeedError, match="'x' is not needed"):
            run({net.h: X, net.x: X}, net.y)
    with pytest.raises(jf.FeedError, match="not needed"):
        net.session.run([], {net.x: X})


def test_f22_an_unknown_feed_is_refused_with_the_nearest_name(net: Net) -> None:
    for run in (lambda f: net.session.run(net.y, f), lambda f: jf.interpret(net.y, f)):
        with pytest.raises(jf.FeedError, match=r"unknown feed 'xx'.*did you mean 'x'"):
            run({"xx": X, net.x: X})
        with pytest.raises(jf.FeedError):
            run({jf.placeholder("x", jf.float32, ("n", 4)): X, net.x: X})
        for key in (3, None, 1.5, (net.x,), b"x"):
            with pytest.raises(jf.FeedError, match="by tensor or by name"):
                run({key: X, net.x: X})


def test_f22_a_node_fed_twice_is_refused(net: Net) -> None:
    for run in (lambda f: net.session.run(net.y, f), lambda f: jf.interpret(net.y, f)):
        with pytest.raises(jf.FeedError, match="'x' is fed twice"):
            run({net.x: X, "x": X})


@pytest.mark.parametrize("feeds", [[("x", X)], X, "x", 3, {1, 2}], ids=str)
def test_feeds_that_are_no_dict_are_refused(net: Net, feeds: Any) -> None:
    with pytest.raises(jf.FeedError, match="must be a dict"):
        net.session.run(net.y, feeds)
    with pytest.raises(jf.FeedError, match="must be a dict"):
        jf.interpret(net.y, feeds)


def test_a_fed_inner_node_cuts_the_graph_there(net: Net) -> None:
    h = np.arange(8, dtype=np.float32).reshape(2, 4)
    for key in (net.h, "h"):
        np.testing.assert_array_equal(net.session.run(net.y, {key: h}), h[::-1] * 2)
        got = net.session.run([net.y, net.h], {key: h})
        np.testing.assert_array_equal(got[1], h)
        assert not np.shares_memory(got[1], h)
    np.testing.assert_array_equal(net.session.run(net.z, {"y": h, "i": 1}), h + 1)
    np.testing.assert_array_equal(net.session.run("flip_0", {"h": h}), h[::-1])
    # Above the cut both are still there: x is needed again once something else needs it.
    got = net.session.run({"x": net.x, "y": net.y}, {"x": X[:2], "h": h})
    np.testing.assert_array_equal(got["x"], X[:2])
    np.testing.assert_array_equal(got["y"], h[::-1] * 2)


def test_variables_and_constants_can_be_fed_for_one_run() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    w = jf.variable("w", np.ones(3, np.float32))
    c = jf.constant(np.arange(3, dtype=np.float32)).named("c")
    y = jf.sum(w * c) * x
    with jf.Session(y) as session:
        one = np.ones(1, np.float32)
        assert session.run(y, {x: one}) == 3
        assert session.run(y, {x: one, w: np.full(3, 2, np.float32)}) == 6
        assert session.run(y, {x: one, "c": np.full(3, 2, np.float32)}) == 6
        assert session.run(y, {x: one}) == 3


def test_dims_of_a_fed_inner_node_unify_with_the_others(net: Net) -> None:
    y2 = jf.sum(net.h, axis=1)
    both = net.h * net.x
    with jf.Session([both, y2]) as session:
        assert session.run(both, {net.h: X, net.x: X}).shape == (6, 4)
        for run in (lambda f: session.run(both, f), lambda f: jf.interpret(both, f)):
            with pytest.raises(jf.FeedError, match="n"):
                run({net.h: X[:3], net.x: X})
            with pytest.raises(jf.FeedError):
                run({net.h: X[:, :3], net.x: X})
            with pytest.raises(jf.FeedError):
                run({net.h: X[0], net.x: X})


def test_f21_a_size_that_is_not_the_declared_one_is_refused(net: Net) -> None:
    for feed in (np.ones((2, 5), np.float32), np.ones((2, 1), np.float32), np.ones(4, np.float32), np.float32(1)):
        for run in (
            lambda f: net.session.run(net.y, {"x": f}),
            lambda f: net.session.function([net.x], net.y)(f),
            lambda f: jf.interpret(net.y, {net.x: f}),
        ):
            with pytest.raises(jf.FeedError, match=r"\(n, 4\)"):
                run(feed)
