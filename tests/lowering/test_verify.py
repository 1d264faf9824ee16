"""The verifier: one bad kernel per rule with its message, and valid kernels that it must leave alone."""

from __future__ import annotations

import pytest

from jitflow.dtypes import float32, int32
from jitflow.errors import CompilerBug
from jitflow.expr import INDEX, Binary, Buffer, Call, Compare, Const, Expr, Load, Select, Unary, Var, const, type_of
from jitflow.record import record
from lowering.loop_ir import Alloc, Body, For, If, Kernel, Let, Stmt, Store
from lowering.text import parse_kernel
from lowering.verify import Stage, verify
from tests.support.random_program import random_gpu_kernel, random_kernel

F32 = type_of(float32)
HEADER = "kernel f(a: f32[8, 8] read, out: f32[8], p: i64[8], flag: bool[8], n: index):\n"


def body_kernel(text: str) -> Kernel:
    lines = [f"  {line}" for line in text.split("\n")]
    return parse_kernel(HEADER + "\n".join(lines))


def message_of(kernel: Kernel, stage: Stage = "any") -> str:
    with pytest.raises(CompilerBug) as e:
        verify(kernel, stage=stage)
    return str(e.value)


@pytest.mark.parametrize(
    ("text", "message", "statement"),
    [
        # types of operands
        ("out[0] = a[0, 0] + 1.0:f64", "operands of different types, f32 and f64: a[0, 0] + 1.0:f64", "out[0]"),
        ("out[0] = fma(1.0, 1.0, 1.0:f64)", "operands of different types, f32 and f64", "out[0]"),
        ("flag[0] = 1.0 < 1", "operands of different types, f32 and index: 1.0 < 1", "flag[0]"),
        ("out[0] = select(true, 1.0, 1.0:f64)", "operands of different types, f32 and f64", "out[0]"),
        ("out[0] = select(1.0, 1.0, 1.0)", "the condition is f32 for f32", "out[0]"),
        ("out[0] = select(splat(true, 4), 1.0, 1.0)", "the condition is boolx4 for f32", "out[0]"),
        ("let x: i64 = 1:i64 / 2:i64", "no div of i64: 1:i64 / 2:i64", "let x"),
        ("let x: f32 = 1.0 // 2.0", "no floordiv of f32", "let x"),
        ("let x: f32 = 1.0 & 2.0", "no and of f32", "let x"),
        ("let x: f32 = ~1.0", "no not of f32", "let x"),
        ("let x: bool = -true", "no neg of bool", "let x"),
        ("let x: bool = true - true", "no sub of bool", "let x"),
        ("let x: i64 = sqrt(1:i64)", "no sqrt of i64", "let x"),
        ("let x: i64 = fma(1:i64, 1:i64, 1:i64)", "no fma of i64", "let x"),
        ("let x: i32 = bitcast(1.0:f64, i32)", "a bitcast of f64 to i32", "let x"),
        ("let x: i64 = exp(1:i64)", "a function takes and gives floats of one type: exp(1:i64)", "let x"),
        ("let x: f32 = pow(1.0, 1.0:f64)", "a function takes and gives floats of one type", "let x"),
        ("let x: f32 = shfl_xor(1.0, 1)", "a shuffle needs thread loops", "let x"),
        ("let x: bool = any(1.0)", "any takes a vector of bools and gives one", "let x"),
        # lanes
        ("let x: f32x4 = splat(splat(1.0, 2), 4)", "a splat makes lanes of a scalar", "let x"),
        ("let x: f32x4 = ramp(1.0, 1, 4)", "a ramp starts from a scalar integer", "let x"),
        ("let x: indexx4 = ramp(ramp(0, 1, 4), 1, 4)", "a ramp starts from a scalar integer", "let x"),
        ("let x: f32x2 = shuffle(splat(1.0, 4), 0, 4)", "a shuffle picks from 4 lanes", "let x"),
        ("let x: f32x4 = splat(1.0, 4) + splat(1.0, 8)", "operands of different types, f32x4 and f32x8", "let x"),
        ("out[ramp(0, 1, 4)] = 1.0", "f32 is stored where f32x4 belongs", "out[ramp(0, 1, 4)]"),
        ("out[0] = splat(1.0, 4)", "f32x4 is stored where f32 belongs", "out[0]"),
        ("out[ramp(0, 1, 4) if true] = splat(1.0, 4)", "the mask is bool for 4 lanes", "out["),
        ("out[ramp(0, 1, 4) if splat(true, 8)] = splat(1.0, 4)", "the mask is boolx8 for 4 lanes", "out["),
        ("out[ramp(0, 1, 4) if splat(1.0, 4)] = splat(1.0, 4)", "the mask is f32x4 for 4 lanes", "out["),
        ("out[0 if true] = 1.0", "a mask without lanes; use If", "out[0 if true]"),
        ("let x: f32x4 = a[ramp(0, 1, 4), ramp(0, 1, 8)]", "subscripts of a differ in lanes", "let x"),
        (
            "let x: f32x4 = select(splat(true, 4), shuffle(a[0, ramp(0, 1, 4)], 0, 0, 0, 0), splat(1.0, 4))",
            "a load under a shuffle in an arm of a select with lanes",
            "let x",
        ),
        # subscripts
        ("out[1:i64] = 1.0", "a subscript of out is i64, not an index", "out[1:i64]"),
        ("out[0, 0] = 1.0", "2 subscripts for out of rank 1", "out[0, 0]"),
        ("out[0] = a[0]", "1 subscripts for a of rank 2", "out[0]"),
        # statements
        ("let x: f64 = 1.0", "x is f64, its value f32", "let x"),
        ("out[0] = 1.0:f64", "f64 is stored where f32 belongs", "out[0]"),
        ("a[0, 0] = 1.0", "a is marked as read but written", "a[0, 0]"),
        ("atomic add a[0, 0], 1.0", "a is marked as read but written", "atomic"),
        ("atomic add out[0], 1.0:f64", "an update of f32 by f64", "atomic"),
        ("atomic add out[ramp(0, 1, 4)], splat(1.0, 4)", "an atomic updates one element, not a vector", "atomic"),
        ("if 1:\n  pass", "a condition must be a bool, not index", "if 1:"),
        ("if splat(true, 4):\n  pass", "a condition must be a bool, not boolx4", "if splat"),
        ("while 1.0:\n  pass", "a condition must be a bool, not f32", "while 1.0:"),
        ("serial i in 1.0:\n  pass", "the extent is f32, not an index", "serial i"),
        ("serial i in ramp(0, 1, 4):\n  pass", "the extent is indexx4, not an index", "serial i"),
        ("serial.y i in 4:\n  pass", "a serial loop has no axis 1", "serial.y i"),
        ("out[0] = reduce(add k in n; a[k, 0])", "a reduce must have become a loop", "out[0]"),
        # loops
        ("serial i in 4:\n  parallel j in 4:\n    pass", "a parallel loop must be the last statement", "parallel j"),
        ("parallel i in 4:\n  pass\nbarrier", "a parallel loop must be the last statement", "parallel i"),
        ("out[0] = 1.0\nparallel i in 4:\n  pass", "a parallel loop must be the last statement", "parallel i"),
        (
            "parallel i in 4:\n  thread.x t in 4:\n    pass",
            "a thread loop in a kernel with a parallel loop",
            "thread.x",
        ),
        ("thread.x t in 4:\n  block.x b in 4:\n    pass", "a block loop in a thread loop", "block.x b"),
        ("thread.x t in 4:\n  thread.x u in 4:\n    pass", "a thread loop inside one of the same axis", "thread.x u"),
        ("thread.x t in 4:\n  thread.y u in t:\n    pass", "the extent of a thread loop differs between", "thread.y u"),
        # memory
        ("alloc t: f32[4] global", "t cannot be allocated in global space", "alloc t"),
        ("alloc t: f32[4] shared", "shared memory in a kernel without block or thread loops", "alloc t"),
        ("alloc t: f32[n] stack", "the size of a stack buffer must be constant", "alloc t"),
        ("alloc t: f32[n] register", "the size of a register buffer must be constant", "alloc t"),
        ("alloc t: f32[-1] scratch", "t has a negative size", "alloc t"),
        ("alloc t: f32[4, 2000] stack", "32000 bytes of stack; use scratch", "alloc t"),
        ("alloc t: index[4] stack", "t holds indices; memory holds i64", "alloc t"),
        ("alloc t: f32[1.0] stack", "a size of t is f32, not an index", "alloc t"),
        # checks
        ("check_index out[0] true, 0", "a status is a vector of i64", "check_index"),
        ("check_index p[8] true, 0", "no status slot 8", "check_index"),
        ("check_index p[0] 1.0, 0", "the test of an index must be a bool, not f32", "check_index"),
        ("check_index p[0] splat(true, 4), 0", "the position must be an index with 4 lanes, not index", "check_index"),
        ("check_index p[0] true, 1.0", "the position must be an index with 1 lanes, not f32", "check_index"),
        ("check_index p[0] true, 0 if splat(true, 4)", "the mask is boolx4 for 1 lanes", "check_index"),
        # barriers
        ("barrier", "a barrier needs thread loops", "barrier"),
        ("thread.x t in 4:\n  if t < 2:\n    barrier", "this barrier is not reached by all threads", "barrier"),
        ("thread.x t in 4:\n  while t < 2:\n    barrier", "this barrier is not reached by all threads", "barrier"),
        ("thread.x t in 4:\n  serial i in t:\n    barrier", "this barrier is not reached by all threads", "barrier"),
        (
            "thread.x t in 4:\n  let late: index = t * 2\n  if late < 2:\n    barrier",
            "this barrier is not reached by all threads",
            "barrier",
        ),
        (
            "thread.x t in 4:\n  alloc c: i64[1] stack\n  if c[0] < 2:i64:\n    barrier",
            "this barrier is not reached by all threads",
            "barrier",
        ),
        (
            "thread.x t in 4:\n  if shfl_idx(1.0, 0) < 2.0:\n    barrier",
            "this barrier is not reached by all threads",
            "barrier",
        ),
        (
            "thread.x t in 8:\n  pass\nthread.x u in 4:\n  barrier",
            "this barrier is not reached by all threads",
            "barrier",
        ),
        # prefetches
        ("alloc t: f32[4] stack\nprefetch t[0]", "nothing to prefetch from stack memory", "prefetch t"),
        ("prefetch out[ramp(0, 1, 4)]", "a prefetch names one element, not a vector", "prefetch out"),
        # calls
        ("call g(out)", "g is not among the callees", "call g"),
    ],
)
def test_a_broken_rule_names_the_statement(text: str, message: str, statement: str) -> None:
    found = message_of(body_kernel(text))
    first, place = found.split("\n")
    assert first.startswith(message), found
    assert place.startswith(f"  in kernel f: {statement}"), found


CALLEE = """
  kernel g(x: f32[4] read, y: f32[4], k: index):
    y[0] = x[0]
"""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("call g(out; 1)", "g takes 2 buffers and 1 arguments"),
        ("call g(out, out)", "g takes 2 buffers and 1 arguments"),
        ("call g(p, out; 1)", "p is i64, wanted f32"),
        ("call g(out, a; 1)", "a is marked as read but written"),
        ("call g(out + 1.0, out; 1)", "offsets and arguments of a call are indices, not f32"),
        ("call g(out, out; true)", "offsets and arguments of a call are indices, not bool"),
    ],
)
def test_a_call_must_fit_its_callee(call: str, message: str) -> None:
    assert message_of(parse_kernel(f"{HEADER}  {call}{CALLEE}")).startswith(message)
    verify(parse_kernel(f"{HEADER}  call g(a, out + n; 3){CALLEE}"))


def test_callees_are_verified_too() -> None:
    broken = CALLEE.replace("x[0]\n", "x[0] + 1\n")
    assert "in kernel g: y[0] = x[0] + 1" in message_of(parse_kernel(f"{HEADER}  pass{broken}"))
    looping = CALLEE.replace("    y[0]", "    parallel i in k:\n      y[0]")
    assert "a called kernel has no parallel" in message_of(parse_kernel(f"{HEADER}  pass{looping}"))


def kernel_of(
    body: Body, *params: Buffer, dims: tuple[Var, ...] = (), reads: frozenset[Buffer] = frozenset()
) -> Kernel:
    return Kernel("f", params, dims, body, reads)


def test_a_variable_is_bound_once() -> None:
    x = Var("x", F32)
    let = Let(x, const(1.0, F32))
    assert message_of(kernel_of((let, let))).startswith("x is bound twice\n  in kernel f: let x")
    i = Var("i", INDEX)
    assert message_of(kernel_of((For(i, i + 0, ()),))).startswith("i is used before it is bound")
    loop = For(i, const(3, INDEX), ())
    assert message_of(kernel_of((loop, loop))).startswith("i is bound twice")
    t = Alloc(Buffer("t", float32, [4], "stack"))
    assert message_of(kernel_of((t, t))).startswith("t is bound twice")


def test_names_are_used_in_their_scope_only() -> None:
    x, y = Var("x", F32), Var("y", F32)
    inner = If(Const(True, type_of(Compare("lt", x, x).type.dtype)), (Let(x, const(1.0, F32)),))
    assert message_of(kernel_of((inner, Let(y, x)))).startswith("x is used outside of its scope\n  in kernel f: let y")
    assert message_of(kernel_of((Let(y, x),))).startswith("x is used before it is bound")
    b = Buffer("b", float32, [4])
    assert message_of(kernel_of((Store(b, (const(0, INDEX),), const(1.0, F32)),))).startswith("b is used before")


@pytest.mark.parametrize(
    ("value", "of"),
    [(1.5, "i32"), (True, "i32"), (2**31, "i32"), (1, "f32"), (0.1, "f32"), (1, "bool"), (2**63, "index")],
)
def test_a_literal_holds_a_value_of_its_type(value: float, of: str) -> None:
    x = parse_kernel(f"kernel f(a: {of if of != 'index' else 'i64'}[1]):\n  pass").params[0]
    wrong = Const(value, type_of(x.dtype) if of != "index" else INDEX)
    assert "is no literal of type" in message_of(kernel_of((Let(Var("x", wrong.type), wrong),)))


def test_operators_must_exist() -> None:
    x = const(1.0, F32)
    bad: list[Expr] = [
        Binary("pow", x, x),
        Unary("cos", x),
        Compare("is", x, x),
        Call("min", (x,), F32),
        Call("", (x,), F32),
    ]
    for e in bad:
        kernel = kernel_of((Let(Var("x", e.type), e),))
        with pytest.raises(CompilerBug, match=r"unknown operator|unknown comparison|is no name of a function"):
            verify(kernel)


def test_parameters_are_sound() -> None:
    n, x = Var("n", INDEX), Var("x", F32)
    b = Buffer("b", float32, [n])
    assert message_of(kernel_of((), b)).startswith("n is used before it is bound")
    assert message_of(kernel_of((), dims=(x,))).startswith("dim x must be an index, not f32")
    assert message_of(kernel_of((), dims=(n, n))).startswith("n is bound twice")
    assert message_of(kernel_of((), b, b, dims=(n,))).startswith("b is bound twice")
    local = Buffer("t", float32, [4], "stack")
    assert message_of(kernel_of((), local)).startswith("parameter t must be global, not stack")
    assert message_of(kernel_of((), reads=frozenset({b}))).startswith("only parameters can be marked as read")
    assert message_of(Kernel("my kernel", (), (), ())).startswith("a kernel's name must be an identifier")


def test_vectors_come_after_vectorize() -> None:
    text = "out[ramp(0, 1, 4)] = splat(1.0, 4)"
    verify(body_kernel(text))
    assert message_of(body_kernel(text), "scalar").startswith("a vector before vectorize: splat(1.0, 4)")
    verify(body_kernel("vectorized i in 4:\n  out[i] = a[i, i]"), stage="scalar")


@pytest.mark.parametrize(
    "text",
    [
        "alloc t: f32[8] register\nserial i in 8:\n  t[i] = 1.0",
        "alloc t: f32[8] register\nserial i in 8:\n  t[ramp(i, 1, 4)] = splat(1.0, 4)",
        "alloc t: f32[8] register\nt[0] = 1.0\nserial i in 8:\n  out[0] = t[i]",
    ],
)
def test_register_subscripts_are_constant_after_unroll(text: str) -> None:
    verify(body_kernel(text))
    found = message_of(body_kernel(text), "after_unroll")
    assert found.startswith("a subscript of register buffer t is not constant after unroll")
    verify(body_kernel("alloc t: f32[8] register\nt[ramp(4, 1, 4)] = splat(1.0, 4)\nt[0] = 1.0"), stage="after_unroll")


def test_no_unrolled_loop_is_left_after_unroll() -> None:
    text = "unrolled i in {}:\n  out[i] = 1.0"
    assert message_of(body_kernel(text.format("4")), "after_unroll").startswith("an unrolled loop is left")
    verify(body_kernel(text.format("4")))
    verify(body_kernel(text.format("n")), stage="after_unroll")


@pytest.mark.parametrize(
    "text",
    [
        "pass",
        "let k: index = n * 2\nalloc t: f32[k] scratch\nparallel i in k:\n  t[i] = 1.0",
        "parallel i in n:\n  serial j in 4:\n    vectorized k in 8:\n      pass",
        "flag[0] = true + false | min(true, false)",
        "out[0] = f32(index(true) + n)",
        "out[ramp(0, 1, 4)] = select(true, a[0, ramp(0, 1, 4)], splat(0.0, 4))",
        "out[ramp(0, 1, 4)] = select(splat(true, 4), splat(a[0, 0], 4), splat(0.0, 4))",
        "thread.x t in 4:\n  if n < 3:\n    barrier",
        "block.x b in 4:\n  thread.x t in 4:\n    if b < 3:\n      barrier",
        "thread.x t in 4:\n  thread.y u in 4:\n    serial k in n:\n      barrier",
        "thread.x t in 4:\n  if t < 2:\n    out[t] = 1.0\n  barrier\nthread.x u in 4:\n  barrier",
        "thread.x t in 4:\n  if out[0] < 2.0:\n    barrier",
        "check_index p[0] ramp(0, 1, 4) < splat(n, 4), i64(ramp(0, 1, 4)) if splat(true, 4)",
    ],
)
def test_valid_kernels_pass(text: str) -> None:
    verify(body_kernel(text))


def test_random_kernels_pass() -> None:
    for seed in range(200):
        verify(random_kernel(seed))
        verify(random_kernel(seed, vectors=False), stage="scalar")
        verify(random_gpu_kernel(seed))


def test_an_unknown_node_is_refused() -> None:
    class Strange(Expr):
        __slots__ = ()

    e = Strange()
    e.type = F32
    assert message_of(kernel_of((Let(Var("x", F32), e),))).startswith("Strange is no expression of loop IR")

    @record
    class Jump(Stmt):
        """A statement that loop IR does not have."""

    assert message_of(kernel_of((Jump(),))).startswith("Jump is no statement of loop IR\n  in kernel f: <Jump>")


def test_a_select_may_choose_by_a_scalar() -> None:
    a = Buffer("a", int32, [4])
    i = const(0, INDEX)
    e = Select(Const(True, Compare("lt", i, i).type), Load(a, (i,)), const(1, int32))
    verify(kernel_of((Store(a, (i,), e),), a))
