"""The oracle: structure of fetches, feeds of any node, what is refused, fresh results, long graphs."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import bool_, float32, float64, int32, int64
from jitflow.errors import CompilerBug, FeedError, FeedTypeError, GraphError, IndexRangeError
from jitflow.graph import OPS, Node, define_op, make_constant, make_placeholder, make_variable
from jitflow.interp import interpret
from jitflow.types import TensorType, as_shape


def placeholder(name: str, *shape: int | str, dtype=float32) -> Node:
    return make_placeholder(name, dtype, as_shape(shape))


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_results_have_the_structure_of_the_fetches() -> None:
    x = placeholder("x", 2)
    y = jf.add(x, 1)
    got = interpret({"a": [x, y], "b": (y, {"c": x})}, {x: [1, 2]})
    assert list(got) == ["a", "b"]
    assert isinstance(got["a"], list)
    assert isinstance(got["b"], tuple)
    np.testing.assert_array_equal(got["a"][1], [2, 3])
    np.testing.assert_array_equal(got["b"][1]["c"], [1, 2])
    assert interpret([], {}) == []
    assert interpret((), {}) == ()


def test_f16_a_scalar_is_a_0d_array() -> None:
    x = placeholder("x")
    got = interpret(jf.exp(x), {x: 0})
    assert isinstance(got, np.ndarray)
    assert got.shape == ()
    assert got.dtype == np.float32


def test_results_are_fresh_contiguous_and_writable() -> None:
    x = placeholder("x", 2, 3)
    a = ones(2, 3)
    a.setflags(write=False)
    t = jf.permute_dims(x, (1, 0))
    results = interpret([x, t, t, jf.broadcast_to(x, (4, 2, 3)), make_constant(np.ones(3))], {x: a})
    for k, r in enumerate(results):
        assert r.flags.c_contiguous
        assert r.flags.writeable
        assert not np.shares_memory(r, a)
        assert not any(np.shares_memory(r, other) for other in results[:k])


def test_any_node_can_be_fed_and_cuts_the_graph() -> None:
    x = placeholder("x", "n")
    h = jf.exp(x)
    y = jf.multiply(h, 2)
    np.testing.assert_array_equal(interpret(y, {h: np.array([3.0], np.float32)}), [6.0])
    np.testing.assert_array_equal(interpret([h, y], {h: [3.0, 4.0]})[0], [3.0, 4.0])
    with pytest.raises(FeedError, match="'x' is not needed"):
        interpret(y, {h: [3.0], x: [0.0]})


def test_feeds_go_by_name_too() -> None:
    x, y = placeholder("x", 2), placeholder("y", 2)
    z = jf.add(x, y)
    np.testing.assert_array_equal(interpret(z, {"x": [1, 2], y: [3, 4]}), [4, 6])
    np.testing.assert_array_equal(interpret(jf.negative(z), {"add_0": [1, 2]}), [-1, -2])


def test_variables_start_with_their_value_and_can_be_fed() -> None:
    w = make_variable("w", np.array([1.0, 2.0]))
    y = jf.multiply(w, 3)
    np.testing.assert_array_equal(interpret(y), [3, 6])
    np.testing.assert_array_equal(interpret(y, {w: np.array([0.0, 1.0])}), [0, 3])


def refused(text: str, fetch: Node, feeds: dict, error: type[Exception] = FeedError) -> None:
    with pytest.raises(error, match=text):
        interpret(fetch, feeds)


def test_f22_f23_f30_feeds_that_do_not_fit_are_refused() -> None:
    x = placeholder("image", "n", 3)
    y, other = jf.exp(x), placeholder("other", 1)
    good = ones(2, 3)
    refused(r"placeholder 'image' \(f32\[n, 3\]\) is not fed\n  at .*test_interp\.py:\d+$", y, {})
    refused("unknown feed 'imge': no node of this graph has that name; did you mean 'image'", y, {"imge": good})
    refused("is not needed for what is fetched", y, {x: good, other: [1]})
    refused("'image' is fed twice", y, {x: good, "image": good})
    refused("a feed is given by tensor or by name, not by int", y, {3: good})
    refused("expected dtype float32, got float64; convert it with astype", y, {x: np.ones((2, 3))})
    refused(r"expected shape \(n, 3\), got \(2, 4\)", y, {x: ones(2, 4)})
    refused(r"expected shape \(n, 3\), got \(3,\)", y, {x: ones(3)})
    refused("masked arrays", y, {x: np.ma.masked_array(good)}, FeedTypeError)
    refused("None is no array", y, {x: None}, FeedTypeError)
    refused("expected an array of float32, got str", y, {x: "abc"}, FeedTypeError)
    refused("expected an array of float32", y, {x: np.ones((2, 3), complex)}, FeedTypeError)
    refused("feed 'image': ", y, {x: [[1, 2, 3], [1]]}, FeedTypeError)


def test_python_numbers_and_lists_take_the_dtype_if_they_can() -> None:
    i, b, f = placeholder("i", 2, dtype=int32), placeholder("b", dtype=bool_), placeholder("f", 2, dtype=float64)
    assert interpret(i, {i: [True, 7]}).dtype == np.int32
    assert interpret(f, {f: (1, 2)}).dtype == np.float64
    assert interpret(b, {b: True})
    refused("expected dtype int32, got Python numbers", i, {i: [1.5, 2]})
    refused("expected dtype bool, got Python numbers", b, {b: 1})
    refused("out of bounds for int32", i, {i: [2**31, 0]})
    refused("expected dtype float64, got float32", f, {f: ones(2)})
    empty = placeholder("e", 0, 2, dtype=int64)
    assert interpret(empty, {empty: np.zeros((0, 2), np.int64)}).shape == (0, 2)


def test_f24_f26_arrays_of_any_layout_and_byte_order_are_taken() -> None:
    x = placeholder("x", 3, 2)
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = base[::-1, ::3][:3]
    np.testing.assert_array_equal(interpret(jf.add(x, 0), {x: expected}), expected)
    np.testing.assert_array_equal(interpret(x, {x: np.asfortranarray(expected)}), expected)
    np.testing.assert_array_equal(interpret(x, {x: expected.astype(">f4")}), expected)
    np.testing.assert_array_equal(interpret(x, {x: np.broadcast_to(np.float32(2), (3, 2))}), np.full((3, 2), 2))


class Strange:
    """Something with ``__array__``."""

    def __init__(self, value) -> None:
        self.value = value

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_f31_array_protocol_is_used_and_its_exceptions_pass_through() -> None:
    x = placeholder("x", 2)
    np.testing.assert_array_equal(interpret(x, {x: Strange(ones(2))}), [1, 1])
    with pytest.raises(ZeroDivisionError, match="mine"):
        interpret(x, {x: Strange(ZeroDivisionError("mine"))})


# ---- dims


def test_f21_one_name_is_one_dim() -> None:
    x, y = placeholder("x", "n", 2), placeholder("y", "n")
    fetches = [x, y]
    interpret(fetches, {x: ones(3, 2), y: ones(3)})
    with pytest.raises(FeedError, match="dim n is 3 by axis 0 of 'x' but 4 by axis 0 of 'y'"):
        interpret(fetches, {x: ones(3, 2), y: ones(4)})


def test_dims_that_inference_could_not_compare_are_checked_first() -> None:
    x, y = placeholder("x", "n"), placeholder("y", "m")
    z = jf.add(x, y)
    np.testing.assert_array_equal(interpret(z, {x: ones(3), y: ones(3)}), [2, 2, 2])
    refused(r"add: axis -1 of \(n,\) and \(m,\): n is 3, m is 1\n  at .*\.py:\d+$", z, {x: ones(3), y: ones(1)})
    # A fed node is not computed, so its condition does not matter.
    np.testing.assert_array_equal(interpret(jf.exp(z), {z: np.zeros(2, np.float32)}), [1, 1])


def test_a_fed_inner_node_sets_the_dims_of_its_formula() -> None:
    x = placeholder("x", "n")
    pair = jf.concat([x, x])
    y = jf.add(jf.full(x.shape, 1.0, dtype=float32), jf.sum(pair))
    assert interpret(y, {pair: ones(6)}).shape == (3,)
    refused(r"axis 0 of 'concat_0' has size 5, which n\*2 cannot be", y, {pair: ones(5)})
    refused(
        r"n\*2 is 4 by other feeds, but axis 0 of 'concat_0' has size 6",
        jf.multiply(y, x),
        {pair: ones(6), x: ones(2)},
    )


def test_a_dim_that_no_feed_sets_is_an_error() -> None:
    z = jf.zeros(("q",))
    refused(r"dim q of <full: f64\[q\]> is set by no feed", z, {})


def test_a_dim_that_turns_out_negative_is_refused() -> None:
    x = placeholder("x", "n")
    z = jf.concat([x, jf.zeros((as_shape(("n",))[0] - 3,), dtype=float32)])
    assert interpret(z, {x: ones(4)}).shape == (5,)
    refused("dim n - 3 must not be negative", z, {x: ones(2)})


# ---- graphs


def test_f7_values_inside_are_not_kept_and_long_chains_do_not_recurse() -> None:
    x = placeholder("x", 2)
    y = x
    for _ in range(20_000):
        y = jf.add(y, x)
    np.testing.assert_array_equal(interpret(y, {x: [1, 2]}), [20_001, 40_002])


def test_a_fetch_that_is_used_again_is_kept() -> None:
    x = placeholder("x", 2)
    y = jf.exp(x)
    z = jf.add(y, y)
    a, b, c = interpret([z, y, x], {x: [0, 0]})
    np.testing.assert_array_equal(a, 2 * b)
    np.testing.assert_array_equal(c, [0, 0])


def test_errors_while_running_end_with_the_users_line() -> None:
    i = placeholder("i", 2, dtype=int64)
    y = jf.take(np.arange(3), i)
    refused(r"index 7 at 1 .* of size 3\n  at .*test_interp\.py:\d+$", y, {i: [0, 7]}, IndexRangeError)


def test_only_tensors_are_fetched_and_names_are_unique() -> None:
    with pytest.raises(GraphError, match="only tensors can be fetched, not int"):
        interpret([3], {})
    a, b = placeholder("same", 1), placeholder("same", 1)
    with pytest.raises(GraphError, match="two nodes are named 'same'"):
        interpret(jf.add(a, b), {})


def test_a_numpy_rule_that_is_not_the_inferred_type_is_a_bug_of_ours() -> None:
    wrong = define_op(
        "wrong", infer=lambda x: TensorType(float64, x.shape), numpy=lambda x: x, element=lambda i, x: x(*i)
    )
    try:
        x = placeholder("x", 2)
        refused(r"wrong: inferred float64 of shape \(2,\), numpy gave float32", wrong(x), {x: [1, 2]}, CompilerBug)
    finally:
        del OPS["wrong"]
