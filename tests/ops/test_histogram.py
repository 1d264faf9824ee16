"""bincount and histogram against numpy; what a result of unknown size is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import SUPPORTED
from jitflow.errors import DTypeError, GraphError, IndexRangeError, ShapeError

F32, F64 = np.float32, np.float64


def run(tensors: Any, **feeds: Any) -> Any:
    return jf.Session(tensors).run(tensors, feeds)


def test_counts_are_numpys_for_every_integer() -> None:
    rng = np.random.default_rng(0)
    feeds, made, expected = {}, [], []
    w = jf.placeholder("w", F64, ("n",))
    feeds["w"] = rng.normal(size=50)
    for dtype in SUPPORTED:
        if dtype.is_integer:
            x = jf.placeholder(dtype.name, dtype, ("n",))
            data = rng.integers(0, 9, 50).astype(dtype.np)
            feeds[dtype.name] = data
            made += [jf.bincount(x, length=9), jf.bincount(x, weights=w, length=3, minlength=12)]
            expected += [np.bincount(data, minlength=9), np.bincount(data, feeds["w"], minlength=12)]
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    assert run(jf.bincount(jf.placeholder("e", jf.int8, ("n",)), length=3), e=np.zeros(0, np.int8)).tolist() == [0] * 3


def test_the_size_of_a_count_cannot_depend_on_data() -> None:
    x = jf.placeholder("x", jf.int64, ("n",))
    with pytest.raises(
        GraphError, match="bincount: length is needed, since the size of a result cannot depend on data"
    ):
        jf.bincount(x)
    with pytest.raises(GraphError, match="length is needed"):
        np.bincount(x, minlength=5)
    for bad in (5, -1):
        with pytest.raises(IndexRangeError, match="position 1"):
            run(jf.bincount(x, length=5), x=np.array([4, bad]))
    with pytest.raises(DTypeError, match="x must hold integers, got float64"):
        jf.bincount(jf.constant([1.0]), length=2)
    with pytest.raises(ShapeError, match=r"x must be a vector, got shape \(1, 1\)"):
        jf.bincount(jf.constant([[1]]), length=2)
    with pytest.raises(ShapeError, match=r"updates of \(2,\)"):
        jf.bincount(jf.constant([1, 1, 1]), weights=[1.0, 2.0], length=2)


def test_histograms_are_numpys() -> None:
    rng = np.random.default_rng(1)
    edges = np.array([-2.0, -1.0, -1.0, 0.0, 0.5, 0.5])
    feeds, made, expected = {}, [], []
    for number, dtype in enumerate((F64, F32, np.int32, np.uint8)):
        data = (rng.normal(size=(40, 5)) * 3).astype(dtype) if number < 2 else rng.integers(0, 9, (40, 5)).astype(dtype)
        if number < 2:
            data[0] = [-2, -1, 0, 0.5, np.nextafter(dtype(0.5), dtype(1))]
        weights = rng.integers(0, 5, data.shape)
        x, w = jf.placeholder(f"x{number}", dtype, ("n", 5)), jf.placeholder(f"w{number}", jf.int64, ("n", 5))
        feeds.update({x.name: data, w.name: weights})
        for options in ({}, {"bins": 7, "range": (0, 5)}, {"bins": edges}, {"bins": 3, "range": (2, 2)}):
            made += [*jf.histogram(x, **options), jf.histogram(x, density=True, **options)[0]]
            with np.errstate(invalid="ignore", divide="ignore"):  # a bin of width 0
                expected += [*np.histogram(data, **options), np.histogram(data, density=True, **options)[0]]
        made += [jf.histogram(x, 4, weights=w)[0], *np.histogram(x, 5)]
        expected += [np.histogram(data, 4, weights=weights)[0], *np.histogram(data, 5)]
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.dtype == want.dtype or want.dtype == F64
        if want.dtype.kind == "i":
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-6 if got.dtype == F32 else 1e-14)


def test_nan_and_elements_outside_are_not_counted() -> None:
    x = jf.placeholder("x", F64, ("n",))
    data = np.array([np.nan, -1.0, 0.0, 0.5, 1.0, 1.5, np.inf, -np.inf])
    assert run(jf.histogram(x, 2, range=(0, 1))[0], x=data).tolist() == [1, 2]
    assert run(jf.histogram(x, 2, range=(jf.min(jf.abs(x[1:3])), 1.0))[0], x=data).tolist() == [1, 2]
    assert run(list(jf.histogram(jf.placeholder("e", F64, (0,)), 2)), e=data[:0])[0].tolist() == [0, 0]


def test_what_makes_no_sense_is_refused() -> None:
    x = jf.placeholder("x", F64, ("n",))
    for bins, message in ((0, "one bin or more, got 0"), ([1.0, 0.0], "edges must ascend")):
        with pytest.raises(GraphError, match=message):
            jf.histogram(x, bins)
    with pytest.raises(GraphError, match="must be an int that is known"):
        jf.histogram(x, 2.5)
    with pytest.raises(GraphError, match=r"range must be two ascending, finite numbers, got \(1.0, 0.0\)"):
        jf.histogram(x, 2, range=(1, 0))
    with pytest.raises(ShapeError, match="edges must be a vector of two or more"):
        jf.histogram(x, [1.0])
    with pytest.raises(ShapeError, match="how many edges there are must be known"):
        jf.histogram(x, jf.placeholder("b", F64, ("m",)))
    with pytest.raises(DTypeError, match="not bool"):
        jf.histogram(x > 0)
    with pytest.raises(ShapeError, match="one for each element is needed"):
        jf.histogram(x, weights=1.0)
