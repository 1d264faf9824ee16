"""Errors of the front end: class, builtin, exact first line, and the user's file and line at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf


def x() -> Any:
    return jf.placeholder("x", jf.float32, (2, 3))


def n() -> Any:
    return jf.placeholder("n", jf.float32, ("n", 3))


def i() -> Any:
    return jf.placeholder("i", jf.int32, (3,))


def b() -> Any:
    return jf.placeholder("b", jf.bool_, (3,))


def z() -> Any:
    return jf.placeholder("z", jf.float32, (0, 3))


SUPPORTED = (
    "supported are bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64"
)

Case = tuple[Callable[[], Any], type[Exception], type[Exception], str]

BROADCASTING: list[Case] = [
    (lambda: x() + jf.zeros((2,)), jf.ShapeError, ValueError, "add: shapes (2, 3) and (2,) do not broadcast"),
    (lambda: n() * jf.zeros((4,)), jf.ShapeError, ValueError, "multiply: shapes (n, 3) and (4,) do not broadcast"),
    (
        lambda: jf.broadcast_to(x(), (3, 2)),
        jf.ShapeError,
        ValueError,
        "broadcast_to: (2, 3) does not broadcast to (3, 2): axis -2: 3 and 2 differ",
    ),
    (lambda: x() @ x(), jf.ShapeError, ValueError, "matmul of (2, 3) and (2, 3): axes -1 and -2: 3 and 2 differ"),
    (lambda: jf.reshape(x(), (4,)), jf.ShapeError, ValueError, "reshape of (2, 3) to (4,): 6 and 4 differ"),
    (
        lambda: jf.reshape(x(), (-1, 4)),
        jf.ShapeError,
        ValueError,
        "reshape of (2, 3): no dim for -1 gives as many elements next to (4,)",
    ),
    (
        lambda: jf.concat([x(), jf.zeros((3, 3))], axis=1),
        jf.ShapeError,
        ValueError,
        "concat of (2, 3) and (3, 3): axis 0: 2 and 3 differ",
    ),
]

DIMS: list[Case] = [
    (
        lambda: jf.placeholder("p", jf.float32, (-1,)),
        jf.ShapeError,
        ValueError,
        "placeholder 'p': a dim cannot be negative, got -1",
    ),
    (lambda: jf.zeros((3 - 5,)), jf.ShapeError, ValueError, "zeros: a dim cannot be negative, got -2"),
    (lambda: jf.pad(x(), -1), jf.ShapeError, ValueError, "pad: pad_width -1: a dim cannot be negative, got -1"),
    (
        lambda: jf.placeholder("p", jf.float32, (1.5,)),
        jf.ShapeError,
        ValueError,
        "placeholder 'p': 1.5 is no dim; use an int, a name, None or an expression of dims",
    ),
    (
        lambda: jf.placeholder(None, jf.float32, ("a b",)),
        jf.ShapeError,
        ValueError,
        "placeholder: 'a b' cannot name a dim; a dim's name is an identifier such as 'batch'",
    ),
]

SIZES: list[Case] = [
    (
        lambda: jf.placeholder("p", jf.float32, (2**32, 2**32)),
        jf.ShapeError,
        ValueError,
        "placeholder 'p': shape (4294967296, 4294967296) has 18446744073709551616 elements, over the limit of 2**60",
    ),
    (
        lambda: jf.placeholder("p", jf.float32, (2**63,)),
        jf.ShapeError,
        ValueError,
        "placeholder 'p': dim 9223372036854775808 is too large: at most 2**60 elements",
    ),
]

EMPTY: list[Case] = [
    (lambda: jf.max(z(), axis=0), jf.ShapeError, ValueError, "max of no elements: shape (0, 3) over axes (0,)"),
    (lambda: jf.argmin(z()), jf.ShapeError, ValueError, "argmin of no elements: shape (0,) over axes (0,)"),
    (lambda: jf.concat([]), jf.ShapeError, ValueError, "concat: at least one tensor is needed"),
]

RANK: list[Case] = [
    (
        lambda: jf.placeholder("p", jf.float32, (1,) * 65),
        jf.LimitError,
        ValueError,
        "placeholder 'p': rank 65 is over the limit of 64 axes",
    ),
]

AXES: list[Case] = [
    (lambda: jf.sum(x(), axis=2), jf.ShapeError, IndexError, "sum: axis 2 is out of range for rank 2"),
    (lambda: x().mean(-3), jf.ShapeError, IndexError, "mean: axis -3 is out of range for rank 2"),
    (lambda: jf.softmax(x(), axis=5), jf.ShapeError, IndexError, "softmax: axis 5 is out of range for rank 2"),
    (lambda: jf.sum(x(), axis=(0, 0)), jf.ShapeError, ValueError, "sum: axes (0, 0) name an axis twice (rank 2)"),
    (
        lambda: jf.permute_dims(x(), (0,)),
        jf.ShapeError,
        ValueError,
        "permute_dims: axes (0,) are no permutation of the axes of (2, 3)",
    ),
    (lambda: jf.sum(x(), axis=1.5), jf.DTypeError, TypeError, "sum: axis must be an int, got 1.5"),
    (lambda: x()[2], jf.ShapeError, IndexError, "indexing: index 2 is out of range for axis 0 of (2, 3)"),
    (lambda: x()[0, 0, 0], jf.ShapeError, IndexError, "indexing: 3 indices for 2 axes, shape (2, 3)"),
    (lambda: jf.zeros((3,)).mT, jf.ShapeError, ValueError, "x.mT needs two axes or more, got shape (3,)"),
]

NARROWING: list[Case] = [
    (lambda: i() + 2**40, jf.DTypeError, OverflowError, "add: Python integer 1099511627776 is out of bounds for int32"),
    (
        lambda: jf.constant(2**40, jf.int32),
        jf.DTypeError,
        OverflowError,
        "Python integer 1099511627776 is out of bounds for int32",
    ),
    (lambda: b() - b(), jf.DTypeError, TypeError, "subtract takes integers and floats, not bool; convert with astype"),
    (
        lambda: x() & x(),
        jf.DTypeError,
        TypeError,
        "bitwise_and takes bool and integers, not float32; convert with astype",
    ),
]

DTYPES: list[Case] = [
    (
        lambda: jf.placeholder("p", object, ()),
        jf.DTypeError,
        TypeError,
        f"placeholder 'p': dtype object is not supported; {SUPPORTED}",
    ),
    (
        lambda: jf.placeholder("p", "M8[s]", ()),
        jf.DTypeError,
        TypeError,
        f"placeholder 'p': dtype datetime64[s] is not supported; {SUPPORTED}",
    ),
    (
        lambda: jf.placeholder("p", np.longdouble, ()),
        jf.DTypeError,
        TypeError,
        f"placeholder 'p': dtype {np.dtype(np.longdouble).name} is not supported; {SUPPORTED}",
    ),
    (
        lambda: jf.placeholder("p", "flaot32", ()),
        jf.DTypeError,
        TypeError,
        f"placeholder 'p': 'flaot32' is no dtype; {SUPPORTED}",
    ),
    (
        lambda: jf.placeholder("p", None, ()),
        jf.DTypeError,
        TypeError,
        "placeholder 'p': None is no dtype; name one, such as jitflow.float32",
    ),
    (
        lambda: jf.constant(1j),
        jf.DTypeError,
        TypeError,
        f"cannot make a constant: dtype complex128 is not supported; {SUPPORTED}",
    ),
    (
        lambda: jf.variable("v", ["a"]),
        jf.DTypeError,
        TypeError,
        f"cannot make a variable: dtype str32 is not supported; {SUPPORTED}",
    ),
    (
        lambda: jf.variable("v", None),
        jf.DTypeError,
        TypeError,
        "cannot make a variable of NoneType: its elements are no numbers",
    ),
    (
        lambda: jf.variable("v", np.ma.masked_array([1.0, 2.0], [0, 1])),
        jf.DTypeError,
        TypeError,
        "a variable cannot have masked elements; fill them first, as value.filled(0)",
    ),
    (
        lambda: jf.variable("v", x()),
        jf.DTypeError,
        TypeError,
        "a variable needs values, got Tensor('x', float32, (2, 3)); use jf.asarray to pass Tensors through",
    ),
    (lambda: jf.exp("a"), jf.DTypeError, TypeError, "exp: cannot use str as a tensor"),
    (lambda: jf.add(x(), None), jf.DTypeError, TypeError, "add: cannot use NoneType as a tensor"),
    (lambda: x()[1.5], jf.DTypeError, TypeError, "indexing: 1.5 is no index"),
]

NAMES: list[Case] = [
    (lambda: jf.placeholder(3, jf.float32, ()), jf.GraphError, ValueError, "a name is a string, got int"),  # type: ignore[arg-type]
    (
        lambda: jf.placeholder("", jf.float32, ()),
        jf.GraphError,
        ValueError,
        "'' cannot be a name: it must be one line of printable characters",
    ),
    (
        lambda: x().named("a\nb"),
        jf.GraphError,
        ValueError,
        "'a\\nb' cannot be a name: it must be one line of printable characters",
    ),
]


ARGUMENTS: list[Case] = [
    (lambda: jf.nn.elu(x(), "a"), jf.DTypeError, TypeError, "elu: alpha must be a number, got 'a'"),
    (lambda: jf.layer_norm(x(), eps=[1]), jf.DTypeError, TypeError, "layer_norm: eps must be a number, got [1]"),
    (lambda: jf.var(x(), correction=b"1"), jf.DTypeError, TypeError, "var: correction must be a number, got b'1'"),
    (lambda: jf.isclose(x(), x(), atol="1"), jf.DTypeError, TypeError, "isclose: atol must be a number, got '1'"),
    (lambda: jf.sum(x(), keepdims="yes"), jf.DTypeError, TypeError, "sum: keepdims must be True or False, got 'yes'"),
    (
        lambda: jf.nn.attention(x(), x(), x(), causal=2),
        jf.DTypeError,
        TypeError,
        "attention: causal must be True or False, got 2",
    ),
    (lambda: jf.gelu(x(), approximate=["tanh"]), jf.DTypeError, TypeError, "gelu: approximate cannot be ['tanh']"),
    (
        lambda: jf.gelu(x(), approximate="tan"),
        jf.GraphError,
        ValueError,
        "gelu: approximate must be 'none' or 'tanh', got 'tan'",
    ),
    (
        lambda: jf.histogram(x(), 3, range=True),
        jf.GraphError,
        ValueError,
        "histogram: range must be two numbers, got True",
    ),
    (
        lambda: jf.percentile(x(), 101),
        jf.GraphError,
        ValueError,
        "percentile: q must lie between 0 and 100, got 101.0",
    ),
    (
        lambda: jf.full((2,), jf.zeros((3,))),
        jf.ShapeError,
        ValueError,
        "full: broadcast_to: (3,) does not broadcast to (2,): axis -1: 2 and 3 differ",
    ),
    (
        lambda: jf.segment_max(x(), jf.zeros((2,)), 3),
        jf.DTypeError,
        TypeError,
        "segment_max: segment_ids must be integers, got float64",
    ),
    (
        lambda: x().at[0].set(jf.zeros((4,), dtype=jf.float32)),
        jf.ShapeError,
        ValueError,
        "at: broadcast_to: (4,) does not broadcast to (3,): axis -1: 3 and 4 differ",
    ),
    (lambda: x()["a"], jf.DTypeError, TypeError, "indexing: 'a' is no index"),
    (lambda: jf.parse_graph(3), jf.DTypeError, TypeError, "parse_graph takes text, got int"),  # type: ignore[arg-type]
    (lambda: jf.show_graph("x"), jf.DTypeError, TypeError, "a graph is shown from Tensors, got str"),
    (
        lambda: jf.finfo(jf.int8),
        jf.DTypeError,
        TypeError,
        "finfo takes floating dtypes, not int8; iinfo takes integers",
    ),
    (lambda: jf.result_type(), jf.DTypeError, TypeError, "result_type needs at least one dtype, tensor or number"),
    (
        lambda: jf.zeros(np.ones(2)),
        jf.ShapeError,
        ValueError,
        "zeros: np.float64(1.0) is no dim; use an int, a name, None or an expression of dims",
    ),
    (
        lambda: jf.zeros((2,), device=np.zeros(2)),
        jf.DeviceError,
        RuntimeError,
        (
            "zeros: a tensor cannot be on device array([0., 0.]); the device is chosen for a whole graph, as in "
            "jf.Session(fetches, device='cpu')"
        ),
    ),
]


def check(case: Case) -> None:
    call, error, builtin, first_line = case
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, jf.JitflowError)
    assert isinstance(caught.value, builtin)
    lines = str(caught.value).splitlines()
    assert lines[0] == first_line
    assert len(lines) == 2
    # The line is that of the lambda above, in this file.
    assert lines[1] == f"  at {call.__code__.co_filename}:{lines[1].rpartition(':')[2]}"


@pytest.mark.parametrize("case", BROADCASTING, ids=lambda c: c[3][:40])
def test_f11_incompatible_shapes_are_both_named(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", DIMS, ids=lambda c: c[3][:40])
def test_f12_a_dim_that_is_none_is_refused(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", SIZES, ids=lambda c: c[3][:40])
def test_f13_an_element_count_that_cannot_be_represented_is_refused(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", EMPTY, ids=lambda c: c[3][:40])
def test_f15_what_nothing_has_no_answer_for_is_refused(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", RANK, ids=lambda c: c[3][:40])
def test_f17_a_rank_over_the_limit_is_refused(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", AXES, ids=lambda c: c[3][:40])
def test_f18_axes_that_are_not_there_or_given_twice_are_refused(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", NARROWING, ids=lambda c: c[3][:40])
def test_f19_nothing_is_narrowed_silently(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", DTYPES, ids=lambda c: c[3][:40])
def test_f20_f30_what_is_no_array_of_a_supported_dtype_is_refused(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", ARGUMENTS, ids=lambda c: c[3][:40])
def test_arguments_of_no_use_are_refused_by_name(case: Case) -> None:
    check(case)


def test_a_shape_may_be_an_array_of_numbers() -> None:
    assert jf.zeros(np.array([2, 3])).shape == (2, 3)
    assert jf.zeros(np.int8(3)).shape == (3,)
    assert jf.zeros(np.array(3)).shape == (3,)


def test_lists_without_an_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(jf.DTypeError, match=r"test_messages\.py"):
        jf.sum(endless)
    with pytest.raises(jf.LimitError, match="sum: an argument is nested too deeply\n  at "):
        jf.sum(x(), axis=deep)
    with pytest.raises(jf.LimitError, match="split: an argument is nested too deeply\n  at "):
        jf.split(x(), deep)


@pytest.mark.parametrize("case", NAMES, ids=lambda c: c[3][:20])
def test_names_are_checked_where_they_are_given(case: Case) -> None:
    check(case)


def test_f3_two_nodes_of_one_name_are_named_with_both_lines() -> None:
    a = jf.placeholder("same", jf.float32, ())
    b = jf.placeholder("same", jf.float32, (2,))
    expected = (
        f"two nodes are named 'same': <placeholder 'same': f32[]> at {a.node.site} and "
        f"<placeholder 'same': f32[2]> at {b.node.site}"
    )
    for call in (lambda: jf.interpret(a + b, {}), lambda: jf.show_graph(a + b), lambda: jf.Session(a + b)):
        with pytest.raises(jf.GraphError) as caught:
            call()
        assert str(caught.value) == expected


def test_f16_zero_dimensional_arrays_work() -> None:
    s = jf.placeholder("s", jf.float32, ())
    out = jf.interpret(jf.exp(s) + 1, {s: 0.0})
    assert isinstance(out, np.ndarray)
    assert (out.shape, out.dtype, out.item()) == ((), np.float32, 2.0)


def test_after_an_error_building_goes_on() -> None:
    t = x()
    with pytest.raises(jf.ShapeError):
        t + jf.zeros((2,))
    assert (t + jf.zeros((3,))).shape == (2, 3)
