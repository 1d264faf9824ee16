"""``x.at[key]``: random keys and modes against numpy's own updates, gradients, masks, what is refused, its loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.errors import DTypeError, FeedError, IndexRangeError, ShapeError, StaticIndexError
from tests.support.bits import same_bits

F32, F64 = np.float32, np.float64
UFUNCS = {"add": np.add, "multiply": np.multiply, "min": np.minimum, "max": np.maximum}


def run(tensors: Any, **feeds: Any) -> Any:
    return jf.Session(tensors).run(tensors, feeds)


def applied(x: Any, key: Any, value: Any, method: str) -> Any:
    """Return `x` after numpy's own update at `key`."""
    out = np.array(x)
    if method == "set":
        out[key] = value
    else:
        UFUNCS[method].at(out, key, value)
    return out


def random_key(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return a key of integers, slices, None, ``...`` and arrays of one shape for an array of `shape`."""
    picked = tuple(rng.integers(1, 4, rng.integers(0, 3)))
    items: list[Any] = []
    for n in shape[: rng.integers(0, len(shape) + 1)]:
        kind = rng.integers(4)
        if kind == 0:
            items.append(int(rng.integers(-n, n)))
        elif kind == 1:
            items.append(rng.integers(-n, n, picked))
        else:
            bounds = [None if rng.random() < 0.3 else int(rng.integers(-n - 1, n + 2)) for _ in range(2)]
            items.append(slice(*bounds, [None, 1, 2, -1, -2][rng.integers(5)]))
        if rng.random() < 0.15:
            items.append(None)
    if rng.random() < 0.4:
        # What stands after the dots would index axes of other sizes.
        items[int(rng.integers(len(items) + 1)) :] = [...]
    return tuple(items)


def test_random_keys_and_modes_are_numpys() -> None:
    rng = np.random.default_rng(0)
    feeds, made, expected, labels = {}, [], [], []
    for number in range(120):
        shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(1, 4)))
        method = ["set", "add", "multiply", "min", "max"][number % 5]
        x, key = rng.normal(size=shape), random_key(rng, shape)
        full = x[key].shape
        value = rng.normal(size=full[rng.integers(len(full) + 1) :])
        name = f"x{number}"
        dims = tuple(f"d{n}" for n in shape) if number % 3 == 0 else shape
        feeds[name], feeds[f"v{number}"] = x, value
        given = jf.placeholder(name, F64, dims)
        made.append(getattr(given.at[key], method)(jf.placeholder(f"v{number}", F64, value.shape)))
        expected.append(applied(x, key, value, method))
        labels.append(f"{shape} {key} {method} {value.shape}")
    interpreted = jf.interpret(made, feeds)
    for got, again, want, label in zip(run(made, **feeds), interpreted, expected, labels, strict=True):
        assert same_bits(got, want), f"{label}\n{got}\n{want}"
        assert same_bits(again, want), label


def test_every_dtype_is_set_and_added_to() -> None:
    feeds, made, expected = {}, [], []
    for dtype in jf.dtypes.SUPPORTED:
        x = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype.np)
        given = jf.placeholder(dtype.name, dtype, (2, "m"))
        feeds[dtype.name] = x
        made += [given.at[1, ::2].set(1), given.at[[0, 1], [2, 0]].set(x[0, 0])]
        expected += [applied(x, np.s_[1, ::2], 1, "set"), applied(x, ([0, 1], [2, 0]), 0, "set")]
        if dtype in (jf.uint8, jf.bfloat16, jf.int64):
            made += [given.at[1:].add(2), given.at[[1, 1]].add(2)]
            expected += [x + np.array([[0], [2]], x.dtype), x + np.array([[0], [4]], x.dtype)]
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_masks_choose() -> None:
    rng = np.random.default_rng(1)
    data, v = rng.normal(size=(3, 4)), rng.normal(size=4)
    x, row = jf.placeholder("x", F64, ("n", "m")), jf.placeholder("v", F64, ("m",))
    made = [
        x.at[x > 0].set(0.0),
        x.at[x[:, 0] > 0].add(row),
        x.at[(x < 0,)].max(-0.5),
        x.at[np.array([True, False, True])].multiply(2.0),
    ]
    keys = [data > 0, data[:, 0] > 0, data < 0, np.array([True, False, True])]
    values = [(0.0, "set"), (v, "add"), (-0.5, "max"), (2.0, "multiply")]
    for got, key, (value, method) in zip(run(made, x=data, v=v), keys, values, strict=True):
        np.testing.assert_array_equal(got, applied(data, key, value, method))
    # An array that is known has numpy's rules: as many values as it picks.
    got = run(jf.placeholder("y", F64, (3,)).at[np.array([True, False, True])].set([5.0, 6.0]), y=np.zeros(3))
    assert got.tolist() == [5, 0, 6]
    with pytest.raises(ShapeError, match="how many there are depends on the run"):
        x.at[x > 0].set(row)
    with pytest.raises(StaticIndexError, match=r"at: a mask of shape \(2,\) for \(3, 4\)"):
        jf.placeholder("z", F64, (3, 4)).at[jf.placeholder("b", jf.bool, (2,))].set(0.0)
    with pytest.raises(DTypeError, match="boolean mask"):
        x.at[x > 0].get()


def test_get_is_indexing() -> None:
    x = jf.placeholder("x", F32, (5,))
    assert x.at[1:3].get() is x[1:3]
    assert repr(x.at[2]) == "Tensor('x', float32, (5,)).at[2]"


def test_a_whole_tensor_is_replaced_without_reading_it() -> None:
    x, v = jf.placeholder("x", F32, ("n",)), jf.placeholder("v", F32, ("n",))
    assert run(x.at[...].set(v), x=np.zeros(3, F32), v=np.ones(3, F32)).tolist() == [1, 1, 1]
    assert run(jf.placeholder("s", F32, ()).at[()].add(2.0), s=F32(1)) == 3
    assert run(jf.placeholder("s", F32, ()).at[...].add(2.0), s=F32(1)) == 3


def test_values_are_never_narrowed_and_must_fit() -> None:
    x = jf.placeholder("x", jf.int32, (4,))
    for value in (1.5, np.float64(1), np.int64(1)):
        with pytest.raises(DTypeError, match=r"at: updates of .* into int32; convert with astype"):
            x.at[0].set(value)
    with pytest.raises(ShapeError, match=r"\(3,\) does not broadcast to \(2,\)"):
        x.at[:2].set(np.zeros(3, np.int32))
    with pytest.raises(DTypeError, match="at: mode 'add' takes integers and floats, not bool"):
        jf.placeholder("b", jf.bool, (4,)).at[0].add(True)
    with pytest.raises(StaticIndexError, match="index 4 is out of range"):
        x.at[4].set(0)


def test_f43_a_bad_index_writes_nothing() -> None:
    x, i = jf.placeholder("x", F32, ("n", 3)), jf.placeholder("i", jf.int64, ("k",))
    ones, out = np.ones((4, 3), F32), np.full((4, 3), 7, F32)
    for y in (x.at[i].set(0.0), x.at[i, 1:].add(1.0), x.at[i, i].set(0.0)):
        with pytest.raises(IndexRangeError, match=r"out of range at position [12]"):
            jf.Session(y).function([x, i], y)(ones, np.array([0, 4]), out=out)
        assert (out == 7).all()
    with pytest.raises(FeedError):  # an integer is checked before anything runs
        run(x.at[3].set(0.0), x=ones[:3])


def test_slopes_are_those_of_what_is_kept_and_what_is_written() -> None:
    rng = np.random.default_rng(2)
    data, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    x, v = jf.placeholder("x", F64, (4, 3)), jf.placeholder("v", F64, (3,))
    for key in (1, np.s_[1:3], np.s_[::-2], [1, 1, 3], np.s_[[0, 2], :]):
        for method in ("set", "add", "multiply", "max"):
            loss = jf.sum(getattr(x.at[key], method)(v) * w)
            grads = jf.gradients(loss, [x, v])
            value = rng.normal(size=3)

            def total(a: Any, b: Any, key: Any = key, method: str = method) -> Any:
                return (applied(a, key, b, method) * w).sum()

            feeds = {t: a for t, a in ((x, data), (v, value)) if f'name="{t.name}"' in jf.show_graph(grads)}
            for slope, of_x in zip(jf.interpret(grads, feeds), (True, False), strict=True):
                way = rng.normal(size=slope.shape)
                ends = [total(data + s * way, value) if of_x else total(data, value + s * way) for s in (1e-6, -1e-6)]
                measured = (ends[0] - ends[1]) / 2e-6
                assert (slope * way).sum() == pytest.approx(measured, rel=1e-6, abs=1e-7), (key, method)


def test_a_block_is_index_arithmetic_in_its_readers_kernel() -> None:
    x, v = jf.placeholder("x", F32, ("n", 8)), jf.placeholder("v", F32, (8,))
    with jf.Session((x * 2.0).at[0].add(v * 3.0) + 1.0) as session:
        text = session.dump("loops")
    assert text.count("kernel ") == 1
    assert "scatter" not in text
