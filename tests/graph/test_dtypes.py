"""The dtype table: promotion against numpy's in full, and the standard's questions about dtypes."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import ALL, DType, bfloat16, bool_, float16, float32, float64, int8, uint8

OF_NUMPY = [d for d in ALL if d is not bfloat16]
#: bfloat16 with the others: integers that need more than its 8 digits go to the float that holds them, as for float16.
WITH_BFLOAT16 = {
    "bool": "bfloat16",
    "int8": "bfloat16",
    "uint8": "bfloat16",
    "int16": "float32",
    "uint16": "float32",
    "int32": "float64",
    "uint32": "float64",
    "int64": "float64",
    "uint64": "float64",
    "float16": "float32",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "float64": "float64",
}


def test_promotion_is_numpys() -> None:
    for a, b in itertools.product(OF_NUMPY, OF_NUMPY):
        assert jf.result_type(a, b) == np.result_type(a.np, b.np), (a, b)


def test_promotion_of_bfloat16() -> None:
    for other in ALL:
        expected = next(d for d in ALL if d.name == WITH_BFLOAT16[other.name])
        assert jf.result_type(bfloat16, other) is expected
        assert jf.result_type(other, bfloat16) is expected


def test_promotion_is_symmetric_and_holds_both() -> None:
    for a, b in itertools.product(ALL, ALL):
        both = jf.result_type(a, b)
        assert jf.can_cast(a, both), (a, b)
        assert jf.can_cast(b, both), (a, b)
        assert jf.result_type(b, a) is both


@pytest.mark.parametrize("scalar", [True, 3, 2.5])
def test_python_scalars_are_weak(scalar: object) -> None:
    for dtype in OF_NUMPY:
        expected = np.result_type(dtype.np, scalar)
        assert jf.result_type(dtype, scalar) == expected, dtype
        assert jf.result_type(scalar, dtype, scalar) == expected, dtype
        x = jf.placeholder("x", dtype, (2,))
        assert jf.result_type(x, scalar) == expected
        if not dtype.is_bool:
            assert (x * scalar).dtype == expected
    assert jf.result_type(bfloat16, scalar) is bfloat16


def test_scalars_alone() -> None:
    assert jf.result_type(True) is bool_
    assert jf.result_type(1, True) is jf.int64
    assert jf.result_type(1, 2.0) is float64
    assert jf.result_type(np.float32(1), 2.0) is float32
    assert jf.result_type(jf.int8, 1, 2.0) is float64
    with pytest.raises(jf.DTypeError, match="result_type needs at least one"):
        jf.result_type()
    with pytest.raises(jf.DTypeError, match="complex128 is not supported"):
        jf.result_type(np.complex128)


def test_can_cast_is_numpys() -> None:
    for a, b in itertools.product(OF_NUMPY, OF_NUMPY):
        assert jf.can_cast(a, b) == np.can_cast(a.np, b.np), (a, b)
    assert jf.can_cast(bfloat16, float32)
    assert not jf.can_cast(bfloat16, float16)
    assert jf.can_cast(jf.placeholder("x", int8, (2,)), bfloat16)
    assert not jf.can_cast(np.zeros(2, np.int16), "bfloat16")


@pytest.mark.parametrize("dtype", [d for d in ALL if d.is_float], ids=str)
def test_finfo_is_numpys(dtype: DType) -> None:
    info = jf.finfo(dtype)
    expected = ml_dtypes.finfo(dtype.np)
    for name in ("bits", "eps", "max", "min", "smallest_normal", "smallest_subnormal"):
        assert float(getattr(info, name)) == float(getattr(expected, name)), name
    assert type(info.max) is float
    assert info.dtype is dtype
    assert jf.finfo(jf.placeholder("x", dtype, (2,))) == info
    assert jf.finfo(np.zeros(1, dtype.np)) == info


@pytest.mark.parametrize("dtype", [d for d in ALL if d.is_integer], ids=str)
def test_iinfo_is_numpys(dtype: DType) -> None:
    info, expected = jf.iinfo(dtype), np.iinfo(dtype.np)
    assert (info.bits, info.max, info.min) == (expected.bits, expected.max, expected.min)
    assert info.dtype is dtype
    assert jf.iinfo(np.zeros(1, dtype.np)) == info


def test_the_wrong_kind_of_info_is_refused() -> None:
    with pytest.raises(jf.DTypeError, match=r"^finfo takes floating dtypes, not int8; iinfo takes integers"):
        jf.finfo(int8)
    with pytest.raises(jf.DTypeError, match=r"^iinfo takes integer dtypes, not bool"):
        jf.iinfo(bool)


def test_kinds() -> None:
    kinds = ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating", "numeric")
    for dtype, kind in itertools.product(OF_NUMPY, kinds):
        assert jf.isdtype(dtype, kind) == np.isdtype(dtype.np, kind), (dtype, kind)
    assert jf.isdtype(bfloat16, "real floating")
    assert jf.isdtype(np.uint8, (float32, "unsigned integer"))
    assert jf.isdtype(float32, np.float32)
    assert not jf.isdtype(float32, ())
    with pytest.raises(jf.DTypeError, match="'float' is no kind of dtypes"):
        jf.isdtype(float32, "float")


def test_every_spelling_of_bfloat16_is_the_same_dtype() -> None:
    for spelling in ("bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16), bfloat16):
        assert jf.placeholder(None, spelling, (1,)).dtype is bfloat16
        assert bfloat16 == spelling
    assert bfloat16 != np.float16
    assert np.zeros(3, bfloat16).dtype == ml_dtypes.bfloat16
    assert pickle.loads(pickle.dumps(bfloat16)) is bfloat16


def test_integers_that_do_not_fit_are_refused() -> None:
    for dtype in (uint8, int8, jf.uint64):
        x = jf.placeholder("x", dtype, (1,))
        assert (x + dtype.max).dtype is dtype
        for value in (dtype.min - 1, dtype.max + 1):
            with pytest.raises(jf.OutOfBoundsError, match=f"Python integer {value} is out of bounds for {dtype}"):
                x + value
    with pytest.raises(jf.OutOfBoundsError, match="out of bounds for bfloat16"):
        jf.placeholder("x", bfloat16, (1,)) + 10**400


def test_without_ml_dtypes_bfloat16_is_a_type_to_cast_to_inside_a_graph() -> None:
    script = """
        import sys
        sys.modules["ml_dtypes"] = None
        import numpy as np
        import jitflow as jf

        x = jf.placeholder("x", jf.float32, ("n",))
        y = (x.astype(jf.bfloat16) * x.astype(jf.bfloat16)).astype(jf.float32)
        session = jf.Session([y])
        print(session.run(y, {x: np.array([1 + 2.0**-8 + 2.0**-20, 3, -0.1], np.float32)}).tolist())
        print(session.function([x], y)(np.ones(2, np.float32)))
        print(jf.finfo(jf.bfloat16).max, jf.result_type(jf.bfloat16, jf.float16), jf.bfloat16 == np.float16)

        def attempt(action):
            try:
                action()
            except jf.DTypeError as error:
                print(str(error).splitlines()[0])

        half = jf.placeholder("half", jf.bfloat16, (2,))
        attempt(lambda: jf.constant([1.0], jf.bfloat16))
        attempt(lambda: jf.Session([half + half]).run(half + half, {half: [1.0, 2.0]}))
        short = x.astype("bfloat16")
        attempt(lambda: jf.Session([short]).run(short, {x: np.ones(1, np.float32)}))
        attempt(lambda: jf.Session([short]).function([x], short)(np.ones(1, np.float32)))
        attempt(lambda: jf.interpret(half + half, {half: np.ones(2, np.float32)}))
    """
    advice = "arrays of bfloat16 need the package ml_dtypes: pip install jitflow[bf16]"
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    squares = [float(np.float32(v)) for v in (1.015625, 9.0)]
    lines = run.stdout.splitlines()
    assert lines[0].startswith(f"[{squares[0]}, {squares[1]}, "), run.stderr
    assert lines[1:3] == ["[1. 1.]", "3.3895313892515355e+38 float32 False"]
    assert [advice in line for line in lines[3:]] == [True] * 5, run.stdout + run.stderr


def test_comparisons_with_integers_beyond_the_dtype_are_numpys() -> None:
    beyond = (-(2**70), -(2**63) - 1, -300, -1, 0, 3, 127, 128, 256, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70)
    functions = ((jf.less, np.less), (jf.less_equal, np.less_equal), (jf.greater, np.greater), (jf.equal, np.equal))
    functions += ((jf.greater_equal, np.greater_equal), (jf.not_equal, np.not_equal))
    for dtype in (d for d in ALL if d.is_integer):
        values = np.array([dtype.min, dtype.max, 1, dtype.max // 2], dtype.np)
        x = jf.constant(values)
        fetches = [f(*pair) for f, _ in functions for n in beyond for pair in ((x, n), (n, x))]
        expected = [f(*pair) for _, f in functions for n in beyond for pair in ((values, n), (n, values))]
        for got, want in zip(jf.interpret(fetches, {}), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    assert jf.interpret(jf.constant(True) < 2**70, {})
    assert not jf.interpret(jf.equal(jf.constant(True), 2), {})


def test_comparisons_of_signed_with_unsigned_integers_are_exact() -> None:
    large = np.array([0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    y = jf.placeholder("y", jf.uint64, large.shape)
    for dtype in (d for d in ALL if d.kind == "i"):
        small = np.array([n for n in (dtype.min, -1, 0, 1, 2**53, 2**53 + 1, dtype.max) if n <= dtype.max], dtype.np)
        x = jf.placeholder("x", dtype, (len(small), 1))
        feeds = {x: small[:, None], y: large}
        exact = [(a, b) for a in small.tolist() for b in large.tolist()]
        fetches = [x < y, x <= y, x > y, x >= y, jf.equal(x, y), jf.not_equal(x, y), y < x, y >= x, jf.equal(y, x)]
        expected = [[a < b, a <= b, a > b, a >= b, a == b, a != b, b < a, b >= a, a == b] for a, b in exact]
        got = jf.Session(fetches).run(fetches, feeds)
        np.testing.assert_array_equal(np.stack([g.ravel() for g in got], axis=1), expected)
