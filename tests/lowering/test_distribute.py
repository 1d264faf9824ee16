"""Several rows at a time through the passes over them."""

from __future__ import annotations

from lowering.passes.distribute import distribute
from tests.support.check_pass import check_pass

HEAD = "kernel k(x: f32[n, 512] read, o: f32[n, 512], n: index):"
FOLD = """
    alloc acc: f32[1] register
    acc[0] = 0.0
    serial c in 512:
      acc[0] = acc[0] + x[i, c]
    let total: f32 = acc[0]
"""
SCALE = """
    let scale: f32 = exp(total)
    vectorized j in 512:
      o[i, j] = x[i, j] * scale
"""


def test_each_pass_gets_a_loop_over_the_rows_of_a_tile() -> None:
    check_pass(
        distribute,
        before=f"{HEAD}\n  parallel i in n:{FOLD}{SCALE}",
        after=f"""
{HEAD}
  parallel i_t in (n + 7) // 8:
    alloc total_8: f32[8] stack align 64
    alloc scale_8: f32[8] stack align 64
    vectorized r in 8:
      total_8[r] = 0.0
    serial r_2 in min(8, n - i_t * 8):
      alloc acc: f32[1] register
      acc[0] = 0.0
      serial c in 512:
        acc[0] = acc[0] + x[i_t * 8 + r_2, c]
      let total: f32 = acc[0]
      total_8[r_2] = total
    vectorized r_3 in 8:
      let total_1: f32 = total_8[r_3]
      let scale: f32 = exp(total_1)
      scale_8[r_3] = scale
    serial r_4 in min(8, n - i_t * 8):
      let scale_1: f32 = scale_8[r_4]
      vectorized j in 512:
        o[i_t * 8 + r_4, j] = x[i_t * 8 + r_4, j] * scale_1
""",
    )


def test_whole_tiles_and_inner_loops_over_rows_of_their_own() -> None:
    head = "kernel k(x: f32[n, 6, 1024] read, o: f32[n, 6, 1024], n: index):"
    check_pass(
        distribute,
        before=f"""
{head}
  parallel b in n:
    let m: index = n * 2
    serial i in 6:
      alloc acc: f32[1] register
      acc[0] = 0.0
      serial c in 1024:
        acc[0] = acc[0] + exp(x[b, i, c])
      let total: f32 = acc[0]
      vectorized j in 1024:
        o[b, i, j] = x[b, i, j] * total
""",
        after=f"""
{head}
  parallel b in n:
    let m: index = n * 2
    serial i_t in 2:
      alloc total_4: f32[4] stack align 64
      serial r in min(4, i_t * -4 + 6):
        alloc acc: f32[1] register
        acc[0] = 0.0
        serial c in 1024:
          acc[0] = acc[0] + exp(x[b, i_t * 4 + r, c])
        let total: f32 = acc[0]
        total_4[r] = total
      serial r_1 in min(4, i_t * -4 + 6):
        let total_1: f32 = total_4[r_1]
        vectorized j in 1024:
          o[b, i_t * 4 + r_1, j] = x[b, i_t * 4 + r_1, j] * total_1
""",
    )


def test_a_single_pass_and_light_passes_stay() -> None:
    check_pass(distribute, before=f"{HEAD}\n  parallel i in n:{FOLD}    o[i, 0] = exp(total)")
    check_pass(distribute, before=f"{HEAD}\n  parallel i in n:{FOLD}{SCALE.replace('exp(total)', 'total * 2.0')}")


def test_an_empty_loop_stays() -> None:
    check_pass(distribute, before=f"{HEAD}\n  parallel i in 0:\n    pass")


def test_long_and_unknown_rows_stay() -> None:
    for length in ("8192", "n"):
        text = f"{HEAD}\n  parallel i in n:{FOLD}{SCALE}".replace("512", length)
        check_pass(distribute, before=text)


def test_few_rows_stay_for_the_workers() -> None:
    text = f"{HEAD}\n  parallel i in 20:{FOLD}{SCALE}".replace("f32[n, 512]", "f32[20, 512]").replace(", n: index", "")
    check_pass(distribute, before=text)


def test_passes_that_share_a_buffer_stay() -> None:
    again = SCALE.replace("exp(total)", "exp(total + acc[0])").replace("* scale", "* (scale + acc[0])")
    check_pass(distribute, before=f"{HEAD}\n  parallel i in n:{FOLD}{again}")


def test_a_serial_loop_whose_rows_depend_on_each_other_stays() -> None:
    check_pass(
        distribute,
        before="""
kernel k(x: f32[n, 512] read, o: f32[n + 1, 512], n: index):
  parallel b in 1:
    serial i in n:
      alloc acc: f32[1] register
      acc[0] = 0.0
      serial c in 512:
        acc[0] = acc[0] + exp(o[i, c])
      let total: f32 = acc[0]
      vectorized j in 512:
        o[i + 1, j] = x[i, j] * total
""",
    )
