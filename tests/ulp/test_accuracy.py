"""Compiled code against the table of measured errors: its worst arguments again, and random ones."""

from __future__ import annotations

import math
from functools import cache

import mpmath
import numpy as np
import pytest

from jitflow.dtypes import DType, float32, float64
from jitflow.graph import OPS
from tests.support.compiled import runnable
from tests.ulp.errors import errors, exact_values, from_f64
from tests.ulp.functions import Subject, arguments, subjects
from tests.ulp.measure import compare_exactly, compare_singles, compiled, error_at, is_measured, is_mirrored, scan_piece
from tests.ulp.table import Row, Worst, read_table, show_table

ROWS = read_table()
LABELS = sorted(subjects())
DTYPES = (float32, float64)
#: The table shows errors with four digits.
ROUNDING = 1e-4


def slack(row: Row) -> float:
    """Return by how much a new sample may exceed the row: not at all, if that is of all numbers there are."""
    return ROUNDING if row.worst.tried == 1 << 32 or row.worst.ulp == 0 else 0.1 + 0.1 * row.worst.ulp


@cache
def _rows_here() -> list[Row]:
    """Return the rows whose code this machine can run."""
    can = {"fma": any(t.has_fma for t in runnable()), "no fma": True}
    return [row for row in ROWS.values() if row.label in subjects() and can[row.code]]


@pytest.mark.parametrize("label", LABELS)
def test_every_elementwise_operator_of_floats_has_a_row(label: str) -> None:
    measured = [dtype for dtype in DTYPES if is_measured(subjects()[label], dtype)]
    assert measured, f"{label} needs an exact function in tests/ulp/functions.py"
    for dtype in measured:
        assert (label, dtype.name, "fma") in ROWS, f"run: python -m tests.ulp {subjects()[label].op.name} --write"


def test_no_row_is_of_an_operator_that_is_not_there() -> None:
    assert {row.label for row in ROWS.values()} <= set(LABELS)


@pytest.mark.parametrize("row", _rows_here(), ids=lambda row: "-".join(row.key))
def test_code_is_as_exact_as_its_row_says(row: Row) -> None:
    subject, dtype = subjects()[row.label], _dtype(row)
    target = None if row.code == "fma" else "x86-64-v2"
    if row.worst.where:
        again = error_at(subject, dtype, target, row.worst.where)
        advice = f"has {row.label} changed? then run: python -m tests.ulp {subject.op.name} --write"
        assert again == pytest.approx(row.worst.ulp, abs=ROUNDING), advice
    assert _on_a_sample(subject, dtype, target).ulp <= row.worst.ulp + slack(row)


def _dtype(row: Row) -> DType:
    return float32 if row.dtype == "float32" else float64


def _on_a_sample(subject: Subject, dtype: DType, target: str | None) -> Worst:
    if subject.arity == 1 and dtype is float32:
        (x,) = arguments(subject, dtype, 20_000, seed=1)
        return compare_singles(subject, x, compiled(subject.label, dtype, target)(x), 0.0)
    xs = arguments(subject, dtype, 20_000 if subject.op.exact else 300, seed=1)
    return compare_exactly(subject, xs, compiled(subject.label, dtype, target)(*xs))


# ---- the tool itself


def test_operators_are_found_by_what_they_do() -> None:
    for name in ("sin", "atan2", "sqrt", "maximum", "relu", "gelu(approximate='tanh')"):
        assert name in subjects()
    # These join elements, give another dtype, or keep all numbers as they are.
    for name in ("sum", "flip", "equal", "signbit", "where", "astype"):
        assert name in OPS or name == "sum"
        assert not any(label.split("(")[0] == name for label in subjects())


def test_errors_are_distances_in_units_in_the_last_place() -> None:
    exact = exact_values(lambda x: mpmath.mpf(1) / 3, np.zeros(3))
    nearest = np.float64(1 / 3)
    got = np.array([nearest, np.nextafter(nearest, 1), np.nextafter(nearest, 0)])
    # 1/3 is 0.0101...b: what is cut off after 53 digits is a third of the last place.
    np.testing.assert_allclose(errors(got, exact), [1 / 3, 2 / 3, 4 / 3], rtol=1e-9)
    assert errors(np.array([np.nan]), from_f64(np.array([1.0])))[0] == math.inf
    assert errors(np.array([np.nan]), from_f64(np.array([np.nan])))[0] == 0
    single = np.array([np.inf, 1e-45, 0.0], np.float32)
    wide = np.array([2.0**128, 2.0**-149 * 1.5, 2.0**-150])
    np.testing.assert_allclose(errors(single, from_f64(wide)), [0.0, 0.5, 0.5])


def test_errors_can_be_relative_to_larger_magnitudes() -> None:
    got, want = np.array([1.5], np.float32), from_f64(np.array([1.0]))
    assert errors(got, want)[0] == 0.5 * 2**23
    assert errors(got, want, np.array([2.0**10]))[0] == 0.5 * 2**13


def test_a_wrong_result_is_found_whatever_its_kind() -> None:
    sine = subjects()["sin"]
    x = np.array([1.0, -0.0, np.inf, 0.5], np.float32)
    right = np.sin(x.astype(np.float64), where=np.isfinite(x), out=np.full(4, np.nan)).astype(np.float32)
    assert compare_singles(sine, x, right, 0.0).ulp == 0.5
    for k, wrong in ((1, 0.0), (2, 1.0), (3, np.nan)):
        got = right.copy()
        got[k] = wrong
        found = compare_singles(sine, x, got, 0.0)
        assert found.ulp == math.inf
        assert found.where == (float(x[k]),)
    got = right.copy()
    got[0] = np.nextafter(got[0], np.float32(2))
    assert 0.5 < compare_singles(sine, x, got, 0.0).ulp <= 1.5


def test_only_results_of_negative_numbers_that_mirror_the_others_go_unmeasured() -> None:
    x = np.array([-1.0, -0.0, -np.nan, -np.inf], np.float32)
    for name, mirror in (("tanh", np.negative), ("cosh", np.positive)):
        subject = subjects()[name]
        function = {"tanh": np.tanh, "cosh": np.cosh}[name]
        assert is_mirrored(subject, x, mirror(function(-x)), function)
        assert not is_mirrored(subject, -x, function(-x), function)
        wrong = mirror(function(-x))
        wrong[1] = -wrong[1]
        assert not is_mirrored(subject, x, wrong, function)
    assert not is_mirrored(subjects()["exp"], x, np.exp(x), np.exp)


def test_pieces_of_a_scan_leave_out_no_number() -> None:
    every = 1 << 22
    tried = [scan_piece("abs", None, every, k).tried for k in range(256)]
    assert sum(tried) == (1 << 32) // every


def test_rows_read_back() -> None:
    rows = [
        Row("atan2", "float64", "fma", Worst(1.25, (1e-300, -0.1), 100), 1.5),
        Row("abs", "float32", "no fma", Worst(0.0, (), 7)),
    ]
    by_key = {row.key: row for row in rows}
    assert read_table(show_table(by_key)) == by_key
