"""What a product multiplies: its axes, its factors, and where they lie."""

from __future__ import annotations

from typing import Any

import pytest

import jitflow as jf
from jitflow.expr import Expr
from lowering.analysis.contraction import Contraction, contraction_of
from lowering.reduction import reduce_of
from lowering.text import show
from tests.support.lowered import groups_of


def product(fetch: jf.Tensor) -> Contraction:
    (group,) = [g for g in groups_of(fetch) if g.kind == "contract"]
    c = contraction_of(group)
    assert c is not None
    return c


def tensor(name: str, *shape: Any) -> jf.Tensor:
    return jf.placeholder(name, jf.float32, shape)


def text(*es: Expr) -> list[str]:
    return [show(e).strip() for e in es]


def test_two_matrices_have_no_batch() -> None:
    c = product(tensor("a", "m", "k") @ tensor("b", "k", "n"))
    assert c.batch == ()
    assert text(c.m.extent, c.n.extent, c.k.extent) == ["m", "n", "k"]


def test_axes_that_only_the_left_factor_has_are_rows_of_one_matrix() -> None:
    c = product(tensor("a", "x", "y", "m", "k") @ tensor("b", "k", "n"))
    assert c.batch == ()
    assert text(c.m.extent) == ["m * x * y"]
    assert len(c.m_axes) == 3


def test_axes_of_both_factors_are_the_batch() -> None:
    c = product(tensor("a", "x", "y", "m", "k") @ tensor("b", "y", "k", "n"))
    assert text(*(a.extent for a in c.batch)) == ["x", "y"]
    assert [c.right.depends_on(a) for a in c.batch] == [False, True]


def test_a_column_is_turned_around() -> None:
    c = product(tensor("a", "m", 1) @ tensor("b", 1, 1))
    assert text(c.m.extent, c.n.extent) == ["1", "m"]
    assert c.right.place is not None
    assert c.right.place.node.name == "a"


@pytest.mark.parametrize(
    "fetch",
    [
        tensor("a", "m", "k") @ tensor("b", "k", 1),
        tensor("a", "m", "k") @ tensor("b", "k"),
        tensor("a", "k") @ tensor("b", "k"),
        tensor("a", "x", 1, "k") @ jf.matrix_transpose(tensor("b", "n", "k")),
    ],
)
def test_products_of_rows_with_one_vector_are_added_in_lanes(fetch: jf.Tensor) -> None:
    (group,) = groups_of(fetch)
    assert (group.kind, [reduce_of(e).lanes for e in group.reductions]) == ("reduce", [64])


@pytest.mark.parametrize(
    "fetch", [tensor("a", 1, "k") @ tensor("b", "k", "n"), tensor("a", "k", "m").T @ tensor("b", "k")]
)
def test_a_vector_times_a_matrix_has_a_chain_for_each_column(fetch: jf.Tensor) -> None:
    c = product(fetch)
    assert text(c.m.extent) == ["1"]
    assert c.right.unit == "across"


def test_factors_in_memory_have_strides() -> None:
    c = product(tensor("a", "m", 30) @ tensor("b", 30, 40))
    assert c.left.place is not None
    assert c.right.place is not None
    assert text(c.left.place.across, c.left.place.along) == ["30", "1"]
    assert text(c.right.place.across, c.right.place.along) == ["1", "40"]
    assert (c.left.unit, c.right.unit) == ("along", "across")


def test_movement_is_seen_through() -> None:
    c = product(tensor("a", 30, "m").T @ tensor("b", 50, 60)[10:40, 5:25])
    assert c.left.place is not None
    assert c.right.place is not None
    assert text(c.left.place.across, c.left.place.along) == ["1", "m"]
    assert text(c.right.place.across, c.right.place.along) == ["1", "60"]
    assert (c.left.unit, c.right.unit) == ("across", "across")


def test_rows_of_a_batch_lie_evenly_if_the_array_is_contiguous() -> None:
    c = product(tensor("a", "x", "m", 30) @ tensor("b", 30, 40))
    assert c.left.place is not None
    assert text(c.left.place.across) == ["30"]
    assert product(tensor("a", "x", "m", 30)[:, 1:] @ tensor("b", 30, 40)).left.place is None


def test_a_computed_factor_is_nowhere_but_knows_what_is_contiguous() -> None:
    c = product(jf.maximum(tensor("a", "k", "m").T, 0.0) @ (tensor("b", "n", "k").T * 2.0))
    assert c.left.place is None
    assert c.right.place is None
    assert (c.left.unit, c.right.unit) == ("across", "along")


def test_rows_that_are_looked_up_are_contiguous_along_k() -> None:
    at = jf.placeholder("at", jf.int64, ("m",))
    c = product(jf.take(tensor("a", 100, 30), at, axis=0) @ tensor("b", 30, 40))
    assert c.left.place is None
    assert c.left.unit == "along"


def test_one_element_for_many_is_no_matrix_in_memory() -> None:
    c = product(jf.broadcast_to(tensor("a", "m", 1), ("m", 30)) @ tensor("b", 30, 40))
    assert c.left.place is None


def test_other_groups_multiply_nothing() -> None:
    x = tensor("x", "m", "n")
    (group,) = groups_of(jf.sum(x * x, axis=1))
    assert contraction_of(group) is None
