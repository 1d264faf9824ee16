"""Feeds made into plain arrays, and the checks of ``out=``."""

from __future__ import annotations

import array as stdlib_array
import math
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from jitflow.errors import DTypeError, FeedError, FeedTypeError, JitflowError, OutOfMemoryError
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot
from runtime.arenas import aligned_array
from runtime.buffers import (
    canonicalize,
    check_out,
    check_outs_apart,
    copy_array,
    part_overlaps,
)

# -- feeds


def canonical(value: object, dtype: DType, *shape: int) -> np.ndarray[Any, Any]:
    spec = ArraySpec("x", dtype, shape, "model.py:7")
    result = canonicalize(value, spec, ProgramSignature("measure", "run", (spec,), ()))
    assert type(result) is np.ndarray
    assert result.dtype == dtype.np
    assert result.dtype.isnative
    assert result.shape == shape
    assert result.flags.c_contiguous
    assert result.flags.aligned
    return result


NUMBERS = (int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64)


@pytest.mark.parametrize("dtype", [bool_, *NUMBERS])
def test_a_plain_array_is_taken_as_it_is(dtype: DType) -> None:
    for shape in [(), (0,), (3,), (2, 0, 3), (2, 3)]:
        x = np.ones(shape, dtype.np)
        assert canonical(x, dtype, *shape) is x
    x.setflags(write=False)
    assert canonical(x, dtype, 2, 3) is x


# F24, F25, F26
@pytest.mark.parametrize(
    "x",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(24.0).reshape(4, 6)[:, ::2],
        np.arange(12.0).reshape(4, 3)[::-1, ::-1],
        np.broadcast_to(np.arange(3.0), (4, 3)),
        np.frombuffer(bytes(range(97)), np.uint8)[1:].view(np.float64).reshape(4, 3),
        np.arange(12.0).reshape(4, 3).astype(">f8"),
        np.asfortranarray(np.arange(12.0).reshape(4, 3)),
        np.arange(12.0).reshape(4, 3).view(np.matrix),
    ],
    ids=["transposed", "strided", "negative", "zero stride", "unaligned", "byte-swapped", "fortran", "matrix"],
)
def test_arrays_of_any_layout_give_their_values(x: np.ndarray[Any, Any]) -> None:
    expected = [[float(x[i, j]) for j in range(3)] for i in range(4)]
    np.testing.assert_array_equal(canonical(x, float64, 4, 3), expected)


def test_layouts_of_scalars_and_empty_arrays_do_not_matter() -> None:
    swapped = np.array(3.5, ">f4")
    assert canonical(swapped, float32) == np.float32(3.5)
    unaligned = np.frombuffer(bytes(9), np.uint8)[1:].view(np.float64).reshape(())
    assert canonical(unaligned, float64) == 0.0
    assert canonical(np.empty((0, 5), np.float32).T, float32, 5, 0).size == 0
    ones = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (1, 1), (4096, 123))
    assert canonical(ones, float32, 1, 1) is ones


def test_memory_maps_are_read(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.arange(5, dtype=np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert type(mapped) is np.memmap
    np.testing.assert_array_equal(canonical(mapped, float32, 5), [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    "given", [np.float64, np.float16, np.int32, np.bool_, np.complex64, np.uint8, object, "M8[s]", "U3"]
)
def test_an_array_of_another_dtype_is_refused(given: Any) -> None:
    x = np.zeros((2, 3), given)
    with pytest.raises(FeedError) as caught:
        canonical(x, float32, 2, 3)
    assert str(caught.value) == (
        f"input 'x' takes float32 of shape (2, 3), got {x.dtype} of shape (2, 3); "
        "convert it explicitly, for instance by .astype('float32')\n  at model.py:7"
    )
    assert isinstance(caught.value, ValueError)


# F23
def test_dtypes_of_equal_size_are_never_reinterpreted() -> None:
    for given, dtype in [("i4", float32), ("u4", int32), ("u1", bool_), ("f4", int32), ("f2", int16), ("S4", float32)]:
        with pytest.raises(FeedError, match="convert it explicitly"):
            canonical(np.zeros(2, given), dtype, 2)
    with pytest.raises(FeedError):
        canonical(np.zeros(2, [("a", np.float32)]), float32, 2)


def test_long_long_is_the_same_as_long() -> None:
    x = np.arange(3, dtype=np.longlong)
    np.testing.assert_array_equal(canonical(x, int64, 3), [0, 1, 2])


def test_numpy_scalars_keep_their_dtype() -> None:
    assert canonical(np.float32(2.5), float32) == 2.5
    with pytest.raises(FeedError, match="got float64 of shape"):
        canonical(np.float64(2.5), float32)  # although it is a Python float too
    with pytest.raises(FeedError, match="got bool of shape"):
        canonical(np.bool_(True), int64)


# F21
def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(FeedError) as caught:
        canonical(np.zeros((2, 4), np.float32), float32, 2, 3)
    assert str(caught.value) == (
        "input 'x' takes float32 of shape (2, 3), got shape (2, 4): axis 1 is 4, not 3\n  at model.py:7"
    )
    with pytest.raises(FeedError, match=r"got shape \(3,\): 2 axes, not 1"):
        canonical(np.zeros(3, np.float32), float32, 2, 3)
    with pytest.raises(FeedError, match=r"takes float32 of shape \(3,\), got shape \(\): 1 axes, not 0"):
        canonical(1.0, float32, 3)
    with pytest.raises(FeedError, match="axis 0 is 1, not 3"):
        canonical(np.zeros(1, np.float32), float32, 3)


def test_symbolic_sizes_take_any_number() -> None:
    spec = ArraySpec("x", float32, (Slot(0), 2))
    signature = ProgramSignature("measure", "run", (spec,), (), n_slots=1, slot_names=("batch",))
    assert canonicalize(np.zeros((7, 2), np.float32), spec, signature).shape == (7, 2)
    with pytest.raises(FeedError, match=r"^input 'x' takes float32 of shape \(batch, 2\), got shape \(7, 3\)"):
        canonicalize(np.zeros((7, 3), np.float32), spec, signature)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_python_integers_convert_to_every_number_type(dtype: DType) -> None:
    assert canonical(7, dtype) == 7
    assert canonical(True, dtype) == 1
    np.testing.assert_array_equal(canonical([[1, 2], (3, True)], dtype, 2, 2), np.array([[1, 2], [3, 1]], dtype.np))


@pytest.mark.parametrize("dtype", [d for d in NUMBERS if d.is_integer])
def test_integers_out_of_range_are_refused(dtype: DType) -> None:
    assert canonical([dtype.min, dtype.max], dtype, 2).tolist() == [dtype.min, dtype.max]
    for value in (dtype.min - 1, dtype.max + 1, 10**30, -(10**5000)):
        with pytest.raises(FeedError, match="out of its range"):
            canonical(value, dtype)
        with pytest.raises(FeedError, match="some values are out of its range"):
            canonical([0, value], dtype, 2)


def test_the_message_shows_the_value_out_of_range() -> None:
    with pytest.raises(FeedError) as caught:
        canonical(300, uint8)
    assert str(caught.value) == "input 'x' takes uint8: 300 is out of its range\n  at model.py:7"


def test_python_floats_convert_to_float_types_only() -> None:
    for dtype in (float16, bfloat16, float32, float64):
        assert canonical(0.1, dtype) == dtype.np.type(0.1)  # type: ignore[union-attr]
        np.testing.assert_array_equal(canonical([0.1, 2], dtype, 2), np.array([0.1, 2], dtype.np))
        special = canonical([math.nan, math.inf, -math.inf, -0.0], dtype, 4)
        assert np.isnan(special[0])
        assert special[1] == math.inf
        assert special[2] == -math.inf
        assert np.signbit(special[3])
    for dtype in (int32, uint8, bool_):
        with pytest.raises(FeedError, match="got Python values of type float"):
            canonical(1.0, dtype)
        with pytest.raises(FeedError, match="got Python values of type float"):
            canonical([1, 2.0], dtype, 2)


def test_finite_numbers_stay_finite() -> None:
    for value, dtype in [(1e39, float32), (70000, float16), (2**128, float32), (10**400, float64), (-1e300, float16)]:
        with pytest.raises(FeedError, match="out of its range"):
            canonical(value, dtype)
        with pytest.raises(FeedError, match="out of its range"):
            canonical([math.inf, value], dtype, 2)
    assert canonical(2**100, float32) == np.float32(2.0**100)
    assert canonical(10**300, float64) == 1e300


def test_bools_take_bools_only() -> None:
    assert canonical([True, False], bool_, 2).tolist() == [True, False]
    with pytest.raises(FeedError, match="got Python values of type int"):
        canonical(1, bool_)


def test_empty_lists_fit_every_dtype() -> None:
    assert canonical([], int32, 0).size == 0
    assert canonical([[], []], bool_, 2, 0).size == 0


def test_lists_of_arrays_keep_the_dtype_of_the_arrays() -> None:
    rows = [np.arange(3, dtype=np.float32), np.ones(3, np.float32)]
    np.testing.assert_array_equal(canonical(rows, float32, 2, 3), [[0, 1, 2], [1, 1, 1]])
    with pytest.raises(FeedError, match="got float64 of shape"):
        canonical([np.float64(0.1)], float32, 1)
    with pytest.raises(FeedTypeError, match="its rows differ in shape"):
        canonical([np.zeros(2, np.float32), np.zeros(3, np.float32)], float32, 2, 2)


class Named:
    """Only text."""

    def __repr__(self) -> str:
        return "named"


# F30
@pytest.mark.parametrize("value", [None, "1.0", b"1.0", {}, {1, 2}, Named(), object, 1j, iter([1.0])])
def test_what_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(FeedTypeError, match=r"^input 'x' takes an array of float32, not an object of type ") as caught:
        canonical(value, float32, 1)
    assert isinstance(caught.value, FeedError)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, JitflowError)
    with pytest.raises(FeedTypeError, match="it holds an object of type"):
        canonical([1.0, value], float32, 2)


# F30
def test_ragged_and_too_deep_lists_are_refused() -> None:
    with pytest.raises(FeedTypeError, match="its rows differ in length"):
        canonical([[1.0, 2.0], [3.0]], float32, 2, 2)
    with pytest.raises(FeedTypeError, match="its rows differ in length"):
        canonical([[1.0, 2.0], 3.0], float32, 2, 2)
    with pytest.raises(FeedError, match=r"got shape \(1, 1, 1\): 2 axes, not 3"):
        canonical([[[1.0]]], float32, 1, 1)
    with pytest.raises(FeedTypeError, match="nested deeper than 2 axes"):
        canonical([[[[1.0]]]], float32, 1, 1)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(FeedTypeError, match="nested deeper than 1 axes"):
        canonical(endless, float32, 1)


# F30
def test_masked_arrays_are_refused() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    with pytest.raises(FeedTypeError, match="fill or drop the masked elements"):
        canonical(masked, float64, 2)
    with pytest.raises(FeedTypeError, match=r"it holds an object of type numpy.ma"):
        canonical([masked], float64, 1, 2)


class Converts:
    """An array of another library."""

    def __init__(self, result: object) -> None:
        self.result = result

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_objects_with_array_convert_without_changing_dtype() -> None:
    np.testing.assert_array_equal(canonical(Converts(np.arange(3.0)[::-1]), float64, 3), [2, 1, 0])
    with pytest.raises(FeedError, match="got float64 of shape"):
        canonical(Converts(np.arange(3.0)), float32, 3)
    with pytest.raises(FeedTypeError, match="its __array__ gave an object of type list"):
        canonical(Converts([1.0]), float64, 1)
    with pytest.raises(FeedTypeError, match="its __array__ gave"):
        canonical(Converts(np.ma.array([1.0])), float64, 1)


# F31
def test_errors_in_array_are_passed_on() -> None:
    with pytest.raises(KeyError, match="no data"):
        canonical(Converts(KeyError("no data")), float32, 1)


class Forged:
    """Points at an address of its choice."""

    __array_interface__ = {"shape": (4,), "typestr": "<f4", "data": (8, False), "version": 3}  # noqa: RUF012


# F32
def test_forged_addresses_are_never_read() -> None:
    with pytest.raises(FeedTypeError, match=r"test_buffers.Forged"):
        canonical(Forged(), float32, 4)
    with pytest.raises(FeedTypeError, match="it holds an object of type"):
        canonical([Forged()], float32, 1, 4)

    class Both(Forged):
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.zeros(4, np.float32)

    assert canonical(Both(), float32, 4).tolist() == [0, 0, 0, 0]


def test_buffers_are_read_with_their_own_dtype() -> None:
    np.testing.assert_array_equal(canonical(stdlib_array.array("f", [1, 2]), float32, 2), [1, 2])
    np.testing.assert_array_equal(canonical(memoryview(np.arange(2.0)), float64, 2), [0, 1])
    with pytest.raises(FeedError, match="got float64 of shape"):
        canonical(stdlib_array.array("d", [1, 2]), float32, 2)


def test_a_copy_that_does_not_fit_is_a_memory_error_with_the_bytes() -> None:
    spec = ArraySpec("x", float32, (Slot(0),))
    signature = ProgramSignature("measure", "run", (spec,), (), n_slots=1)
    endless = np.broadcast_to(np.float32(1), (1 << 50,))
    with pytest.raises(OutOfMemoryError, match=f"^no memory for {1 << 52} bytes of a contiguous copy of input 'x'"):
        canonicalize(endless, spec, signature)


def test_dtypes_without_numpy_arrays_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "np", None)
    advice = r"^arrays of bfloat16 need the package ml_dtypes: pip install jitflow\[bf16\]$"
    for value in (1.0, np.zeros((), np.float64), np.zeros((), np.uint16)):
        with pytest.raises(DTypeError, match=advice):
            canonical(value, bfloat16)
    with pytest.raises(DTypeError, match=advice):
        check_out(np.zeros(()), OutputSpec("y", bfloat16, 0), ())
    with pytest.raises(DTypeError, match=advice):
        aligned_array((3,), bfloat16)


def test_python_numbers_are_rounded_to_halves_once() -> None:
    tie = 1 + 2.0**-8  # between two bfloat16, as 1 + 2**-11 is between two float16
    assert canonical([tie, tie + 2.0**-40, -tie - 2.0**-40], bfloat16, 3).tolist() == [1, 1 + 2.0**-7, -1 - 2.0**-7]
    assert canonical(1 + 2.0**-11 + 2.0**-40, float16) == 1 + 2.0**-10
    assert canonical([2**100, True], bfloat16, 2).tolist() == [2.0**100, 1.0]
    for value, dtype in ((65520, float16), (3.4e38, bfloat16), (10**400, bfloat16), (-1e39, bfloat16)):
        with pytest.raises(FeedError, match="out of its range"):
            canonical(value, dtype)


# -- arrays to write to

OUT = OutputSpec("y", float32, 2)


def test_an_out_array_must_have_exactly_the_dtype_and_shape() -> None:
    good = np.empty((2, 3), np.float32)
    assert check_out(good, OUT, (2, 3)) is good
    for bad in (np.empty((2, 3), np.float64), np.empty((3, 2), np.float32), np.empty((2, 3), ">f4")):
        with pytest.raises(FeedError, match=r"^out for 'y' must be float32 of shape \(2, 3\), got "):
            check_out(bad, OUT, (2, 3))
    for no_array in ([[0.0]], None, np.ma.zeros((2, 3), np.float32)):
        with pytest.raises(FeedTypeError, match=r"^out for 'y' must be a numpy array, not an object of type "):
            check_out(no_array, OUT, (2, 3))


# F27
def test_an_out_array_must_be_writable() -> None:
    frozen = np.empty((2, 3), np.float32)
    frozen.setflags(write=False)
    with pytest.raises(FeedError, match=r"^out for 'y' is read-only$"):
        check_out(frozen, OUT, (2, 3))


# F29
def test_an_out_array_may_have_strides_but_not_meet_itself() -> None:
    base = np.empty((8, 8), np.float32)
    for good in (base[:2, :3], base[::4, ::3], base[:3, :2].T, base[1::-1, 2::-1]):
        assert check_out(good, OUT, (2, 3)) is good
    for strides in [(0, 4), (4, 4), (4, 0), (8, 4), (2, 4)]:
        bad = np.lib.stride_tricks.as_strided(base, (2, 3), strides)
        with pytest.raises(FeedError, match=r"^out for 'y' overlaps itself"):
            check_out(bad, OUT, (2, 3))
    lone = np.lib.stride_tricks.as_strided(base, (1, 1), (0, 0))
    assert check_out(lone, OUT, (1, 1)) is lone


# F29
def test_out_arrays_must_lie_apart() -> None:
    base = np.empty((4, 6), np.float32)
    check_outs_apart([base[:, ::2], base[:, 1::2]], (OUT, OUT))
    check_outs_apart([base[:0], base], (OUT, OUT))
    for a, b in [(base, base), (base[:2], base[1:]), (base[:, ::2], base[:, ::3])]:
        with pytest.raises(FeedError, match=r"^out for 'y' and out for 'z' overlap$"):
            check_outs_apart([a, b], (OUT, OutputSpec("z", float32, 2)))


# F28
def test_inputs_in_the_way_of_outputs_are_copied() -> None:
    base = np.arange(10.0)
    inputs = [base[:4], base[6:], np.arange(3.0)]
    apart = part_overlaps(inputs, [base[3:6]])
    assert not np.shares_memory(apart[0], base)
    np.testing.assert_array_equal(apart[0], [0, 1, 2, 3])
    assert apart[1] is inputs[1]
    assert apart[2] is inputs[2]


# -- copies


def _turned(shape: tuple[int, ...], order: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Return an array of `shape` whose axes lie in memory in the order `order`, the last one nearest."""
    stored = np.arange(math.prod(shape)).astype(dtype).reshape([shape[k] for k in order])
    return stored.transpose(np.argsort(order))


@pytest.mark.parametrize("dtype", ["u1", "f4", ">f8"])
@pytest.mark.parametrize(
    ("shape", "order"),
    [((700, 513), (1, 0)), ((513, 257), (0, 1)), ((3, 301, 302), (1, 2, 0)), ((70, 3, 5, 90), (3, 2, 1, 0))],
)
def test_copies_of_any_layout_are_exact(dtype: str, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    source = _turned(shape, order, dtype)
    want = source.tolist()
    for view in (source, source[::-1, ..., ::-1], source[1:, ..., 2:]):
        target = np.zeros(view.shape, source.dtype.newbyteorder("="))
        copy_array(target, view)
        np.testing.assert_array_equal(target, view)
        back = np.zeros_like(view)
        copy_array(back, target)
        np.testing.assert_array_equal(back, view)
    assert source.tolist() == want


def test_copies_of_repeated_and_of_single_elements() -> None:
    for source in (np.broadcast_to(np.float32(3), (300, 400)), np.broadcast_to(np.arange(300.0)[:, None], (300, 400))):
        target = np.zeros(source.shape, source.dtype)
        copy_array(target, source)
        np.testing.assert_array_equal(target, source)
    for shape in ((), (1, 1), (0, 5)):
        target = np.zeros(shape)
        copy_array(target, np.ones(shape))
        assert target.sum() == target.size


def test_feeds_and_outs_that_are_turned() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "m"))
    given = _turned((300, 401), (1, 0), "f4")
    out = _turned((300, 401), (1, 0), "f4") * 0
    with jf.Session(x + 1.0) as session:
        function = session.function([x], x + 1.0)
        assert function(given, out=out) is out
    np.testing.assert_array_equal(out, given + 1)
    assert out.flags.f_contiguous
