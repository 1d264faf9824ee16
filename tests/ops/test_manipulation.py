"""Rearranging, joining, splitting, padding and creation against numpy: dtypes, symbolic sizes, errors, slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import ALL, DType, numpy_dtype
from tests.support.bits import same_bits

X = np.arange(24).reshape(2, 3, 4)

#: Calls with the same meaning for Tensors (``xp`` is jitflow) and arrays (``xp`` is numpy).
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "tile": lambda xp, x: xp.tile(x, (2, 1, 3)),
    "tile longer": lambda xp, x: xp.tile(x, (2, 1, 1, 2)),
    "tile shorter": lambda xp, x: xp.tile(x, (2,)),
    "tile zero": lambda xp, x: xp.tile(x, (0, 1)),
    "repeat": lambda xp, x: xp.repeat(x, 3),
    "repeat axis": lambda xp, x: xp.repeat(x, 2, axis=-2),
    "repeat none": lambda xp, x: xp.repeat(x, 0, axis=1),
    "repeat counts": lambda xp, x: xp.repeat(x, [2, 0, 1], axis=1),
    "repeat one count": lambda xp, x: xp.repeat(x, [2], axis=2),
    "swapaxes": lambda xp, x: xp.swapaxes(x, 0, -1),
    "ravel": lambda xp, x: xp.ravel(x),
    "rot90": lambda xp, x: xp.rot90(x),
    "rot90 twice": lambda xp, x: xp.rot90(x, 2, (1, 2)),
    "rot90 back": lambda xp, x: xp.rot90(x, -1, (2, 0)),
    "rot90 full": lambda xp, x: xp.rot90(x, 8),
    "atleast": lambda xp, x: xp.atleast_3d(x[0, 0]),
    "atleast 2": lambda xp, x: xp.atleast_3d(x[0]),
    "moveaxis": lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)),
    "roll axes": lambda xp, x: xp.roll(x, (1, -5, 2), axis=(0, 2, 2)),
    "flip": lambda xp, x: xp.flip(x, axis=(0, 2)),
    "expand_dims": lambda xp, x: xp.expand_dims(x, axis=(0, -1)),
    "squeeze": lambda xp, x: xp.squeeze(x[:, :1, None], axis=(1, 2)),
    "concat flat": lambda xp, x: xp.concat([x, x[0]], axis=None),
    "stack": lambda xp, x: xp.stack([x, x[::-1]], axis=-1),
    "unstack": lambda xp, x: xp.unstack(x, axis=-2)[1],
    "split": lambda xp, x: xp.split(x, 2, axis=2)[1],
    "split at": lambda xp, x: xp.split(x, [1, 2, 9], axis=1)[2],
    "split backwards": lambda xp, x: xp.split(x, [2, 1], axis=1)[1],
    "split past": lambda xp, x: xp.split(x, [1, 2, 9], axis=1)[3],
    "array_split": lambda xp, x: xp.array_split(x, 3, axis=2)[0],
    "array_split more": lambda xp, x: xp.array_split(x, 6, axis=2)[5],
    "hsplit": lambda xp, x: xp.hsplit(x, 3)[2],
    "vsplit": lambda xp, x: xp.vsplit(x, 2)[1],
    "dsplit": lambda xp, x: xp.dsplit(x, [3])[1],
    "tril": lambda xp, x: xp.tril(x, k=1),
    "triu": lambda xp, x: xp.triu(x, k=-1),
    "triu far": lambda xp, x: xp.triu(x, k=9),
    "diag": lambda xp, x: xp.diag(x[0, 0], -2),
    "diag of": lambda xp, x: xp.diag(x[0], 2),
    "broadcast_arrays": lambda xp, x: xp.broadcast_arrays(x[:, :1], x[0, 0])[0],
    "meshgrid": lambda xp, x: xp.meshgrid(x[0, 0], x[0, :, 0], x[:, 0, 0])[1],
    "meshgrid ij": lambda xp, x: xp.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[0],
    "meshgrid one": lambda xp, x: xp.meshgrid(x[0, 0])[0],
    "take_along_axis": lambda xp, x: xp.take_along_axis(x, np.array([[[0, -1, 3]]]), axis=2),
    "pad": lambda xp, x: xp.pad(x, ((1, 0), (0, 2), (3, 3)), constant_values=7),
    "pad sides": lambda xp, x: xp.pad(x, ((1, 1), (0, 2), (1, 0)), constant_values=((1, 2), (3, 4), (5, 6))),
    "pad pair": lambda xp, x: xp.pad(x, 1, constant_values=(1, 0)),
    "pad edge": lambda xp, x: xp.pad(x, ((2, 1), (0, 0), (0, 3)), mode="edge"),
    "pad wrap": lambda xp, x: xp.pad(x, ((3, 4), (1, 0), (0, 9)), mode="wrap"),
    "pad reflect": lambda xp, x: xp.pad(x, ((3, 4), (1, 7), (2, 2)), mode="reflect"),
    "pad symmetric": lambda xp, x: xp.pad(x, ((3, 4), (1, 7), (2, 2)), mode="symmetric"),
    "count_nonzero": lambda xp, x: xp.count_nonzero(x, axis=(0, 2)),
    "isin": lambda xp, x: xp.isin(x, [3, 1, 1]),
    "array_equal": lambda xp, x: xp.array_equal(x, x[::-1]),
}  # fmt: skip
#: Not for bool: numpy refuses to subtract it in some places, or takes integers for it.
NUMERIC: dict[str, Callable[[Any, Any], Any]] = {
    "diff": lambda xp, x: xp.diff(x),
    "diff thrice": lambda xp, x: xp.diff(x, n=3, axis=2),
    "diff beyond": lambda xp, x: xp.diff(x, n=5, axis=1),
    "diff with": lambda xp, x: xp.diff(x, axis=0, prepend=x[:1], append=x),
    "nan_to_num": lambda xp, x: xp.nan_to_num(x),
    "clip low": lambda xp, x: xp.clip(x, 3, None),
    "clip high": lambda xp, x: xp.clip(x, None, 5),
    "clip": lambda xp, x: xp.clip(x, x[:1, :, ::-1], 9),
}
#: numpy has no rule for bfloat16 here, or another one.
NOT_BFLOAT16 = ("nan_to_num", "clip")


def assert_same_bits(got: np.ndarray, expected: np.ndarray, label: str) -> None:
    assert same_bits(got, expected), f"{label}: {got!r}, expected {expected!r}"


def values_of(dtype: DType) -> np.ndarray:
    return (X % 2).astype(bool) if dtype.is_bool else X.astype(numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_dtype_is_rearranged_as_by_numpy(dtype: DType) -> None:
    calls = CALLS if dtype.is_bool else CALLS | NUMERIC
    a = values_of(dtype)
    x = jf.placeholder("x", dtype, a.shape)
    names = [n for n in calls if not (dtype is jf.bfloat16 and n in NOT_BFLOAT16)]
    built = [calls[n](jf, x) for n in names]
    with jf.Session(built) as session:
        for name, t, got in zip(names, built, session.run(built, {x: a}), strict=True):
            expected = np.asarray(calls[name](np, a))
            assert_same_bits(jf.interpret(t, {x: a}), expected, f"{name}: interpreted")
            assert_same_bits(got, expected, f"{name}: compiled")


#: What a symbolic axis cannot do: the number of results must be known, and ``x[:1]``, which may be empty, is not taken
#: for an axis to repeat.
NEEDS_SIZES = {"unstack", "split", "array_split", "array_split more", "hsplit", "vsplit", "clip", "broadcast_arrays"}


def test_symbolic_sizes_are_rearranged_as_by_numpy() -> None:
    calls = {n: c for n, c in (CALLS | NUMERIC).items() if n not in NEEDS_SIZES}
    x = jf.placeholder("x", jf.float32, ("a", "b", "c"))
    built = {n: c(jf, x) for n, c in calls.items()}
    with jf.Session(built) as session:
        got = session.run(built, {x: X.astype(np.float32)})
        for name, value in got.items():
            expected = np.asarray(calls[name](np, X.astype(np.float32)))
            assert_same_bits(value, expected, name)
    # Other sizes need no other program, where they are sizes that numpy accepts too.
    fits_any = {n: t for n, t in built.items() if n not in ("repeat counts", "take_along_axis", "array_equal")}
    with jf.Session(fits_any) as session:
        for shape in ((5, 3, 4), (1, 3, 9), (2, 1, 1)):
            a = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            for name, value in session.run(fits_any, {x: a}).items():
                assert_same_bits(value, np.asarray(calls[name](np, a)), f"{name} of {shape}")


def test_an_empty_symbolic_axis_is_rearranged_as_by_numpy() -> None:
    x = jf.placeholder("x", jf.float64, ("a", "b"))
    calls: dict[str, Callable[[Any, Any], Any]] = {
        "tile": lambda xp, x: xp.tile(x, (2, 3)),
        "repeat": lambda xp, x: xp.repeat(x, 2, axis=0),
        "tril": lambda xp, x: xp.tril(x),
        "rot90": lambda xp, x: xp.rot90(x),
        "roll": lambda xp, x: xp.roll(x, (1, 2), axis=(0, 1)),
        "pad": lambda xp, x: xp.pad(x, 1, constant_values=3.0),
        "pad edge of the other axis": lambda xp, x: xp.pad(x, ((0, 0), (1, 2)), mode="edge"),
        "diff": lambda xp, x: xp.diff(x, axis=0),
        "diag": lambda xp, x: xp.diag(x),
    }
    built = {n: c(jf, x) for n, c in calls.items()}
    a = np.zeros((0, 2))
    for name, value in jf.Session(built).run(built, {x: a}).items():
        assert_same_bits(value, calls[name](np, a), name)
    padded = jf.pad(x, ((1, 0), (0, 0)), mode="wrap")
    with pytest.raises(jf.FeedError, match=r"pad: mode 'wrap' has nothing to repeat along axis 0 of \(a, b\)"):
        jf.Session(padded).run(padded, {x: a})


# ---- creation

NEAR = [1.0, np.inf, np.nan, 1e9, 0.0, -np.inf, 1.0], [1 + 9e-6, np.inf, np.nan, 1e9 + 2e4, 1e-9, np.inf, np.inf]
CREATED: dict[str, Callable[[Any], Any]] = {
    "eye": lambda xp: xp.eye(3),
    "eye k": lambda xp: xp.eye(2, 4, k=2, dtype=xp.int8),
    "eye below": lambda xp: xp.eye(4, 2, k=-1, dtype=bool),
    "eye empty": lambda xp: xp.eye(0, 3),
    "eye outside": lambda xp: xp.eye(2, k=-5),
    "linspace": lambda xp: xp.linspace(-1.0, 2.5, 7),
    "linspace open": lambda xp: xp.linspace(0, 1, 10, endpoint=False),
    "linspace one": lambda xp: xp.linspace(3, 9, 1),
    "linspace none": lambda xp: xp.linspace(3, 9, 0),
    "linspace down": lambda xp: xp.linspace(10, -3, 6, dtype=xp.float32),
    "linspace integers": lambda xp: xp.linspace(-3, 7, 4, dtype=xp.int16),
    "linspace same": lambda xp: xp.linspace(0.1, 0.1, 3),
    "linspace tiny": lambda xp: xp.linspace(0, 5e-324, 3),
    "linspace wide": lambda xp: xp.linspace(0, 1e300, 5),
    "arange unsigned": lambda xp: xp.arange(250, 0, -50, dtype=xp.uint8),
    "arange of floats": lambda xp: xp.arange(0.5, 5.5, 1.5, dtype=xp.int64),
    "arange half": lambda xp: xp.arange(0, 3, 0.5, dtype=xp.float16),
    "full": lambda xp: xp.full((2, 2), 3, dtype=xp.uint16),
    "zeros": lambda xp: xp.zeros((0, 2), dtype=xp.uint64),
    "ones": lambda xp: xp.ones(3, dtype=xp.float16),
    "isclose": lambda xp: xp.isclose(xp.asarray(NEAR[0]), NEAR[1]),
    "isclose nan": lambda xp: xp.isclose(xp.asarray([np.nan, 1.0]), [np.nan, np.nan], equal_nan=True),
    "isclose integers": lambda xp: xp.isclose(xp.asarray([1, 2]), [1, 3]),
    "isclose strict": lambda xp: xp.isclose(xp.asarray([1.0, 2.0]), [1.0, 2.0 + 1e-12], rtol=0.0, atol=0.0),
    "allclose": lambda xp: xp.allclose(xp.asarray([1.0, 2.0]), [1.0, 2.0 + 1e-9]),
    "array_equal nan": lambda xp: xp.array_equal(xp.asarray([np.nan, 1.0]), [np.nan, 1.0], equal_nan=True),
    "array_equal other": lambda xp: xp.array_equal(xp.asarray([1.0, 1.0]), [[1.0, 1.0]]),
    "array_equal longer": lambda xp: xp.array_equal(xp.asarray([1.0, 1.0]), [1.0, 1.0, 1.0]),
    "isin none": lambda xp: xp.isin(xp.asarray([1, 2]), []),
    "isin inverted": lambda xp: xp.isin(xp.asarray([1.0, np.nan]), [np.nan, 1.0], invert=True),
    "fmax": lambda xp: xp.fmax(xp.asarray([np.nan, 1.0, -2.0, np.nan]), [3.0, np.nan, -1.0, np.nan]),
    "fmin": lambda xp: xp.fmin(xp.asarray([np.nan, 1.0, -2.0, np.nan]), [3.0, np.nan, -1.0, np.nan]),
    "fmin integers": lambda xp: xp.fmin(xp.asarray([3, -1]), [2, 2]),
    "nan_to_num": lambda xp: xp.nan_to_num(xp.asarray([np.nan, np.inf, -np.inf, 0.5], dtype=xp.float32)),
    "nan_to_num half": lambda xp: xp.nan_to_num(xp.asarray([np.nan, np.inf, -np.inf, 0.5], dtype=xp.float16)),
    "nan_to_num given": lambda xp: xp.nan_to_num(xp.asarray([np.nan, np.inf]), nan=1.0, posinf=2.0),
    "nan_to_num below": lambda xp: xp.nan_to_num(xp.asarray([np.inf, -np.inf]), neginf=3.0),
    "isposinf": lambda xp: xp.isposinf(xp.asarray([np.nan, np.inf, -np.inf, 0.5])),
    "isneginf": lambda xp: xp.isneginf(xp.asarray([np.nan, np.inf, -np.inf, 0.5])),
    "count_nonzero nan": lambda xp: xp.count_nonzero(xp.asarray([np.nan, 0.0, -0.0, 2.0])),
    "diff bool": lambda xp: xp.diff(xp.asarray([True, False, False])),
    "clip beyond": lambda xp: xp.clip(xp.asarray([1, 2], dtype=xp.uint8), -1, 300),
    "clip beyond below": lambda xp: xp.clip(xp.asarray([1, -2], dtype=xp.int8), -500, 0),
    "clip nothing": lambda xp: xp.clip(xp.asarray([1, -2], dtype=xp.int8), -500, 127),
    "eye far": lambda xp: xp.eye(2, k=10**30),
    "diff n 0": lambda xp: xp.diff(xp.asarray([1, 2]), n=0),
}  # fmt: skip


def test_creation_is_numpys() -> None:
    built = {n: call(jf) for n, call in CREATED.items()}
    compiled = jf.Session(built).run(built, {})
    for name, call in CREATED.items():
        with np.errstate(all="ignore"):
            expected = np.asarray(call(np))
        assert_same_bits(jf.interpret(built[name], {}), expected, f"{name}: interpreted")
        assert_same_bits(compiled[name], expected, f"{name}: compiled")


def test_linspace_starts_and_ends_where_it_is_told() -> None:
    large, largest, far = 2**53 + 1, 2**64 - 1, 1e308
    built = {
        "integers": jf.linspace(large, -large, 3, dtype=jf.int64),
        "open": jf.linspace(large, -large, 2, dtype=jf.int64, endpoint=False),
        "one": jf.linspace(large, 0, 1, dtype=jf.int64),
        "unsigned": jf.linspace(3, largest, 2, dtype=jf.uint64),
        "down": jf.linspace(largest, 0, 2, dtype=jf.uint64),
        "beyond": jf.linspace(0, 2**70, 2),
        "too large": jf.linspace(0, 300, 2, dtype=jf.uint8),
        "broken": jf.linspace(-1.5, 2.5, 2, dtype=jf.int8),
        "far": jf.linspace(-far, far, 5),
        "far and open": jf.linspace(-far, far, 4, endpoint=False),
        "infinite": jf.linspace(0.0, np.inf, 3),
    }
    expected = {
        "integers": [large, 0, -large],
        "open": [large, 0],
        "one": [large],
        "unsigned": [3, largest],
        "down": [largest, 0],
        "beyond": [0.0, 2.0**70],
        "too large": [0, 255],
        "broken": [-2, 2],
        "far": [-far, -far / 2, 0.0, far / 2, far],
        "far and open": [-far, -far / 2, 0.0, far / 2],
        "infinite": [np.nan, np.inf, np.inf],
    }
    for values in (jf.interpret(built, {}), jf.Session(built).run(built, {})):
        for name, want in expected.items():
            assert_same_bits(values[name], np.array(want, values[name].dtype), name)


@pytest.mark.parametrize("k", [2**70, -(2**70), 2**63])
def test_there_is_nothing_on_diagonals_far_off(k: int) -> None:
    x = jf.constant(np.ones((2, 3)))
    built = [jf.linalg.diagonal(x, offset=k), jf.linalg.trace(x, offset=k), jf.diag(x, k), jf.eye(2, 3, k=k)]
    for diagonal, trace, diag, eye in (jf.interpret(built, {}), jf.Session(built).run(built, {})):
        assert diagonal.shape == diag.shape == (0,)
        assert trace == 0.0
        assert not eye.any()
    assert jf.interpret(jf.tril(x, k=k), {}).all() == (k > 0)


def test_creation_takes_symbolic_sizes() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "m"))
    n, m = x.shape
    built = {
        "eye": jf.eye(n, m, k=1),
        "linspace": jf.linspace(0.5, 2.0, n),
        "open": jf.linspace(x[0, 0], 2, m, endpoint=False),
        "like": jf.empty_like(x, dtype=jf.int8),
        "tile": jf.tile(jf.arange(3), (n,)),
        "repeat": jf.repeat(jf.arange(3), m),
    }
    assert {k: repr(t.node.type) for k, t in built.items()} == {
        "eye": "f64[n, m]",
        "linspace": "f64[n]",
        "open": "f64[m]",
        "like": "i8[n, m]",
        "tile": "i64[n*3]",
        "repeat": "i64[m*3]",
    }
    session = jf.Session(built)
    for shape in ((3, 5), (1, 1), (7, 2)):
        a = np.full(shape, 0.25, np.float32)
        got = session.run(built, {x: a})
        assert_same_bits(got["eye"], np.eye(*shape, k=1), str(shape))
        assert_same_bits(got["linspace"], np.linspace(0.5, 2.0, shape[0]), str(shape))
        assert_same_bits(got["open"], np.linspace(np.float64(0.25), 2, shape[1], endpoint=False), str(shape))
        assert_same_bits(got["like"], np.zeros(shape, np.int8), str(shape))
        assert_same_bits(got["tile"], np.tile(np.arange(3), shape[0]), str(shape))
        assert_same_bits(got["repeat"], np.repeat(np.arange(3), shape[1]), str(shape))


# ---- slopes


def test_slopes_go_back_to_where_elements_came_from() -> None:
    x = jf.placeholder("x", jf.float64, (3, 4))
    a = np.random.default_rng(0).normal(size=(3, 4))
    calls: list[Callable[[Any, Any], Any]] = [
        lambda xp, x: xp.tile(x, (2, 3)),
        lambda xp, x: xp.repeat(x, [1, 0, 3], axis=0),
        lambda xp, x: xp.repeat(x, 3),
        lambda xp, x: xp.rot90(x, 3),
        lambda xp, x: xp.pad(x, ((5, 7), (2, 9)), mode="reflect"),
        lambda xp, x: xp.pad(x, 4, mode="symmetric"),
        lambda xp, x: xp.pad(x, ((0, 8), (3, 3)), mode="wrap"),
        lambda xp, x: xp.pad(x, 2, mode="edge"),
        lambda xp, x: xp.pad(x, 2, constant_values=((1, 2), (3, 4))),
        lambda xp, x: xp.diff(x, n=2, axis=1),
        lambda xp, x: xp.tril(x, k=-1),
        lambda xp, x: xp.diag(x),
        lambda xp, x: xp.unstack(x, axis=1)[2],
        lambda xp, x: xp.split(x, [1], axis=1)[1],
        lambda xp, x: xp.concat(xp.broadcast_arrays(x[:1], x), axis=0),
        lambda xp, x: xp.meshgrid(x[0], x[:, 1])[1],
    ]
    for number, call in enumerate(calls):
        y = call(jf, x)
        weights = np.random.default_rng(number).normal(size=y.shape)
        (slope,) = jf.gradients(jf.sum(y * weights), [x])
        # The functions are linear but for what they add, so that the slope is told by units exactly enough.
        base = call(np, np.zeros((3, 4)))
        units = np.eye(12).reshape(12, 3, 4)
        expected = np.array([((call(np, u) - base) * weights).sum() for u in units]).reshape(3, 4)
        got = jf.interpret(slope, {x: a} if 'name="x"' in jf.show_graph(slope) else {})
        np.testing.assert_allclose(got, expected, atol=1e-13, err_msg=str(number))


# ---- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: jf.tile(x, (-1,)), jf.ShapeError, "tile: a dim cannot be negative, got -1"),
        (lambda x: jf.tile(x, 1.5), jf.DTypeError, "tile: a number of copies must be an int, got 1.5"),
        (lambda x: jf.repeat(x, -2), jf.ShapeError, "repeat: a dim cannot be negative, got -2"),
        (lambda x: jf.repeat(x, [1, -1], axis=0), jf.ShapeError, "repeat: -1 is no number of copies"),
        (lambda x: jf.repeat(x, [1, 2], axis=1), jf.ShapeError, "repeat: repeats of shape (2,) for an axis of (3,)"),
        (lambda x: jf.repeat(x, [0.5, 1.0], axis=0), jf.DTypeError, "repeat: repeats must be integers, got float64"),
        (lambda x: jf.repeat(x, jf.argmax(x)), jf.DataDependentShapeError, "repeat: the shape would depend on the val"),
        (lambda x: jf.repeat(x, 2, axis=2), jf.StaticIndexError, "repeat: axis 2 is out of range for rank 2"),
        (lambda x: jf.unstack(x, axis=2), jf.StaticIndexError, "unstack: axis 2 is out of range for rank 2"),
        (lambda x: jf.split(x, 2, axis=1), jf.ShapeError, "split: axis 1 of (2, 3) does not divide into 2 equal parts"),
        (lambda x: jf.split(x, 0), jf.ShapeError, "split: the number of parts must be positive, got 0"),
        (lambda x: jf.split(x, 1.5), jf.DTypeError, "split: the number of parts must be an int, got 1.5"),
        (lambda x: jf.split(x, [0.5]), jf.DTypeError, "split: a place must be an int, got 0.5"),
        (lambda x: jf.dsplit(x, 1), jf.ShapeError, "dsplit: a tensor of rank 3 or more is needed, got (2, 3)"),
        (lambda x: jf.rot90(x, axes=(0, 0)), jf.ShapeError, "rot90: axes (0, 0) name an axis twice"),
        (lambda x: jf.rot90(x, axes=(0,)), jf.ShapeError, "rot90: axes must be two, got (0,)"),
        (lambda x: jf.rot90(x, 0.5), jf.DTypeError, "rot90: k must be an int, got 0.5"),
        (lambda x: jf.swapaxes(x, 0, 5), jf.StaticIndexError, "swapaxes: axis 5 is out of range for rank 2"),
        (lambda x: jf.pad(x, 1, mode="mean"), jf.GraphError, "pad: unknown mode 'mean'; modes are 'constant', 'edge'"),
        (lambda x: jf.pad(x, 0, mode="no"), jf.GraphError, "pad: unknown mode 'no'"),
        (lambda x: jf.pad(x, -1), jf.ShapeError, "pad: pad_width -1: a dim cannot be negative, got -1"),
        (lambda x: jf.pad(x, ((1, 1),) * 3), jf.ShapeError, "does not fit the axes of (2, 3)"),
        (lambda x: jf.pad(x, 1, constant_values="a"), jf.DTypeError, "pad: constant_values must be numbers, got 'a'"),
        (lambda x: jf.pad(x, 1, constant_values=((1, 2),) * 3), jf.ShapeError, "do not fit 2 axes"),
        (lambda x: jf.pad(jf.asarray([1]), 1, constant_values=np.inf), jf.DTypeError, "value inf cannot be int64"),
        (lambda x: jf.pad(jf.asarray([1]), 1, constant_values=2**70), jf.OutOfBoundsError, "out of bounds for int64"),
        (lambda x: jf.pad(x[:0], 1, mode="edge"), jf.ShapeError, "nothing to repeat along axis 0 of (0, 3), which is"),
        (lambda x: jf.tril(x[0]), jf.ShapeError, "tril: at least two axes are needed, got (3,)"),
        (lambda x: jf.triu(x, k=0.5), jf.DTypeError, "triu: k must be an int, got 0.5"),
        (lambda x: jf.diag(x[None]), jf.ShapeError, "diag: one axis or two are needed, got (1, 2, 3)"),
        (lambda x: jf.eye(-1), jf.ShapeError, "a dim cannot be negative, got -1"),
        (lambda x: jf.eye(2, device="cpu"), jf.DeviceError, "eye: a tensor cannot be on device 'cpu'; the dev"),
        (lambda x: jf.zeros(2, device="gpu"), jf.DeviceError, "zeros: a tensor cannot be on device 'gpu'"),
        (lambda x: jf.clip(jf.asarray([1], dtype=jf.int8), 300), jf.OutOfBoundsError, "300 is out of bounds for int8"),
        (lambda x: jf.linspace(0, 1, -1), jf.ShapeError, "a dim cannot be negative, got -1"),
        (lambda x: jf.linspace(0, 1, 2.0), jf.DTypeError, "linspace: num must be an int, got 2.0"),
        (lambda x: jf.linspace(x, 1, 2), jf.ShapeError, "linspace: an end must be a single number, got shape (2, 3)"),
        (lambda x: jf.meshgrid(x), jf.ShapeError, "meshgrid: vectors are needed, got shape (2, 3)"),
        (lambda x: jf.meshgrid(x[0], indexing="yx"), jf.GraphError, "indexing must be 'xy' or 'ij', got 'yx'"),
        (lambda x: jf.broadcast_arrays(x, x[:, :2]), jf.ShapeError, "broadcast_arrays: shapes (2, 3) and (2, 2)"),
        (lambda x: jf.diff(x, n=-1), jf.ShapeError, "diff: n must not be negative, got -1"),
        (lambda x: jf.diff(x[0, 0]), jf.ShapeError, "diff: an axis is needed, got shape ()"),
        (lambda x: jf.diff(x, prepend=x[:1]), jf.ShapeError, "concat of (1, 3) and (2, 3): axis 0: 1 and 2 differ"),
        (lambda x: jf.arange(3, dtype=bool), jf.DTypeError, "arange makes integers or floats, not bool"),
        (lambda x: jf.arange(0, 300, 100, dtype=jf.int8), jf.OutOfBoundsError, "200 is out of bounds for int8"),
        (lambda x: jf.nonzero(x), jf.DataDependentShapeError, "nonzero: how many elements the result has would depend"),
        (lambda x: jf.unique_all(x), jf.DataDependentShapeError, "use sort(x), which puts equal values side by side"),
        (lambda x: jf.asarray([1.0], copy=False), jf.GraphError, "asarray: a constant is a copy of this list, so copy"),
        (lambda x: jf.from_dlpack(np.ones(2), copy=False), jf.GraphError, "from_dlpack: a constant is a copy of"),
    ],
)  # fmt: skip
def test_errors_name_the_fault_and_the_users_line(call: Any, error: type[Exception], message: str) -> None:
    x = jf.placeholder("x", jf.float64, (2, 3))
    with pytest.raises(error) as caught:
        call(x)
    assert type(caught.value) is error
    assert message in str(caught.value)
    assert "test_manipulation.py:" in str(caught.value).split("\n  at ")[-1]


def test_symbolic_axes_cannot_be_counted() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 3))
    with pytest.raises(jf.ShapeError, match=r"unstack: into how many depends on dim n, axis 0 of \(n, 3\)"):
        jf.unstack(x)
    with pytest.raises(jf.ShapeError, match="split: into how many depends on dim n"):
        jf.split(x, 2)
    y = jf.repeat(x, [1, 2], axis=0)
    assert jf.interpret(y, {x: np.eye(2, 3)}).tolist() == np.repeat(np.eye(2, 3), [1, 2], axis=0).tolist()
    with pytest.raises(jf.FeedError, match=r"reshape of \(n, 3\) to \(2, 3\)"):
        jf.interpret(y, {x: np.zeros((3, 3))})
    z = jf.placeholder("z", jf.float64, ("m", 3))
    with pytest.raises(jf.FeedError, match="n is 2, m is 3"):
        jf.interpret(jf.array_equal(x, z), {x: np.zeros((2, 3)), z: np.zeros((3, 3))})


def test_dlpack_arrays_become_constants() -> None:
    a = np.arange(6.0).reshape(2, 3)
    t = jf.from_dlpack(a)
    a[0, 0] = 9.0
    assert jf.interpret(t, {}).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert jf.from_dlpack(t) is t
    with pytest.raises(AttributeError, match="__dlpack__"):
        jf.from_dlpack([1.0])
    for export in (np.from_dlpack, lambda t: t.__dlpack_device__()):
        with pytest.raises(TypeError, match=r"exporting a Tensor by DLPack is not possible: .* has no value before"):
            export(t)
