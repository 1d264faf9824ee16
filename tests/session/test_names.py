"""Names of nodes, and Tensors as what users hold: identity, operators, numpy's functions."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import jitflow as jf


def test_unnamed_nodes_are_called_op_n_in_topological_order() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    a = jf.exp(x)
    b = jf.exp(a)
    c = a + b
    d = c + c
    with jf.Session([d]) as session:
        assert [session.name_of(t) for t in (x, a, b, c, d)] == ["x", "exp_0", "exp_1", "add_0", "add_1"]
        feed = {"x": np.zeros(2, np.float32)}
        for name, tensor in {"exp_0": a, "exp_1": b, "add_0": c, "add_1": d}.items():
            np.testing.assert_array_equal(session.run(name, feed), session.run(tensor, feed))
        text = session.dump("graph")
        assert all(f"{name}: " in text for name in ("x", "exp_0", "exp_1", "add_0", "add_1"))


def test_an_unnamed_placeholder_is_called_placeholder_n() -> None:
    x, y = jf.placeholder(None, jf.float32, (2,)), jf.placeholder(None, jf.float32, (2,))
    z = x - y
    with jf.Session(z) as session:
        got = session.run("subtract_0", {"placeholder_0": [5, 6], "placeholder_1": [1, 2]})
    np.testing.assert_array_equal(got, [4, 4])


def test_a_name_that_looks_like_a_number_is_kept_and_others_count_around_it() -> None:
    x = jf.placeholder("exp_0", jf.float32, (2,))
    y = jf.exp(x)
    with jf.Session(y) as session:
        assert session.name_of(x) == "exp_0"
        assert session.name_of(y) == "exp_1"


def test_f3_two_nodes_of_one_name_are_refused_with_both_places() -> None:
    x, y = jf.placeholder("same", jf.float32, (2,)), jf.placeholder("same", jf.float32, (2,))
    z = x + y
    with pytest.raises(jf.GraphError, match="two nodes are named 'same'") as caught:
        jf.Session(z)
    assert str(caught.value).count("test_names.py:") == 2
    with pytest.raises(jf.GraphError, match="two nodes are named 'same'"):
        jf.interpret(z, {x: [1, 2], y: [1, 2]})
    # Only what is reachable counts.
    with jf.Session(x * 2.0) as session:
        np.testing.assert_array_equal(session.run(x * 2.0, {"same": [1, 2]}), [2, 4])
    with pytest.raises(jf.GraphError, match="two nodes are named 'y'"):
        jf.Session([jf.exp(x).named("y"), jf.log(x).named("y")])


def test_the_same_node_twice_is_no_duplicate() -> None:
    x = jf.placeholder("x", jf.float32, (2,))
    y = jf.exp(x).named("y")
    with jf.Session([y, y, {"again": y}]) as session:
        assert session.run("y", {"x": [0, 0]}).shape == (2,)


def test_names_may_hold_anything_but_line_breaks() -> None:
    for name in ("layer 1/weights", "α", "a.b", "1st", "kernel", "%s", "{x}", "x y: z", "'\"\\"):
        x = jf.placeholder(name, jf.float32, (2,))
        y = jf.exp(x).named(name + "!")
        with jf.Session(y) as session:
            np.testing.assert_array_equal(session.run(name + "!", {name: [0, 0]}), [1, 1])
            for stage in ("graph", "fused", "loops", "plan", "llvm", "asm"):
                assert session.dump(stage)
    for bad in ("", "a\nb", 3, b"x", ["x"]):
        with pytest.raises(jf.GraphError):
            jf.placeholder(bad, jf.float32, ())  # type: ignore[arg-type]


def test_kernels_and_plans_use_the_users_names() -> None:
    x = jf.placeholder("pixels", jf.float32, ("n", 3))
    y = jf.softmax(x * 2.0).named("probabilities")
    with jf.Session(y) as session:
        assert "output[0] probabilities" in session.dump("plan")
        assert "input[0] pixels" in session.dump("plan")
        assert "pixels: f32[n, 3] read" in session.dump("loops")
        assert "probabilities: f32[n, 3]" in session.dump("loops")


# ---- tensors


def test_there_is_one_tensor_per_node() -> None:
    x = jf.placeholder("x", jf.float32, (2,))
    assert jf.exp(x) is jf.exp(x)
    assert x + 1.0 is x + 1.0
    assert x is not jf.placeholder("x", jf.float32, (2,))
    assert x + 1.0 is not x + 2.0
    assert x * 0.0 is not x * -0.0
    assert jf.constant(0) is not jf.constant(False)
    assert jf.constant(1.0) is not jf.constant(1)


def test_tensors_are_keys_by_identity_and_equality_builds_a_node() -> None:
    x, y = jf.placeholder("x", jf.float32, (2,)), jf.placeholder("y", jf.float32, (2,))
    table = {x: 1, y: 2}
    assert table[x] == 1
    assert table[y] == 2
    assert len({x, y, x}) == 2
    z = x == y
    assert isinstance(z, jf.Tensor)
    assert z.dtype == jf.bool
    with jf.Session([z, x != y]) as session:
        equal, different = session.run([z, x != y], {x: [1, 2], y: [1, 3]})
    np.testing.assert_array_equal(equal, [True, False])
    np.testing.assert_array_equal(different, [False, True])


def test_bool_of_a_tensor_is_a_type_error_with_advice() -> None:
    x = jf.placeholder("x", jf.float32, ())
    for use in (bool, lambda t: t and 1, lambda t: not t, lambda t: 1 if t > 0 else 2, lambda t: t in [1.0]):
        with pytest.raises(TypeError, match=r"jf\.where|jf\.any|truth value"):
            use(x)


def test_dtypes_equal_those_of_numpy() -> None:
    for name in ("float32", "float64", "int32", "int64"):
        ours, theirs = getattr(jf, name), getattr(np, name)
        assert ours == theirs
        assert theirs == ours or np.dtype(theirs) == ours
        assert ours == np.dtype(theirs)
        assert ours == name
        assert ours != np.int8
        assert jf.placeholder("x", theirs, ()).dtype is ours
        assert jf.placeholder("x", name, ()).dtype is ours
    assert jf.bool == np.bool_
    assert jf.placeholder("x", bool, ()).dtype is jf.bool
    assert jf.float32 != jf.float64
    assert jf.float32 in {jf.float32}
    assert {jf.float32: 1}[jf.float32] == 1


@pytest.mark.parametrize("dtype", [object, str, "datetime64[s]", np.longdouble, complex, "nope", "S4", None, 3])
def test_f20_unsupported_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(jf.DTypeError):
        jf.placeholder("x", dtype, ())
    assert issubclass(jf.DTypeError, TypeError)


BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
]


def test_operators_of_tensors_scalars_and_arrays_on_both_sides() -> None:
    x = jf.placeholder("x", jf.float64, (3,))
    feed = np.array([1.5, -2.0, 4.0])
    other = np.array([2.0, 3.0, -1.0])
    fetches, want = {}, {}
    for op in BINARY:
        for k, (left, right) in enumerate(
            ((x, 2.0), (2.0, x), (x, other), (other, x), (x, x), (x, np.float64(2)), (3, x))
        ):
            a, b = (feed if t is x else t for t in (left, right))
            fetches[op.__name__, k] = op(left, right)
            with np.errstate(all="ignore"):
                want[op.__name__, k] = np.asarray(op(a, b))
    fetches["neg"], want["neg"] = -x, -feed
    fetches["pos"], want["pos"] = +x, feed
    fetches["abs"], want["abs"] = abs(x), abs(feed)
    with jf.Session(fetches) as session:
        got = session.run(fetches, {x: feed})
    for key, w in want.items():
        assert isinstance(fetches[key], jf.Tensor), key
        assert got[key].dtype == w.dtype, key
        np.testing.assert_allclose(got[key], w, rtol=1e-14, err_msg=str(key))


def test_matmul_and_logic_operators() -> None:
    x, b = jf.placeholder("x", jf.float32, (2, 3)), jf.placeholder("b", jf.bool, (2,))
    m = np.arange(6, dtype=np.float32).reshape(3, 2)
    fetches = [x @ m, m @ x, b & ~b, b | True, b ^ np.array([True, False])]
    feed, flags = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False])
    with jf.Session(fetches) as session:
        got = session.run(fetches, {x: feed, b: flags})
    for g, w in zip(got, (feed @ m, m @ feed, flags & ~flags, flags | True, flags ^ flags), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, w)


def test_numpy_functions_on_tensors_build_nodes() -> None:
    x = jf.placeholder("x", jf.float32, (2, 3))
    feed = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]], np.float32)
    cases = {
        "exp": (np.exp(x), np.exp(feed)),
        "array * tensor": (feed * x, feed * feed),
        "array - tensor": (np.float32(1) - x, 1 - feed),
        "sum": (np.sum(x, axis=1), feed.sum(axis=1)),
        "mean": (np.mean(x), feed.mean()),
        "maximum": (np.maximum(x, 0.0), np.maximum(feed, 0)),
        "where": (np.where(x > 0, x, 0.0), np.where(feed > 0, feed, 0)),
        "concatenate": (np.concatenate([x, feed]), np.concatenate([feed, feed])),
        "reshape": (np.reshape(x, (3, 2)), feed.reshape(3, 2)),
        "transpose": (np.transpose(x), feed.T),
        "matmul": (np.matmul(x, feed.T), feed @ feed.T),
        "add": (np.add(x, 1.0), feed + 1),
        "abs": (np.abs(x), np.abs(feed)),
        "argmax": (np.argmax(x, axis=1), feed.argmax(axis=1)),
        "clip": (np.clip(x, 0.0, 1.0), feed.clip(0, 1)),
        "stack": (np.stack([x, x]), np.stack([feed, feed])),
    }
    fetches = {k: t for k, (t, _) in cases.items()}
    with jf.Session(fetches) as session:
        got = session.run(fetches, {x: feed})
    for name, (tensor, want) in cases.items():
        assert isinstance(tensor, jf.Tensor), name
        assert got[name].dtype == np.asarray(want).dtype, name
        np.testing.assert_allclose(got[name], want, rtol=1e-6, err_msg=name)


def test_what_numpy_users_type_without_thinking() -> None:
    x = jf.placeholder("x", jf.float32, (2, 3))
    feed = np.arange(6, dtype=np.float32).reshape(2, 3)
    fetches = [x.T, x[0], x[:, 1], x[-1, ::-1], x[..., None], x.sum(axis=0), x.mean(), x.reshape(3, 2), x.max(axis=1)]
    want = [feed.T, feed[0], feed[:, 1], feed[-1, ::-1], feed[..., None]]
    want += [feed.sum(axis=0), feed.mean(), feed.reshape(3, 2), feed.max(axis=1)]
    assert x.ndim == 2
    assert x.size == 6
    assert len(x) == 2
    with jf.Session(fetches) as session:
        for g, w in zip(session.run(fetches, {x: feed}), want, strict=True):
            np.testing.assert_array_equal(g, w)
            assert g.shape == w.shape
