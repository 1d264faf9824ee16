"""The text of loop IR: printed forms, round trips, errors with their place, comparison up to renaming."""

from __future__ import annotations

import math

import pytest

from jitflow.dtypes import bool_, float16, float32, float64, index, int8, int32, int64, uint64
from jitflow.errors import FormatError
from jitflow.expr import (
    INDEX,
    Binary,
    Bitcast,
    Buffer,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Fma,
    Load,
    Ramp,
    Reduce,
    Select,
    Shuffle,
    Splat,
    Unary,
    Var,
    const,
    const_index,
    type_of,
)
from lowering.loop_ir import Alloc, Barrier, For, If, Kernel, Let, Stmt, Store
from lowering.text import (
    difference,
    parse_body,
    parse_fragment,
    parse_kernel,
    parse_kernels,
    show,
    structurally_equal,
)
from tests.support.random_program import random_gpu_kernel, random_kernel

F32, F64, I32 = type_of(float32), type_of(float64), type_of(int32)

EVERYTHING = """\
kernel everything(a: f32[n, 8] read, s: f32[n] read align 64, out: f32[n, 8], st: i64[2], n: index):
  # y = softmax(x) at model.py:12
  parallel i in n:
    let f: f32 = s[i]
    alloc acc: f32[64] register align 64
    vectorized j in 8:
      out[i, j] = max(a[i, j] * f, 0.0)
    stream out[i, ramp(0, 1, 8)] = a[i, ramp(0, 1, 8)] + splat(f, 8)
    let m: boolx8 = ramp(0, 1, 8) < splat(n, 8)
    out[i, ramp(0, 1, 8) if m] = a[i, ramp(0, 1, 8) if m] + 1.0e-05:f32x8
    if i < n - (3 - 1) - 2:
      atomic add out[i, 0], -f
      prefetch a[i + 1, 0]
      prefetch far s[i + 64]
    else:
      if true:
        check_index st[0] i != 3, i64(i)
        check_index st[1] m, ramp(i, 0, 8) if m
    while f < -inf:
      pass
    unrolled u in 4:
      acc[u] = select(f == nan, exp(f), f32(tanh(f64(f))))
    call micro(a + i * 8, out; n, 3)
  kernel micro(a: f32[8] read, b: f32[8], k: index, l: index):
    serial i in k:
      b[i] = fma(a[i], a[i], shuffle(splat(b[i], 4), 3))
"""


def parse_expr(text: str) -> Expr:
    """Return an expression over f32 values ``x y z``, i32 values ``p q`` and dims ``i j n``."""
    free = [Var(v, F32) for v in "xyz"] + [Var(v, I32) for v in "pq"] + [Var(v, INDEX) for v in "ijn"]
    (s,) = parse_body(f"t[] = {text}", [Buffer("t", float32, []), Buffer("a", float32, [8])], free)
    assert isinstance(s, Store)
    return s.value


def test_a_kernel_with_every_statement_reads_back_as_it_was_printed() -> None:
    assert show(parse_kernel(EVERYTHING)) == EVERYTHING


def test_a_gpu_kernel_reads_back_as_it_was_printed() -> None:
    text = """\
kernel transpose(a: f32[n, n] read, out: f32[n, n], n: index):
  block.y b in (n + 31) // 32:
    alloc tile: f32[32, 33] shared
    thread.x t in 32:
      tile[t, 0] = a[b, t]
      barrier
      out[t, b] = tile[t, 0] + shfl_xor(a[b, t], 16)
"""
    kernel = parse_kernel(text)
    assert show(kernel) == text
    (block,) = kernel.body
    assert isinstance(block, For)
    assert (block.kind, block.axis) == ("block", 1)


@pytest.mark.parametrize("part", range(5))
def test_500_random_programs_read_back_equal_and_print_the_same(part: int) -> None:
    for seed in range(part * 100, part * 100 + 100):
        kernel = random_kernel(seed) if seed % 10 else random_gpu_kernel(seed)
        text = show(kernel)
        again = parse_kernel(text)
        assert difference(kernel, again) is None, f"seed {seed}: {difference(kernel, again)}\n{text}"
        assert show(again) == text, f"seed {seed}"


@pytest.mark.parametrize(
    "text",
    [
        "x + y * z",
        "(x + y) * z",
        "x - (y - z)",
        "x - y - z",
        "-x * y",
        "-(x * y)",
        "--x",
        "-(1.0)",
        "-1.0 + x",
        "x - -1.0",
        "~(p & q) | p ^ q",
        "p << (q << p) >> 1:i32",
        "p & q == p",
        "p | (q == p)",
        "p + q < p * q",
        "(x < y) == (y < z)",
        "x / y / (z / x)",
        "i // 4 * 4 + i % 4",
        "(i + j) // 2",
        "min(x, max(y, z))",
        "sqrt(abs(x)) + floor(y)",
        "f64(x) * 2.0:f64",
        "bitcast(x, i32) >> 23:i32",
        "select(x < y, a[i], a[j if true])",
        "fma(x, y, -z)",
        "exp(x + y)",
        "frexp(x):i32",
        "nothing():f32",
        "any(splat(true, 4))",
        "shuffle(ramp(i, -2, 4), 3, 2, 1, 0)",
        "shuffle(splat(x, 4), 0)",
        "index(p) + n",
        "reduce(add k in n, l in 4; a[k] * a[l]; lanes 16; contract)",
        "reduce(argmax k in n; a[k])",
    ],
)
def test_an_expression_prints_as_it_was_written_with_the_fewest_parentheses(text: str) -> None:
    assert show(parse_expr(text)) == text


@pytest.mark.parametrize(
    ("text", "minimal"),
    [
        ("((x)) + (y * z)", "x + y * z"),
        ("(x + y) + z", "x + y + z"),
        ("(-x)", "-x"),
        ("1.", "1.0"),
        ("1e5", "100000.0"),
        ("x+y #sum", "x + y"),
        ("- 1", "-1"),
        ("0.10000000149011612", "0.1"),
    ],
)
def test_an_expression_is_printed_in_one_canonical_way(text: str, minimal: str) -> None:
    assert show(parse_expr(text)) == minimal


def test_operators_of_equal_precedence_associate_to_the_left() -> None:
    e = parse_expr("i - j + n")
    assert isinstance(e, Binary)
    assert e.op == "add"
    assert isinstance(e.a, Binary)
    assert e.a.op == "sub"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (const_index(0), "0"),
        (const_index(-7), "-7"),
        (const(3, int32), "3:i32"),
        (const(-(2**63), int64), "-9223372036854775808:i64"),
        (const(2**64 - 1, uint64), "18446744073709551615:u64"),
        (const(-1, type_of(int8, 16)), "-1:i8x16"),
        (const(1.0, float32), "1.0"),
        (const(-0.0, float32), "-0.0"),
        (const(0.1, float32), "0.1"),
        (const(1e20, float32), "1.0e+20"),
        (const(1e-45, float32), "1.0e-45"),
        (const(3.4028235e38, float32), "3.4028235e+38"),
        (const(0.1, float64), "0.1:f64"),
        (const(1 / 3, float64), "0.3333333333333333:f64"),
        (const(5e-324, float64), "5.0e-324:f64"),
        (const(0.1, float16), "0.0999755859375:f16"),
        (const(2.5, type_of(float32, 8)), "2.5:f32x8"),
        (const(math.nan, float32), "nan"),
        (const(-math.nan, float32), "-nan"),
        (const(math.inf, float64), "inf:f64"),
        (const(-math.inf, float32), "-inf"),
        (Const(True, type_of(bool_)), "true"),
        (Const(False, type_of(bool_, 4)), "false:boolx4"),
        (Const(2, type_of(index, 4)), "2:indexx4"),
    ],
)
def test_a_literal_keeps_its_bits_and_its_type(value: Const, text: str) -> None:
    assert show(value) == text
    assert parse_expr(text) == value


def test_the_shortest_digits_of_a_float_still_read_back_exactly() -> None:
    # Every exponent, and mantissas at the ends and in between.
    for exponent in range(-149, 128):
        for mantissa in (1.0, 1.0 + 2.0**-23, 2.0 - 2.0**-23, 1.4142135):
            value = const(mantissa * 2.0**exponent, float32)
            assert parse_expr(show(value)) == value


def test_names_are_unique_and_readable() -> None:
    n = Var("n", INDEX)
    i, j, k = (Var(name, INDEX) for name in ("i", "i", "if"))
    b = Buffer("row.max/1", float32, [n])
    loops = For(i, n, (For(j, n, (For(k, n, (Store(b, (i,), const(1.0, float32)),)),)),))
    assert show(Kernel("f", (b,), (n,), (loops,))) == (
        "kernel f(row_max_1: f32[n], n: index):\n"
        "  serial i in n:\n"
        "    serial i_1 in n:\n"
        "      serial if_1 in n:\n"
        "        row_max_1[i] = 1.0\n"
    )


def test_a_name_that_ends_in_a_number_does_not_grow_another_one() -> None:
    lets = [Let(Var("i_1", INDEX), const_index(k)) for k in range(3)]
    assert show(tuple(lets)) == "let i_1: index = 0\nlet i_2: index = 1\nlet i_3: index = 2\n"


def test_sibling_loops_may_use_one_name_in_the_text() -> None:
    body = parse_body("serial i in 2:\n  a[i] = 1.0\nserial i in 3:\n  a[i] = 2.0", [Buffer("a", float32, [8])])
    assert show(body) == "serial i in 2:\n  a[i] = 1.0\nserial i_1 in 3:\n  a[i_1] = 2.0\n"


def test_notes_keep_their_text_whatever_it_holds() -> None:
    notes = ("plain", "", "  indented # twice", "C:\\new\\model.py:3", "two\nlines", "ümläut → ok")
    kernel = Kernel("f", (), (), (), notes=notes)
    assert parse_kernel(show(kernel)).notes == notes


def test_comments_below_the_header_are_no_notes() -> None:
    kernel = parse_kernel("# before\nkernel f():\n  # note\n\n  barrier  # why\n  # later\n  barrier\n")
    assert kernel.notes == ("note",)
    assert kernel.body == (Barrier(), Barrier())


def test_a_long_header_is_broken_by_parameter() -> None:
    params = tuple(Buffer(f"a_parameter_with_a_long_name_{k}", float32, [4]) for k in range(5))
    text = show(Kernel("f", params, (), ()))
    assert text.startswith("kernel f(\n    a_parameter_with_a_long_name_0: f32[4],\n")
    assert structurally_equal(parse_kernel(text), Kernel("f", params, (), ()))


def test_several_kernels_in_one_text() -> None:
    assert [k.name for k in parse_kernels("kernel f():\n  pass\nkernel g():\n  pass\n")] == ["f", "g"]
    assert parse_kernels("# nothing\n") == ()
    with pytest.raises(FormatError, match="expected one kernel, found 2"):
        parse_kernel("kernel f():\n  pass\nkernel g():\n  pass\n")


def test_a_fragment_declares_what_it_uses() -> None:
    kernel = parse_fragment("serial i in n:\n  out[i] = a[i, 0] * scale[]")
    assert [(b.name, len(b.shape)) for b in kernel.params] == [("out", 1), ("a", 2), ("scale", 0)]
    assert {b.name for b in kernel.reads} == {"a", "scale"}
    assert [v.name for v in kernel.dims] == ["n"]


def test_an_undeclared_name_is_the_same_thing_in_every_loop() -> None:
    kernel = parse_fragment("serial i in 2:\n  out[i] = a[i]\nserial j in m:\n  out[j] = a[j]")
    assert [b.name for b in kernel.params] == ["out", "a"]


def test_a_fragment_may_have_a_header() -> None:
    assert show(parse_fragment(EVERYTHING)) == EVERYTHING


def test_empty_texts() -> None:
    assert parse_body("") == ()
    assert parse_body("\n  # only a comment\n") == ()
    assert show(()) == "pass\n"
    assert parse_body("pass") == ()


def test_a_body_can_be_indented_as_a_whole() -> None:
    assert parse_body("\n        barrier\n        barrier\n    ") == (Barrier(), Barrier())


def test_one_line_may_continue_inside_parentheses() -> None:
    assert show(parse_expr("min(x,\n  y)")) == "min(x, y)"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("out[0] = b", "line 1, column 10", "unknown name 'b'"),
        ("out[0] = b[0]", "line 1, column 10", "unknown buffer 'b'"),
        ("out[0] = out", "line 1, column 10", "'out' is a buffer; it needs subscripts"),
        ("out[0] = 1.0 +", "line 1, column 15", "expected an expression, found 'end of line'"),
        ("out[0] = (1.0", "line 1, column 14", "expected ')', found 'end of line'"),
        ("out[0] = 1 < 2 < 3", "line 1, column 16", "comparisons do not chain; use parentheses"),
        ("out[0] = 1.0 2.0", "line 1, column 14", "expected the end of the line, found '2.0'"),
        ("out[0] = 300:i8", "line 1, column 10", "'300' is no i8"),
        ("out[0] = 1.5:i32", "line 1, column 10", "'1.5' is no i32"),
        ("out[0] = 1:bool", "line 1, column 10", "'1' is no bool"),
        ("out[0] = true:i32", "line 1, column 10", "'true' is no i32"),
        ("out[0] = 1.0:f99", "line 1, column 14", "'f99' is no type"),
        ("out[0] = f()", "line 1, column 10", "a call without arguments needs a type: f():f32"),
        ("out[0] = min(1.0)", "line 1, column 17", "expected ',', found ')'"),
        ("out[0] = ramp(0, x, 4)", "line 1, column 18", "expected an integer, found 'x'"),
        ("out[0] = bitcast(1.0, x)", "line 1, column 23", "'x' is no dtype"),
        ("out[0] = reduce(sum k in 3; 1.0)", "line 1, column 17", "expected one of add, mul"),
        ("out[0] $ 1.0", "line 1, column 8", "unexpected character '$'"),
        ("out[0] = 'a'", "line 1, column 10", 'unexpected character "\'"'),
        ("let x: f32 = 1.0\nlet x: f32 = 2.0", "line 2, column 5", "'x' is already bound"),
        ("serial i in 3:\n  serial i in 3:\n    pass", "line 2, column 10", "'i' is already bound"),
        ("let if: f32 = 1.0", "line 1, column 5", "'if' is a reserved word"),
        ("let 3: f32 = 1.0", "line 1, column 5", "expected a name, found '3'"),
        ("serial i in 3:\n  pass\nout[i] = 1.0", "line 3, column 5", "unknown name 'i'"),
        ("serial i in 3:\nout[i] = 1.0", "line 2, column 1", "expected an indented body"),
        ("serial i in 3:", "line 1, column 15", "expected an indented body"),
        ("serial i in 3\n  pass", "line 1, column 14", "expected ':', found 'end of line'"),
        ("serial.w i in 3:\n  pass", "line 1, column 8", "expected x, y or z, found 'w'"),
        ("if true:\n  barrier\n    barrier", "line 3, column 5", "unexpected indentation"),
        ("if true:\n    barrier\n  barrier", "line 3, column 3", "unexpected indentation"),
        ("else:\n  barrier", "line 1, column 1", "expected a statement, found 'else'"),
        ("barrier now", "line 1, column 9", "expected the end of the line, found 'now'"),
        ("x", "line 1, column 1", "expected a statement, found 'x'"),
        ("3 = 4", "line 1, column 1", "expected a statement, found '3'"),
        ("alloc t: f32[3]", "line 1, column 16", "expected one of global, stack"),
        ("alloc t: f32[3] heap", "line 1, column 17", "expected one of global, stack"),
        ("prefetch out[0 if true]", "line 1, column 24", "a prefetch has no mask"),
        ("atomic mul out[0], 1.0", "line 1, column 8", "expected one of add, min, max, found 'mul'"),
        ("atomic add out[0 if true], 1.0", "line 1, column 26", "an atomic has no mask"),
        ("call f(3)", "line 1, column 8", "expected a name, found '3'"),
        ("call f(b)", "line 1, column 8", "unknown buffer 'b'"),
    ],
)
def test_an_error_names_line_and_column(text: str, place: str, message: str) -> None:
    with pytest.raises(FormatError) as e:
        parse_body(text, [Buffer("out", float32, [8])])
    first, source, caret = str(e.value).split("\n")
    assert first.startswith(f"{place}: {message}")
    line, column = int(place.split(",")[0][5:]), int(place.split(" ")[-1])
    assert source[2:] == text.split("\n")[line - 1]
    assert caret.index("^") == column + 1


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "", "expected one kernel, found 0"),
        ("kernel f(:", "line 1, column 10", "expected a name, found ':'"),
        ("kernel f()", "line 1, column 11", "expected ':'"),
        ("kernel f(a: f32[n]):\n  pass", "line 1, column 17", "unknown name 'n'"),
        ("kernel f(a: f99[3]):\n  pass", "line 1, column 13", "'f99' is no dtype"),
        ("kernel f(a: f32[3] write):\n  pass", "line 1, column 20", "expected one of read"),
        ("kernel f(a: f32[3], a: f32[3]):\n  pass", "line 1, column 21", "'a' is already bound"),
        ("kernel f(n: index, n: index):\n  pass", "line 1, column 20", "'n' is already bound"),
        ("kernel f(a: f32[3]):\n  a[0] = 1.0\nbarrier", "line 3, column 1", "expected 'kernel', found 'barrier'"),
    ],
)
def test_an_error_in_a_kernel_names_line_and_column(text: str, place: str, message: str) -> None:
    with pytest.raises(FormatError) as e:
        parse_kernel(text)
    assert str(e.value).startswith(f"{place}: {message}" if place else message)


def test_equal_up_to_renaming() -> None:
    one = parse_fragment("serial i in n:\n  let t: f32 = a[i]\n  out[i] = t * t")
    other = parse_fragment("serial k in m:\n  let u: f32 = b[k]\n  c[k] = u * u")
    assert structurally_equal(one, other)
    assert difference(one, other) is None


@pytest.mark.parametrize(
    ("left", "right", "where"),
    [
        ("out[0] = 1.0", "out[0] = 2.0", "body[0].value: `1.0` against `2.0`"),
        ("out[0] = 0.0", "out[0] = -0.0", "body[0].value: `0.0` against `-0.0`"),
        ("out[0] = a[0] + 1.0", "out[0] = a[0] - 1.0", "body[0].value.op: 'add' against 'sub'"),
        ("out[0] = a[0] * a[1]", "out[0] = -a[0]", "body[0].value: `a[0] * a[1]` against `-a[0]`"),
        ("serial k in 3:\n  barrier", "parallel k in 3:\n  barrier", "body[0].kind: 'serial' against 'parallel'"),
        ("barrier\nbarrier", "barrier", "body: only on the left: `barrier`"),
        ("barrier", "barrier\nout[0] = 1.0", "body: only on the right: `out[0] = 1.0`"),
        ("out[i] = a[j]", "out[i] = a[i]", "body[0].value.index[0]: j against i"),
        ("out[0] = 1.0", "stream out[0] = 1.0", "body[0].stream: False against True"),
    ],
)
def test_a_difference_says_where(left: str, right: str, where: str) -> None:
    buffers = [Buffer("out", float32, [8]), Buffer("a", float32, [8])]
    i, j = Var("i", INDEX), Var("j", INDEX)
    bodies = [Kernel("f", tuple(buffers), (i, j), parse_body(t, buffers, [i, j])) for t in (left, right)]
    assert difference(*bodies) == where


def test_two_variables_are_not_one() -> None:
    x, y = Var("x", F32), Var("y", F32)
    assert not structurally_equal(x + y, x + x)
    assert not structurally_equal(x + x, x + y)
    assert structurally_equal(x + y, y + x)


def test_buffers_and_parameters_are_compared() -> None:
    texts = ["a: f32[4]", "a: f64[4]", "a: f32[5]", "a: f32[4] align 64", "a: f32[4] read"]
    kernels = [parse_kernel(f"kernel f({t}):\n  pass") for t in texts]
    for k, one in enumerate(kernels):
        for m, other in enumerate(kernels):
            assert structurally_equal(one, other) == (k == m)
    assert difference(kernels[0], kernels[4]) == ".reads: {} against {a}"


def test_a_constant_size_is_the_same_as_int_and_as_index() -> None:
    one, other = (Alloc(Buffer("t", float32, [n], "stack")) for n in (4, const_index(4)))
    assert structurally_equal(one, other)


def test_every_expression_and_statement_has_a_text() -> None:
    x, i, k = Var("x", F32), Var("i", INDEX), Var("k", INDEX)
    a = Buffer("a", float32, [8])
    made: list[Expr] = [
        Bitcast(x, int32),
        Call("exp", (x,), F32),
        Call("lookup", (*(const(k / 2, F32) for k in range(16)), Var("j", type_of(int32, 8))), F32.with_lanes(8)),
        Cast(x, float64),
        Compare("ne", x, x),
        Fma(x, x, x),
        Load(a, (Ramp(i, 2, 4),), Splat(Compare("lt", i, i), 4)),
        Reduce("min", (k,), (const_index(4),), Load(a, (k,))),
        Select(Compare("lt", x, x), x, x),
        Shuffle(Splat(x, 4), (1, 0)),
        Shuffle(Splat(x, 4), (7, 0), Splat(x, 4)),
        Unary("not", Compare("lt", x, x)),
    ]
    for e in made:
        assert show(parse_expr(show(e))) == show(e)
    nested: Stmt = If(Compare("lt", i, i), (Barrier(),), (If(Compare("lt", i, i), ()),))
    assert show(nested) == "if i < i:\n  barrier\nelse:\n  if i < i:\n    pass\n"
