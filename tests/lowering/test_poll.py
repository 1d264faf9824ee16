"""F50: polls in long serial loops: where they are put, by which estimate, and what compiled loops do at them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

import numpy as np
import pytest

import jitflow as jf
from jitflow.errors import CompilerBug
from jitflow.expr import Const
from jitflow.simplify import evaluate_index
from lowering.analysis.cost import Costs
from lowering.loop_ir import For
from lowering.parser import parse_kernel
from lowering.passes.poll import WORK_BETWEEN_POLLS, poll
from lowering.pipeline import run_pipeline
from lowering.target import host
from lowering.text import parse_fragment, show
from lowering.verify import verify
from runtime.abi import Watch
from tests.support.check_pass import check_pass
from tests.support.compiled import Compiled

F32 = np.float32
LOOK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


class Stopper:
    """A watch that says stop when it is asked for the time `at`, and counts."""

    def __init__(self, at: int | None = None) -> None:
        self.asked, self._at = 0, at
        self._look = LOOK(self._ask)
        self._watch = Watch(ctypes.cast(self._look, ctypes.c_void_p))
        self.address = ctypes.addressof(self._watch)

    def _ask(self, watch: int) -> int:
        assert watch == self.address
        self.asked += 1
        return int(self.asked == self._at)


def test_a_long_loop_polls_after_a_fifth_of_a_millisecond_of_estimated_work() -> None:
    # A multiply-add (0.2 ns), three loads, a store and the loop itself (0.4 ns each).
    text = """
kernel k(a: f64[n] read, b: f64[n] read, o: f64[1], n: index):
  serial i in n:
    o[0] = fma(a[i], b[i], o[0])
"""
    assert WORK_BETWEEN_POLLS == 200_000
    check_pass(poll, before=text, after=text.replace("in n:", "in n poll 90909:"), dims=[{"n": 0}, {"n": 7}])


def test_loops_that_are_short_for_sure_are_left_alone() -> None:
    check_pass(poll, before="serial i in 1000:\n  out[i] = a[i] * 2.0")
    check_pass(poll, before="serial i in 1000:\n  serial j in 60:\n    out[i] = out[i] + a[j]")
    check_pass(poll, before="serial i in n % 64:\n  out[i] = a[i]")
    check_pass(poll, before="serial i in min(4096, n):\n  out[i] = a[i]")


def test_what_is_left_when_whole_vectors_are_done_is_short() -> None:
    check_pass(
        poll,
        before="""
let whole: index = n // 64
let done: index = whole * 64
serial i in (n - done + 15) // 16:
  out[i] = a[i]
""",
    )


def test_an_outer_loop_polls_the_more_often_the_longer_the_inner_one_is() -> None:
    check_pass(
        poll,
        before="""
kernel k(a: f32[m, n] read, o: f32[m], n: index, m: index):
  parallel i in m:
    serial j in n:
      o[i] = o[i] + a[i, j]
""",
        after="""
kernel k(a: f32[m, n] read, o: f32[m], n: index, m: index):
  parallel i in m poll max(1, 200000000 // (n * 1800 + 400)):
    serial j in n poll 111111:
      o[i] = o[i] + a[i, j]
""",
    )
    check_pass(
        poll,
        before="""
kernel k(a: f32[m, n] read, o: f32[1], n: index, m: index):
  serial i in m:
    serial j in n:
      o[0] = o[0] + a[i, j]
""",
        after="""
kernel k(a: f32[m, n] read, o: f32[1], n: index, m: index):
  serial i in m poll max(1, 200000000 // (n * 1800 + 400)):
    serial j in n poll 111111:
      o[0] = o[0] + a[i, j]
""",
    )


def test_a_part_of_a_row_that_begins_or_ends_with_the_outer_loop_may_be_all_of_it() -> None:
    # What `partition` makes of sums over triangles: `max(0, ...)` bounds nothing from above.
    text = """
kernel k(a: f32[m, n] read, o: f32[m], n: index, m: index):
  parallel i in m:
    serial j in min(n, max(0, i - 2)):
      o[i] = o[i] + a[i, j]
    serial j_1 in max(0, n - i):
      o[i] = o[i] + a[i, i + j_1]
"""
    assert show(poll(parse_kernel(text))).count(" poll 111111:") == 2


def test_every_kind_of_statement_has_its_work() -> None:
    def work(body: str) -> str:
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        header = "kernel k(a: f32[n] read, j: i64[n] read, o: f32[n], n: index):\n  parallel i in n:\n"
        kernel = parse_kernel(header + lines + "\n")
        (loop,) = kernel.body
        assert isinstance(loop, For)
        return show(Costs(kernel).body(loop.body)).strip()

    assert work("o[i] = 1.0") == "400"
    assert work("o[i] = a[i] / 3.0") == "3800"
    assert work("serial k in 10:\n  o[i] = 1.0") == "8000"
    assert work("serial k in n:\n  o[i] = 1.0") == "n * 800"
    assert work("serial k in i:\n  o[i] = 1.0") == "n // 2 * 800"  # on average
    assert work("if a[i] > 0.0:\n  o[i] = 1.0\nelse:\n  o[i] = 2.0") == "1400"
    assert work("let v: f32x16 = a[ramp(i, 1, 16)]\no[ramp(i, 1, 16)] = v") == "800"
    assert work("let v: f32x32 = a[ramp(i, 1, 32)]\no[ramp(i, 1, 32)] = v * v") == "2000"  # two vectors
    assert work("let v: f32x16 = a[index(j[ramp(i, 1, 16)])]\no[ramp(i, 1, 16)] = v") == "13200"
    # So often as a row has elements, but only the outermost of several: here a row has one.
    assert work("let t: index = index(j[i])\nserial k in t:\n  o[i] = 1.0") == "800"


def test_a_function_is_the_work_of_what_it_consists_of() -> None:
    def work(value: str) -> int:
        kernel = parse_kernel(f"kernel k(a: f32[16] read, o: f32[16]):\n  o[ramp(0, 1, 16)] = {value}\n")
        found = Costs(kernel).body(kernel.body)
        assert isinstance(found, Const)
        return int(found.value)

    load, exp, sin, power = (work(f.format("a[ramp(0, 1, 16)]")) for f in ("{}", "exp({})", "sin({})", "pow({0}, {0})"))
    assert 10 * 200 < exp - load < sin - load < power - load < 200 * 200


def test_extents_that_depend_on_the_values_of_arrays_count_once() -> None:
    text = "kernel k(j: i64[m, n] read, o: f32[m, n], n: index, m: index):\n  parallel i in m:\n"
    one = text + "    serial p in index(j[i, 0]):\n      o[i, p] = 1.0\n"
    two = text + "    serial p in index(j[i, 0]):\n      serial q in index(j[i, p]):\n        o[i, q] = 1.0\n"
    works = []
    for source in (one, two):
        kernel = parse_kernel(source)
        (loop,) = kernel.body
        assert isinstance(loop, For)
        works.append(evaluate_index(Costs(kernel).iteration(loop), dict.fromkeys(kernel.dims, 100)))
    assert works == [400 + 100 * 800, 400 + 100 * (400 + 800)]


def test_exact_costs_follow_the_dims_where_bounds_do_not() -> None:
    kernel = parse_kernel("""
kernel k(o: f32[n], n: index):
  parallel t in (n + 4095) // 4096:
    serial i in min(4096, n - t * 4096):
      o[t * 4096 + i] = 1.0
""")
    (loop,) = kernel.body
    assert isinstance(loop, For)
    bound, exact = (Costs(kernel, exact=e).iteration(loop) for e in (False, True))
    for n, want in ((10, 10), (4096, 4096), (9000, 4096)):
        assert evaluate_index(exact, {kernel.dims[0]: n}) == 400 + 800 * want
        assert evaluate_index(bound, {kernel.dims[0]: n}) == 400 + 800 * 4096
    # How often to poll matters to several iterations only: then their tiles are whole.
    assert show(poll(kernel)).count(f"poll {200_000_000 // (400 + 800 * 4096)}:") == 1


def test_costs_of_many_iterations_follow_the_dims_inside_them() -> None:
    kernel = parse_kernel("""
kernel k(o: f32[n, m], n: index, m: index):
  parallel t in (n + 15) // 16:
    serial i in min(16, n - t * 16):
      serial j in min(64, m):
        o[t * 16 + i, j] = 1.0
""")
    (loop,) = kernel.body
    assert isinstance(loop, For)
    rows, columns = kernel.dims
    work = Costs(kernel, many=True).iteration(loop)
    for n, m in ((3, 10), (100, 10), (100, 200)):
        assert evaluate_index(work, {rows: n, columns: m}) == 400 + 16 * (400 + 800 * min(64, m))


LOOP = """
kernel k(a: f32[n] read, o: f32[n], s: f32[1], n: index, often: index):
  alloc t: f32[1] register
  t[0] = 0.0
  serial i in n poll often:
    o[i] = a[i] * 2.0
    t[0] = t[0] + a[i]
  s[0] = t[0]
"""


@pytest.fixture(scope="module")
def loop() -> Compiled:
    return Compiled(parse_kernel(LOOP), host())


def run(
    loop: Compiled, n: int, often: int, stopper: Stopper | None = None
) -> tuple[bool, np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    a, o, s = np.arange(1, n + 1, dtype=F32), np.full(n, -1, F32), np.full(1, -1, F32)
    watch = None if stopper is None else stopper.address
    stopped = loop({"a": a, "o": o, "s": s}, {"often": often}, watch=watch)
    return stopped, a, o, s


@pytest.mark.parametrize(
    ("n", "often", "asked"),
    [(0, 10, 0), (1, 10, 0), (10, 10, 0), (11, 10, 1), (20, 10, 1), (35, 10, 3), (3, 1, 2), (40, 39, 1), (5, 2**62, 0)],
)
def test_a_loop_asks_between_its_iterations_and_never_at_its_end(
    loop: Compiled, n: int, often: int, asked: int
) -> None:
    for stopper in (Stopper(), None):
        stopped, a, o, s = run(loop, n, often, stopper)
        assert not stopped
        assert (o == a * 2).all()
        assert s == a.sum()
        assert stopper is None or stopper.asked == asked


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_loop_returns_at_once(loop: Compiled, at: int) -> None:
    stopper = Stopper(at)
    stopped, a, o, s = run(loop, 35, 10, stopper)
    assert stopped
    assert stopper.asked == at
    assert (o[: 10 * at] == a[: 10 * at] * 2).all()
    assert (o[10 * at :] == -1).all()
    assert s == -1


def test_values_in_registers_live_through_polls_in_nested_loops() -> None:
    text = """
kernel k(a: f32[m, n] read, o: f32[m], n: index, m: index):
  parallel i in m:
    alloc t: f32[64] register
    vectorized l in 64:
      t[l] = 0.0
    serial c in n // 64:
      vectorized l in 64:
        t[l] = t[l] * 0.5 + exp(a[i, c * 64 + l])
    alloc u: f32[1] register
    u[0] = 0.0
    unrolled l in 64:
      u[0] = u[0] + t[l]
    o[i] = u[0]
"""
    plain = run_pipeline(parse_kernel(text), host(), check=True)
    often = parse_kernel(re.sub(r"poll \d+", "poll 1", show(plain)))
    assert show(often) != show(plain)
    a = np.random.default_rng(0).random((5, 64 * 7), dtype=F32)
    stopper, results = Stopper(), []
    for kernel, watch in ((plain, None), (often, None), (often, stopper.address)):
        o = np.empty(5, F32)
        assert not Compiled(kernel, host())({"a": a, "o": o}, watch=watch)
        results.append(o)
    assert stopper.asked == 5 * 6
    assert all((o == results[0]).all() for o in results)


def test_a_poll_is_an_index_of_a_serial_cpu_loop() -> None:
    for text, message in (
        ("vectorized i in 8 poll 4:\n  out[i] = a[i]", "a vectorized loop does not poll"),
        ("serial i in 8 poll 4.0:\n  out[i] = a[i]", "polls every f32"),
        ("block.x b in 2:\n  serial i in 8 poll 4:\n    out[i] = a[i]", "block or thread"),
    ):
        with pytest.raises(CompilerBug, match=message):
            verify(parse_fragment(text))
    with pytest.raises(CompilerBug, match=r"scratch, polls or a parallel loop"):
        Compiled(
            parse_kernel("""
kernel k(a: f32[n] read, o: f32[n], n: index):
  call inner(a, o; n)
  kernel inner(a: f32[n] read, o: f32[n], n: index):
    serial i in n poll 3:
      o[i] = a[i]
"""),
            host(),
        )


def plan_of(make: Callable[[jf.Tensor], jf.Tensor], *shape: int | str) -> str:
    x = jf.placeholder("x", jf.float32, shape)
    return jf.Session(make(x), load=False).dump("plan").partition("steps:\n")[2].strip()


def test_the_plan_cuts_long_launches_into_chunks_and_leaves_small_ones_alone() -> None:
    assert plan_of(lambda x: x + 1.0, 10_000) == "launch k0_add(input[0], output[0])"
    cut = re.fullmatch(
        r"launch k0_add\(.*\) over 100000 in chunks of at most (\d+)", plan_of(lambda x: x + 1.0, 4096 * 100_000)
    )
    # At one to three nanoseconds for each vector of a tile of 4096, whatever its width.
    assert cut is not None
    assert 200_000 // (4096 // 4 * 3) <= int(cut[1]) <= 200_000 // (4096 // 16 * 1)
    assert plan_of(lambda x: jf.sum(x, axis=1), 8, 64) == "launch k0_reduce_sum(input[0], output[0])"
    assert " over n in chunks of at most max(1, 200000000//(" in plan_of(lambda x: jf.sum(x, axis=1), "n", "m")


def test_small_programs_do_not_poll() -> None:
    x = jf.placeholder("x", jf.float32, (64, 16))
    text = jf.Session(jf.softmax(x, axis=-1), load=False).dump("llvm")
    assert "@watch.poll" not in text
    x = jf.placeholder("x", jf.float32, ("n",))
    text = jf.Session(jf.sum(x), load=False).dump("llvm")
    assert text.count("define internal preserve_mostcc i1 @watch.poll(") == 1


def test_a_body_of_very_many_statements_is_no_deep_expression() -> None:
    lines = "".join(f"    o[{k}] = a[i]\n" for k in range(3000))
    kernel = parse_kernel(f"kernel k(a: f32[n] read, o: f32[3000], n: index):\n  serial i in n:\n{lines}")
    assert "serial i in n poll 83:" in show(poll(kernel))  # 3000 loads and stores
