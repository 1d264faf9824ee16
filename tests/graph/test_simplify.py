"""Index arithmetic: canonical forms, proofs, and soundness on random expressions."""

from __future__ import annotations

import random

import pytest

from jitflow.expr import INDEX, Expr, Var, as_index, binary, const_index, maximum, minimum
from jitflow.simplify import (
    divides,
    evaluate_index,
    free_vars,
    is_less,
    is_nonnegative,
    known_sign,
    same_index,
    simplify_index,
    split_linear,
)
from jitflow.types import dim_text

n, m = Var("n", INDEX, floor=0), Var("m", INDEX, floor=0)
i, j, k = (Var(name, INDEX, floor=0) for name in "ijk")
EXTENTS = {i: n, j: as_index(64), k: m}


def text(e: Expr) -> str:
    e = simplify_index(e, EXTENTS)
    return str(e.value) if hasattr(e, "value") else dim_text(e)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (n * 4 // 4, "n"),
        ((i * 64 + j) // 64, "i"),
        ((i * 64 + j) % 64, "j"),
        ((i * m + k) // m, "i"),
        ((i * m + k) % m, "k"),
        (k // 3 * 3 + k % 3, "k"),
        (k // 9 * 9 + k // 3 % 3 * 3 + k % 3, "k"),
        ((k // 105 * 105 + k // 15 % 7 * 15 + k // 5 % 3 * 5 + k % 5) * 8 + j, "j + k*8"),
        (i * 192 + k // 3 * 3 + k % 3, "i*192 + k"),
        ((n + 70) // 64, "(n + 6)//64 + 1"),
        (k // 4 // 8, "k//32"),
        (k // n // 3, "k//(n*3)"),
        (k // n // m, "k//(m*n)"),
        ((i * m + k) // m // n, "0"),
        ((i * 64 + j) // 192, "i//3"),
        ((i * m + k) // (m * n), "0"),
        ((n * m + k) // (m * 7), "n//7"),
        (n * m - m * n, "0"),
        (n * 2 + n, "n*3"),
        (minimum(n, n + 1), "n"),
        (n + m - n, "m"),
        ((n + 1) * (n - 1), "n*n - 1"),
        (j // 64, "0"),
        (n % 1, "0"),
    ],
)
def test_an_index_expression_has_one_canonical_form(expr: Expr, expected: str) -> None:
    assert text(expr) == expected


def test_a_quotient_that_is_not_proven_stays() -> None:
    assert text((i * m + k) // 64) == "(i*m + k)//64"
    assert text((i * 32 + j) // 96) == "(i*32 + j)//96"
    assert text((i * m - k) // (m * 3)) == "(i*m - k)//(m*3)"
    assert text(i // (n - m) // 2) == "i//(n - m)//2"
    assert text((i * 63 + j) // 64) == "(i*63 + j)//64"
    assert text(n * 4 // 3) == "n*4//3"


def test_quotient_and_remainder_by_a_sum_are_joined_only_if_every_term_is_there() -> None:
    """A divisor ``k + 4`` has two partners; to take one for the whole lost elements of reshaped, padded arrays."""
    x, k = Var("x", INDEX, floor=0), Var("k", INDEX, floor=0)
    assert simplify_index((x // (k + 4)) * (k + 4) + x % (k + 4)) is x
    half = simplify_index((x // (k + 4)) * k + x % (k + 4))
    for a, b in [(33, 3), (7, 0), (50, 5)]:
        assert evaluate_index(half, {x: a, k: b}) == (a // (b + 4)) * b + a % (b + 4)


def test_division_by_zero_gives_zero() -> None:
    assert text(n // 0) == "0"
    assert text(n % 0) == "0"


def test_equality_is_decided_only_where_it_holds_for_all_values() -> None:
    assert same_index(n * 2 + 1, n + n + 1) is True
    assert same_index(n, n + 1) is False
    assert same_index(3, 3) is True
    assert same_index(n, n * 2) is None  # equal at 0
    assert same_index(n, m) is None
    assert same_index(n, 5) is None


def test_signs_follow_from_bounds() -> None:
    assert known_sign(n + 1) == 1
    assert known_sign(const_index(0) - n - 2) == -1
    assert known_sign(n - n) == 0
    assert known_sign(n) is None
    assert is_nonnegative(n * m)
    assert not is_nonnegative(n - m)
    assert is_less(j, 64, EXTENTS)
    assert is_less(i * m + k, n * m, EXTENTS)
    assert not is_less(i * m + k, n * m - 1, EXTENTS)


def test_a_stride_is_read_off_a_linear_form() -> None:
    stride, rest = split_linear(i * m + j * 4 + 3, i) or (None, None)
    assert (stride, rest) == (m, simplify_index(j * 4 + 3))
    assert split_linear(i * i, i) is None
    assert split_linear((i + 1) // m, i) is None


def random_index(rng: random.Random, depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([n, m, i, j, k]) if rng.random() < 0.7 else const_index(rng.randint(-3, 9))
    op = rng.choice(["add", "sub", "mul", "floordiv", "mod", "min", "max"])
    a = random_index(rng, depth - 1)
    # A symbolic divisor stands for an extent, which is positive where its quotient is used.
    b = random_index(rng, depth - 1)
    if op in ("floordiv", "mod"):
        b = rng.choice([const_index(rng.randint(1, 8)), m, n])
    return binary(op, a, b)


def test_simplification_keeps_the_value_and_is_idempotent() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        e = random_index(rng, 4)
        simple = simplify_index(e, EXTENTS)
        assert simplify_index(simple, EXTENTS) == simple, dim_text(e)
        for _ in range(4):
            size, width = rng.randint(1, 9), rng.randint(1, 9)
            values = {n: size, m: width, i: rng.randrange(size), j: rng.randrange(64), k: rng.randrange(width)}
            assert evaluate_index(e, values) == evaluate_index(simple, values), (dim_text(e), dim_text(simple), values)


def test_proofs_hold_on_random_values() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        e = random_index(rng, 3)
        sign, nonnegative = known_sign(e, EXTENTS), is_nonnegative(e, EXTENTS)
        for _ in range(4):
            size, width = rng.randint(1, 9), rng.randint(1, 9)
            values = {n: size, m: width, i: rng.randrange(size), j: rng.randrange(64), k: rng.randrange(width)}
            value = evaluate_index(e, values)
            assert not nonnegative or value >= 0
            assert sign is None or (value > 0) - (value < 0) == sign


@pytest.mark.parametrize(
    ("divisor", "dividend", "expected"),
    [
        (n - 2, n * m - m * 2, True),
        (2 - n, n * m - m * 2, True),
        (n + m, n * n - m * m, True),
        (n // 3 + 1, (n // 3) * m + m, True),
        (n, n * m, True),
        (as_index(4), n * 8, True),
        (n - 2, n * m - m, False),
        (n * 2 - 4, n * m - m * 2, False),  # no integer's multiple
        (n + m, n * n + m * m, False),
        (as_index(298), as_index(300), False),
    ],
)
def test_a_multiple_is_told_by_the_root_of_its_divisor(divisor: Expr, dividend: Expr, expected: bool) -> None:
    assert divides(divisor, dividend) is expected


def test_free_variables_of_a_literal_are_none() -> None:
    assert free_vars(3) == set()
    assert free_vars(n * m + n) == {n, m}


def test_what_a_slice_takes_and_what_it_leaves_are_the_whole() -> None:
    assert text(minimum(n, 1) + maximum(n - 1, 0)) == "n"
    assert text(m * minimum(n, 3) + maximum(0, n - 3) * m) == "m*n"
    assert text(minimum(n, 1) + maximum(n - 2, 0)) != "n"


def test_nested_slices_do_not_blow_up() -> None:
    e: Expr = n
    for _ in range(12):
        e = simplify_index(maximum(e - 1, 0) + minimum(e, 1))
    assert e == n
    for _ in range(40):
        e = simplify_index(maximum(minimum(e, m) - 1, 0))
    assert is_nonnegative(e)
