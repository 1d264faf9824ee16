"""Symbolic dims: names, guards instead of silent broadcasting, sizes that follow from others, what users see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf

Array = np.ndarray[Any, Any]


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def placeholder(name: str, *shape: Any) -> jf.Tensor:
    return jf.placeholder(name, jf.float32, shape)


def runners(fetch: Any, inputs: list[jf.Tensor]) -> list[Callable[..., Any]]:
    """Return every way to compute `fetch` from arrays for `inputs`; the session is freed with them."""
    session = jf.Session(fetch)
    return [
        lambda *a: session.run(fetch, dict(zip(inputs, a, strict=True))),
        session.function(inputs, fetch),
        session.function(inputs, fetch, native=False),
        lambda *a: jf.interpret(fetch, dict(zip(inputs, a, strict=True))),
    ]


def test_a_shape_compares_equal_to_a_plain_tuple() -> None:
    x = placeholder("x", "batch", 64)
    assert x.shape == ("batch", 64)
    assert ("batch", 64).__eq__(x.shape)
    assert x.shape != ("batch", 63)
    assert x.shape != ("other", 64)
    assert x.shape != ("batch",)
    assert isinstance(x.shape, tuple)
    assert placeholder("y", 2, 3).shape == (2, 3)
    assert placeholder("z").shape == ()
    assert (x + 1.0).shape == ("batch", 64)
    assert x.T.shape == (64, "batch")
    assert jf.sum(x, axis=1).shape == ("batch",)
    assert x.shape == placeholder("w", "batch", 64).shape
    assert x.shape[1] == 64
    assert str(x.shape[0]) == "batch"
    assert repr(x.shape) == "(batch, 64)"
    assert hash(x.shape) == hash(placeholder("v", "batch", 64).shape)
    assert x.ndim == 2


def test_dims_have_arithmetic() -> None:
    x, y = placeholder("x", "n", 3), placeholder("y", "m", 3)
    n, m = x.shape[0], y.shape[0]
    both = jf.concat([x, y])
    assert both.shape == (n + m, 3)
    assert both.shape == (m + n, 3)
    assert both.shape != (n, 3)
    assert jf.concat([x, x]).shape == (2 * n, 3)
    assert jf.reshape(x, (-1,)).shape == (3 * n,)
    assert jf.reshape(x, (3, -1)).shape == (3, n)
    assert jf.pad(x, ((1, 0), (0, 0))).shape == (n + 1, 3)
    assert x[:, None].shape == ("n", 1, 3)
    assert x.size == 3 * n
    assert jf.reshape(jf.concat([x, y]), (-1, 1)).shape == (3 * n + 3 * m, 1)


def test_a_dim_has_no_value_before_a_run() -> None:
    n = placeholder("x", "n").shape[0]
    for use in (int, bool, float, range, lambda d: [0] * d, lambda d: np.zeros(d)):
        with pytest.raises((TypeError, ValueError)):
            use(n)


def test_the_same_name_is_the_same_dim_everywhere() -> None:
    x, y = placeholder("x", "n", 2), placeholder("y", "n")
    z = x + y[:, None]
    assert z.shape == ("n", 2)
    for run in runners([z, y], [x, y]):
        assert run(ones(3, 2), ones(3))[0].shape == (3, 2)
        for a, b in ((3, 2), (3, 1), (1, 3), (0, 1), (1, 0)):
            with pytest.raises(jf.FeedError, match="n"):
                run(ones(a, 2), ones(b))


def test_a_dim_named_twice_in_one_shape_is_square() -> None:
    x = placeholder("x", "n", "n")
    for run in runners(jf.sum(x @ x), [x]):
        assert run(ones(3, 3)) == 27
        with pytest.raises(jf.FeedError):
            run(ones(3, 2))


def test_none_is_a_fresh_dim_each_time() -> None:
    x, y = placeholder("x", None, None), placeholder("y", None, 2)
    assert x.shape[0] != x.shape[1]
    assert x.shape[0] != y.shape[0]
    assert x.shape == x.shape
    fetches = [x * 2.0, y * 2.0]
    for run in runners(fetches, [x, y]):
        assert [a.shape for a in run(ones(2, 5), ones(7, 2))] == [(2, 5), (7, 2)]
    for run in runners(x[:, :2] + y, [x, y]):
        assert run(ones(4, 9), ones(4, 2)).shape == (4, 2)
        with pytest.raises(jf.FeedError):
            run(ones(4, 9), ones(5, 2))


def test_f21_a_symbolic_dim_never_broadcasts_silently_as_one() -> None:
    x, y = placeholder("x", "n"), placeholder("y", "m")
    for run in runners(x + y, [x, y]):
        np.testing.assert_array_equal(run(ones(3), ones(3)), [2, 2, 2])
        np.testing.assert_array_equal(run(ones(1), ones(1)), [2])
        assert run(ones(0), ones(0)).shape == (0,)
        for a, b in ((1, 3), (3, 1), (2, 3), (0, 1), (1, 0), (4, 2)):
            with pytest.raises(jf.FeedError) as caught:
                run(ones(a), ones(b))
            text = str(caught.value)
            assert "add" in text
            assert "n" in text
            assert "test_dims.py:" in text.splitlines()[-1]


def test_a_literal_one_broadcasts() -> None:
    x, y = placeholder("x", "n"), placeholder("y", 1)
    for run in runners(x + y, [x, y]):
        for n in (0, 1, 5):
            assert run(ones(n), ones(1)).shape == (n,)


def test_a_symbolic_against_a_literal_is_a_guard_and_no_specialisation() -> None:
    x = placeholder("x", "n")
    y = x + np.arange(3, dtype=np.float32)
    free = x * 2.0
    assert x.shape == ("n",)
    for run in runners([y, free], [x]):
        assert run(ones(3))[0].shape == (3,)
        for n in (0, 1, 2, 4):
            with pytest.raises(jf.FeedError):
                run(ones(n))
    for run in runners(free, [x]):
        assert run(ones(7)).shape == (7,)


def test_a_guard_is_checked_before_anything_is_written() -> None:
    x, y = placeholder("x", "n"), placeholder("y", "m")
    doubled, added = x * 2.0, x + y
    with jf.Session([doubled, added]) as session:
        for native in (None, False):
            f = session.function([x, y], [doubled, added], native=native)
            outs = [np.full(3, -1, np.float32), np.full(3, -1, np.float32)]
            with pytest.raises(jf.FeedError):
                f(ones(3), ones(2), out=outs)
            assert all((o == -1).all() for o in outs)
        assert session.run(doubled, {x: ones(3)}).shape == (3,)


def test_guards_of_nodes_that_are_not_computed_do_not_matter() -> None:
    x, y = placeholder("x", "n"), placeholder("y", "m")
    z = (x + y).named("z")
    w = jf.exp(z)
    with jf.Session([w, x, y]) as session:
        assert session.run(w, {z: ones(2)}).shape == (2,)
        assert session.run([x, y], {x: ones(2), y: ones(3)})[1].shape == (3,)
        with pytest.raises(jf.FeedError):
            session.run(w, {x: ones(2), y: ones(3)})


def test_sizes_that_are_formulas_are_solved_and_checked() -> None:
    x = placeholder("x", "n", 2)
    n = x.shape[0]
    even = jf.placeholder("even", jf.float32, (2 * n + 1,))
    made = jf.zeros((n, 2), dtype=jf.float32) + jf.sum(even)
    for run in runners(made, [even]):
        assert run(ones(7)).shape == (3, 2)
        assert run(ones(1)).shape == (0, 2)
        for size in (0, 2, 6):
            with pytest.raises(jf.FeedError):
                run(ones(size))
    for run in runners(x * jf.sum(even), [x, even]):
        assert run(ones(3, 2), ones(7)).shape == (3, 2)
        with pytest.raises(jf.FeedError):
            run(ones(3, 2), ones(9))


def test_dims_that_no_feed_determines_are_refused_when_it_runs_and_named() -> None:
    x = placeholder("x", "unknown_dim")
    y = jf.zeros((x.shape[0],)) + 1.0
    with jf.Session(y) as session:
        with pytest.raises(jf.GraphError, match="unknown_dim"):
            session.run(y)
        assert session.run(y, {x: np.zeros(3, x.dtype.np)}).shape == (3,)


def test_a_feed_may_be_needed_for_its_size_alone() -> None:
    x = placeholder("x", "n", 2)
    positions = jf.arange(x.shape[0])
    with jf.Session([positions, x * 2.0]) as session:
        assert session.run(positions, {x: ones(3, 2)}).tolist() == [0, 1, 2]
        assert session.function([x], [positions])(ones(2, 2))[0].tolist() == [0, 1]
        with pytest.raises(jf.FeedError, match="'x' is not needed"):
            session.run([], {x: ones(3, 2)})
        with pytest.raises(jf.GraphError, match="n"):
            session.run(positions)
    assert jf.interpret(positions, {x: ones(3, 2)}).tolist() == [0, 1, 2]


def test_a_size_that_turns_out_negative_is_refused() -> None:
    x = placeholder("x", "n")
    y = jf.zeros((x.shape[0] - 3,), dtype=jf.float32)
    for run in runners(jf.concat([x, y]), [x]):
        assert run(ones(4)).shape == (5,)
        assert run(ones(3)).shape == (3,)
        with pytest.raises(jf.FeedError, match="negative"):
            run(ones(2))


def test_slices_of_symbolic_axes_clamp_as_python_does() -> None:
    x = placeholder("x", "n")
    keys = [
        slice(1, None),
        slice(None, -1),
        slice(2, 5),
        slice(-2, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(-1, None, -2),
        slice(5, 1, -1),
        slice(3, 3),
        slice(100, None),
        slice(None, -100),
    ]
    cuts = [x[k] for k in keys]
    for run in runners(cuts, [x]):
        for n in range(8):
            a = np.arange(n, dtype=np.float32)
            for got, k in zip(run(a), keys, strict=True):
                np.testing.assert_array_equal(got, a[k], err_msg=f"{k} of {n}")


def test_reshape_with_minus_one_of_symbolic_sizes() -> None:
    x = placeholder("x", "n", 6)
    shapes = [(-1,), (-1, 3), (3, -1), ("n", 2, 3), (-1, 12), ("n", -1, 2)]
    tensors = [jf.reshape(x, s) for s in shapes]
    for run in runners(tensors, [x]):
        for n in (0, 2, 4):
            a = np.arange(n * 6, dtype=np.float32).reshape(n, 6)
            want = [(n * 6,), (n * 2, 3), (3, n * 2), (n, 2, 3), (n // 2, 12), (n, 3, 2)]
            for got, shape in zip(run(a), want, strict=True):
                np.testing.assert_array_equal(got, a.reshape(shape))
        with pytest.raises(jf.FeedError):
            run(ones(3, 6))


def test_f11_shapes_that_cannot_broadcast_are_refused_at_the_users_line() -> None:
    x, y = placeholder("x", "n", 3), placeholder("y", "n", 4)
    with pytest.raises(jf.ShapeError) as caught:
        x + y
    text = str(caught.value)
    assert text.splitlines()[0] == "add: shapes (n, 3) and (n, 4) do not broadcast"
    assert "test_dims.py:" in text.splitlines()[-1]


@pytest.mark.parametrize("bad", [-1, (2, -3), 1.5, (2, 1.5), "two words", True, (2, True), (2**62,), object(), ((2,),)])
def test_f12_what_is_no_shape_is_refused(bad: Any) -> None:
    with pytest.raises((jf.ShapeError, TypeError)) as caught:
        jf.placeholder("x", jf.float32, bad)
    assert isinstance(caught.value, jf.JitflowError)


def test_empty_axes_flow_through_everything() -> None:
    x = placeholder("x", "n", "m")
    fetches = {
        "map": jf.exp(x),
        "sum": jf.sum(x),
        "rows": jf.sum(x, axis=1),
        "columns": jf.sum(x, axis=0),
        "product": jf.matmul(x, x.T),
        "softmax": jf.softmax(x),
        "flip": jf.flip(x),
        "all": jf.all(x > 0),
        "any": jf.any(x > 0),
        "prod": jf.prod(x),
    }
    for run in runners(fetches, [x]):
        for shape in ((0, 3), (3, 0), (0, 0)):
            a = np.zeros(shape, np.float32)
            got = run(a)
            assert got["map"].shape == shape
            assert got["sum"] == 0
            assert got["all"]
            assert not got["any"]
            assert got["prod"] == 1
            np.testing.assert_array_equal(got["rows"], np.zeros(shape[0]))
            np.testing.assert_array_equal(got["columns"], np.zeros(shape[1]))
            np.testing.assert_array_equal(got["product"], np.zeros((shape[0], shape[0])))
            assert got["softmax"].shape == shape
