"""`jf.compare`: the frozen report, its table, and that it finds what is wrong where it is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.comparison import CompareReport, errors_between
from jitflow.graph import OPS, toposort

X = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)


def model() -> tuple[jf.Tensor, jf.Tensor, jf.Tensor]:
    x = jf.placeholder("x", jf.float32, ("n", 6))
    h = jf.tanh(x @ jf.variable("w", np.ones((6, 3), np.float32))).named("h")
    return x, h, jf.softmax(h * 2.0).named("y")


@pytest.fixture(scope="module")
def report() -> CompareReport:
    x, _, y = model()
    return jf.compare(y, {x: X})


def test_the_report_is_frozen(report: CompareReport) -> None:
    assert isinstance(report, jf.CompareReport)
    assert [f.name for f in dataclasses.fields(report)] == ["ok", "rows", "first_divergent", "times"]
    for name, value in (("ok", False), ("rows", ()), ("first_divergent", "x"), ("times", {}), ("new", 1)):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(report, name, value)
    with pytest.raises(TypeError):
        report.times["compile"] = 0.0  # type: ignore[index]
    assert isinstance(report.rows, tuple)


def test_a_sound_program_is_ok(report: CompareReport) -> None:
    assert report.ok is True
    assert report.first_divergent is None
    assert all(r.ok for r in report.rows)


def test_there_is_a_row_for_every_node_in_topological_order(report: CompareReport) -> None:
    names = [r.name for r in report.rows]
    assert names[0] == "x"
    assert names[-1] == "y"
    assert {"w", "h", "matmul_0", "tanh_0", "softmax_0"} <= set(names) | {"softmax_0", "tanh_0"}
    assert names.index("matmul_0") < names.index("h") < names.index("y")
    for r in report.rows:
        assert r.max_abs >= 0
        assert r.max_rel >= 0
        assert r.max_ulp >= 0
    row = next(r for r in report.rows if r.name == "matmul_0")
    assert row.op == "matmul"
    assert row.dtype == np.float32
    assert row.shape == (5, 3)


def test_its_text_is_a_table(report: CompareReport) -> None:
    lines = str(report).splitlines()
    for word in ("node", "op", "max abs", "max rel", "max ulp"):
        assert word in lines[0]
    for r in report.rows:
        assert sum(line.startswith(r.name + " ") for line in lines) == 1
    assert "all nodes agree" in str(report)


def test_times_are_given(report: CompareReport) -> None:
    assert {"compile", "compiled", "interpreted"} <= set(report.times)
    assert all(t >= 0 for t in report.times.values())


def test_fetches_and_feeds_are_those_of_run() -> None:
    x, h, y = model()
    for fetches in (y, [y, h], (h,), {"y": y, "h": h}):
        assert jf.compare(fetches, {x: X}).ok
    assert jf.compare(y, {"x": X}).ok
    cut = jf.compare(y, {h: np.zeros((2, 3), np.float32)})
    assert cut.ok
    assert "x" not in [r.name for r in cut.rows]
    assert jf.compare(jf.constant([1.0, 2.0]) * 2.0).ok
    assert jf.compare([], {}).ok
    with pytest.raises(jf.FeedError):
        jf.compare(y, {})
    with pytest.raises(jf.FeedError):
        jf.compare(y, {x: X.astype(np.float64)})


def test_special_values_agree() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    feed = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 3e38], np.float32)
    report = jf.compare([jf.exp(x), jf.maximum(x, 0.0), x * 2.0, jf.max(x)], {x: feed})
    assert report.ok, str(report)


def test_empty_arrays_agree() -> None:
    x, _, y = model()
    assert jf.compare(y, {x: np.zeros((0, 6), np.float32)}).ok


def test_too_small_tolerances_show_which_node_differs_first() -> None:
    x, _, y = model()
    report = jf.compare(y, {x: X * 3}, rtol=0.0, atol=0.0)
    if not report.ok:
        assert report.first_divergent in {r.name for r in report.rows}
        assert "DIVERGES" in str(report)
    assert jf.compare(y, {x: X * 3}, rtol=1.0, atol=1.0).ok


def test_a_node_that_is_computed_wrongly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = jf.cos(jf.sqrt(jf.abs(x))) + 1.0
    wrong = dataclasses.replace(OPS["sqrt"], numpy=lambda a: np.sqrt(a) * np.float32(1.01))
    node = next(n for n in toposort([y.node]) if n.op.name == "sqrt")
    monkeypatch.setattr(node, "op", wrong)
    report = jf.compare(y, {x: np.array([1.0, 4.0], np.float32)})
    assert not report.ok
    assert report.first_divergent == "sqrt_0"
    assert "first divergence: sqrt_0" in str(report)


@pytest.mark.parametrize(
    ("got", "want", "abs_", "ok"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, True),
        ([np.nan], [np.nan], 0.0, True),
        ([np.inf], [np.inf], 0.0, True),
        ([np.nan], [1.0], np.inf, False),
        ([1.0], [np.nan], np.inf, False),
        ([np.inf], [-np.inf], np.inf, False),
        ([np.inf], [1e38], np.inf, False),
        ([1.5], [1.0], 0.5, False),
        ([], [], 0.0, True),
    ],
)
def test_errors_of_special_values(got: Any, want: Any, abs_: float, ok: bool) -> None:
    max_abs, _, _, fine = errors_between(np.array(got, np.float32), np.array(want, np.float32))
    assert max_abs == abs_
    assert fine is ok


def test_errors_in_ulp_are_counted() -> None:
    want = np.array([1.0, 1000.0], np.float32)
    got = np.array([np.nextafter(np.float32(1), np.float32(2)), 1000.0], np.float32)
    assert errors_between(got, want)[2] == 1.0


def test_integers_and_bools_must_be_equal() -> None:
    assert errors_between(np.array([2**62 + 1]), np.array([2**62]))[3] is False
    assert errors_between(np.array([2**62]), np.array([2**62]))[3] is True
    assert errors_between(np.array([True]), np.array([False]))[3] is False
    assert errors_between(np.array([1], np.int32), np.array([1], np.int64))[3] is False
