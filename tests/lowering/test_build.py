"""Loop nests of groups: their text where the form matters, and the loop interpreter against numpy everywhere."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.expr import as_index
from jitflow.simplify import evaluate_index, free_vars
from lowering.interp import interpret
from lowering.text import show
from lowering.verify import verify
from tests.support.lowered import kernels_of, primitive


def run(fetch: jf.Tensor, feeds: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Run the kernels of `fetch` in the loop interpreter."""
    _, inputs = primitive([fetch])
    dims = {d.name: size for n in inputs for d, size in zip(n.shape, feeds[n.name].shape, strict=True) if d != size}
    arrays = dict(feeds)
    for kernel in kernels_of(fetch):
        verify(kernel)
        buffers = []
        for b in kernel.params:
            if b not in kernel.reads:
                shape = [d.value if hasattr(d, "value") else None for d in b.shape]
                arrays[b.name] = np.zeros(_shape(b, dims) if None in shape else shape, b.dtype.np)
            buffers.append(arrays[b.name].reshape(_shape(b, dims)))
        interpret(kernel, buffers, {d.name: dims[d.name] for d in kernel.dims})
        for b, a in zip(kernel.params, buffers, strict=True):
            arrays[b.name] = a
        last = arrays[kernel.params[-1].name]
    return last


def _shape(buffer: Any, dims: dict[str, int]) -> tuple[int, ...]:
    return tuple(evaluate_index(as_index(d), {v: dims[v.name] for v in free_vars(d)}) for d in buffer.shape)


def text(*fetches: jf.Tensor) -> str:
    return "\n".join(show(k) for k in kernels_of(*fetches))


def test_a_map_is_a_nest_with_a_parallel_and_a_vectorized_loop() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 5))
    assert "parallel i in n:\n    vectorized j in 5:" in text(x + 1.0)


def test_an_axis_of_one_element_has_no_loop() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 1, 5))
    found = text(x + 1.0)
    assert "x[i, 0, k]" in found
    assert found.count(" in ") == 2


def test_a_scalar_kernel_has_no_loop() -> None:
    found = text(jf.placeholder("x", jf.float32, ()) + 1.0)
    assert " in " not in found
    assert "[] = add" in found


def test_an_array_behind_a_reshape_is_addressed_by_position() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 6))
    found = text(jf.sum(x))
    assert "x: f32[n * 6]" in found
    assert "//" not in found.split("c in")[1].split(":")[1]


def test_softmax_keeps_its_exponentials_where_its_result_will_be() -> None:
    found = text(jf.softmax(jf.placeholder("x", jf.float32, ("n", 100))))
    assert found.count("f32 = exp(") == 2  # the folding loop and its tail
    assert "scratch" not in found
    assert re.search(r"multiply_0\[i, l_\d+\] = exp", found)


def test_what_is_kept_goes_to_scratch_where_no_output_has_its_form() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 100))
    found = text(jf.astype(jf.softmax(x), jf.float64))
    assert found.count("f32 = exp(") == 2
    assert "alloc exp_row: f32[100] scratch" in found
    y = jf.astype(jf.softmax(x), jf.float64)
    data = np.random.default_rng(0).standard_normal((3, 100)).astype(np.float32)
    e = np.exp(data.astype(np.float64) - data.max(axis=1, keepdims=True))
    np.testing.assert_allclose(run(y, {"x": data}), e / e.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_lanes_of_a_reduction_follow_from_its_extent() -> None:
    def lanes(columns: Any) -> str:
        found = text(jf.sum(jf.placeholder("x", jf.float32, ("n", columns)), axis=1))
        return found.split("reduce_sum_acc: f32[")[1].split("]")[0]

    assert [lanes(c) for c in (2, 3, 16, 17, 64, 1000, "m")] == ["2", "4", "16", "32", "64", "64", "64"]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 64), (2, 65), (5, 130), (0, 4), (3, 17)])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_reductions_give_what_numpy_gives(shape: tuple[int, int], axis: int | None) -> None:
    x = jf.placeholder("x", jf.float64, ("n", shape[1]))
    data = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_allclose(run(jf.sum(x, axis=axis), {"x": data}), data.sum(axis=axis), rtol=1e-12, atol=1e-12)
    if data.size:
        np.testing.assert_array_equal(run(jf.max(x, axis=axis), {"x": data}), data.max(axis=axis))
        np.testing.assert_array_equal(run(jf.argmin(x, axis=axis), {"x": data}), data.argmin(axis=axis))


@pytest.mark.parametrize("axes", [(0, 2), (0, 1), (1, 2), (0, 1, 2)])
def test_reductions_over_several_axes(axes: tuple[int, ...]) -> None:
    x = jf.placeholder("x", jf.float64, ("n", 3, 5))
    data = np.random.default_rng(0).standard_normal((4, 3, 5))
    np.testing.assert_allclose(run(jf.sum(x, axis=axes), {"x": data}), data.sum(axis=axes), rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_argmax_takes_the_first_of_equals_and_of_nans(axis: int) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 5))
    data = np.array([[1, 7, 7, 0, 7], [np.nan, 1, np.nan, 2, 3], [-np.inf] * 5, [7, 7, 9, 9, 0]], np.float32)
    np.testing.assert_array_equal(run(jf.argmax(x, axis=axis), {"x": data}), data.argmax(axis=axis))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("columns", [1, 5, 70])
def test_softmax_along_either_axis(axis: int, columns: int) -> None:
    x = jf.placeholder("x", jf.float64, ("n", columns))
    data = np.random.default_rng(0).standard_normal((3, columns))
    e = np.exp(data - data.max(axis=axis, keepdims=True))
    np.testing.assert_allclose(
        run(jf.softmax(x, axis=axis), {"x": data}), e / e.sum(axis=axis, keepdims=True), rtol=1e-12
    )


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (2, 3, 5), (3, 0, 4), (0, 2, 3), (2, 7, 70)])
def test_a_product_of_small_matrices(m: int, k: int, n: int) -> None:
    a, b = jf.placeholder("a", jf.float64, ("m", k)), jf.placeholder("b", jf.float64, (k, n))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    np.testing.assert_allclose(run(a @ b, {"a": x, "b": y}), x @ y, rtol=1e-12, atol=1e-12)


def test_concat_and_pad_read_only_inside_their_inputs() -> None:
    # The interpreter raises on any access out of bounds.
    x, y = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("y", jf.float32, ("m",))
    a, b = np.arange(3, dtype=np.float32), np.arange(4, dtype=np.float32)
    both = jf.pad(jf.concat([jf.exp(x), y]), (1, 2))
    want = np.pad(np.concatenate([np.exp(a), b]), (1, 2))
    np.testing.assert_allclose(run(both, {"x": a, "y": b}), want, rtol=1e-6)
