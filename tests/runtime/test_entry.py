"""Bound functions: every rule on the compiled and on the portable entry."""

from __future__ import annotations

import gc
import inspect
import math
import random
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jitflow.dtypes import ALL, DType, float32
from jitflow.errors import (
    ClosedError,
    CompileError,
    CompilerBug,
    FeedError,
    FeedTypeError,
    IndexRangeError,
    OutOfMemoryError,
)
from runtime import abi, entry
from runtime.abi import ArraySpec, ProgramSignature
from runtime.arenas import ArenaPool
from runtime.cpu import load_object
from runtime.entry import ARRAY, LIST, TUPLE, LoadedProgram, PortableEntry, Structure, make_entry
from tests.runtime.programs import (
    add,
    compile_text,
    copy,
    entry_of,
    huge,
    load,
    nothing_in,
    outer,
    plus_const,
    take,
)

Make = Callable[..., Any]
F32 = np.float32


@pytest.fixture(params=["compiled", "portable"])
def make(request: pytest.FixtureRequest) -> Make:
    """Both entries, for the same tests."""

    def build(*args: Any, **options: Any) -> Any:
        return entry_of(*args, native=request.param == "compiled", **options)

    return build


@pytest.fixture
def falls_back(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The calls that a compiled entry hands to the portable one."""
    seen: list[tuple[Any, ...]] = []
    call = PortableEntry.__call__

    def record(self: PortableEntry, *args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(PortableEntry, "__call__", record)
    return seen


def test_this_python_can_use_the_compiled_entry() -> None:
    assert entry.probe() is None
    assert type(entry_of(add(), ARRAY, native=True)).__name__ == "builtin_function_or_method"


# -- results


def test_a_fresh_result_is_right_writable_and_new(make: Make) -> None:
    f = make(add(), ARRAY)
    a, b = np.arange(5, dtype=F32), np.full(5, 10, F32)
    first, second = f(a, b), f(a, b)
    for y in (first, second):
        np.testing.assert_array_equal(y, np.array([10, 11, 12, 13, 14], F32), strict=True)
        assert type(y) is np.ndarray
        assert y.flags.c_contiguous
        assert y.flags.writeable
        assert y.flags.owndata
        assert y.flags.aligned
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(first, a)


# F15
def test_sizes_may_change_from_call_to_call(make: Make) -> None:
    f = make(add(), ARRAY)
    for n in (0, 1, 7, 1000, 3):
        a = np.arange(n, dtype=F32)
        np.testing.assert_array_equal(f(a, a), a * 2, strict=True)


@pytest.mark.parametrize("structure", [LIST, TUPLE, Structure("dict", ("up", "flat"))])
def test_results_have_the_structure_asked_for(structure: Structure) -> None:
    x, y = np.arange(12.0).reshape(3, 4), np.arange(4.0)
    for native in (None, False):
        f = make_entry(load(outer()), structure, arena=ArenaPool(), native=native)
        result = f(x, y)
        assert type(result) is {"list": list, "tuple": tuple, "dict": dict}[structure.kind]
        up, flat = result.values() if isinstance(result, dict) else result
        np.testing.assert_array_equal(up, x + y, strict=True)
        np.testing.assert_array_equal(flat, x.T.copy(), strict=True)
    if structure.kind == "dict":
        assert list(result) == ["up", "flat"]


def test_one_output_may_come_in_a_list(make: Make) -> None:
    a = np.ones(3, F32)
    for structure in (LIST, TUPLE):
        f = make(add(), structure)
        result = f(a, a)
        assert len(result) == 1
        np.testing.assert_array_equal(result[0], [2, 2, 2])
        out = type(result)([np.empty(3, F32)])
        assert f(a, a, out=out) is out
        np.testing.assert_array_equal(out[0], [2, 2, 2])


# F10
def test_no_output_gives_an_empty_container(make: Make) -> None:
    assert make(nothing_in(0), LIST)() == []
    assert make(nothing_in(0), TUPLE)() == ()
    empty: list[Any] = []
    assert make(nothing_in(0), LIST)(out=empty) is empty


def test_no_input_and_many_outputs(make: Make) -> None:
    assert [int(y) for y in make(nothing_in(12), LIST)()] == list(range(12))


# F16
def test_scalars_stay_arrays_of_no_axes(make: Make) -> None:
    constant = np.array([0.25])
    f = make(load(plus_const(), [constant]), ARRAY)
    y = f(np.array(2.0))
    assert type(y) is np.ndarray
    assert y.shape == ()
    assert y == 2.25
    assert f(2) == 2.25
    out = np.empty(())
    assert f(1.5, out=out) is out
    assert out == 1.75


@pytest.mark.parametrize("dtype", [d for d in ALL if d.np is not None], ids=str)
def test_every_dtype_passes_through(make: Make, falls_back: list[Any], dtype: DType) -> None:
    f = make(copy(dtype, 2, 3), ARRAY)
    raw = np.arange(6 * dtype.itemsize, dtype=np.uint8)  # any bytes: also bools other than 0 and 1
    x = raw.view(dtype.np).reshape(2, 3)
    falls_back.clear()
    y = f(x)
    assert y.dtype == dtype.np
    assert y.tobytes() == raw.tobytes()
    out = np.empty((2, 3), dtype.np)
    f(x, out=out)
    assert out.tobytes() == raw.tobytes()
    assert isinstance(f, PortableEntry) or not falls_back
    with pytest.raises(FeedError):
        f(np.empty((2, 3), np.complex128))


# -- what counts as a usual call


# F27: read-only inputs are usual
def test_usual_calls_never_leave_the_compiled_entry(falls_back: list[Any]) -> None:
    a, out = np.ones(8, F32), np.empty(8, F32)
    frozen = a.copy()
    frozen.setflags(write=False)
    f = entry_of(add(), ARRAY, native=True)
    f(a, a)
    f(frozen, a[:8])
    f(a, a, out=out)
    f(a, a, out=None)
    f(a[:0], a[:0])
    f(a[:1], np.ones((1, 5), F32)[:, 0])  # the stride of an axis of size 1 does not matter
    f(a[:4], a[4:], out=out[:4])  # neighbours do not overlap
    x, y = np.ones((2, 4)), np.ones(4)
    for structure, kind in ((LIST, list), (TUPLE, tuple)):
        g = entry_of(outer(), structure, native=True)
        up, flat = g(x, y)
        g(x, y, out=kind([up, flat]))
    h = entry_of(take(), ARRAY, native=True)
    h(a, np.array([1, 2]), out=np.empty(2, F32))
    assert falls_back == []


def test_an_arena_is_made_once_and_then_used_by_the_compiled_entry(falls_back: list[Any]) -> None:
    pool = ArenaPool()
    f = entry_of(add(arena=5000, work=50_000), ARRAY, native=True, arena=pool)
    a = np.arange(4, dtype=F32)
    for _ in range(3):
        np.testing.assert_array_equal(f(a, a), a * 2)
    assert len(falls_back) == 1
    pool.trim()
    np.testing.assert_array_equal(f(a, a), a * 2)
    assert len(falls_back) == 2


def test_a_taken_arena_sends_the_call_elsewhere(falls_back: list[Any]) -> None:
    pool = ArenaPool()
    f = entry_of(add(arena=5000), ARRAY, native=True, arena=pool)
    a = np.arange(4, dtype=F32)
    f(a, a)
    falls_back.clear()
    with pool.lease(5000):
        np.testing.assert_array_equal(f(a, a), a * 2)
    assert len(falls_back) == 1


def test_poisoned_arenas_reach_every_run(make: Make) -> None:
    f = make(add(arena=5000), ARRAY, arena=ArenaPool(poison=True))
    a = np.arange(4, dtype=F32)
    for _ in range(2):
        np.testing.assert_array_equal(f(a, a), a * 2)


# -- odd feeds, which both entries take


class Sub(np.ndarray[Any, Any]):
    """A subclass without meaning."""


# F24, F25, F26, F30
@pytest.mark.parametrize(
    "odd",
    [
        [0, 1, 2, 3],
        (0.0, 1.0, 2.0, 3.0),
        np.arange(8, dtype=F32)[::2] / 2,
        np.arange(4, dtype=F32)[::-1][::-1],
        np.arange(3, -1, -1, dtype=F32)[::-1],
        np.arange(4, dtype=">f4"),
        np.frombuffer(b"\0" + np.arange(4, dtype=F32).tobytes(), np.uint8)[1:].view(F32),
        np.arange(4, dtype=F32).view(Sub),
        memoryview(np.arange(4, dtype=F32)),
    ],
    ids=["ints", "floats", "strided", "view", "negative", "swapped", "unaligned", "subclass", "buffer"],
)
def test_odd_feeds_give_the_same_result(make: Make, odd: Any, falls_back: list[Any]) -> None:
    f = make(add(), ARRAY)
    b = np.full(4, 0.5, F32)
    expected = np.array([0.5, 1.5, 2.5, 3.5], F32)
    if not isinstance(f, PortableEntry):
        f(odd, b)
        # The compiled entry reads no memory but that of plain arrays.
        plain = type(odd) is np.ndarray and odd.flags.c_contiguous and odd.flags.aligned and odd.dtype.isnative
        assert bool(falls_back) != plain
    for result in (f(odd, b), f(b, odd), f(odd, b, out=np.empty(4, F32))):
        np.testing.assert_array_equal(result, expected, strict=True)
        assert type(result) is np.ndarray


# F24
def test_zero_strides_are_read_right(make: Make) -> None:
    f = make(add(), ARRAY)
    same = np.broadcast_to(np.array(3, F32), (5,))
    np.testing.assert_array_equal(f(same, same), [6] * 5)


def test_a_descriptor_with_metadata_is_the_same_dtype(make: Make) -> None:
    odd = np.arange(4, dtype=np.dtype("f4", metadata={"unit": "m"}))
    result = make(add(), ARRAY)(odd, np.ones(4, F32))
    np.testing.assert_array_equal(result, [1, 2, 3, 4])
    assert result.dtype.metadata is None


# -- refused feeds


# F23
def test_a_wrong_dtype_is_refused(make: Make) -> None:
    f = make(add(), ARRAY)
    with pytest.raises(FeedError) as caught:
        f(np.zeros(3, F32), np.zeros(3))
    assert str(caught.value) == (
        "input 'b' takes float32 of shape (n,), got float64 of shape (3,); "
        "convert it explicitly, for instance by .astype('float32')\n  at model.py:7"
    )


# F21
def test_sizes_that_contradict_each_other_are_refused(make: Make) -> None:
    f = make(add(), ARRAY)
    with pytest.raises(FeedError) as caught:
        f(np.zeros(3, F32), np.zeros(1, F32))  # a symbolic size never broadcasts
    assert str(caught.value) == (
        "input 'b' takes float32 of shape (n,), got shape (1,): axis 0 is 1, but n is 3 in input 'a'\n  at model.py:7"
    )
    with pytest.raises(FeedError, match="axis 0 is 4, but m is 2 in input 'x'"):
        make(outer())(np.zeros((3, 2)), np.zeros(4))


def test_a_constant_size_must_be_met(make: Make) -> None:
    with pytest.raises(FeedError, match=r"takes float32 of shape \(2, 3\), got shape \(2, 4\): axis 1 is 4, not 3"):
        make(copy(float32, 2, 3))(np.zeros((2, 4), F32))
    with pytest.raises(FeedError, match="2 axes, not 1"):
        make(copy(float32, 2, 3))(np.zeros(6, F32))


# F21
def test_a_failed_guard_is_explained_with_the_shapes(make: Make) -> None:
    f = make(outer())
    out = [np.full((3, 5), 7.0), np.full((5, 3), 7.0)]
    for kwargs in ({}, {"out": out}):
        with pytest.raises(FeedError) as caught:
            f(np.zeros((3, 5)), np.zeros(5), **kwargs)
        assert str(caught.value) == "m must be even\n  given: 'x' (3, 5), 'y' (5,)\n  at model.py:9"
    assert all((y == 7).all() for y in out)


# F30
def test_what_is_no_array_is_refused(make: Make) -> None:
    f = make(add(), ARRAY)
    for bad in (None, "ab", object(), np.ma.zeros(3, F32)):
        with pytest.raises(FeedTypeError, match="input 'b' takes an array of float32"):
            f(np.zeros(3, F32), bad)


# F31
def test_errors_raised_by_a_feed_are_passed_on_and_leave_nothing_behind(make: Make) -> None:
    class Fails:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise OSError("disk gone")

    f = make(add(arena=100), ARRAY)
    with pytest.raises(OSError, match="disk gone"):
        f(Fails(), Fails())
    np.testing.assert_array_equal(f([1.0], [2.0]), [3.0])


# F22
def test_wrong_arity_is_a_type_error(make: Make) -> None:
    f = make(add(), ARRAY)
    a = np.zeros(3, F32)
    with pytest.raises(TypeError, match=r"^predict\(\) takes 2 positional arguments \(a, b\) but 1 was given$"):
        f(a)
    with pytest.raises(TypeError, match=r"^predict\(\) takes 2 positional arguments \(a, b\) but 3 were given$"):
        f(a, a, a)
    with pytest.raises(TypeError, match=r"but 0 were given$"):
        f(out=a)
    with pytest.raises(TypeError, match=r"^predict\(\) takes 0 positional arguments but 1 was given$"):
        make(nothing_in(1))(a)


def test_unknown_keywords_are_a_type_error(make: Make) -> None:
    f = make(add(), ARRAY)
    a = np.zeros(3, F32)
    for call in (lambda: f(a, a, axis=0), lambda: f(a, a, out=a, axis=0), lambda: f(a, b=a)):
        with pytest.raises(TypeError, match=r"^predict\(\) got an unexpected keyword argument '(axis|b)'$"):
            call()


def test_keywords_may_be_spelled_at_run_time(make: Make) -> None:
    f = make(add(), ARRAY)
    a, out = np.ones(3, F32), np.empty(3, F32)
    assert f(a, a, **{"".join(["o", "ut"]): out}) is out
    np.testing.assert_array_equal(out, [2, 2, 2])


# -- out


def test_out_is_written_and_returned(make: Make) -> None:
    f = make(add(), ARRAY)
    a, out = np.arange(4, dtype=F32), np.full(4, 9, F32)
    assert f(a, a, out=out) is out
    np.testing.assert_array_equal(out, [0, 2, 4, 6])


def test_out_of_several_outputs_mirrors_them(make: Make) -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.ones(2)
    for structure, kind in ((LIST, list), (TUPLE, tuple)):
        f = make(outer(), structure)
        out = kind([np.empty((3, 2)), np.empty((2, 3))])
        assert f(x, y, out=out) is out
        np.testing.assert_array_equal(out[0], x + 1)
        np.testing.assert_array_equal(out[1], x.T)


def test_out_of_a_dict_mirrors_it() -> None:
    f = make_entry(load(outer()), Structure("dict", ("p", 3)), arena=ArenaPool())
    x, y = np.arange(6.0).reshape(3, 2), np.ones(2)
    out = {3: np.empty((2, 3)), "p": np.empty((3, 2))}
    assert f(x, y, out=out) is out
    np.testing.assert_array_equal(out["p"], x + 1)
    with pytest.raises(
        FeedTypeError, match=r"out must be a dict with the keys \['p', 3\], as the results are, not a dic"
    ):
        f(x, y, out={"p": np.empty((3, 2))})


def test_out_of_another_structure_is_refused(make: Make) -> None:
    x, y = np.zeros((3, 2)), np.zeros(2)
    arrays = [np.empty((3, 2)), np.empty((2, 3))]
    f = make(outer(), LIST)
    for bad, given in ((tuple(arrays), "a tuple of 2"), (arrays[:1], "a list of 1"), (arrays[0], "a ndarray")):
        with pytest.raises(FeedTypeError, match=f"^out must be a list of 2 arrays, as the results are, not {given}$"):
            f(x, y, out=bad)
    with pytest.raises(FeedTypeError, match="must be a numpy array, not an object of type list"):
        make(add(), ARRAY)([1.0], [1.0], out=[np.empty(1, F32)])


# F27, F29
def test_out_must_fit_exactly(make: Make) -> None:
    f = make(add(), ARRAY)
    a = np.ones(4, F32)
    frozen = np.full(4, 5, F32)
    frozen.setflags(write=False)
    for bad, message in (
        (np.empty(4), "must be float32 of shape (4,), got float64 of shape (4,)"),
        (np.empty(3, F32), "got float32 of shape (3,)"),
        (np.empty((4, 1), F32), "got float32 of shape (4, 1)"),
        (frozen, "is read-only"),
        (np.lib.stride_tricks.as_strided(np.empty(4, F32), (4,), (0,)), "overlaps itself"),
    ):
        with pytest.raises(FeedError) as caught:
            f(a, a, out=bad)
        assert message in str(caught.value)
        assert str(caught.value).startswith("out for 'out' ")
    assert (frozen == 5).all()


def test_out_may_have_any_layout(make: Make) -> None:
    f = make(add(), ARRAY)
    a = np.arange(4, dtype=F32)
    unaligned = np.zeros(17, np.uint8)[1:].view(F32)
    for out in (np.zeros(8, F32)[::2], np.zeros(4, F32)[::-1], unaligned, np.zeros(4, F32).view(Sub)):
        assert f(a, a, out=out) is out
        np.testing.assert_array_equal(np.asarray(out), [0, 2, 4, 6])


# F28
def test_out_that_overlaps_an_input_works_as_if_it_was_copied(make: Make) -> None:
    f = make(add(), ARRAY)
    a = np.arange(6, dtype=F32)
    f(a, a, out=a)
    np.testing.assert_array_equal(a, [0, 2, 4, 6, 8, 10])
    base = np.arange(7, dtype=F32)
    f(base[:6], base[:6], out=base[1:])
    np.testing.assert_array_equal(base, [0, 0, 2, 4, 6, 8, 10])
    base = np.arange(7, dtype=F32)
    f(base[1:], base[:6], out=base[:6])
    np.testing.assert_array_equal(base, [1, 3, 5, 7, 9, 11, 6])
    base = np.arange(6, dtype=F32)
    f(base, base, out=base[::-1])
    np.testing.assert_array_equal(base, [10, 8, 6, 4, 2, 0])


# F29
def test_outputs_that_overlap_each_other_are_refused(make: Make) -> None:
    f = make(outer(), LIST)
    base = np.full(12, 3.0)
    x, y = np.zeros((2, 4)), np.zeros(4)
    for first, second in ((base[:8], base[:8]), (base[:8], base[4:])):
        with pytest.raises(FeedError, match=r"^out for 'up' and out for 'flat' overlap$"):
            f(x, y, out=[first.reshape(2, 4), second.reshape(4, 2)])
    assert (base == 3).all()
    wide = np.zeros((4, 4))
    f(x, y, out=[wide[:2], wide[2:].reshape(4, 2)])


def random_feed(rng: random.Random, n: int) -> Any:
    """Return something to feed for n float32: mostly fine, in any layout, and now and then not."""
    x = np.array([rng.choice([-0.0, 1.5, math.inf, math.nan, 1e-45]) for _ in range(2 * n + 2)], F32)
    return rng.choice(
        [
            x[:n],
            x[:n],
            x[1 : n + 1],
            x[: 2 * n : 2],
            x[:n][::-1],
            x[:n].astype(">f4"),
            x[:n].tolist(),
            x[:n].view(Sub),
            np.broadcast_to(x[0], (n,)),
            np.frombuffer(b"1" + x.tobytes()[: 4 * n], np.uint8)[1:].view(F32),
            x[: n + 1],
            x[:n].astype(np.float64),
            x[:n].reshape(n, 1),
            None,
            rng.choice(["x", 1.0, [[1.0]], {}, np.ma.array(x[:n])]),
        ]
    )


def test_both_entries_do_the_same_whatever_they_are_given() -> None:
    rng = random.Random(7)
    program, pool = load(add()), ArenaPool()
    entries = [entry_of(program, LIST, native=native, arena=pool) for native in (True, False)]
    outs: list[Callable[[int], Any]] = [
        lambda n: None,
        lambda n: None,
        lambda n: [np.zeros(n, F32)],
        lambda n: [np.zeros(2 * n, F32)[::2]],
        lambda n: [np.zeros(n)],
        lambda n: [np.zeros(n, F32), np.zeros(n, F32)],
    ]
    succeeded = 0
    for case in range(600):
        n, make_out = rng.choice([0, 1, 2, 17]), rng.choice(outs)
        args = [random_feed(rng, n) for _ in range(rng.choice([2] * 9 + [1, 3]))]
        outcomes: list[Any] = []
        for f in entries:
            out = make_out(n)
            try:
                outcomes.append(f(*args, out=out)[0].tobytes())
                succeeded += 1
            except (TypeError, ValueError) as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1], (case, args)
    assert 200 < succeeded < 900


# -- failures at run time


# F43
def test_a_bad_index_names_its_first_position(make: Make) -> None:
    f = make(take(), ARRAY)
    x = np.arange(4, dtype=F32)
    np.testing.assert_array_equal(f(x, np.array([3, 0, 3])), [3, 0, 3])
    for kwargs in ({}, {"out": np.full(4, 9, F32)}):
        with pytest.raises(IndexRangeError) as caught:
            f(x, np.array([0, 1, 4, -1]), **kwargs)
        assert str(caught.value) == "take: the index at position 2 is out of range\n  at model.py:12"
        assert isinstance(caught.value, IndexError)
    assert (kwargs["out"] == 9).all()  # untouched by the run that failed
    np.testing.assert_array_equal(f(x, np.array([1])), [1])


def test_a_fallible_program_writes_out_when_it_succeeds(make: Make, falls_back: list[Any]) -> None:
    f = make(take(), ARRAY)
    x = np.arange(4, dtype=F32)
    falls_back.clear()
    out = np.full(3, 9, F32)
    assert f(x, np.array([2, 2, 1]), out=out) is out
    np.testing.assert_array_equal(out, [2, 2, 1])
    f(x, np.array([3, 2]), out=x[:2])  # in place: the inputs are read before anything is written
    np.testing.assert_array_equal(x, [3, 2, 2, 3])
    assert isinstance(f, PortableEntry) or not falls_back


# F46
def test_memory_that_cannot_be_had_is_reported_before_anything_runs(make: Make) -> None:
    a = np.zeros(2, F32)
    with pytest.raises(OutOfMemoryError, match=f"^no memory for {1 << 60} bytes of intermediate results$") as caught:
        make(huge(1 << 60, 3))(a)
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(
        OutOfMemoryError, match=rf"^output 'out' of shape \({1 << 40}, 1048576\) needs {1 << 62} bytes$"
    ):
        make(huge(0, 1 << 40, 1 << 20))(a)
    with pytest.raises(OutOfMemoryError, match=rf"needs {1 << 70} bytes$"):
        make(huge(0, 1 << 60, 1 << 8))(a)


def test_an_entry_outlives_the_names_of_everything_it_uses(make: Make) -> None:
    f = make(load(plus_const(), [np.array([5.0])]), ARRAY)
    gc.collect()
    assert f(1.0) == 6.0


def test_a_closed_program_refuses_calls(make: Make) -> None:
    program = load(add())
    f = make(program, ARRAY)
    a = np.ones(2, F32)
    f(a, a)
    program.close()
    program.close()
    assert program.closed
    for call in (lambda: f(a, a), lambda: f(a, a, out=a.copy()), lambda: f("odd")):
        with pytest.raises((ClosedError, TypeError)):
            call()
    with pytest.raises(ClosedError, match="the session is closed"):
        f(a, a)


def test_a_closed_pool_refuses_calls(make: Make) -> None:
    pool = ArenaPool()
    f = make(add(arena=64), ARRAY, arena=pool)
    a = np.ones(2, F32)
    f(a, a)
    pool.close()
    with pytest.raises(ClosedError):
        f(a, a)


def test_closing_lets_go_of_constants_and_entries_of_code(make: Make) -> None:
    class Weights(np.ndarray[Any, Any]):
        pass

    weights = np.ones(1).view(Weights)
    program = load(plus_const(), [weights])
    f = make(program, ARRAY)
    alive, code = weakref.ref(weights), weakref.ref(program.code)
    del weights
    gc.collect()
    assert alive() is not None
    program.close()
    gc.collect()
    assert alive() is None
    del program
    assert code() is not None  # f still leads there
    with pytest.raises(ClosedError):
        f(1.0)
    del f
    gc.collect()
    assert code() is None


# -- nothing leaks


def test_calls_leak_no_references(make: Make) -> None:
    x, y = np.ones((3, 2)), np.ones(2)
    up, flat = np.empty((3, 2)), np.empty((2, 3))
    out = [up, flat]
    f, g = make(outer(), LIST), make(take(), ARRAY)
    values, good, bad, taken = np.ones(3, F32), np.array([1]), np.array([7]), np.empty(1, F32)
    watched = [x, y, up, flat, out, f, g, values, good, bad, taken, x.dtype, values.dtype, good.dtype]

    def work() -> None:
        f(x, y)
        f(x, y, out=out)
        f(x, y, out=None)
        g(values, good)
        g(values, good, out=taken)
        for call in (
            lambda: g(values, bad),
            lambda: g(values, bad, out=taken),
            lambda: f(x, x),
            lambda: f(x),
            lambda: f(x, y, out=[up, up]),
            lambda: f(x, y, out=[up, None]),
            lambda: f(x, y, out=[up]),
            lambda: f(x, y, other=1),
        ):
            with pytest.raises((FeedError, IndexError, TypeError)):
                call()

    work()
    gc.collect()
    before = [sys.getrefcount(w) for w in watched]
    for _ in range(50):
        work()
    gc.collect()
    assert [sys.getrefcount(w) for w in watched] == before


def test_a_hundred_thousand_calls_need_no_memory() -> None:
    f = entry_of(add(), LIST, native=True)
    a, out = np.ones(16, F32), [np.empty(16, F32)]
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(100):
            f(a, a), f(a, a, out=out)
        start, _ = tracemalloc.get_traced_memory()
        for _ in range(50_000):
            f(a, a)
            f(a, a, out=out)
        end, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert end - start < 2000


def test_entries_come_and_go(make: Make) -> None:
    program, pool = load(add()), ArenaPool()
    a = np.ones(2, F32)
    for _ in range(200):
        make(program, ARRAY, arena=pool)(a, a)
    gc.collect()
    assert not [r for r in gc.get_referrers(pool) if isinstance(r, PortableEntry)]


# -- the portable entry as Session.run uses it


def test_run_arrays_returns_the_outputs_in_order() -> None:
    f = PortableEntry(load(outer()), LIST, ArenaPool())
    x, y = np.arange(6.0).reshape(3, 2), np.ones(2)
    up, flat = f.run_arrays([x, y])
    np.testing.assert_array_equal(up, x + 1)
    np.testing.assert_array_equal(flat, x.T)
    targets = [np.empty((3, 2)), np.empty((2, 3))]
    up, flat = f.run_arrays([x.tolist(), y], targets)
    assert up is targets[0]
    assert flat is targets[1]


# -- how they present themselves


def test_an_entry_describes_itself(make: Make) -> None:
    f = make(outer())
    assert f.__name__ == "predict"
    assert "x: float64 (batch, m)" in (inspect.getdoc(f) or "")
    assert "flat: float64 with 2 axes" in (inspect.getdoc(f) or "")


def test_the_compiled_entry_has_a_signature_where_names_allow_it() -> None:
    f = entry_of(add(), native=True)
    assert str(inspect.signature(f)) == "(a, b, /, *, out=None)"
    text, signature = add()
    odd = ProgramSignature(
        "measure", "run", tuple(ArraySpec("layer/x", s.dtype, s.shape) for s in signature.inputs), signature.outputs, 1
    )
    g = entry_of((text, odd), native=True)
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(g)
    np.testing.assert_array_equal(g([1.0], [2.0])[0], [3.0])


# -- choosing


def test_without_compiled_code_the_portable_entry_is_used() -> None:
    text, signature = add()
    program = LoadedProgram(signature, load_object(compile_text(text)))
    f = make_entry(program, ARRAY, arena=ArenaPool())
    assert isinstance(f, PortableEntry)
    np.testing.assert_array_equal(f([1.0], [2.0]), [3.0])
    with pytest.raises(CompileError, match="no compiled entry for function: the program was compiled without one"):
        make_entry(program, ARRAY, arena=ArenaPool(), native=True)


def test_a_strange_python_gets_the_portable_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "probe", lambda: "it needs the GIL")
    assert isinstance(make_entry(load(add()), ARRAY, arena=ArenaPool()), PortableEntry)
    with pytest.raises(CompileError, match="it needs the GIL"):
        entry_of(add(), native=True)


@pytest.mark.parametrize("field", ["TYPE", "DATA", "NDIM", "DIMS", "DESCR", "FLAGS"])
def test_the_probe_notices_a_moved_field(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    name = "OBJECT_TYPE" if field == "TYPE" else f"ARRAY_{field}"
    monkeypatch.setattr(abi, name, 24 if field == "DIMS" else 40)
    assert "unknown layout" in (entry.probe.__wrapped__() or "")


def test_the_probe_refuses_other_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.sys, "version_info", (3, 99, 0))
    assert "it is made for CPython 3.11 to 3.14" in (entry.probe.__wrapped__() or "")
    monkeypatch.undo()
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert entry.probe.__wrapped__() == "it needs numpy 2, not 1.26.4"
    monkeypatch.undo()
    monkeypatch.setattr(entry.sysconfig, "get_config_var", lambda name: 1)
    assert entry.probe.__wrapped__() == "it needs the GIL"


def test_structures_without_keys_may_be_named() -> None:
    for name, kind in (("array", np.ndarray), ("list", list), ("tuple", tuple)):
        f = make_entry(load(add()), name, arena=ArenaPool())  # type: ignore[arg-type]
        assert type(f([1.0], [2.0])) is kind


def test_structures_must_fit_the_outputs() -> None:
    with pytest.raises(CompilerBug, match="2 outputs do not fit"):
        entry_of(outer(), ARRAY, native=False)
    with pytest.raises(CompilerBug, match="1 outputs do not fit"):
        entry_of(add(), Structure("dict", ("a", "b")), native=False)


def test_constants_must_be_plain() -> None:
    with pytest.raises(CompilerBug, match="not contiguous"):
        load(plus_const(), [np.arange(4.0)[::2]])
