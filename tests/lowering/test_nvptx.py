"""PTX without a GPU: the text has what was asked for and nothing else; ptxas, where installed, needs no spills."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import as_dtype, float32
from jitflow.errors import CompileError, CompilerBug, DeviceError
from jitflow.expr import type_of
from jitflow.graph import OPS, make_node, make_placeholder
from jitflow.simplify import evaluate_index
from lowering import ptxas
from lowering.cpu import parse
from lowering.launch import launch_geometry, shared_layout
from lowering.loop_ir import Kernel
from lowering.nvptx import CHIPS, assemble_ptx, emit_llvm, emit_ptx, gpu_target, legalize
from lowering.pipeline import run_pipeline
from lowering.target import host
from lowering.text import parse_kernel
from lowering.vecmath import FUNCTIONS, define
from lowering.verify import verify
from tests.support.check_lines import check_lines
from tests.support.gpu_run import SM_90, final_kernels

needs_ptxas = pytest.mark.skipif(ptxas.find_ptxas() is None, reason="ptxas is not installed")

DTYPES = ["bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64"]
FLOATS = ["f32", "f64"]


def kernel(text: str) -> Kernel:
    """Return the kernel of `text`, verified and after the passes for a GPU."""
    found = parse_kernel(text)
    verify(found)
    return run_pipeline(found, SM_90, check=True)


def elementwise(expression: str, source: str = "f32", result: str = "f32", more: str = "") -> Kernel:
    """One element per thread: ``out[p] = expression`` with ``x`` the element of the input."""
    return kernel(
        f"kernel k(a: {source}[n] read, {more}out: {result}[n], n: index):\n"
        "  block.x b in (n + 255) // 256:\n"
        "    thread.x t in 256:\n"
        "      let p: index = b*256 + t\n"
        "      if p < n:\n"
        f"        let x: {source} = a[p]\n"
        f"        out[p] = {expression}\n"
    )


def instructions(ptx: str) -> list[str]:
    """Return the instructions between the load and the store of an elementwise kernel, without their operands."""
    lines = [
        line.split()[0].rstrip(";") for line in ptx.splitlines() if re.match(r"\t(@%p\d+ )?[a-z]+[.\d a-z]*\s", line)
    ]
    first = next(i for i, line in enumerate(lines) if line.startswith("ld.global"))
    return lines[first + 1 : next(i for i, line in enumerate(lines) if line.startswith("st.global"))]


# ---- the frame


def test_the_frame_of_a_kernel() -> None:
    ptx = emit_ptx([elementwise("x")])
    check_lines(
        ptx,
        ".version 8.3",
        ".target sm_90",
        ".address_size 64",
        ".visible .entry k(",
        ".reqntid 256, 1, 1",
        "%ctaid.x",
        "%tid.x",
        "setp.ge.s64",
        "ld.global.nc.b32",
        "st.global.b32",
        "ret;",
        absent=["call", "llvm.", ".local", "cvta", ".approx", ".ftz"],
    )


@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip_gets_its_own_target_line(chip: str) -> None:
    ptx = emit_ptx([elementwise("exp(x) + sqrt(x)")], f"nvptx:{chip}")
    check_lines(ptx, ".version 8.3", f".target {chip}")


def test_the_same_kernel_gives_the_same_text() -> None:
    assert emit_ptx([elementwise("tanh(x)")]) == emit_ptx([elementwise("tanh(x)")])


def test_four_neighbours_are_one_access_of_16_bytes() -> None:
    x, y = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("y", jf.float32, ("n",))
    check_lines(emit_ptx(final_kernels([x * y])), "ld.global.nc.v4", "ld.global.nc.v4", "st.global.v4")


def test_every_entry_says_what_it_computes_and_where_it_was_written() -> None:
    x = jf.placeholder("größe", jf.float32, ("n",))
    ptx = emit_ptx(final_kernels([jf.exp(x)]))
    check_lines(ptx, "// exp_1: f32[n] = exp(gr\\xf6\\xdfe_0)", ".visible .entry k0(")
    assert "test_nvptx.py:" in ptx
    assert ptx.isascii()
    assert_no_spills(ptx)


def test_several_kernels_are_one_module() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    ptx = emit_ptx(final_kernels([x.sum()]))
    check_lines(ptx, ".extern .shared .align 128 .b8 shared_memory[];", ".entry k0_0(", ".entry k0_1(")
    assert ptx.count(".extern .shared") == 1


# ---- arithmetic

ARITHMETIC = [
    ("x * 2.5 + 1.5", "f32", ["mul.rn.f32", "add.rn.f32"]),
    ("x - x * x", "f32", ["mul.rn.f32", "sub.rn.f32"]),
    ("fma(x, x, 1.5)", "f32", ["fma.rn.f32"]),
    ("1.0 / x", "f32", ["rcp.rn.f32"]),
    ("x / (x + 1.0)", "f32", ["add.rn.f32", "div.rn.f32"]),
    ("sqrt(x)", "f32", ["sqrt.rn.f32"]),
    ("abs(x)", "f32", ["abs.f32"]),
    ("floor(x)", "f32", ["cvt.rmi.f32.f32"]),
    ("ceil(x)", "f32", ["cvt.rpi.f32.f32"]),
    ("trunc(x)", "f32", ["cvt.rzi.f32.f32"]),
    ("round(x)", "f32", ["cvt.rni.f32.f32"]),
    ("x * 2.5:f64 + 1.5:f64", "f64", ["mul.rn.f64", "add.rn.f64"]),
    ("fma(x, x, 1.5:f64)", "f64", ["fma.rn.f64"]),
    ("x / (x + 1.0:f64)", "f64", ["add.rn.f64", "div.rn.f64"]),
    ("sqrt(x)", "f64", ["sqrt.rn.f64"]),
    ("round(x)", "f64", ["cvt.rni.f64.f64"]),
]


@pytest.mark.parametrize(("expression", "dtype", "expected"), ARITHMETIC)
def test_float_arithmetic_is_ieee_and_only_an_fma_is_fused(expression: str, dtype: str, expected: list[str]) -> None:
    found = instructions(emit_ptx([elementwise(expression, dtype, dtype)]))
    assert [f for f in found if not f.startswith(("shl", "add.s64", "ld.param"))] == expected


@pytest.mark.parametrize("dtype", ["i32", "i64", "u32"])
@pytest.mark.parametrize("expression", ["x // y", "x % y", "min(x, y)", "max(x, y)", "x << y", "x >> y", "x * y - x"])
def test_integer_arithmetic(expression: str, dtype: str) -> None:
    emit_ptx([elementwise(expression.replace("y", "c[p]"), dtype, dtype, more=f"c: {dtype}[n] read, ")])


@pytest.mark.parametrize("source", DTYPES)
def test_every_dtype_is_loaded_stored_and_cast_to_every_other(source: str) -> None:
    text = "".join(
        f"kernel to_{to}(a: {source}[n] read, out: {to}[n], n: index):\n"
        "  block.x b in (n + 255) // 256:\n"
        "    thread.x t in 256:\n"
        f"      if b*256 + t < n:\n        out[b*256 + t] = {to}(a[b*256 + t])\n\n"
        for to in DTYPES
    )
    emit_ptx([kernel(part) for part in text.split("\n\n") if part])


def test_casts_of_floats_saturate_and_nan_is_zero() -> None:
    """`cvt` clamps by itself; what it gives for NaN differs by width, so NaN is selected."""
    for source, to in [("f32", "i32"), ("f64", "i64"), ("f32", "i64"), ("f64", "i32")]:
        ptx = emit_ptx([elementwise(f"{to}(x)", source, to)])
        check_lines(ptx, f"cvt.rzi.s{to[1:]}.{source}")
        assert "setp.nan" in ptx or "setp.num" in ptx


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_maths_functions_are_inlined(name: str, dtype: str) -> None:
    arity = len(define(name, type_of(float32)).params)
    expression = f"{name}(x)" if arity == 1 else f"{name}(x, c[p])"
    made = elementwise(expression, dtype, dtype, more=f"c: {dtype}[n] read, ")
    ptx = emit_ptx([made])
    assert ".func" not in ptx
    assert_no_spills(ptx)


# ---- threads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "mode"), [("shfl_down", "down"), ("shfl_up", "up"), ("shfl_xor", "bfly"), ("shfl_idx", "idx")]
)
def test_shuffles_move_every_dtype(name: str, mode: str, dtype: str) -> None:
    text = (
        f"kernel k(a: {dtype}[32] read, out: {dtype}[32]):\n"
        "  thread.x t in 32:\n"
        f"    let x: {dtype} = a[t]\n"
        f"    let y: {dtype} = {name}(x, 16)\n"
        "    out[t] = y\n"
    )
    ptx = emit_ptx([kernel(text)])
    assert ptx.count(f"shfl.sync.{mode}.b32") == (2 if dtype.endswith("64") else 1)
    clamp = 0 if mode == "up" else 31
    assert f"16, {clamp}, -1;" in ptx


def test_barriers_and_shared_memory() -> None:
    made = kernel(
        "kernel k(a: f64[64] read, out: f64[64]):\n"
        "  thread.x t in 64:\n"
        "    alloc s: f32[3] shared\n"
        "    alloc tile: f64[64] shared\n"
        "    tile[t] = a[t]\n"
        "    barrier\n"
        "    out[t] = tile[63 - t]\n"
    )
    assert [*shared_layout(made)[0].values()] == [0, 16]
    assert launch_geometry(made).shared_bytes == 16 + 512
    check_lines(emit_ptx([made]), "st.shared", "bar.sync 0;", "ld.shared", "st.global")


def test_a_smaller_loop_runs_in_the_threads_below_its_extent_only() -> None:
    made = kernel(
        "kernel k(out: f32[64], more: f32[16]):\n"
        "  thread.x t in 64:\n"
        "    out[t] = 1.0\n"
        "  thread.x u in 16:\n"
        "    more[u] = 2.0\n"
    )
    assert launch_geometry(made).block == (64, 1, 1)
    check_lines(emit_ptx([made]), ".reqntid 64", "setp.gt.u32 %p1, %r1, 15;")


def test_a_smaller_grid_loop_is_tested_too() -> None:
    made = kernel(
        "kernel k(out: f32[n], more: f32[m], n: index, m: index):\n"
        "  block.x i in n:\n"
        "    out[i] = 1.0\n"
        "  block.x j in m:\n"
        "    more[j] = 2.0\n"
    )
    n, m = made.dims
    grid = launch_geometry(made).grid
    assert [evaluate_index(g, {n: 3, m: 7}) for g in grid] == [7, 1, 1]
    check_lines(emit_ptx([made]), "%nctaid.x", "setp")


def test_a_bad_index_lowers_its_status_slot_atomically() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 3))
    i = jf.placeholder("i", jf.int64, ("m",))
    check_lines(emit_ptx(final_kernels([jf.take(x, i, axis=0)])), "min.s64")


# ---- launch geometry


def test_the_grid_follows_from_the_dims() -> None:
    (made,) = final_kernels([jf.exp(jf.placeholder("x", jf.float32, ("n", "m")))])
    geometry = launch_geometry(made)
    m, n = made.dims
    for rows, columns, blocks in [(0, 5, 0), (1, 1, 1), (4, 256, 1), (4, 257, 2), (1 << 20, 1 << 12, 1 << 22)]:
        assert evaluate_index(geometry.grid[0], {n: rows, m: columns}) == blocks
    assert geometry.block == (256, 1, 1)
    assert geometry.threads == 256
    assert geometry.shared_bytes == 0


def test_bounds_through_lets_are_followed() -> None:
    made = kernel(
        "kernel k(out: f32[n], n: index):\n"
        "  let blocks: index = (n + 31) // 32\n"
        "  block.x b in blocks:\n"
        "    thread.x t in 32:\n"
        "      if b*32 + t < n:\n"
        "        out[b*32 + t] = 0.0\n"
    )
    assert evaluate_index(launch_geometry(made).grid[0], {made.dims[0]: 33}) == 2
    emit_ptx([made])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kernel k(out: f32[2048]):\n  thread.x t in 2048:\n    out[t] = 0.0\n", "2048 threads, at most 1024"),
        ("kernel k(out: f32[n], n: index):\n  thread.x t in n:\n    out[t] = 0.0\n", "has a constant size"),
        (
            "kernel k(out: f32[64]):\n  thread.x t in 64:\n    alloc s: f64[7000] shared\n    out[t] = 0.0\n",
            "56000 bytes of shared memory, of 49152",
        ),
    ],
)
def test_what_no_gpu_can_start_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompilerBug, match=message):
        launch_geometry(parse_kernel(text))


# ---- legality

HEAD = 'target triple = "nvptx64-nvidia-cuda"\n'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("%y = call float @llvm.exp.f32(float %x)", "llvm.exp.f32 has no NVPTX form"),
        ("%y = call float @llvm.sin.f32(float %x)", "llvm.sin.f32 has no NVPTX form"),
        ("%y = call float @llvm.pow.f32(float %x, float %x)", "llvm.pow.f32 has no NVPTX form"),
        ("%y = frem float %x, %x", "k uses frem, which has no NVPTX form"),
        ("%y = call float @llvm.fma.f16(float %x)", "rejects the module|no NVPTX form"),
    ],
)
def test_what_llvm_would_end_the_process_on_is_refused_before(body: str, message: str) -> None:
    text = f"{HEAD}define ptx_kernel void @k(float %x) {{\n  {body}\n  ret void\n}}\n"
    with pytest.raises(CompilerBug, match=message):
        assemble_ptx(text, "nvptx:sm_90")


def test_a_call_of_what_nothing_defines_is_refused() -> None:
    text = f"{HEAD}declare float @expf(float)\ndefine ptx_kernel void @k(float %x) {{\n"
    text += "  %y = call float @expf(float %x)\n  ret void\n}\n"
    with pytest.raises(CompilerBug, match="expf"):
        assemble_ptx(text, "nvptx:sm_90")


def test_what_kernels_use_is_legal() -> None:
    text = emit_llvm([elementwise("exp(x) * sqrt(x)")], "nvptx:sm_90")
    legalize(parse(text, SM_90))


@pytest.mark.parametrize("name", ["nvptx:sm_1234", "nvptx:sm_52", "x86-64-v3", "nonsense", "nvptx:"])
def test_an_unknown_gpu_is_a_device_error(name: str) -> None:
    with pytest.raises(DeviceError, match="known are"):
        gpu_target(name)


def test_the_host_is_no_gpu() -> None:
    with pytest.raises(DeviceError, match=r"known are nvptx:sm_70"):
        emit_ptx([elementwise("x")], host())


def test_a_cpu_kernel_is_refused() -> None:
    parallel = parse_kernel("kernel k(out: f32[n], n: index):\n  parallel i in n:\n    out[i] = 0.0\n")
    with pytest.raises(CompilerBug, match="no GPU kernel"):
        emit_ptx([parallel])


# ---- ptxas


def assert_no_spills(ptx: str, chip: str = "sm_90") -> Sequence[ptxas.Report]:
    """Where ptxas is installed, check that it takes `ptx` and needs no memory for registers."""
    if ptxas.find_ptxas() is None:
        return ()
    reports = ptxas.assemble(ptx, chip)
    for r in reports:
        assert (r.stack, r.spill_stores, r.spill_loads) == (0, 0, 0), r
    return reports


def _p(name: str, *shape: Any, dtype: Any = jf.float32) -> Any:
    return jf.placeholder(name, dtype, shape)


KINDS: dict[str, Callable[[], list[Any]]] = {
    "map": lambda: [jf.gelu(_p("x", "n", "m") * _p("y", "n", "m"))],
    "broadcast map": lambda: [_p("x", "n", "m") * _p("y", "m")],
    "transposition": lambda: [_p("x", 512, 512).T + _p("y", 512, 512)],
    "softmax": lambda: [jf.softmax(_p("x", "n", "m"))],
    "softmax of 10": lambda: [jf.softmax(_p("x", "n", 10))],
    "softmax of 1024": lambda: [jf.softmax(_p("x", "n", 1024))],
    "softmax of 8192": lambda: [jf.softmax(_p("x", "n", 8192))],
    "long softmax": lambda: [jf.softmax(_p("x", "n"))],
    "layer norm": lambda: [jf.layer_norm(_p("x", "n", 768), _p("s", 768), _p("b", 768))],
    "layer norm f64": lambda: [jf.layer_norm(_p("x", "n", 4096, dtype=jf.float64))],
    "sum": lambda: [_p("x", "n", "m").sum()],
    "argmax": lambda: [jf.argmax(_p("x", "n", "m"), axis=1)],
    "argmax of all": lambda: [jf.argmax(_p("x", "n"))],
    "columns": lambda: [_p("x", "n", "m").sum(axis=0), jf.argmin(_p("y", "n", "m"), axis=0)],
    "variance of columns": lambda: [jf.var(_p("x", "n", "m"), axis=0)],
    "matmul": lambda: [jf.relu(_p("x", "n", "k") @ _p("y", "k", "m") + _p("b", "m"))],
    "matmul of 1024": lambda: [_p("x", 1024, 1024) @ _p("y", 1024, 1024)],
    "matmul f64": lambda: [_p("x", "n", "k", dtype=jf.float64) @ _p("y", "k", "m", dtype=jf.float64)],
    "matmul i32": lambda: [_p("x", "n", "k", dtype=jf.int32) @ _p("y", "k", "m", dtype=jf.int32)],
    "matmul i64": lambda: [_p("x", "n", "k", dtype=jf.int64) @ _p("y", "k", "m", dtype=jf.int64)],
    "matmul bool": lambda: [_p("x", "n", "k", dtype=jf.bool_) @ _p("y", "k", "m", dtype=jf.bool_)],
    "batched matmul": lambda: [jf.gelu(_p("x", "b", "n", "k") @ _p("y", "b", "k", "m"))],
    "matmul transposed": lambda: [_p("x", "n", 64) @ _p("y", "m", 64).T],
    "take": lambda: [jf.take(_p("x", "n", 3), _p("i", "m", dtype=jf.int64), axis=0)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_kernel_lives_in_registers(kind: str) -> None:
    ptx = emit_ptx(final_kernels(KINDS[kind]()))
    assert ".local" not in ptx
    assert_no_spills(ptx)


@needs_ptxas
@pytest.mark.parametrize("chip", [c for c in CHIPS if c != "sm_70"])  # newer assemblers have dropped sm_70
def test_every_chip_assembles(chip: str) -> None:
    kernels = final_kernels([jf.softmax(_p("x", "n", 100)) @ _p("y", 100, "m")])
    reports = assert_no_spills(emit_ptx(kernels, f"nvptx:{chip}"), chip)
    assert [r.kernel for r in reports] == [k.name for k in kernels]
    assert all(0 < r.registers <= 255 for r in reports)


@needs_ptxas
def test_ptxas_says_what_it_does_not_take() -> None:
    with pytest.raises(CompileError, match="ptxas refuses the PTX for sm_90"):
        ptxas.assemble(".version 8.3\n.target sm_90\n.address_size 64\nnonsense\n")


def test_without_ptxas_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match="ptxas is not installed"):
        ptxas.assemble("")


def test_reports_are_read_from_what_ptxas_prints() -> None:
    said = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a' for 'sm_90'
ptxas info    : Function properties for a
    16 bytes stack frame, 20 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 16 bytes cumulative stack size, 512 bytes smem
ptxas info    : Compiling entry function 'b' for 'sm_90'
ptxas info    : Function properties for b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    assert ptxas.parse_report(said) == (
        ptxas.Report("a", 80, 16, 20, 24, 512),
        ptxas.Report("b", 8, 0, 0, 0, 0),
    )


# ---- every operator


def _sample_kernels(name: str) -> list[Kernel]:
    """Return the kernels of one sample of operator `name` for most combinations of dtypes and ranks."""
    op, seen, found = OPS[name], set(), []
    assert op.samples is not None
    for s in op.samples(np.random.default_rng(0)):
        arrays = [np.asarray(a) for a in s.inputs]
        # What is written with others becomes kernels of theirs, which have all these samples themselves.
        key = tuple((a.dtype, a.ndim if op.expand is None else 0) for a in arrays)
        # Types that differ from others in width alone are left to the tests on CPUs.
        if s.raises is not None or key in seen or any(a.dtype in ("int16", "uint16", "uint32") for a in arrays):
            continue
        seen.add(key)
        inputs = [make_placeholder(f"x{k}", as_dtype(a.dtype), a.shape) for k, a in enumerate(arrays)]
        for k in final_kernels([make_node(op, inputs, s.attrs)]):
            found.append(Kernel(f"{name}_{len(found)}", k.params, k.dims, k.body, k.reads, k.notes))
    return found


@pytest.mark.parametrize("name", sorted(n for n, op in OPS.items() if op.samples is not None))
def test_every_operator_becomes_ptx(name: str) -> None:
    kernels = _sample_kernels(name)
    if kernels:
        ptx = emit_ptx(kernels)
        assert all(f".entry {k.name}(" in ptx for k in kernels)
        assert_no_spills(ptx)
