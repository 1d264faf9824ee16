"""GPU loop nests against numpy: every form of kernel, thread by thread in both orders, races and bounds watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import as_dtype
from jitflow.errors import CompilerBug
from jitflow.graph import OPS, make_node, make_placeholder
from lowering.exact import fma
from lowering.gpu.schedule import GpuSchedule
from lowering.interp import interpret
from lowering.launch import launch_geometry
from lowering.loop_ir import Alloc, Barrier, Body, For, Kernel, map_body, statements
from lowering.text import show
from tests.support.check_lines import check_lines
from tests.support.gpu_run import NORMAL, SMALL, Array, gpu_groups, gpu_kernels, run_gpu
from tests.support.tolerance import deviations

F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64


def draw(*shape: int, dtype: Any = F32, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed + 31 * len(shape) + sum(shape))
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-9, 9, shape, dtype=dtype)
    if np.dtype(dtype).kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.normal(size=shape).astype(dtype)


def given(name: str, *shape: Any, dtype: Any = jf.float32) -> Any:
    return jf.placeholder(name, dtype, shape)


def check(
    fetches: Sequence[Any],
    feeds: Mapping[str, Array],
    expected: Sequence[Any],
    *,
    rtol: float = 2e-6,
    atol: float = 2e-6,
    schedule: GpuSchedule = SMALL,
) -> None:
    """Compare with `expected`, forwards as built and backwards after the passes; both must give the same bits."""
    forward = run_gpu(fetches, feeds, schedule=schedule)
    backward = run_gpu(fetches, feeds, schedule=schedule, reverse=True, final=True)
    for got, again, want in zip(forward, backward, map(np.asarray, expected), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
        assert got.tobytes() == again.tobytes()


# ---- maps


@pytest.mark.parametrize("n", [0, 1, 3, 63, 64, 65, 255, 256, 257, 1030])
def test_elementwise_kernels_cover_every_element_once(n: int) -> None:
    x, y = draw(n), draw(n, seed=1)
    feeds = {"x": x, "y": y}
    check([given("x", "n") * 2.0 + given("y", "n")], feeds, [x * F32(2) + y], rtol=0, atol=0)


def test_neighbours_go_to_one_thread_where_all_operands_run_along() -> None:
    kernel = gpu_kernels([jf.maximum(given("x", "n", "m") * given("y", "n", "m"), 0.0)])[0]
    check_lines(
        show(kernel),
        "x_0: f32[m * n] read align 16",
        "block.x b in (m * n + 1023) // 1024:",
        "thread.x t in 256:",
        "let q: index = b * 256 + t",
        "if q * 4 + 3 < m * n:",
        "unrolled u in 4:",
        "x_0[q * 4 + u]",
        "else:",
        "serial u_1 in 4:",
        "if q * 4 + u_1 < m * n:",
    )


def test_a_broadcast_row_is_spread_over_threads_without_a_division_per_element() -> None:
    x, y = draw(3, 300), draw(300)
    fetches = [given("x", "n", "m") + given("y", "m")]
    check(fetches, {"x": x, "y": y}, [x + y], rtol=0, atol=0)
    text = show(gpu_kernels(fetches)[0])
    inside = text[text.index("thread") :]
    assert "//" not in inside
    assert "%" not in inside


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (7, 5), (60, 5)])
def test_a_short_last_axis_is_found_by_division(shape: tuple[int, int]) -> None:
    x, y = draw(*shape), draw(5)
    check([given("x", "n", 5) * given("y", 5)], {"x": x, "y": y}, [x * y], rtol=0, atol=0)


def test_movement_is_index_arithmetic() -> None:
    x, y = draw(9, 20), draw(4, 20, seed=2)
    a, b = given("x", "n", 20), given("y", "m", 20)
    fetches = [a.T + 1.0, jf.flip(a, axis=0) * 2.0, jf.reshape(a, (-1,)) - 1.0, jf.roll(a, 3, axis=1)]
    check(fetches, {"x": x}, [x.T + F32(1), x[::-1] * F32(2), x.reshape(-1) - F32(1), np.roll(x, 3, 1)])
    check([jf.concat([a, b], axis=0) * 2.0], {"x": x, "y": y}, [np.concatenate([x, y]) * F32(2)])
    check([jf.pad(a, ((1, 2), (0, 1)))], {"x": x}, [np.pad(x, ((1, 2), (0, 1)))])
    check([a[1:, ::-2]], {"x": x}, [x[1:, ::-2]])


@pytest.mark.parametrize(("n", "m"), [(0, 40), (1, 1), (33, 31), (40, 70), (64, 32)])
def test_transposed_operands_are_turned_around_in_shared_memory(n: int, m: int) -> None:
    x, y, z = draw(n, m), draw(m, n, seed=1), draw(n, seed=2)
    a, b, c = given("x", "n", "m"), given("y", "m", "n"), given("z", "n")
    check([a.T * b + c], {"x": x, "y": y, "z": z}, [x.T * y + z], rtol=0, atol=0)
    kernel = gpu_kernels([a.T * b])[0]
    check_lines(show(kernel), "x_tile: f32[32, 33] shared", "x_tile[", "barrier", "y_1[")


def test_a_transposition_of_batches_or_of_short_axes_reads_what_it_should() -> None:
    x = draw(3, 35, 36)
    a = given("x", "b", "n", "m")
    for axes in [(2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)]:
        check([jf.permute_dims(a, axes) * 2.0], {"x": x}, [np.transpose(x, axes) * F32(2)])
    heads = draw(2, 40, 4, 16)
    check([jf.permute_dims(given("x", 2, 40, 4, 16), (0, 2, 1, 3))], {"x": heads}, [heads.transpose(0, 2, 1, 3)])
    assert "shared" not in show(gpu_kernels([given("x", "n", 3).T * 2.0])[0])


def test_an_operand_read_under_a_condition_is_not_staged() -> None:
    x = draw(40, 41)
    a = given("x", "n", "m")
    want = np.pad(x.T, ((1, 0), (0, 2)))
    check([jf.pad(a.T, ((1, 0), (0, 2))) * 2.0], {"x": x}, [want * F32(2)])
    assert "shared" not in show(gpu_kernels([jf.pad(a.T, ((1, 0), (0, 2))) * 2.0])[0])


def test_scalars_and_several_outputs() -> None:
    x = np.array(2.5)
    check([jf.exp(given("x", dtype=jf.float64)) + 1.0], {"x": x}, [np.exp(x) + 1])
    a = given("a", "n")
    v = draw(100)
    check([a + 1.0, a * 2.0, a > 0.0], {"a": v}, [v + F32(1), v * F32(2), v > 0])


def test_a_gather_reports_the_first_bad_position() -> None:
    x, i = draw(5, 3), np.array([0, 4, -1, 2])
    fetches = [jf.take(given("x", "n", 3), given("i", "m", dtype=jf.int64), axis=0)]
    check(fetches, {"x": x, "i": i}, [x[i]], rtol=0, atol=0)
    with pytest.raises(IndexError, match="2"):
        run_gpu(fetches, {"x": x, "i": np.array([0, 4, 5, -6])})


# ---- rows

ROW_LENGTHS = [1, 3, 32, 33, 129, 200]


def softmax(x: Array) -> Array:
    e = np.exp(x.astype(F64) - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(x.dtype)


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    wide = x.astype(F64)
    centred = wide - wide.mean(-1, keepdims=True)
    return (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias).astype(x.dtype)


@pytest.mark.parametrize("m", ROW_LENGTHS)
def test_rows_of_constant_length(m: int) -> None:
    x, s, b = draw(3, m), draw(m, seed=1), draw(m, seed=2)
    a = given("x", "n", m)
    check([jf.softmax(a)], {"x": x}, [softmax(x)])
    feeds = {"x": x, "s": s, "b": b}
    check([jf.layer_norm(a, given("s", m), given("b", m))], feeds, [layer_norm(x, s, b)], rtol=1e-4, atol=1e-5)
    check([a.sum(axis=1), jf.max(a * a, axis=1)], {"x": x}, [x.astype(F64).sum(1).astype(F32), (x * x).max(1)])
    check([jf.argmax(a, axis=1), jf.argmin(a, axis=1)], {"x": x}, [x.argmax(1), x.argmin(1)])


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 63), (2, 64), (2, 65), (3, 200)])
def test_rows_of_unknown_length(shape: tuple[int, int]) -> None:
    x = draw(*shape)
    a = given("x", "n", "m")
    check([jf.softmax(a)], {"x": x}, [softmax(x)])
    check([jf.argmax(a, axis=1), a.sum(axis=1)], {"x": x}, [x.argmax(1), x.astype(F64).sum(1).astype(F32)])


def test_rows_without_elements_give_the_identity() -> None:
    x = np.zeros((3, 0), F32)
    a = given("x", "n", "m")
    check([a.sum(axis=1), jf.prod(a, axis=1), jf.all(a > 0, axis=1)], {"x": x}, [x.sum(1), x.prod(1), [True] * 3])


def test_softmax_of_a_short_row_is_one_kernel_that_reads_memory_once() -> None:
    kernels = gpu_kernels([jf.softmax(given("x", "n", 1024))])
    assert len(kernels) == 1
    text = show(kernels[0])
    assert text.count("x_0[") == 1
    check_lines(
        text,
        "block.x b in n:",
        "thread.x t in 256:",
        "alloc x_row: f32[4] register",
        "shfl_down(",
        "barrier",
        "unrolled u_1 in 4:",
        "barrier",
    )


def test_short_rows_share_a_block_and_need_no_barrier() -> None:
    kernel = gpu_kernels([jf.softmax(given("x", "n", 10))])[0]
    text = show(kernel)
    check_lines(text, "block.x b in (n + 15) // 16:", "let row: index = b * 16 + t // 16", "shfl_idx(")
    assert "barrier" not in text
    assert "shared" not in text


def test_reductions_of_several_axes() -> None:
    x = draw(4, 7, 5)
    a = given("x", "n", "m", 5)
    wide = x.astype(F64)
    for axes in [(0, 1), (0, 2), (1, 2), (0, 1, 2), (1,)]:
        check([a.sum(axis=axes)], {"x": x}, [wide.sum(axes).astype(F32)], rtol=1e-5, atol=1e-5)
    positions = x.reshape(-1).argmax()
    check([jf.argmax(a)], {"x": x}, [positions])


def test_nan_wins_wherever_it_is() -> None:
    a = given("x", "n", 70)
    for place in (0, 1, 33, 64, 69):
        x = draw(2, 70)
        x[1, place] = np.nan
        x[0, 5] = np.inf
        check([jf.max(a, axis=1), jf.argmax(a, axis=1)], {"x": x}, [x.max(1), x.argmax(1)])


def test_the_first_of_equal_values_is_the_one_found() -> None:
    x = np.zeros((3, 130), F32)
    x[1, 40:] = 1
    x[2, 127] = -1
    a = given("x", "n", 130)
    check([jf.argmax(a, axis=1), jf.argmin(a, axis=1)], {"x": x}, [[0, 40, 0], [0, 0, 127]])


# ---- columns


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 16), (5, 17), (30, 40)])
def test_columns(shape: tuple[int, int]) -> None:
    x = draw(*shape)
    a = given("x", "n", "m")
    wide = x.astype(F64)
    check([a.sum(axis=0)], {"x": x}, [wide.sum(0).astype(F32)], rtol=1e-5, atol=1e-5)
    check([jf.any(a > 1.0, axis=0)], {"x": x}, [(x > 1).any(0)])
    if shape[0]:
        check([jf.argmin(a, axis=0), jf.max(a, axis=0)], {"x": x}, [x.argmin(0), x.max(0)])
        check([jf.var(a, axis=0)], {"x": x}, [wide.var(0).astype(F32)], rtol=1e-4, atol=1e-5)
        check([jf.softmax(a, axis=0)], {"x": x}, [softmax(x.T).T])


def test_columns_of_few_elements_take_no_more_threads_than_elements() -> None:
    kernel = gpu_kernels([given("x", 2, "m").sum(axis=0)])[0]
    check_lines(show(kernel), "block.x b in (m + 127) // 128:", "sum_acc_parts: f32[2, 128] shared")


# ---- long rows


@pytest.mark.parametrize("n", [1, 65, 256, 257, 1000])
def test_one_long_row_is_shared_by_blocks(n: int) -> None:
    x = draw(n)
    a = given("x", "n")
    wide = x.astype(F64)
    check([a.sum(), jf.max(a)], {"x": x}, [F32(wide.sum()), x.max()], rtol=1e-5, atol=1e-5)
    check([jf.argmin(a)], {"x": x}, [x.argmin()])
    if n == 65:
        check([jf.softmax(a), jf.var(a)], {"x": x}, [softmax(x), F32(wide.var())], rtol=1e-5)


def test_nothing_at_all_sums_to_zero() -> None:
    a = given("x", "n")
    check([a.sum(), jf.prod(a), jf.any(a > 0)], {"x": np.zeros(0, F32)}, [F32(0), F32(1), False])


def test_a_long_reduction_is_two_kernels_with_partial_results_between_them() -> None:
    (group,) = gpu_groups([given("x", "n").sum()])[1]
    kernels = gpu_kernels([given("x", "n").sum()])
    assert [k.name for k in kernels] == ["k0_0", "k0_1"]
    assert [str(launch_geometry(k).grid[0].value) for k in kernels] == ["256", "1"]  # type: ignore[attr-defined]
    assert not any(s.__class__.__name__ == "Atomic" for k in kernels for s in statements(k.body))
    assert group.kind == "reduce"


def test_rows_that_may_be_short_are_not_split() -> None:
    assert len(gpu_kernels([given("x", 64, "m").sum(axis=1)])) == 1
    assert len(gpu_kernels([given("x", 2, 100).sum(axis=1)])) == 1


# ---- matrix products

SIZES = [(1, 1, 1), (3, 0, 2), (0, 3, 3), (8, 4, 8), (5, 7, 9), (17, 9, 10), (16, 8, 24)]


def chain(a: Array, b: Array) -> Array:
    """The documented order: one fused multiply-add after another over increasing k, from 0."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = a.dtype.type(0)
            for k in range(a.shape[1]):
                total = fma(a[i, k], b[k, j], total)
            out[i, j] = total
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [F32, F64])
def test_matrix_products_are_one_chain_per_element(size: tuple[int, int, int], dtype: Any) -> None:
    m, k, n = size
    a, b = draw(m, k, dtype=dtype), draw(k, n, dtype=dtype)
    want = chain(a, b)
    of = as_dtype(dtype)
    symbolic = given("a", "m", "k", dtype=of) @ given("b", "k", "n", dtype=of)
    check([symbolic], {"a": a, "b": b}, [want], rtol=0, atol=0)
    literal = given("a", m, k, dtype=of) @ given("b", k, n, dtype=of)
    check([literal], {"a": a, "b": b}, [want], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [I32, I64, np.bool_])
def test_matrix_products_of_integers_wrap_and_of_bools_are_any(dtype: Any) -> None:
    a, b = draw(5, 6, dtype=dtype), draw(6, 9, dtype=dtype)
    if dtype is I32:
        a *= 1 << 20
        b *= 1 << 20
    of = as_dtype(dtype)
    check([given("a", "m", 6, dtype=of) @ given("b", 6, "n", dtype=of)], {"a": a, "b": b}, [a @ b])


def test_beyond_the_last_step_nothing_is_added() -> None:
    """-0.0 from an underflow must survive the padding of K."""
    a, b = np.full((2, 1), -1e-30, F32), np.full((1, 2), 1e-30, F32)
    (got,) = run_gpu([given("a", "m", "k") @ given("b", "k", "n")], {"a": a, "b": b})
    assert np.signbit(got).all()


def test_prologues_and_epilogues_are_part_of_the_kernel() -> None:
    a, b, c = draw(9, 6), draw(6, 7), draw(7)
    out = jf.relu((given("a", "m", "k") * 0.5) @ given("b", "k", "n") + given("c", "n"))
    assert len(gpu_kernels([out])) == 1
    want = np.maximum((a * F32(0.5)).astype(F64) @ b + c, 0).astype(F32)
    check([out], {"a": a, "b": b, "c": c}, [want], rtol=1e-5)


def test_transposed_and_batched_operands() -> None:
    a, b, w = draw(3, 5, 6), draw(3, 6, 7), draw(7, 6)
    x, y, z = given("a", "z", "m", "k"), given("b", "z", "k", "n"), given("w", "n", "k")
    check([x @ y], {"a": a, "b": b}, [(a.astype(F64) @ b).astype(F32)], rtol=1e-5)
    check([x @ z.T], {"a": a, "w": w}, [(a.astype(F64) @ w.T).astype(F32)], rtol=1e-5)


def test_batches_with_one_right_operand_are_one_tall_product() -> None:
    kernel = gpu_kernels([given("a", 32, 2, 64) @ given("b", 64, 128)])[0]
    check_lines(show(kernel), "block.x b in 2:")


@pytest.mark.parametrize("k", [0, 1, 9, 300])
def test_a_single_row_or_column_is_folded_like_one(k: int) -> None:
    row, column, right, left = draw(1, k), draw(k, 1), draw(k, 20), draw(20, k)
    for a, b in [(row, right), (left, column), (row, column)]:
        want = (a.astype(F64) @ b).astype(F32)
        x, y = given("a", a.shape[0], "k"), given("b", "k", b.shape[1])
        check([x @ y], {"a": a, "b": b}, [want], rtol=1e-5, atol=1e-5)
        z = given("b", b.shape[1], "k")
        check([x @ z.T], {"a": a, "b": b.T.copy()}, [want], rtol=1e-5, atol=1e-5)


def test_the_matrix_beside_a_vector_is_read_as_it_lies_in_memory() -> None:
    x = given("x", 1, "k")
    along_n = gpu_kernels([x @ given("b", "k", "n")])[0]
    check_lines(show(along_n), "block.x b in (n + 31) // 32:", "matmul_acc_parts: f32[8, 32] shared")
    along_k = gpu_kernels([x @ given("w", "n", "k").T])[0]
    check_lines(show(along_k), "block.x b in n:", "shfl_down(")


@pytest.mark.parametrize(("m", "n"), [(9, 3), (3, 30), (17, 4), (1, 1)])
def test_narrow_matrices_take_narrow_tiles(m: int, n: int) -> None:
    a, b = draw(2, m, 6), draw(2, 6, n)
    want = np.stack([chain(a[i], b[i]) for i in range(2)])
    x, y = given("a", 2, m, 6), given("b", 2, 6, n)
    check([x @ y], {"a": a, "b": b}, [want], rtol=1e-5 if 1 in (m, n) else 0, atol=1e-6 if 1 in (m, n) else 0)
    text = show(gpu_kernels([given("a", "m", 6) @ given("b", 6, 10)])[0])
    check_lines(text, "block.x b in (m + 127) // 128:", "thread.x t in 128:", "b_tile: f32[2, 16, 20] shared")


def test_the_tiles_of_normal_size() -> None:
    a, b = draw(5, 3), draw(3, 7)
    fetches = [given("a", "m", "k") @ given("b", "k", "n")]
    (got,) = run_gpu(fetches, {"a": a, "b": b}, schedule=NORMAL)
    np.testing.assert_array_equal(got, chain(a, b))


# ---- what the interpreter would notice


def without_barriers(body: Body) -> Body:
    def go(s: Any) -> Any:
        if isinstance(s, Barrier):
            return ()
        return For(s.var, s.extent, without_barriers(s.body), s.kind, s.axis) if isinstance(s, For) else s

    return map_body(go, body)


BARRIERS: dict[str, Callable[[], tuple[Any, list[Array]]]] = {
    "rows": lambda: (given("x", "n", 200).sum(axis=1), [draw(2, 200), np.zeros(2, F32)]),
    "columns": lambda: (given("x", "n", "m").sum(axis=0), [draw(9, 20), np.zeros(20, F32)]),
    "transposition": lambda: (given("x", 32, 32).T * 2.0, [draw(32, 32), np.zeros((32, 32), F32)]),
    "matmul": lambda: (given("x", 8, 8) @ given("y", 8, 8), [draw(8, 8), draw(8, 8), np.zeros((8, 8), F32)]),
}


@pytest.mark.parametrize("kind", BARRIERS)
def test_every_barrier_is_needed(kind: str) -> None:
    fetch, arrays = BARRIERS[kind]()
    (kernel,) = gpu_kernels([fetch], SMALL)
    interpret(kernel, [a.copy() for a in arrays])
    broken: Kernel = kernel.with_body(without_barriers(kernel.body))
    with pytest.raises(CompilerBug, match=r"race|undefined"):
        interpret(broken, [a.copy() for a in arrays])


def test_kernels_use_one_axis_of_blocks_and_of_threads() -> None:
    fetches = [jf.softmax(given("x", "n", "m")), given("y", "n", 8) @ given("z", 8, "n")]
    for kernel in gpu_kernels(fetches):
        loops = [s for s in statements(kernel.body) if isinstance(s, For) and s.kind in ("block", "thread")]
        assert [(s.kind, s.axis) for s in loops] == [("block", 0), ("thread", 0)]
        assert not any(isinstance(s, Alloc) and s.buffer.space in ("scratch", "stack") for s in statements(kernel.body))


# ---- every operator


def operator_samples() -> list[Any]:
    """For each operator, a sample of every combination of dtypes and ranks of its inputs."""
    found = []
    for name, op in sorted(OPS.items()):
        seen = set()
        for s in op.samples(np.random.default_rng(0)) if op.samples is not None else ():
            arrays = [np.asarray(a) for a in s.inputs]
            key = tuple((a.dtype, a.ndim) for a in arrays)
            if s.raises is None and key not in seen:
                seen.add(key)
                found.append((name, s.attrs, arrays))
    return found


SAMPLES = operator_samples()


@pytest.mark.parametrize("name", sorted({name for name, _, _ in SAMPLES}))
def test_every_operator_gives_the_oracles_values(name: str) -> None:
    for op, attrs, arrays in SAMPLES:
        if op != name:
            continue
        inputs = [make_placeholder(f"x{k}", as_dtype(a.dtype), a.shape) for k, a in enumerate(arrays)]
        feeds = {f"x{k}": a for k, a in enumerate(arrays)}
        node = make_node(OPS[name], inputs, attrs)
        want = jf.interpret(node, feeds)
        (got,) = run_gpu([node], feeds)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.itemsize == 2:
            # A product summed in another order may lie on the other side of where halves are rounded.
            assert not np.any(deviations(node, got, want, arrays)), f"{name} {attrs}"
            continue
        tolerance = 1e-5 if want.dtype == F32 else 1e-12
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=f"{name} {attrs}")
