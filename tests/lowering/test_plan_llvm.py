"""Sizes as native arithmetic: the value of an expression of the dims, computed by compiled code."""

from __future__ import annotations

import ctypes
import itertools

import pytest

from jitflow.expr import INDEX, Compare, Const, Expr, Select, Var, const_index, maximum, minimum
from jitflow.simplify import evaluate_index
from lowering.cpu import compile_object
from lowering.plan_llvm import _Writer
from lowering.target import host
from runtime.cpu import load_object

N, M = Var("n", INDEX, floor=0), Var("m", INDEX, floor=0)
VALUES = (0, 1, 5, 6, 7, 1000, 1 << 40)
FORMULAS: tuple[Expr, ...] = (
    (N * 3 + M - 7) // 4,
    (N - M) % 5,
    N // M,
    (N * 5 - M) // 8,
    (N - M) % 16,
    (N - M) // 1,
    maximum(N, M) * minimum(N, const_index(9)),
)


def compiled(e: Expr) -> ctypes._CFunctionType:  # type: ignore[name-defined]
    w = _Writer(checked=False)
    w.names |= {N: "%n", M: "%m"}
    result = w.index(e)
    body = "\n".join([*w.lines, f"  ret i64 {result}"])
    code = load_object(compile_object(f"define i64 @size(i64 %n, i64 %m) {{\n{body}\n}}\n", host()))
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code.address("size"))
    function.code = code  # type: ignore[attr-defined]
    return function


@pytest.mark.parametrize("e", FORMULAS, ids=range(len(FORMULAS)))
def test_a_formula_has_its_value(e: Expr) -> None:
    size = compiled(e)
    for n, m in itertools.product(VALUES, VALUES):
        want = evaluate_index(e, {N: n, M: m})
        assert size(n, m) == (want if want < 1 << 63 else want - (1 << 64))


@pytest.mark.parametrize("op", Compare.OPS)
def test_a_size_may_be_chosen_by_comparing_others(op: str) -> None:
    size = compiled(Select(Compare(op, N, M), N + 1, const_index(128)))
    holds = {"lt": int.__lt__, "le": int.__le__, "gt": int.__gt__, "ge": int.__ge__, "eq": int.__eq__, "ne": int.__ne__}
    for n, m in itertools.product(VALUES, VALUES):
        assert size(n, m) == (n + 1 if holds[op](n, m) else 128)


def test_a_literal_takes_no_instruction() -> None:
    w = _Writer(checked=True)
    assert w.index(const_index(7)) == "7"
    assert w.lines == []
    assert isinstance(const_index(7), Const)
