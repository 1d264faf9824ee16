"""Contractions: their loop nests as text, by the interpreter against numpy, and compiled against the plain nest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import DType
from jitflow.expr import Buffer, as_index
from jitflow.graph import Node, name_nodes, toposort
from jitflow.simplify import evaluate_index, free_vars
from lowering.build import build
from lowering.contract import build_contract, build_pack, packed_operand
from lowering.fuse import FusionGroup
from lowering.interp import interpret
from lowering.llvm import emit_module
from lowering.loop_ir import Kernel
from lowering.pipeline import run_pipeline
from lowering.schedule import Form, Schedule, choose_contraction
from lowering.target import Target, host
from lowering.text import parse_kernel, show
from lowering.verify import verify
from tests.support.bits import same_bits
from tests.support.check_lines import check_lines
from tests.support.compiled import Compiled, before_guard, runnable, unaligned
from tests.support.lowered import groups_of

Array = np.ndarray[Any, Any]

#: A schedule whose blocks, strips, panels and k blocks are all small enough to be cut in a small matrix.
SMALL = Schedule("packed", mr=3, nr=4, rest=2, kc=5, mc=6, block_m=12, block_n=8, pack_a=True, pack_b=True)
IN_PLACE = Schedule("direct", mr=3, nr=4, rest=2, kc=5, mc=6, block_m=12, block_n=8)
VECTOR = Schedule("vector", mr=2)
DOTS = Schedule("dots", mr=2)


def product_of(fetch: jf.Tensor) -> FusionGroup:
    """Return the group of `fetch` that holds a product."""
    (group,) = [g for g in groups_of(fetch) if g.kind == "contract"]
    return group


def names_of(group: FusionGroup) -> dict[Node, str]:
    return name_nodes(toposort([n for n, _ in group.outputs]))


def contraction(fetch: jf.Tensor, schedule: Schedule | None = None, target: Target | None = None) -> Kernel:
    group = product_of(fetch)
    chosen = schedule or choose_contraction(group, target or host())
    return build_contract(group, "product", names_of(group), chosen)


def plain(fetch: jf.Tensor) -> Kernel:
    """Return the kernel that computes each element as one chain."""
    group = product_of(fetch)
    return build(group, "plain", names_of(group))


def draw(kernel: Kernel, dims: Mapping[str, int], seed: int = 0, *, whole: bool = False) -> dict[str, Array]:
    """Return arrays for the parameters of `kernel`: random ones to read, ones full of rubbish to write."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for b in kernel.params:
        shape = shape_of(b, dims)
        if b not in kernel.reads:
            arrays[b.name] = np.full(shape, 77).astype(b.dtype.np)
        elif whole or not b.dtype.is_float:
            arrays[b.name] = rng.integers(-4, 5, shape).astype(b.dtype.np)
        else:
            arrays[b.name] = rng.standard_normal(shape).astype(b.dtype.np)
    return arrays


def shape_of(b: Buffer, dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate_index(as_index(d), {v: dims[v.name] for v in free_vars(d)}) for d in b.shape)


def matmul(m: Any, n: Any, k: Any, dtype: DType = jf.float32) -> jf.Tensor:
    return jf.placeholder("a", dtype, (m, k)) @ jf.placeholder("b", dtype, (k, n))


def interpreted(kernel: Kernel, dims: Mapping[str, int], seed: int = 0) -> tuple[dict[str, Array], Array]:
    """Run `kernel` on whole numbers, whose sums are exact; return what it read, and its last output."""
    verify(kernel, stage="scalar")
    arrays = draw(kernel, dims, seed, whole=True)
    interpret(kernel, arrays, dims)
    return arrays, arrays[kernel.params[-1].name]


# ---- structure


def test_a_packed_product_is_blocks_of_k_strips_of_rows_and_panels_of_columns() -> None:
    turned = jf.placeholder("b", jf.float32, ("n", "k")).T
    kernel = contraction(jf.placeholder("a", jf.float32, ("m", "k")) @ turned, SMALL)
    verify(kernel, stage="scalar")
    check_lines(
        show(kernel),
        "kernel product(",
        "# packed 3x4+2 kc 5 mc 6 block 12x8",
        "parallel t in",
        "serial p in k_blocks:",
        "vectorized l in 4:",
        "b_block[q, kk, l] = b_1",
        "serial strip in",
        "a_block[x, y] = a_1",
        "serial q_1 in",
        "serial r in tall:",
        "call multiply_f32_3x4(a_block",
        "call multiply_f32_2x4(a_block",
        "kernel multiply_f32_3x4(",
        "kernel multiply_f32_2x4(",
    )


def test_a_left_factor_in_memory_is_read_where_it_is() -> None:
    text = show(contraction(matmul("m", 512, 96)))
    check_lines(text, "call multiply_f32_", absent=["a_block"])


def test_a_small_right_factor_is_not_packed() -> None:
    text = show(contraction(matmul("m", 128, 64)))
    check_lines(text, "# direct", absent=["b_block", "a_block"])


def test_partial_sums_stay_in_the_output_and_the_epilogue_runs_after_the_last_k_block() -> None:
    c = jf.placeholder("c", jf.float32, (40,))
    text = show(contraction(jf.maximum(matmul("m", 40, 12) + c, 0.0), SMALL))
    check_lines(
        text,
        "_copy(a_block, b + ",
        "call multiply_f32_3x4(a_block + done * 15",
        "if p == 2:",
        "let matmul: f32 = maximum_0[i_1, j]",
        "let c_1: f32 = c[j]",
        "maximum_0[i_1, j] = maximum",
        absent=["c_block"],
    )


def test_sums_of_another_dtype_than_the_output_stay_in_scratch() -> None:
    text = show(contraction(matmul("m", 40, 12) > 0.5, SMALL))
    check_lines(text, "alloc c_block: f32[12, 8] scratch align 64", "c_block[", "> 0.5")


def test_one_k_block_needs_no_test_for_the_last() -> None:
    text = show(contraction(jf.maximum(matmul(6, 8, 5), 0.0), SMALL))
    check_lines(text, "parallel t in 1:", absent=["k_blocks", "if p"])


def test_whole_tiles_have_no_second_microkernel() -> None:
    kernel = contraction(matmul(6, 8, 5), SMALL)
    assert [k.name for k in kernel.callees] == ["multiply_f32_3x4_copy", "multiply_f32_3x4"]


def test_rows_of_a_batch_that_share_a_weight_are_rows_of_one_matrix() -> None:
    x, w = jf.placeholder("x", jf.float32, ("b", "s", 64)), jf.placeholder("w", jf.float32, (64, 128))
    kernel = contraction(x @ w)
    check_lines(show(kernel), "let m_blocks: index = (b * s + 527) // 528", "parallel t in m_blocks:", absent=["batch"])


@pytest.mark.parametrize("schedule", [SMALL, IN_PLACE, VECTOR, DOTS], ids=lambda s: s.form)
def test_the_text_reads_back(schedule: Schedule) -> None:
    m = schedule.mr if schedule.form in ("vector", "dots") else "m"
    text = show(contraction(jf.maximum(matmul(m, "n", "k"), 0.0), schedule))
    assert show(parse_kernel(text)) == text


def test_building_twice_gives_the_same_text() -> None:
    first, second = (show(contraction(matmul("m", "n", "k"), SMALL)) for _ in range(2))
    assert first == second


# ---- the interpreter against numpy, where every edge is near

EDGES = [
    *itertools.product((0, 1, 2, 4, 13), (0, 1, 4, 9), (0, 1, 5, 11)),
    (12, 8, 10),
    (25, 17, 6),
]


@pytest.mark.parametrize("schedule", [SMALL, IN_PLACE], ids=lambda s: s.form)
def test_every_edge_of_a_tiled_product_is_right(schedule: Schedule) -> None:
    kernel = contraction(matmul("m", "n", "k"), schedule)
    for m, n, k in EDGES:
        arrays, got = interpreted(kernel, {"m": m, "n": n, "k": k})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"], err_msg=f"{m} x {n} x {k}")


@pytest.mark.parametrize("schedule", [VECTOR, DOTS], ids=lambda s: s.form)
def test_every_edge_of_a_product_of_few_rows_is_right(schedule: Schedule) -> None:
    kernel = contraction(matmul(2, "n", "k"), schedule)
    for n, k in itertools.product((0, 1, 8, 17, 65), (0, 1, 3, 4, 9)):
        arrays, got = interpreted(kernel, {"n": n, "k": k})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"], err_msg=f"{n} x {k}")


def test_literal_extents_leave_no_dims_and_are_right() -> None:
    for m, n, k in ((1, 1, 1), (3, 4, 5), (7, 9, 11), (6, 8, 0)):
        kernel = contraction(matmul(m, n, k), SMALL)
        assert kernel.dims == ()
        arrays, got = interpreted(kernel, {})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"])


def test_no_steps_of_k_give_zeros_through_the_epilogue() -> None:
    c = jf.placeholder("c", jf.float32, (4,))
    arrays, got = interpreted(contraction(matmul(7, 4, 0) + c, SMALL), {})
    np.testing.assert_array_equal(got, np.broadcast_to(arrays["c"], (7, 4)))


@pytest.mark.parametrize("flip_a", [False, True])
@pytest.mark.parametrize("flip_b", [False, True])
def test_transposed_factors_are_packed_along_what_is_contiguous(flip_a: bool, flip_b: bool) -> None:
    a = jf.placeholder("a", jf.float32, ("k", "m") if flip_a else ("m", "k"))
    b = jf.placeholder("b", jf.float32, ("n", "k") if flip_b else ("k", "n"))
    for pack_a in (True, False):
        left = "columns" if flip_a else "rows"
        schedule = Schedule("packed", 3, 4, 2, 5, 6, 12, 8, pack_a=pack_a, pack_b=True, left=left)
        kernel = contraction((a.T if flip_a else a) @ (b.T if flip_b else b), schedule)
        for m, n, k in ((1, 1, 1), (13, 9, 11), (2, 4, 5)):
            arrays, got = interpreted(kernel, {"m": m, "n": n, "k": k})
            x, y = arrays["a"].T if flip_a else arrays["a"], arrays["b"].T if flip_b else arrays["b"]
            np.testing.assert_array_equal(got, x @ y)


def test_prologue_and_epilogue_are_part_of_the_kernel() -> None:
    a, b = jf.placeholder("a", jf.float32, ("m", 9)), jf.placeholder("b", jf.float32, (9, 10))
    c = jf.placeholder("c", jf.float32, ("m", 1))
    fetch = jf.maximum((jf.maximum(a, 0.0) @ (b * 2.0)) * 3.0 + c, -5.0)
    kernel = contraction(fetch, SMALL)
    for m in (0, 1, 5, 13):
        arrays, got = interpreted(kernel, {"m": m})
        want = np.maximum((np.maximum(arrays["a"], 0) @ (arrays["b"] * 2)) * 3 + arrays["c"], -5)
        np.testing.assert_array_equal(got, want)


def test_a_factor_that_is_a_part_of_an_array_stays_inside_it() -> None:
    x = jf.placeholder("x", jf.float32, ("m", 30))
    w = jf.placeholder("w", jf.float32, (20, 40))
    kernel = contraction(x[:, 3:14] @ w[2:13, 5:18], IN_PLACE)
    for m in (1, 4, 13):
        arrays, got = interpreted(kernel, {"m": m})
        np.testing.assert_array_equal(got, arrays["x"][:, 3:14] @ arrays["w"][2:13, 5:18])


@pytest.mark.parametrize(
    ("left", "right"),
    [((3, "m", 5), (3, 5, 6)), ((1, "m", 5), (3, 5, 6)), ((3, "m", 5), (5, 6)), (("m", 1, 5), ("m", 5, 6))],
)
def test_batches_broadcast(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    kernel = contraction(jf.placeholder("a", jf.float32, left) @ jf.placeholder("b", jf.float32, right), SMALL)
    for m in (0, 1, 7):
        arrays, got = interpreted(kernel, {"m": m})
        np.testing.assert_array_equal(got, np.matmul(arrays["a"], arrays["b"]))


def test_a_column_is_computed_as_a_row() -> None:
    kernel = contraction(matmul("m", 1, 1))
    assert "one row" in show(kernel)
    arrays, got = interpreted(kernel, {"m": 21})
    np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"])


@pytest.mark.parametrize("form", ["packed", "direct"])
@pytest.mark.parametrize("n", [4, 5, 6, 9])
def test_a_last_panel_may_have_a_tile_of_its_own(form: Form, n: int) -> None:
    schedule = Schedule(form, 3, 4, 2, 5, 12, 12, 8, pack_b=form == "packed", last=(4, 2))
    for m in (1, 4, 13, 19):
        kernel = contraction(matmul(m, n, 11), schedule)
        assert n % 4 == 0 or "multiply_f32_4x2(" in show(kernel)
        arrays, got = interpreted(kernel, {})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"])


COPYING = Schedule("packed", mr=3, nr=4, rest=2, kc=5, mc=6, block_m=12, block_n=8, pack_b=True)


def test_the_first_tile_of_a_block_packs_the_right_factor_as_it_multiplies() -> None:
    kernel = contraction(matmul("m", "n", "k"), COPYING)
    check_lines(
        show(kernel),
        "let in_place: index = select(rows <= 3, whole, 0)",
        "if done > 0:",
        "call multiply_f32_3x4_copy(a",
        "serial r in tall - done:",
        absent=["a_block"],
    )
    for m, n, k in EDGES:
        arrays, got = interpreted(kernel, {"m": m, "n": n, "k": k})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"], err_msg=f"{m} x {n} x {k}")


def test_blocks_are_wider_and_less_deep_if_a_run_finds_few_rows() -> None:
    schedule = Schedule("packed", 3, 4, 2, 5, 6, 12, 8, pack_b=True, low=(2, 16))
    kernel = contraction(matmul("m", "n", "k"), schedule)
    check_lines(show(kernel), "let is_high: index = min(1, max(0, m - 1) // 3)", "let ahead", "let block", "let most")
    for m, n, k in EDGES:
        arrays, got = interpreted(kernel, {"m": m, "n": n, "k": k})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"], err_msg=f"{m} x {n} x {k}")


@pytest.mark.parametrize("m", [1, 3, 4, 12, 15, 16, 23])
def test_blocks_of_a_literal_height_are_known_to_be_low_or_high(m: int) -> None:
    """Rows 13 to 15 make a second block that is no higher than a tile: this one reads the right factor in place."""
    kernel = contraction(matmul(m, "n", "k"), COPYING)
    assert ("_copy(" in show(kernel)) == (m > 3)
    assert ("let in_place" in show(kernel)) == (m == 15)
    for n, k in itertools.product((1, 4, 9), (0, 1, 11)):
        arrays, got = interpreted(kernel, {"n": n, "k": k})
        np.testing.assert_array_equal(got, arrays["a"] @ arrays["b"], err_msg=f"{m} x {n} x {k}")


# ---- the right factor packed ahead


def test_a_factor_packed_ahead_is_read_in_the_place_of_its_leaf() -> None:
    x, w = jf.placeholder("x", jf.float32, ("m", 11)), jf.placeholder("w", jf.float32, (9, 11))
    group = product_of(jf.maximum(x @ w.T, 0.0))
    operand = packed_operand(group, SMALL)
    assert operand is not None
    assert operand.node.name == "w"
    assert [evaluate_index(d, {}) for d in operand.shape] == [1, 3, 11, 4]
    pack = build_pack(group, "pack", names_of(group), SMALL)
    verify(pack, stage="scalar")
    arrays = draw(pack, {}, whole=True)
    interpret(pack, arrays, {})
    ready = operand.buffer("w_packed")
    kernel = build_contract(group, "product", names_of(group), SMALL, {operand.node: ready})
    assert [b.name for b in kernel.params][:2] == ["x", "w_packed"]
    check_lines(show(kernel), "call multiply_f32_3x4(a_block", absent=["b_block"])
    given = draw(kernel, {"m": 7}, whole=True)
    given["w_packed"] = arrays["packed"]
    interpret(kernel, given, {"m": 7})
    np.testing.assert_array_equal(given[kernel.params[-1].name], np.maximum(given["x"] @ arrays["w"].T, 0))


def test_a_batch_of_packed_factors_has_the_axes_of_the_factor_only() -> None:
    x, w = jf.placeholder("x", jf.float32, ("b", 3, 5, 6)), jf.placeholder("w", jf.float32, (3, 6, 5))
    group = product_of(x @ w)
    operand = packed_operand(group, SMALL)
    assert operand is not None
    pack = build_pack(group, "pack", names_of(group), SMALL)
    arrays = draw(pack, {}, whole=True)
    assert arrays["packed"].shape == (3, 2, 6, 4)
    interpret(pack, arrays, {})
    kernel = build_contract(group, "product", names_of(group), SMALL, {operand.node: operand.buffer("ready")})
    given = draw(kernel, {"b": 2}, whole=True)
    given["ready"] = arrays["packed"]
    interpret(kernel, given, {"b": 2})
    np.testing.assert_array_equal(given[kernel.params[-1].name], np.matmul(given["x"], arrays["w"]))


def test_one_weight_used_in_two_ways_is_packed_in_two_layouts() -> None:
    x, w = jf.placeholder("x", jf.float32, ("m", 9)), jf.placeholder("w", jf.float32, (9, 9))
    layouts = set()
    ramp, later = jf.arange(9, dtype=jf.float32), jf.arange(1, 10, dtype=jf.float32)
    for right in (w, w.T, w * 2.0, w * 3.0, jf.maximum(w, 2.0), w + ramp, w + later):
        operand = packed_operand(product_of(x @ right), SMALL)
        assert operand is not None
        layouts.add(operand.layout)
    assert len(layouts) == 7


def test_what_is_needed_unpacked_as_well_is_not_packed_ahead() -> None:
    w = jf.placeholder("w", jf.float32, (9, 9))
    x = jf.placeholder("x", jf.float32, (9, 9))
    assert packed_operand(product_of(w @ w), SMALL) is None
    assert packed_operand(product_of(x @ w + w), SMALL) is None
    assert packed_operand(product_of(x @ (w + jf.placeholder("v", jf.float32, (9, 9)))), SMALL) is None
    assert packed_operand(product_of(x @ w), IN_PLACE) is None


# ---- compiled: the same bits as one chain per element


def compare_bits(
    fetch: jf.Tensor, schedules: list[Schedule | None], sizes: list[dict[str, int]], target: Target
) -> None:
    reference = Compiled(run_pipeline(plain(fetch), target), target)
    for schedule in schedules:
        kernel = contraction(fetch, schedule, target)
        compiled = Compiled(run_pipeline(kernel, target, check=True), target)
        for dims in sizes:
            arrays = draw(kernel, dims, seed=len(dims))
            want = {name: a.copy() for name, a in arrays.items()}
            reference(want, dims)
            compiled(arrays, dims)
            for name, a in arrays.items():
                assert same_bits(a, want[name]), f"{name} with {schedule} and {dims}"


def sizes(*of: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"m": m, "n": n, "k": k} for m, n, k in of]


SHAPES = sizes((0, 5, 5), (5, 0, 5), (5, 5, 0), (1, 1, 1), (7, 65, 300), (100, 3, 401), (33, 130, 1), (200, 90, 40))


@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [jf.float32, jf.float64], ids=str)
def test_the_chosen_schedule_gives_the_bits_of_one_chain(target: Target, dtype: DType) -> None:
    compare_bits(matmul("m", "n", "k", dtype), [None], SHAPES, target)


def test_no_tile_and_no_block_changes_a_bit() -> None:
    tiles = [(6, 64, 2), (8, 48, 3), (12, 32, 4), (16, 16, 8), (1, 16, 0), (5, 32, 0)]
    schedules: list[Schedule | None] = [
        Schedule("packed", mr, nr, rest, kc, 4 * mr, 8 * mr, 2 * nr, pack_a, True)
        for (mr, nr, rest), kc, pack_a in zip(
            tiles, (64, 384, 7, 100, 33, 1), (True, False, True, False, True, True), strict=True
        )
    ]
    schedules.append(Schedule("direct", 6, 64, 2, 50, 24, 48, 128))
    schedules.append(Schedule("packed", 6, 64, 2, 50, 24, 48, 128, pack_b=True, across=True, last=(8, 48)))
    compare_bits(matmul("m", "n", "k"), schedules, SHAPES, host())


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_forms_for_few_rows_give_the_bits_of_one_chain(rows: int) -> None:
    schedules: list[Schedule | None] = [Schedule("vector", mr=rows), Schedule("dots", mr=rows)]
    shapes = [{"n": n, "k": k} for n, k in ((1, 1), (0, 4), (4, 0), (65, 33), (5000, 9))]
    # Blocks of form "vector" follow the number of workers.
    shapes += [{"n": 5000, "k": 9, "workers": workers} for workers in (2, 3, 100)]
    compare_bits(matmul(rows, "n", "k"), schedules, shapes, host())


def test_transposed_and_computed_factors_give_the_bits_of_one_chain() -> None:
    a, b = jf.placeholder("a", jf.float32, ("k", "m")), jf.placeholder("b", jf.float32, ("n", "k"))
    compare_bits(a.T @ b.T, [None], sizes((1, 1, 1), (70, 65, 401)), host())
    compare_bits(jf.maximum(a.T, 0.1) @ (b.T * 0.3), [None], sizes((1, 1, 1), (70, 65, 401)), host())


def test_an_epilogue_gives_the_same_bits_fused_into_every_form() -> None:
    c = jf.placeholder("c", jf.float32, ("n",))
    for m in ("m", 3):
        fetch = jf.maximum(matmul(m, "n", "k") * 0.7 + c, 0.0)
        compare_bits(fetch, [None], sizes((3, 70, 401), (3, 1, 0)), host())


def test_special_values_go_through_like_in_one_chain() -> None:
    kernel = contraction(matmul("m", "n", "k"))
    compiled = Compiled(run_pipeline(kernel, host()), host())
    dims = {"m": 14, "n": 70, "k": 400}
    arrays = draw(kernel, dims)
    a, b = arrays["a"], arrays["b"]
    a[0], a[1], a[2, 5], a[3, 7] = -0.0, 1e-42, np.nan, np.inf
    b[7] = -np.inf
    want = {name: x.copy() for name, x in arrays.items()}
    Compiled(run_pipeline(plain(matmul("m", "n", "k")), host()), host())(want, dims)
    compiled(arrays, dims)
    got = arrays[kernel.params[-1].name]
    assert same_bits(got, want[kernel.params[-1].name])
    assert np.isnan(got[2]).all()
    assert not np.isnan(got[4]).any()


def test_nothing_outside_the_arrays_is_touched() -> None:
    for fetch in (matmul("m", "n", "k"), matmul("m", 24, "k"), matmul(2, "n", "k")):
        kernel = contraction(fetch)
        compiled = Compiled(run_pipeline(kernel, host()), host())
        for m, n, k in ((1, 1, 1), (7, 24, 33), (13, 65, 385)):
            dims = {"m": m, "n": n, "k": k}
            for place in (before_guard, unaligned):
                compiled({name: place(a) for name, a in draw(kernel, dims).items()}, dims)


def test_parts_of_the_parallel_loop_do_not_depend_on_each_other() -> None:
    kernel = contraction(matmul("m", "n", "k"), Schedule("packed", 6, 32, 2, 64, 12, 24, 64, True, True))
    compiled = Compiled(run_pipeline(kernel, host()), host())
    dims = {"m": 100, "n": 200, "k": 150}
    whole, pieces = draw(kernel, dims), draw(kernel, dims)
    compiled(whole, dims)
    compiled(pieces, dims, chunk=1)
    assert all(same_bits(whole[name], pieces[name]) for name in whole)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(16, 16, 16), (64, 64, 64), (100, 100, 100), (65, 65, 65), (32, 300, 77), (1, 1000, 300)]
)
def test_declared_sizes_agree_with_numpy(m: int, n: int, k: int) -> None:
    for dtype, tolerance in ((jf.float32, 1e-5), (jf.float64, 1e-13)):
        kernel = contraction(matmul(m, n, k, dtype))
        arrays = draw(kernel, {})
        Compiled(run_pipeline(kernel, host()), host())(arrays, {})
        want = arrays["a"].astype(np.float64) @ arrays["b"].astype(np.float64)
        np.testing.assert_allclose(arrays[kernel.params[-1].name], want, rtol=0, atol=tolerance * k)


def test_kernels_of_one_module_share_their_microkernels() -> None:
    kernels = []
    for number, fetch in enumerate((matmul("m", 512, 300), matmul("m", 1024, 512))):
        group = product_of(fetch)
        kernels.append(build_contract(group, f"k{number}", names_of(group), choose_contraction(group, host())))
    assert kernels[0].callees == kernels[1].callees
    text = emit_module([run_pipeline(k, host()) for k in kernels], host())
    assert text.count("define internal void @multiply_f32_") == len(kernels[0].callees)
