"""Arrays that lie across the innermost loop, turned in registers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import float32
from jitflow.expr import Buffer, Expr, Load, Ramp, Var, const_index
from lowering.interp import interpret
from lowering.loop_ir import Kernel, Let, Stmt, Store
from lowering.passes.transpose import transpose
from lowering.shuffles import transposed
from lowering.target import from_name
from lowering.text import show
from tests.support.check_pass import check_pass, check_same_meaning, parse_program

V2, V3, V4 = from_name("x86-64-v2"), from_name("x86-64-v3"), from_name("x86-64-v4")


def by_four(kernel: Kernel) -> Kernel:
    return transpose(kernel, target=V2)


def by_sixteen(kernel: Kernel) -> Kernel:
    return transpose(kernel, target=V4)


def test_a_transposition_reads_rows_and_stores_columns() -> None:
    check_pass(
        by_four,
        before="""
kernel k(x: f32[12, 8] read, o: f32[8, 12]):
  parallel i in 8:
    vectorized j in 12:
      let a: f32 = x[j, i]
      o[i, j] = a
""",
        after="""
kernel k(x: f32[12, 8] read, o: f32[8, 12]):
  parallel t in 1:
    serial a in 2:
      serial b in 3:
        let v: f32x4 = x[b * 4, ramp(a * 4, 1, 4)]
        let v_1: f32x4 = x[b * 4 + 1, ramp(a * 4, 1, 4)]
        let v_2: f32x4 = x[b * 4 + 2, ramp(a * 4, 1, 4)]
        let v_3: f32x4 = x[b * 4 + 3, ramp(a * 4, 1, 4)]
        let v_4: f32x4 = shuffle(v; v_1, 0, 4, 2, 6)
        let v_5: f32x4 = shuffle(v; v_1, 1, 5, 3, 7)
        let v_6: f32x4 = shuffle(v_2; v_3, 0, 4, 2, 6)
        let v_7: f32x4 = shuffle(v_2; v_3, 1, 5, 3, 7)
        let v_8: f32x4 = shuffle(v_4; v_6, 0, 1, 4, 5)
        let v_9: f32x4 = shuffle(v_4; v_6, 2, 3, 6, 7)
        let v_10: f32x4 = shuffle(v_5; v_7, 0, 1, 4, 5)
        let v_11: f32x4 = shuffle(v_5; v_7, 2, 3, 6, 7)
        o[a * 4, ramp(b * 4, 1, 4)] = v_8
        o[a * 4 + 1, ramp(b * 4, 1, 4)] = v_10
        o[a * 4 + 2, ramp(b * 4, 1, 4)] = v_9
        o[a * 4 + 3, ramp(b * 4, 1, 4)] = v_11
""",
    )


def test_what_is_computed_with_it_reads_a_scratch_buffer() -> None:
    before = """
kernel k(x: f32[m, n] read, y: f32[n, m] read, s: f32[n] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      o[i, j] = x[j, i] * y[i, j] + s[i]
"""
    kernel = parse_program(before)
    turned = by_four(kernel)
    text = show(turned)
    assert "alloc turned: f32[31, 1023] scratch" in text
    assert "= turned[i_4, j_2] * y[" in text
    sizes = [{"n": n, "m": m} for n, m in ((0, 5), (1, 1), (3, 9), (4, 4), (5, 70), (70, 6), (130, 67))]
    check_same_meaning(kernel, turned, dims=sizes)


@pytest.mark.parametrize("target", [V2, V3, V4], ids=lambda t: t.name)
def test_every_extent_gives_the_same(target: object) -> None:
    for n, m in itertools.product((1, 2, 3, 4, 5, 15, 16, 17, 33), (2, 7, 16, 20)):
        kernel = parse_program(
            f"""
kernel k(x: f32[{m}, {n}] read, o: f32[{n}, {m}]):
  parallel i in {n}:
    vectorized j in {m}:
      o[i, j] = x[j, i]
"""
        )
        check_same_meaning(kernel, transpose(kernel, target=target))  # type: ignore[arg-type]


def test_axes_in_between_and_around_stay_loops() -> None:
    kernel = parse_program(
        """
kernel k(x: f32[20, 3, 2, 18] read, o: f32[18, 3, 2, 20]):
  parallel i in 18:
    serial j in 3:
      serial k in 2:
        vectorized l in 20:
          let a: f32 = x[l, j, k, i]
          o[i, j, k, l] = a
"""
    )
    turned = by_sixteen(kernel)
    text = show(turned)
    assert "parallel t in 3:" in text
    assert "serial k in 2:" in text
    check_same_meaning(kernel, turned)


def test_a_long_axis_is_cut_into_strips_that_workers_share() -> None:
    kernel = parse_program(
        """
kernel k(x: f64[34, 800] read, o: f64[800, 34]):
  parallel i in 800:
    vectorized j in 34:
      let a: f64 = x[j, i]
      o[i, j] = a
"""
    )
    turned = by_sixteen(kernel)
    assert "parallel t in 7:" in show(turned)
    check_same_meaning(kernel, turned)


@pytest.mark.parametrize("channels", [3, 20])
def test_a_tile_as_wide_as_the_result_is_written_in_one_run(channels: int) -> None:
    pixels = (1 << 18) // channels // 4 + 9
    kernel = parse_program(
        f"""
kernel k(x: f32[2, {channels}, {pixels}] read, o: f32[2, {pixels}, {channels}]):
  parallel b in 2:
    serial i in {pixels}:
      vectorized j in {channels}:
        o[b, i, j] = x[b, j, i]
"""
    )
    text = show(by_sixteen(kernel))
    assert f"kernel k(x: f32[{2 * channels * pixels}] read" in text
    assert f"i_n_1 * {channels}:" in text
    assert "] = turned[n]" in text
    x = jf.placeholder("x", jf.float32, (2, channels, pixels))
    data = np.arange(2 * channels * pixels, dtype=np.float32).reshape(2, channels, pixels)
    with jf.Session([y := jf.permute_dims(x, (0, 2, 1))]) as session:
        np.testing.assert_array_equal(session.run(y, {x: data}), data.transpose(0, 2, 1))


@pytest.mark.parametrize(
    "body",
    [
        "o[i, j] = x[j, 0]",  # along no other loop
        "o[i, j] = x[i, j]",  # in order
        "o[i, j] = x[i, j * 4]",  # near enough
        "o[i, j] = select(j < 3, x[j, i], 0.0)",  # may lie outside
        "o[j, i] = x[j, i]",  # the results are not in order
        "if i < j:\n        o[i, j] = x[j, i]",
    ],
)
def test_other_nests_are_left_alone(body: str) -> None:
    check_pass(
        by_sixteen,
        before=f"""
kernel k(x: f32[64, 64] read, o: f32[64, 64]):
  parallel i in 16:
    vectorized j in 16:
      {body}
""",
    )


def test_what_is_written_is_not_read_ahead() -> None:
    check_pass(
        by_sixteen,
        before="""
kernel k(o: f32[64, 64]):
  serial i in 64:
    vectorized j in 64:
      o[i, j] = o[j, i]
""",
    )


def test_bytes_that_cannot_be_masked_are_left_alone_where_they_are_few() -> None:
    text = """
kernel k(x: u8[40, 3] read, o: u8[3, 40]):
  parallel i in 3:
    vectorized j in 40:
      o[i, j] = x[j * 5, i]
"""
    kernel = parse_program(text.replace("[j * 5, i]", "[j, i * 5]").replace("40, 3", "40, 50"))
    assert transpose(kernel, target=V3) is kernel
    kernel = parse_program(text.replace("x: u8[40, 3]", "x: u8[200, 3]").replace("u8", "f32"))
    check_same_meaning(kernel, transpose(kernel, target=V3))
    kernel = parse_program(text.replace("x: u8[40, 3]", "x: u8[200, 3]"))
    assert transpose(kernel, target=V3) is kernel
    check_same_meaning(kernel, transpose(kernel, target=V4))


@pytest.mark.parametrize(("rows", "lanes"), [(2, 8), (8, 2), (4, 4), (16, 16), (16, 64)])
def test_shuffles_turn_a_matrix(rows: int, lanes: int) -> None:
    x, o = Buffer("x", float32, [rows, lanes]), Buffer("o", float32, [lanes, rows])
    body: list[Stmt] = []

    def bind(e: Expr) -> Expr:
        var = Var("v", e.type)
        body.append(Let(var, e))
        return var

    def where(k: int, count: int) -> tuple[Expr, Expr]:
        start = const_index(0)
        return const_index(k), Ramp(start, 1, count) if count > 1 else start

    columns = transposed([bind(Load(x, where(k, lanes))) for k in range(rows)], bind)
    for k, column in enumerate(columns):
        body.append(Store(o, where(k, rows), column))
    given = np.arange(rows * lanes, dtype=np.float32).reshape(rows, lanes)
    out = np.zeros((lanes, rows), np.float32)
    interpret(Kernel("k", (x, o), (), tuple(body), frozenset([x])), {"x": given, "o": out})
    np.testing.assert_array_equal(out, given.T)


def test_compiled_permutations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(3)
    fetches, feeds, expected = [], {}, []
    for number, dtype in enumerate((jf.float32, jf.bool, jf.float16)):
        a = rng.integers(0, 2, (7, 33, 65)).astype(dtype.np)
        for shape, axes in ((a.shape, (2, 1, 0)), (("a", "b", "c"), (2, 0, 1))):
            x = jf.placeholder(f"x{number}{len(feeds)}", dtype, shape)
            feeds[x] = a
            fetches.append(jf.permute_dims(x, axes))
            expected.append(a.transpose(axes))
    x = next(iter(feeds))
    fetches.append(jf.permute_dims(x, (2, 1, 0)) * 2 + jf.permute_dims(jf.exp(x), (2, 1, 0)))
    expected.append((feeds[x] * np.float32(2) + np.exp(feeds[x])).transpose(2, 1, 0))
    for got, wanted in zip(jf.Session(fetches).run(fetches, feeds), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
