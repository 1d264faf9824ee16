"""jitflow as the array API standard has it: the same calls on numpy, over dtypes and shapes, interpreted and compiled.

The calls go through `tests.support.eager`, the namespace that a test suite of the standard would be given.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import DType
from tests.support import eager

INTEGERS = (jf.int8, jf.int16, jf.int32, jf.int64, jf.uint8, jf.uint16, jf.uint32, jf.uint64)
FLOATS = (jf.float32, jf.float64)
NUMBERS = (*INTEGERS, *FLOATS)
EVERY = (jf.bool_, *NUMBERS)
Shape: TypeAlias = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((), (5,), (2, 3), (0, 4), (2, 1, 3))


class Case(NamedTuple):
    """A call to make of both libraries: `call(xp, *arrays)`. Floats may be `ulps` units of the last place apart."""

    label: str
    call: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    ulps: float = 0.0


def draw(rng: np.random.Generator, dtype: DType, shape: Shape, low: float = -4, high: float = 5) -> np.ndarray:
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        return rng.integers(low if dtype.is_signed else max(low, 0), high, shape).astype(dtype.np)
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype.np)


def named(name: str) -> Callable[..., Any]:
    """Return the call of a function of the namespace, as in ``linalg.trace``."""

    def call(xp: Any, *args: Any) -> Any:
        return operator.attrgetter(name)(xp)(*args)

    return call


def special(x: np.ndarray) -> np.ndarray:
    """Return `x` with NaN, infinities and signed zeros for its first elements, if it has floats."""
    if x.dtype.kind == "f" and x.size:
        flat = x.reshape(-1)
        flat[:5] = np.array([np.nan, -0.0, np.inf, -np.inf, 0.0], x.dtype)[: x.size]
    return x


# ---- the calls

UNARY = {
    NUMBERS: "abs negative positive sign square ceil floor trunc round isfinite isinf isnan conj real imag",
    (jf.bool_, *INTEGERS): "bitwise_invert",
    (jf.bool_,): "logical_not",
    FLOATS: "sqrt signbit",
}
#: Functions that are rounded, by where they are asked: 4 units in the last place are between them and numpy's.
ROUNDED = {
    (0.1, 0.9): "acos asin atan atanh asinh sin cos tan sinh cosh tanh exp expm1 log log1p log2 log10 reciprocal",
    (1.1, 9.0): "acosh log log2 log10 sqrt exp",
}
BINARY = {
    NUMBERS: "add subtract multiply floor_divide remainder maximum minimum less less_equal greater greater_equal",
    EVERY: "equal not_equal",
    (jf.bool_, *INTEGERS): "bitwise_and bitwise_or bitwise_xor",
    (jf.bool_,): "logical_and logical_or logical_xor",
    FLOATS: "divide copysign nextafter",
}
PAIRS: tuple[tuple[Shape, Shape], ...] = (((5,), (5,)), ((3, 1), (4,)), ((), (2, 3)), ((0, 1), (1, 2)))


def elementwise_cases(rng: np.random.Generator) -> Iterator[Case]:
    for dtypes, names in UNARY.items():
        for name in names.split():
            for dtype in dtypes:
                for shape in SHAPES:
                    yield Case(name, named(name), (special(draw(rng, dtype, shape)),))
    for (low, high), names in ROUNDED.items():
        for name in names.split():
            for dtype in FLOATS:
                for shape in ((), (7,), (2, 3)):
                    yield Case(name, named(name), (draw(rng, dtype, shape, low, high),), ulps=4)
    for dtypes, names in BINARY.items():
        for name in names.split():
            for dtype in dtypes:
                for a, b in PAIRS:
                    x, y = draw(rng, dtype, a), special(draw(rng, dtype, b))
                    yield Case(name, named(name), (x, y))
    for dtype in INTEGERS:
        x, y = draw(rng, dtype, (2, 3)), draw(rng, dtype, (3,), 0, 4)
        for name in ("bitwise_left_shift", "bitwise_right_shift", "pow"):
            yield Case(name, named(name), (x, y))
    for dtype in FLOATS:
        x, y = draw(rng, dtype, (2, 3), 0.1, 3), draw(rng, dtype, (3,))
        for name in ("pow", "atan2", "hypot", "logaddexp"):
            yield Case(name, named(name), (x, y), ulps=4)


def promotion_cases(rng: np.random.Generator) -> Iterator[Case]:
    families = (INTEGERS, FLOATS)
    for family in families:
        for a in family:
            for b in family:
                if jf.uint64 in (a, b) and a is not b and (a.is_signed or b.is_signed):
                    continue  # the standard does not say
                yield Case(f"{a} + {b}", lambda xp, x, y: x + y, (draw(rng, a, (3,)), draw(rng, b, (2, 1))))
    scalars: dict[str, Callable[..., Any]] = {
        "x + 1": lambda xp, x: x + 1,
        "2 - x": lambda xp, x: 2 - x,
        "x * 3": lambda xp, x: x * 3,
        "x // 2": lambda xp, x: x // 2,
        "7 % x": lambda xp, x: 7 % (x * x + 1),
        "x < 2": lambda xp, x: x < 2,
        "1 == x": lambda xp, x: 1 == x,  # noqa: SIM300
        "x >= 1": lambda xp, x: x >= 1,
        "abs -x": lambda xp, x: abs(-x),
    }
    for dtype in NUMBERS:
        for label, call in scalars.items():
            yield Case(label, call, (draw(rng, dtype, (4,)),))
    for dtype in FLOATS:
        yield Case("x / 2.5", lambda xp, x: x / 2.5, (draw(rng, dtype, (4,)),))
        yield Case("1.5 ** x", lambda xp, x: 1.5**x, (draw(rng, dtype, (4,)),), ulps=4)
    for dtype in (jf.bool_, *INTEGERS):
        operand = bool(dtype.is_bool) or 3
        yield Case("x & s", lambda xp, x, s=operand: ~(x & s) | (s ^ x), (draw(rng, dtype, (4,)),))
    for dtype in INTEGERS:
        yield Case("x << 2 >> 1", lambda xp, x: (x << 2) >> 1, (draw(rng, dtype, (4,)),))


def reduction_cases(rng: np.random.Generator) -> Iterator[Case]:
    shapes: tuple[tuple[tuple[int, ...], Any], ...] = (
        ((4,), None), ((2, 3), 0), ((2, 3), -1), ((2, 3, 2), (0, 2)), ((0, 3), 0), ((), None)
    )  # fmt: skip
    for name in ("sum", "prod", "max", "min", "mean", "std", "var", "all", "any", "argmax", "argmin", "count_nonzero"):
        dtypes = FLOATS if name in ("mean", "std", "var") else NUMBERS
        dtypes = EVERY if name in ("all", "any", "count_nonzero") else dtypes
        for dtype in dtypes:
            for shape, axis in shapes:
                if name in ("max", "min", "argmax", "argmin", "mean", "std", "var") and 0 in shape:
                    continue
                if name.startswith("arg") and isinstance(axis, tuple):
                    continue
                for keepdims in (False, True):

                    def call(xp: Any, x: Any, name: str = name, axis: Any = axis, keepdims: bool = keepdims) -> Any:
                        return getattr(xp, name)(x, axis=axis, keepdims=keepdims)

                    yield Case(f"{name} {axis} {keepdims}", call, (draw(rng, dtype, shape),), ulps=8)
    for dtype in NUMBERS:
        x = draw(rng, dtype, (2, 4))
        yield Case("sum dtype", lambda xp, x: xp.sum(x, axis=1, dtype=xp.float64), (x,), ulps=8)
        yield Case("cumulative_sum", lambda xp, x: xp.cumulative_sum(x, axis=1, include_initial=True), (x,), ulps=8)
        yield Case("cumulative_prod", lambda xp, x: xp.cumulative_prod(x, axis=0), (x,), ulps=8)
        yield Case("sort", lambda xp, x: xp.sort(x, axis=0), (special(x.copy()),))
        yield Case("argsort", lambda xp, x: xp.argsort(x, stable=True), (x,))
        yield Case("searchsorted", lambda xp, x: xp.searchsorted(xp.sort(x[0]), x, side="right"), (x,))
        yield Case("diff", lambda xp, x: xp.diff(x, n=2, prepend=x[:, :1]), (x,))
    for dtype in FLOATS:
        x = draw(rng, dtype, (3, 4))
        yield Case("var 1", lambda xp, x: xp.var(x, axis=0, correction=1.0), (x,), ulps=8)
        yield Case("std 1", lambda xp, x: xp.std(x, axis=1, correction=1.0, keepdims=True), (x,), ulps=8)


SHAPED: dict[str, Callable[..., Any]] = {
    "reshape": lambda xp, x: xp.reshape(x, (3, -1)),
    "reshape copy": lambda xp, x: xp.reshape(x, (6,), copy=True),
    "permute_dims": lambda xp, x: xp.permute_dims(x, (1, 0)),
    "matrix_transpose": lambda xp, x: xp.matrix_transpose(x),
    "mT": lambda xp, x: x.mT,
    "T": lambda xp, x: x.T,
    "moveaxis": lambda xp, x: xp.moveaxis(x, 0, -1),
    "expand_dims": lambda xp, x: xp.expand_dims(x, axis=1),
    "squeeze": lambda xp, x: xp.squeeze(xp.expand_dims(x, axis=0), axis=0),
    "flip": lambda xp, x: xp.flip(x, axis=1),
    "roll": lambda xp, x: xp.roll(x, 2),
    "roll axes": lambda xp, x: xp.roll(x, (1, -1), axis=(0, 1)),
    "concat": lambda xp, x: xp.concat([x, x[:1]], axis=0),
    "concat flat": lambda xp, x: xp.concat((x, x[0]), axis=None),
    "stack": lambda xp, x: xp.stack([x, x], axis=1),
    "unstack": lambda xp, x: xp.unstack(x, axis=1)[-1],
    "tile": lambda xp, x: xp.tile(x, (2, 2)),
    "repeat": lambda xp, x: xp.repeat(x, 2, axis=1),
    "broadcast_to": lambda xp, x: xp.broadcast_to(x, (2, 2, 3)),
    "broadcast_arrays": lambda xp, x: xp.broadcast_arrays(x, x[0])[1],
    "meshgrid": lambda xp, x: xp.meshgrid(x[0], x[:, 1], indexing="ij")[1],
    "tril": lambda xp, x: xp.tril(x),
    "triu": lambda xp, x: xp.triu(x, k=1),
    "where": lambda xp, x: xp.where(x == x[0, 0], x, xp.flip(x)),
    "take": lambda xp, x: xp.take(x, xp.asarray([2, 0, -1]), axis=1),
    "take_along_axis": lambda xp, x: xp.take_along_axis(x, xp.asarray([[2, 0], [-1, 1]]), axis=1),
    "x[1]": lambda xp, x: x[1],
    "x[..., ::-2]": lambda xp, x: x[..., ::-2],
    "x[None, 0, 1:]": lambda xp, x: x[None, 0, 1:],
    "x[i, j]": lambda xp, x: x[xp.asarray([[0], [1]]), xp.asarray([2, -2])],
    "zeros_like": lambda xp, x: xp.zeros_like(x),
    "ones_like": lambda xp, x: xp.ones_like(x),
    "full_like": lambda xp, x: xp.full_like(x, 1),
    "astype float": lambda xp, x: xp.astype(x, xp.float64),
    "astype bool": lambda xp, x: xp.astype(x, xp.bool),
    "astype small": lambda xp, x: xp.astype(xp.abs(x) if x.dtype != xp.bool else x, xp.uint8),
    "trace": lambda xp, x: xp.linalg.trace(xp.tril(x), offset=-1, dtype=xp.float32),
    "diagonal": lambda xp, x: xp.linalg.diagonal(x, offset=1),
}  # fmt: skip
PRODUCTS: dict[str, Callable[..., Any]] = {
    "x @ y": lambda xp, x, y: x @ y,
    "matmul": lambda xp, x, y: xp.matmul(x, y[:, 0]),
    "tensordot": lambda xp, x, y: xp.tensordot(x, y, axes=1),
    "vecdot": lambda xp, x, y: xp.vecdot(x, y[:, 1]),
    "outer": lambda xp, x, y: xp.linalg.outer(x[0], y[0]),
}


def shaped_cases(rng: np.random.Generator) -> Iterator[Case]:
    for dtype in EVERY:
        for label, call in SHAPED.items():
            yield Case(label, call, (draw(rng, dtype, (2, 3)),))
    for dtype in NUMBERS:
        for label, call in PRODUCTS.items():
            yield Case(label, call, (draw(rng, dtype, (2, 3)), draw(rng, dtype, (3, 4))), ulps=32)
        yield Case("clip", lambda xp, x: xp.clip(x, 1, 3), (draw(rng, dtype, (5,)),))
        yield Case("clip max", lambda xp, x, y: xp.clip(x, max=y), (draw(rng, dtype, (2, 3)), draw(rng, dtype, (3,))))


def creation_cases(rng: np.random.Generator) -> Iterator[Case]:
    for dtype in NUMBERS:
        name = dtype.name
        calls: dict[str, Callable[..., Any]] = {
            "arange": lambda xp, d=name: xp.arange(1, 12, 4, dtype=getattr(xp, d)),
            "eye": lambda xp, d=name: xp.eye(2, 3, k=1, dtype=getattr(xp, d)),
            "full": lambda xp, d=name: xp.full((2,), 7, dtype=getattr(xp, d)),
            "ones": lambda xp, d=name: xp.ones((2, 0), dtype=getattr(xp, d)),
            "zeros": lambda xp, d=name: xp.zeros(3, dtype=getattr(xp, d)),
            "linspace": lambda xp, d=name: xp.linspace(0, 9, 4, dtype=getattr(xp, d)),
            "asarray": lambda xp, d=name: xp.asarray([[1, 2], [3, 4]], dtype=getattr(xp, d)),
        }
        for label, call in calls.items():
            yield Case(f"{label} {name}", call, ())
    for label, call in {
        "defaults": lambda xp: xp.arange(3.0),
        "full bool": lambda xp: xp.full((2, 2), True),
        "full int": lambda xp: xp.full((), 3),
        "asarray": lambda xp: xp.asarray([1, 2.5]),
        "linspace": lambda xp: xp.linspace(1, 2, 3, endpoint=False),
    }.items():
        yield Case(label, call, ())


FAMILIES = {
    "elementwise": elementwise_cases,
    "promotion": promotion_cases,
    "reduction": reduction_cases,
    "shaped": shaped_cases,
    "creation": creation_cases,
}


def cases_of(family: str) -> list[Case]:
    return list(FAMILIES[family](np.random.default_rng(0)))


# ---- the comparison


def expected_of(case: Case) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(case.call(np, *(x.copy() for x in case.arrays)))


def assert_agrees(got: np.ndarray, case: Case) -> None:
    expected = expected_of(case)
    inputs = ", ".join(f"{x.dtype}{x.shape}" for x in case.arrays)
    label = f"{case.label} of {inputs}: {got!r}, numpy has {expected!r}"
    assert got.dtype == expected.dtype, label
    assert got.shape == expected.shape, label
    if got.dtype.kind != "f" or case.ulps == 0:
        np.testing.assert_array_equal(got, expected, err_msg=label)
        return
    eps = float(np.finfo(got.dtype).eps)
    scale = max([1.0, *(float(np.abs(x).max(initial=1.0)) for x in case.arrays if np.isfinite(x).all())])
    atol = case.ulps * eps * scale**2 if case.ulps > 4 else 0.0
    np.testing.assert_allclose(got, expected, rtol=case.ulps * eps, atol=atol, err_msg=label)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_interpreter_agrees_with_numpy(family: str) -> None:
    cases = cases_of(family)
    assert len(cases) > 70
    with eager.interpreted():
        for case in cases:
            got = case.call(eager, *map(eager.asarray, case.arrays))
            assert_agrees(np.asarray(got), case)


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_code_agrees_with_numpy(family: str) -> None:
    """As one program: sixty of the calls, chosen anew whenever there are others."""
    cases = random.Random(0).sample(cases_of(family), 60)
    placeholders = [[jf.placeholder(None, x.dtype, x.shape) for x in case.arrays] for case in cases]
    built = [case.call(jf, *tensors) for case, tensors in zip(cases, placeholders, strict=True)]
    feeds = {
        p: x
        for case, tensors, t in zip(cases, placeholders, built, strict=True)
        for p, x in zip(tensors, case.arrays, strict=True)
        if p.node in jf.graph.toposort([t.node])
    }
    for case, got in zip(cases, jf.Session(built).run(built, feeds), strict=True):
        assert_agrees(got, case)


# ---- the namespace and its arrays


def test_calls_are_compiled_once_per_dtype_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "_sessions", {})
    for values in ([1.0, 2.0], [3.0, 4.0]):
        x = eager.asarray(values)
        assert np.asarray(eager.sum(x * 2.0)) == 2 * sum(values)
    assert len(eager._sessions) == 2
    eager.sum(eager.asarray([1.0]))
    assert len(eager._sessions) == 3
    with eager.interpreted():
        assert float(eager.sum(eager.asarray([1.0, 2.0, 3.0]))) == 6.0
    assert len(eager._sessions) == 3


def test_arrays_behave_as_the_standard_says() -> None:
    with eager.interpreted():
        x = eager.asarray([[1, 2, 3], [4, 5, 6]], dtype=eager.int32)
        y = x
        y += 1
        assert y is x
        assert np.asarray(x).tolist() == [[2, 3, 4], [5, 6, 7]]
        with pytest.raises(TypeError, match=r"int32 of shape .* cannot hold float64"):
            y += 1.5
        with pytest.raises(TypeError, match="cannot hold int32 of shape"):
            y += eager.zeros((2, 2, 3), dtype=eager.int32)
        with pytest.raises(TypeError, match="unsupported operand"):
            x + "1"
        assert (bool(x[0, 0] == 2), int(x[1, 2]), float(x[0, 1]), [10, 20, 30][x[0, 0]]) == (True, 7, 3.0, 30)
        assert (len(x), x.ndim, x.size, x.device, x.mT.shape) == (2, 2, 6, "session", (3, 2))
        assert [a.shape for a in x] == [(3,), (3,)]
        for wrong in (bool, int, float, operator.index):
            with pytest.raises(TypeError):
                wrong(x)
        with pytest.raises(TypeError, match="no index"):
            operator.index(eager.asarray(1.0))
        assert x.__array_namespace__(api_version="2024.12") is eager
        with pytest.raises(ValueError, match=r"no version '2019\.12' of the array API"):
            x.__array_namespace__(api_version="2019.12")
        assert x.to_device("session") is x
        with pytest.raises(jf.DeviceError, match="cannot be on device 'gpu'"):
            x.to_device("gpu")
        assert np.asarray(eager.from_dlpack(x)).tolist() == np.asarray(x).tolist()


def test_elements_are_assigned_as_in_numpy() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    keys: list[Any] = [0, (..., 1), np.s_[:, ::-1, 2:], a > 7, (0, [1, 2], 3), None, slice(5, None)]
    keys.append((slice(None), np.array([True, False, True])))
    with eager.interpreted():
        for key in keys:
            for value in (-1.0, 0):
                want, x = a.copy(), eager.asarray(a.copy())
                want[key] = value
                x[key] = value
                np.testing.assert_array_equal(np.asarray(x), want, err_msg=str(key))
            want, x = a.copy(), eager.asarray(a.copy())
            want[key] = -want[key]
            x[key] = -x[key]
            np.testing.assert_array_equal(np.asarray(x), want, err_msg=str(key))


def test_masks_without_axes_and_arrays_of_repeats_are_known() -> None:
    with eager.interpreted():
        x = eager.asarray([1, 2, 3])
        assert np.asarray(x[eager.asarray(True)]).tolist() == [[1, 2, 3]]
        assert x[eager.asarray(False)].shape == (0, 3)
        assert np.asarray(eager.repeat(x, eager.asarray([2, 0, 1]))).tolist() == [1, 1, 3]
        assert eager.repeat(x, 2, axis=0).shape == (6,)


def test_real_numbers_are_their_own_conjugates() -> None:
    x = jf.placeholder("x", jf.float32, (2,))
    assert jf.conj(x) is jf.real(x) is np.conjugate(x) is x
    assert jf.imag(x) is jf.zeros_like(x)
    for function in (jf.conj, jf.real, jf.imag):
        with pytest.raises(jf.DTypeError, match=f"{function.__name__} takes integers and floats, not bool"):
            function(x > 0)


def test_the_namespace_says_what_it_can_do() -> None:
    info = jf.__array_namespace_info__()
    assert jf.__array_api_version__ == "2024.12"
    assert info.capabilities() == {"boolean indexing": False, "data-dependent shapes": False, "max dimensions": 64}
    assert info.default_dtypes() == {"real floating": jf.float64, "integral": jf.int64, "indexing": jf.int64}
    assert info.devices() == [info.default_device()]
    assert list(info.dtypes()) == [d.name for d in EVERY]
    assert list(info.dtypes(kind=("bool", "unsigned integer"))) == ["bool", "uint8", "uint16", "uint32", "uint64"]
    assert info.dtypes(kind="complex floating") == {}
    assert info.dtypes(kind="numeric", device="session").keys() == {d.name for d in NUMBERS}
    with pytest.raises(jf.GraphError, match="unknown kind 'real'; kinds are 'bool', 'signed integer'"):
        info.dtypes(kind="real")
    with pytest.raises(jf.DeviceError, match="dtypes: a tensor cannot be on device 'cpu'"):
        info.dtypes(device="cpu")
    for name in ("e", "inf", "pi", "newaxis"):
        assert getattr(jf, name) == getattr(np, name)
    assert np.isnan(jf.nan)


def test_tensors_know_their_namespace_and_device() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 2))
    assert x.__array_namespace__() is jf
    assert x.__array_namespace__(api_version="2022.12") is jf
    assert x.device == "session"
    assert x.to_device(x.device) is x
    with pytest.raises(jf.GraphError, match=r"no version '2030\.01' of the array API"):
        x.__array_namespace__(api_version="2030.01")
    with pytest.raises(jf.DeviceError, match="stream"):
        x.to_device("session", stream=3)
    y = x
    y += 1.0
    assert y is x + 1.0
    y @= jf.ones((2, 2), dtype=jf.float32)
    assert y is (x + 1.0) @ jf.ones((2, 2), dtype=jf.float32)
