"""Which schedule a product gets, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import DType
from lowering.schedule import (
    ACROSS_BYTES,
    ACROSS_COLS,
    BLOCK_ROWS,
    DEPTH_BYTES,
    FEW_ROWS,
    SMALL_BYTES,
    SMALL_LEFT_BYTES,
    STRIP_ROWS,
    SYMBOLIC_BLOCK_ROWS,
    Schedule,
    choose_contraction,
)
from lowering.target import from_name
from tests.support.lowered import groups_of

LEVELS = {name: from_name(name) for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")}
V4 = LEVELS["x86-64-v4"]


def choose(fetch: jf.Tensor, target: str = "x86-64-v4") -> Schedule:
    (group,) = [g for g in groups_of(fetch) if g.kind == "contract"]
    return choose_contraction(group, LEVELS[target])


def matmul(m: Any, n: Any, k: Any, dtype: DType = jf.float32) -> jf.Tensor:
    return jf.placeholder("a", dtype, (m, k)) @ jf.placeholder("b", dtype, (k, n))


@pytest.mark.parametrize(
    ("target", "dtype", "tile"),
    [
        ("x86-64-v2", jf.float32, (6, 8)),
        ("x86-64-v3", jf.float32, (4, 24)),
        ("x86-64-v4", jf.float32, (6, 64)),
        ("x86-64-v2", jf.float64, (6, 4)),
        ("x86-64-v3", jf.float64, (4, 12)),
        ("x86-64-v4", jf.float64, (6, 32)),
        ("aarch64", jf.float32, (6, 16)),
    ],
)
def test_large_products_use_most_registers_of_the_target(target: str, dtype: DType, tile: tuple[int, int]) -> None:
    s = choose(matmul("m", "n", "k", dtype), target)
    assert (s.form, s.mr, s.nr) == ("packed", *tile)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("dtype", [jf.float32, jf.float64], ids=str)
def test_no_tile_needs_more_registers_than_there_are(target: str, dtype: DType) -> None:
    t = LEVELS[target]
    for m in ("m", 5, 8, 13, 64, 100):
        for n in ("n", 3, 16, 24, 40, 48, 100, 1000):
            s = choose(matmul(m, n, "k", dtype), target)
            vectors = s.nr // t.lanes(dtype)
            assert s.nr == vectors * t.lanes(dtype)
            assert s.mr * vectors + vectors + 1 + (not t.has_fma) <= t.vector_registers, (m, n)
            assert 0 <= s.rest < s.mr


def test_columns_that_a_wide_tile_would_waste_get_a_narrower_one() -> None:
    assert choose(matmul("m", 16, 300)).nr == 16
    assert choose(matmul("m", 32, 300)).nr == 32
    assert choose(matmul("m", 96, 300)).nr == 48
    assert choose(matmul("m", 1000, 300)).nr == 64


def test_a_last_panel_that_is_much_narrower_has_a_tile_of_its_own() -> None:
    assert choose(matmul(100, 100, 100)).last == (8, 48)
    assert choose(matmul(65, 65, 65)).last == (12, 32)
    assert choose(matmul(600, 1023, 300)).last is None  # 63 columns of 64
    assert choose(matmul(600, 5001, 300)).last is None  # one column of thousands is not worth compiling for
    assert choose(matmul("m", 100, 100)).last is None
    assert "6x64+4 last 8x48 kc 100" in str(choose(matmul(100, 100, 100)))


def test_the_second_tile_takes_the_rows_that_are_left() -> None:
    assert choose(matmul("m", 512, 512)).rest == 2
    assert choose(matmul(64, 512, 512)).rest == 4
    assert choose(matmul(600, 512, 512)).rest == 0
    assert choose(matmul(5, 512, 512)).rest == 0


def test_a_panel_is_as_deep_for_every_dtype_in_bytes() -> None:
    assert choose(matmul("m", "n", "k")).kc * 4 == DEPTH_BYTES
    assert choose(matmul("m", "n", "k", jf.float64)).kc * 8 == DEPTH_BYTES


def test_blocks_are_equal_and_made_of_whole_tiles() -> None:
    s = choose(matmul(1000, 1000, 1000))
    assert s.block_m % s.mr == 0
    assert s.block_n % s.nr == 0
    assert (s.block_m, s.block_n) == (1002, 128)  # eight blocks of columns: work enough
    assert [choose(matmul(n, n, n)).block_m for n in (256, 512, 2048)] == [132, 258, 1026]
    assert choose(matmul("m", 512, 512)).block_m == SYMBOLIC_BLOCK_ROWS
    a, b = jf.placeholder("a", jf.float32, (1000, 1000)), jf.placeholder("b", jf.float32, (1000, 1000))
    assert choose(jf.maximum(a, 0.0) @ b).block_n == 256
    assert choose(a @ b.T).block_m == 1002 <= BLOCK_ROWS


def test_one_strip_of_rows_walks_across_a_matrix_in_memory() -> None:
    s = choose(matmul(32, 3072, 768))
    assert (s.across, s.kc * 4, s.block_n) == (True, ACROSS_BYTES, ACROSS_COLS)
    assert not choose(matmul(STRIP_ROWS + 1, 3072, 768)).across
    assert not choose(matmul("m", 3072, 768)).across
    assert choose(matmul("m", 3072, 768)).low == (ACROSS_BYTES // 4, ACROSS_COLS)
    assert choose(matmul("m", 90, 768)).low is None
    assert not choose(matmul(32, 90, 768)).across
    x = jf.placeholder("x", jf.float32, (32, 768))
    assert not choose(x @ jf.placeholder("w", jf.float32, (3072, 768)).T).across
    assert not choose(x @ jf.constant(np.ones((768, 3072), np.float32))).across


def test_a_right_factor_that_stays_in_the_first_cache_is_read_in_place() -> None:
    side = int((SMALL_BYTES // 4) ** 0.5)
    assert choose(matmul("m", side, side)).form == "direct"
    assert choose(matmul("m", side + 1, side + 1)).form == "packed"
    assert choose(matmul("m", "n", 8)).form == "packed"


def test_a_small_weight_is_packed_ahead_only_if_that_fills_up_a_panel() -> None:
    x = jf.placeholder("x", jf.float32, ("m", 64))
    assert choose(x @ jf.constant(np.ones((64, 128), np.float32))).form == "direct"
    assert choose(x @ jf.constant(np.ones((64, 10), np.float32))).form == "packed"
    assert choose(x @ jf.variable("w", np.ones((64, 10), np.float32))).form == "packed"
    assert choose(x @ jf.placeholder("w", jf.float32, (64, 10))).form == "direct"


def test_a_right_factor_is_packed_if_its_columns_are_contiguous_or_it_is_computed() -> None:
    x, w = jf.placeholder("x", jf.float32, ("m", 20)), jf.placeholder("w", jf.float32, (30, 20))
    assert choose(x @ w.T).form == "packed"
    assert choose(x @ (w.T * 2.0)).form == "packed"


def test_few_rows_read_the_matrix_once_in_the_order_of_its_memory() -> None:
    x, w = jf.placeholder("x", jf.float32, (2, "k")), jf.placeholder("w", jf.float32, ("n", "k"))
    assert choose(matmul(1, "n", "k")).form == "vector"
    assert choose(matmul(FEW_ROWS, 512, 512)).form == "vector"
    assert choose(matmul(FEW_ROWS + 1, 512, 512)).form == "packed"
    assert choose(x @ w.T).form == "dots"


def test_a_left_factor_is_copied_if_it_is_computed_or_has_many_contiguous_columns() -> None:
    a, b = jf.placeholder("a", jf.float32, ("m", 300)), jf.placeholder("b", jf.float32, (300, 600))
    c = jf.placeholder("c", jf.float32, (300, "m"))
    assert not choose(a @ b).pack_a
    assert choose(jf.maximum(a, 0.0) @ b).pack_a
    assert not choose(matmul("m", 4096, 1024)).pack_a
    turned = choose(c.T @ b)
    assert (turned.pack_a, turned.left) == (True, "columns")
    side = int((SMALL_LEFT_BYTES // 4) ** 0.5)
    for rows, copied in ((side, False), (side + 1, True)):
        turned = choose(jf.placeholder("c", jf.float32, (side, rows)).T @ jf.placeholder("b", jf.float32, (side, 600)))
        assert (turned.pack_a, turned.left) == (copied, "columns")


@pytest.mark.parametrize("fetch", [matmul("m", "n", "k", jf.int32), matmul(0, 8, 8), matmul(8, 0, 8)])
def test_what_has_no_tiles_is_left_to_the_plain_nest(fetch: jf.Tensor) -> None:
    s = choose(fetch)
    assert s.form == "strips"
    assert s.reasons


def test_edges_are_masked_where_the_target_can() -> None:
    assert choose(matmul("m", "n", "k")).masks
    assert not choose(matmul("m", "n", "k"), "x86-64-v3").masks  # they would take vector registers
    assert not choose(matmul("m", "n", "k"), "x86-64-v2").masks


def test_the_reasons_are_in_the_text_and_the_choice_is_repeatable() -> None:
    s = choose(matmul("m", 512, 512))
    assert str(s) == (
        "packed 6x64+2 kc 512 mc 48 block 528x128; 6 rows of 4 vectors in 32 registers; "
        "left factor read in place; right factor packed"
    )
    assert choose(matmul("m", 512, 512)) == s
