"""`Session.function`: bound callables, the structure of their results, and ``out=``."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from tests.support.bits import same_bits

Array = np.ndarray[Any, Any]
Make = Callable[..., Callable[..., Any]]

A = np.arange(12, dtype=np.float32).reshape(4, 3)
B = np.linspace(-1, 1, 3, dtype=np.float32)


class Pair:
    def __init__(self) -> None:
        self.a = jf.placeholder("a", jf.float32, ("n", 3))
        self.b = jf.placeholder("b", jf.float32, (3,))
        self.total = (self.a + self.b).named("total")
        self.rows = jf.sum(self.total, axis=1).named("rows")
        self.one = jf.max(self.total).named("one")
        self.session = jf.Session([self.total, self.rows, self.one])


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    p = Pair()
    with p.session:
        yield p


@pytest.fixture(scope="module", params=[True, False], ids=["native", "portable"])
def make(request: pytest.FixtureRequest, pair: Pair) -> Make:
    """Bind a function through the compiled entry where there is one for the structure, or the portable one."""

    def bind(inputs: Any, outputs: Any, **options: Any) -> Callable[..., Any]:
        native = None if request.param else False
        return pair.session.function(inputs, outputs, native=native, **options)  # type: ignore[no-any-return]

    return bind


def test_a_tensor_gives_an_array(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.total)
    got = f(A, B)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, A + B)


def test_arguments_are_positional_in_the_order_of_inputs(pair: Pair, make: Make) -> None:
    f = make([pair.b, pair.a], pair.total)
    np.testing.assert_array_equal(f(B, A), A + B)
    with pytest.raises(TypeError):
        f(a=A, b=B)


def test_inputs_and_outputs_go_by_name_too(make: Make) -> None:
    f = make(["a", "b"], ["total", "one"])
    np.testing.assert_array_equal(f(A, B)[0], A + B)


def test_results_have_the_structure_of_outputs(pair: Pair, make: Make) -> None:
    inputs = [pair.a, pair.b]
    total, rows = A + B, (A + B).sum(axis=1)
    listed = make(inputs, [pair.total, pair.rows])(A, B)
    assert type(listed) is list
    np.testing.assert_array_equal(listed[0], total)
    np.testing.assert_allclose(listed[1], rows, rtol=1e-6)
    single = make(inputs, [pair.total])(A, B)
    assert type(single) is list
    assert len(single) == 1
    tupled = make(inputs, (pair.rows, pair.total))(A, B)
    assert type(tupled) is tuple
    np.testing.assert_array_equal(tupled[1], total)
    keyed = make(inputs, {"r": pair.rows, "t": pair.total})(A, B)
    assert type(keyed) is dict
    assert list(keyed) == ["r", "t"]
    np.testing.assert_array_equal(keyed["t"], total)
    nested = make(inputs, [pair.total, {"x": (pair.rows, pair.one)}])(A, B)
    assert type(nested[1]["x"]) is tuple
    np.testing.assert_array_equal(nested[0], total)
    assert nested[1]["x"][1].shape == ()


def test_no_outputs_give_an_empty_structure(make: Make) -> None:
    assert make([], [])() == []
    assert make([], ())() == ()


def test_a_0_d_result_stays_an_array(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.one)
    got = f(A, B)
    assert type(got) is np.ndarray
    assert got.shape == ()
    assert got == (A + B).max()


def test_results_are_fresh_writable_and_contiguous(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], [pair.total, pair.total, pair.a, pair.b])
    first, second = f(A, B), f(A, B)
    arrays = [*first, *second]
    for k, x in enumerate(arrays):
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert x.flags.owndata
        assert not any(np.shares_memory(x, y) for y in [*arrays[:k], A, B])
    np.testing.assert_array_equal(first[1], A + B)
    np.testing.assert_array_equal(first[2], A)
    np.testing.assert_array_equal(first[3], B)


def test_function_and_run_give_the_same_bits(pair: Pair, make: Make) -> None:
    want = pair.session.run([pair.total, pair.rows, pair.one], {"a": A, "b": B})
    for got, w in zip(make([pair.a, pair.b], [pair.total, pair.rows, pair.one])(A, B), want, strict=True):
        assert same_bits(got, w)


def test_one_function_takes_every_size(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], (pair.total, pair.rows))
    for n in (0, 1, 5, 64, 1000):
        a = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
        total, rows = f(a, B)
        np.testing.assert_array_equal(total, a + B)
        np.testing.assert_allclose(rows, (a + B).sum(axis=1), rtol=1e-5, atol=1e-5)


def test_wrong_arity_is_a_type_error_that_names_the_inputs(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.total, name="predict")
    for arguments in ((), (A,), (A, B, B)):
        with pytest.raises(TypeError, match=r"predict\(\) takes 2 positional arguments \(a, b\) but") as caught:
            f(*arguments)
        assert not isinstance(caught.value, jf.JitflowError) or isinstance(caught.value, TypeError)
    with pytest.raises(TypeError, match="takes 0 positional arguments but 1 was given"):
        make([], [])(A)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'"):
        f(A, B, nope=1)


def test_inner_nodes_can_be_inputs_and_cut_the_graph(pair: Pair, make: Make) -> None:
    f = make([pair.total], [pair.rows, pair.total])
    rows, total = f(A)
    np.testing.assert_allclose(rows, A.sum(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(total, A)
    assert not np.shares_memory(total, A)


def test_bad_inputs_are_refused_when_the_function_is_made(pair: Pair) -> None:
    session = pair.session
    with pytest.raises(jf.FeedError, match=r"placeholder 'b' .* is not fed"):
        session.function([pair.a], pair.total)
    with pytest.raises(jf.FeedError, match="'a' of the function is named twice"):
        session.function([pair.a, "a"], pair.total)
    with pytest.raises(jf.FeedError, match="'b' is not needed"):
        session.function([pair.total, pair.b], pair.rows)
    with pytest.raises(jf.GraphError, match="unknown input 'c'"):
        session.function(["c"], pair.total)
    with pytest.raises(jf.GraphError, match="unknown fetch 'c'"):
        session.function(["a", "b"], "c")
    with pytest.raises(jf.GraphError, match="no part of this session"):
        session.function([jf.placeholder("z", jf.float32, ())], [])
    for inputs in (pair.a, "ab", None, 3):
        with pytest.raises(TypeError, match="inputs must be a list"):
            session.function(inputs, pair.total)


# ---- out=


def test_out_is_written_and_returned(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.total)
    out = np.full((4, 3), -1, np.float32)
    assert f(A, B, out=out) is out
    np.testing.assert_array_equal(out, A + B)


def test_out_mirrors_every_structure(pair: Pair, make: Make) -> None:
    def room() -> tuple[Array, Array, Array]:
        return np.empty((4, 3), np.float32), np.empty(4, np.float32), np.empty((), np.float32)

    inputs, total = [pair.a, pair.b], A + B
    t, r, o = room()
    outs: Any = [t, r]
    assert make(inputs, [pair.total, pair.rows])(A, B, out=outs) is outs
    np.testing.assert_array_equal(t, total)
    np.testing.assert_allclose(r, total.sum(axis=1), rtol=1e-6)
    t, r, o = room()
    outs = (o, t)
    assert make(inputs, (pair.one, pair.total))(A, B, out=outs) is outs
    np.testing.assert_array_equal(t, total)
    assert o == total.max()
    t, r, o = room()
    outs = {"o": o, "t": t}
    assert make(inputs, {"t": pair.total, "o": pair.one})(A, B, out=outs) is outs
    np.testing.assert_array_equal(t, total)
    assert o == total.max()
    t, r, o = room()
    outs = [t, {"x": (r, o)}]
    assert make(inputs, [pair.total, {"x": (pair.rows, pair.one)}])(A, B, out=outs) is outs
    np.testing.assert_array_equal(t, total)
    assert o == total.max()


def test_an_output_named_twice_is_written_twice(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], [pair.total, pair.total, pair.a])
    outs = [np.empty((4, 3), np.float32) for _ in range(3)]
    assert f(A, B, out=outs) is outs
    np.testing.assert_array_equal(outs[0], A + B)
    np.testing.assert_array_equal(outs[1], A + B)
    np.testing.assert_array_equal(outs[2], A)
    with pytest.raises(jf.FeedError, match="overlap"):
        f(A, B, out=[outs[0], outs[0], outs[2]])
    kept = outs[0].copy()
    with pytest.raises(jf.FeedError, match="float32"):
        f(A + 1, B, out=[outs[0], outs[1].astype(np.float64), outs[2]])
    np.testing.assert_array_equal(outs[0], kept)


def test_out_of_another_structure_is_refused(pair: Pair, make: Make) -> None:
    t, r = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    f = make([pair.a, pair.b], [pair.total, pair.rows])
    for bad in ((t, r), [t], [t, r, r], t, {"total": t, "rows": r}, [t, [r]], 3, "no"):
        with pytest.raises((TypeError, jf.FeedError)):
            f(A, B, out=bad)
    nested = make([pair.a, pair.b], [pair.total, {"x": (pair.rows,)}])
    for bad in ([t, {"x": [r]}], [t, {"y": (r,)}], [t, r], (t, {"x": (r,)}), [t, {"x": (r, r)}]):
        with pytest.raises((TypeError, jf.FeedError)):
            nested(A, B, out=bad)
    for bad in ([t], (t,), None if False else "no", [[0.0] * 3] * 4):
        with pytest.raises((TypeError, jf.FeedError)):
            make([pair.a, pair.b], pair.total)(A, B, out=bad)
    assert not t.any()
    assert not r.any()


def test_out_of_another_dtype_or_shape_is_refused_and_nothing_is_written(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], [pair.total, pair.rows])
    good = np.full((4, 3), -7, np.float32)
    for bad in (
        np.empty(4, np.float64),
        np.empty(5, np.float32),
        np.empty((4, 1), np.float32),
        np.empty((), np.float32),
        np.empty(4, np.int32),
        np.empty(4, ">f4"),
        np.ma.masked_array(np.empty(4, np.float32)),
        [0.0] * 4,
        None,
    ):
        with pytest.raises((jf.FeedError, TypeError)):
            f(A, B, out=[good, bad])
        assert (good == -7).all()
    with pytest.raises(jf.FeedError, match=r"\(4,\)"):
        f(A, B, out=[good, np.empty(5, np.float32)])


def test_out_may_have_any_strides_and_alignment(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.total)
    raw = np.zeros(4 * 3 * 4 + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(4, 3)
    assert not unaligned.flags.aligned
    for out in (
        np.zeros((3, 4), np.float32).T,
        np.zeros((8, 6), np.float32)[::2, ::2],
        np.zeros((4, 3), np.float32)[::-1, ::-1],
        unaligned,
    ):
        assert f(A, B, out=out) is out
        np.testing.assert_array_equal(out, A + B)


def test_f27_a_read_only_out_is_refused(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.total)
    out = np.zeros((4, 3), np.float32)
    out.setflags(write=False)
    with pytest.raises(jf.FeedError, match="read-only"):
        f(A, B, out=out)
    assert not out.any()


def test_f28_an_out_that_overlaps_an_input_is_as_if_copied(pair: Pair, make: Make) -> None:
    f = make([pair.a, pair.b], pair.total)
    a = A.copy()
    f(a, B, out=a)
    np.testing.assert_array_equal(a, A + B)
    memory = np.zeros((5, 3), np.float32)
    for source, target in ((memory[:4], memory[1:]), (memory[1:], memory[:4]), (memory[:4][::-1], memory[1:])):
        source[...] = A
        f(source, B, out=target)
        np.testing.assert_array_equal(target, A + B)
    reduce = make([pair.a, pair.b], [pair.rows, pair.one])
    memory[:4] = A
    column, want = memory[:4, 1], (A + B).sum(axis=1)
    reduce(memory[:4], B, out=[column, np.empty((), np.float32)])
    np.testing.assert_allclose(column, want, rtol=1e-6)


def test_f29_an_out_that_overlaps_itself_or_another_is_refused(pair: Pair, make: Make) -> None:
    total = make([pair.a, pair.b], pair.total)
    both = make([pair.a, pair.b], [pair.total, pair.rows])
    memory = np.zeros(40, np.float32)
    for itself in (
        np.lib.stride_tricks.as_strided(memory, (4, 3), (4, 4)),
        np.lib.stride_tricks.as_strided(memory, (4, 3), (0, 4)),
    ):
        with pytest.raises(jf.FeedError, match="overlaps itself"):
            total(A, B, out=itself)
    with pytest.raises(jf.FeedError, match="overlap"):
        both(A, B, out=[memory[:12].reshape(4, 3), memory[11:15]])
    assert not memory.any()
    # Interleaved arrays share a range and no element.
    grid = np.zeros((4, 4), np.float32)
    both(A, B, out=[grid[:, :3], grid[:, 3]])
    np.testing.assert_array_equal(grid[:, :3], A + B)


def test_a_bad_index_leaves_out_as_it_was() -> None:
    table = jf.placeholder("table", jf.float64, (4,))
    index = jf.placeholder("index", jf.int64, ("n",))
    picked = table[...] * 2.0
    fetches = [jf.take(table, index), picked]
    with jf.Session(fetches) as session:
        for native in (None, False):
            f = session.function([table, index], fetches, native=native)
            out = [np.full(3, -1.0), np.full(4, -1.0)]
            with pytest.raises(IndexError, match="position 2"):
                f(np.arange(4.0), np.array([0, 1, 9]), out=out)
            assert (out[0] == -1).all()
            assert (out[1] == -1).all()
            f(np.arange(4.0), np.array([0, 1, -1]), out=out)
            np.testing.assert_array_equal(out[0], [0, 1, 3])


def test_a_function_outlives_the_name_of_its_session() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    w = jf.variable("w", np.arange(3, dtype=np.float32))
    f = jf.Session([x * 2.0 + jf.sum(w)]).function([x], x * 2.0 + jf.sum(w))
    gc.collect()
    np.testing.assert_array_equal(f(np.ones(2, np.float32)), [5, 5])


def test_functions_say_what_they_take(pair: Pair) -> None:
    f = pair.session.function([pair.a, pair.b], pair.total, name="predict")
    assert f.__name__ == "predict"
    assert "a: float32 (n, 3)" in (f.__doc__ or "")


def test_making_the_same_function_again_compiles_nothing(pair: Pair) -> None:
    pair.session.function([pair.b, pair.a], {"t": pair.total})
    before = pair.session.compilations
    for _ in range(3):
        pair.session.function([pair.b, pair.a], {"t": pair.total})
        pair.session.function(["b", "a"], pair.total)
    assert pair.session.compilations == before
