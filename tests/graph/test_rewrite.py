"""Graph passes: what each does, where it must not fire, and that none changes a bit of any result."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.errors import CompilerBug
from jitflow.graph import OPS, Node, toposort
from jitflow.rewrite import (
    PASSES,
    Pass,
    cancel_movement,
    cut,
    expand,
    fold_constants,
    rewrite,
    simplify_algebra,
)
from jitflow.tensor import Tensor, as_tensor
from tests.support.random_graph import RandomGraph, random_graph

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, -1e300, 1e-30, 3.7])


def after(run: Pass, t: Tensor, *feeds: Tensor) -> Tensor:
    return as_tensor(run([t.node], [f.node for f in feeds])[t.node])


def ops_of(t: Tensor) -> list[str]:
    return [n.op.name for n in toposort([t.node]) if not n.op.source]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    nan = np.isnan(a)
    return bool((nan == np.isnan(b)).all()) and a[~nan].tobytes() == b[~nan].tobytes()


def f64(*shape: Any, name: str = "x") -> Tensor:
    return jf.placeholder(name, jf.float64, shape)


# ---- all passes


def evaluate(graph: RandomGraph) -> list[np.ndarray] | None:
    try:
        return jf.interpret(graph.fetches, needed(graph.fetches, graph.feeds))
    except jf.FeedError:
        return None


@pytest.mark.parametrize("chunk", range(10))
def test_no_pass_changes_a_bit_of_random_graphs(chunk: int) -> None:
    compared = 0
    for seed in range(chunk * 40, chunk * 40 + 40):
        graph = random_graph(seed, size=16)
        fetches = [t.node for t in graph.fetches]
        before = evaluate(graph)
        if before is None:
            continue
        seen: list[tuple[str, list[np.ndarray]]] = []

        def observe(name: str, now: Any, seen: Any = seen, graph: RandomGraph = graph) -> None:
            seen.append((name, jf.interpret([as_tensor(n) for n in now], needed(now, graph.feeds))))

        replaced = rewrite(fetches, [t.node for t in graph.feeds], observe)
        assert [name for name, _ in seen] == [name for name, _ in PASSES]
        # The oracle's rules of composite operators are not made of their expansions, so there only the values agree.
        for (_, old), (name, new) in itertools.pairwise([("", before), *seen]):
            for t, a, b in zip(graph.fetches, old, new, strict=True):
                if name == "expand":
                    assert a.dtype == b.dtype, (seed, t)
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=f"{seed} {t}")
                else:
                    assert same_bits(a, b), (seed, name, t, a, b)
        for node in fetches:
            assert replaced[node].dtype is node.dtype
        assert all(n.op.expand is None for n in toposort([replaced[f] for f in fetches]))
        compared += 1
    assert compared > 20


def needed(fetches: Any, feeds: dict[Tensor, np.ndarray]) -> dict[Tensor, np.ndarray]:
    used = set(toposort([getattr(f, "node", f) for f in fetches]))
    return {t: a for t, a in feeds.items() if t.node in used}


def test_a_fed_inner_node_is_cut_off_and_never_mixed_up_with_an_equal_node() -> None:
    compared = 0
    for seed in range(120):
        graph = random_graph(seed, size=16)
        inner = [t for t in graph.nodes if not t.node.op.source and t.dtype is jf.float64]
        if not inner:
            continue
        cut_at = inner[seed % len(inner)]
        try:
            shape = jf.interpret(cut_at, needed([cut_at], graph.feeds)).shape
            given = {**graph.feeds, cut_at: np.full(shape, 7.25)}
            used = toposort([t.node for t in graph.fetches], {cut_at.node})
            feeds = {t: a for t, a in given.items() if t.node in used}
            before = jf.interpret(graph.fetches, feeds)
        except jf.FeedError:
            continue
        replaced = rewrite([t.node for t in graph.fetches], [t.node for t in feeds])
        new_feeds = {as_tensor(replaced[t.node]): a for t, a in feeds.items()}
        new_fetches = [as_tensor(replaced[t.node]) for t in graph.fetches]
        for a, b in zip(before, jf.interpret(new_fetches, needed(new_fetches, new_feeds)), strict=True):
            assert same_bits(a, b), seed
        compared += 1
    assert compared > 30


def test_a_rewritten_node_that_becomes_equal_to_a_fed_one_is_still_computed() -> None:
    x = f64("n")
    fed = jf.exp(x)
    y = jf.exp(x * 1.0) + fed
    replaced = rewrite([y.node], [x.node, fed.node])
    values = jf.interpret(
        as_tensor(replaced[y.node]),
        {as_tensor(replaced[x.node]): np.zeros(2), as_tensor(replaced[fed.node]): np.full(2, 10.0)},
    )
    assert values.tolist() == [11.0, 11.0]


def test_fed_placeholders_stay_and_other_fed_nodes_become_placeholders_of_their_type_and_name() -> None:
    x = f64("n")
    h = jf.exp(x).named("h")
    y = h * 2.0
    replaced = rewrite([y.node], [h.node])
    assert replaced[h.node].op.name == "placeholder"
    assert replaced[h.node].name == "h"
    assert replaced[h.node].type == h.node.type
    assert rewrite([y.node], [x.node])[x.node] is x.node


def test_a_fed_fetch_is_its_feed() -> None:
    x = f64("n")
    assert rewrite([x.node], [x.node])[x.node] is x.node
    w = jf.variable("w", [1.0])
    assert rewrite([w.node], [w.node])[w.node].op.name == "placeholder"
    assert rewrite([w.node], [])[w.node] is w.node


def test_rewriting_what_is_rewritten_changes_nothing() -> None:
    for seed in range(40):
        graph = random_graph(seed)
        feeds = [t.node for t in graph.feeds]
        fetches = [t.node for t in graph.fetches]
        replaced = rewrite(fetches, feeds)
        now = [replaced[f] for f in fetches]
        again = rewrite(now, feeds)
        assert [again[f] for f in now] == now, seed


def test_rewritten_nodes_keep_the_line_of_the_node_they_stand_for() -> None:
    x = f64("n", 3)
    y = jf.softmax(x)
    expanded = after(expand, y, x)
    made = [n for n in toposort([expanded.node]) if n is not x.node and not n.op.source]
    assert made
    assert {n.site for n in made} == {y.node.site}


def test_f7_a_chain_of_fifty_thousand_nodes_is_rewritten_without_recursion() -> None:
    x = f64()
    y = x
    for _ in range(25_000):
        y = jf.negative(jf.exp(y * 1.0))
    replaced = rewrite([y.node], [x.node])
    assert len(toposort([replaced[y.node]])) == 50_001


def test_every_operator_that_the_rules_name_exists() -> None:
    source = Path(rewrite.__code__.co_filename).read_text()
    words = {w for line in source.splitlines() if "case " in line for w in line.split('"')[1::2]}
    assert words - set(OPS) == set()


# ---- expand


def test_expand_goes_down_to_primitive_operators() -> None:
    x = f64("n", 4)
    y = after(expand, jf.layer_norm(jf.gelu(x)), x)
    assert all(OPS[name].expand is None for name in ops_of(y))
    assert after(expand, jf.exp(x), x) is jf.exp(x)


def test_expand_leaves_a_fed_node_alone() -> None:
    x = f64("n", 4)
    s = jf.softmax(x)
    assert after(expand, jf.exp(s), s) is jf.exp(s)


def test_an_expansion_of_another_type_is_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    x = f64(4)
    op = OPS["softmax"]
    object.__setattr__(op, "expand", lambda x, axis: jf.astype(x, jf.float32).node)
    y = jf.softmax(x)
    try:
        with pytest.raises(CompilerBug, match=r"softmax expands from f64\[4\] to f32\[4\]"):
            after(expand, y, x)
    finally:
        monkeypatch.undo()
        object.__setattr__(op, "expand", EXPAND_SOFTMAX)


EXPAND_SOFTMAX = OPS["softmax"].expand


# ---- fold_constants


def test_exact_operators_of_constants_are_folded() -> None:
    c = jf.constant([1.0, -0.0, np.nan])
    y = after(fold_constants, jf.reshape(-c, (3, 1)))
    assert y.node.op.name == "constant"
    assert same_bits(y.node.attr("value").array, np.array([[-1.0], [0.0], [np.nan]]))


def test_operators_that_round_on_their_own_are_not_folded() -> None:
    y = jf.exp(jf.constant([1.0]))
    assert after(fold_constants, y) is y


def test_variables_and_large_results_are_not_folded() -> None:
    w = jf.variable("w", [1.0, 2.0])
    assert after(fold_constants, -w) is -w
    large = jf.broadcast_to(jf.constant([1.0]), (1 << 17,))
    assert after(fold_constants, large) is large
    symbolic = jf.broadcast_to(jf.constant([1.0]), ("n",))
    assert after(fold_constants, symbolic) is symbolic


def test_an_index_out_of_range_is_left_to_the_run() -> None:
    y = jf.take(jf.constant([1.0, 2.0]), jf.constant([5]), axis=0)
    assert after(fold_constants, y) is y
    fine = jf.take(jf.constant([1.0, 2.0]), jf.constant([1]), axis=0)
    assert after(fold_constants, fine).node.op.name in ("constant", "take")


# ---- cancel_movement


def test_names_are_dropped() -> None:
    x = f64("n")
    assert after(cancel_movement, jf.exp(x.named("a")).named("b"), x) is jf.exp(x)


def test_reshapes_merge() -> None:
    x = f64("n", 6)
    y = jf.reshape(jf.reshape(x, (-1,)), (-1, 2, 3))
    assert after(cancel_movement, y, x) is jf.reshape(x, (-1, 2, 3))
    assert after(cancel_movement, jf.reshape(jf.reshape(x, (-1,)), ("n", 6)), x) is x


def test_permutations_and_flips_merge() -> None:
    x = f64(2, 3, 4)
    assert after(cancel_movement, jf.permute_dims(jf.permute_dims(x, (1, 2, 0)), (2, 0, 1)), x) is x
    twice = jf.permute_dims(jf.permute_dims(x, (1, 2, 0)), (1, 2, 0))
    assert after(cancel_movement, twice, x) is jf.permute_dims(x, (2, 0, 1))
    # These two do not commute.
    both = jf.permute_dims(jf.permute_dims(x, (1, 0, 2)), (0, 2, 1))
    assert after(cancel_movement, both, x) is jf.permute_dims(x, (1, 2, 0))
    assert after(cancel_movement, jf.flip(jf.flip(x, axis=(0, 1)), axis=(1, 0)), x) is x
    assert after(cancel_movement, jf.flip(jf.flip(x, axis=0), axis=2), x) is jf.flip(x, axis=(0, 2))


def test_slices_merge() -> None:
    x = f64(20)
    y = x[3:17:2][1:6][::-2]
    assert ops_of(after(cancel_movement, y, x)) == ["slice"]
    assert jf.interpret(after(cancel_movement, y, x), {x: np.arange(20.0)}).tolist() == [13.0, 9.0, 5.0]


def test_movement_of_a_fill_is_a_fill() -> None:
    ones = jf.ones((4, 6))
    y = jf.flip(jf.permute_dims(jf.reshape(ones, (2, 12)), (1, 0)))[3:]
    assert after(cancel_movement, y) is jf.ones((9, 2))
    spread = jf.broadcast_to(jf.constant(-0.0), (3, 2))
    assert after(cancel_movement, spread) is jf.full((3, 2), -0.0)
    padded = jf.pad(ones, 1, constant_values=2.0)
    assert after(cancel_movement, padded) is padded


def test_movement_of_a_repeated_scalar_is_one_broadcast() -> None:
    x = jf.placeholder("x", jf.float64, ())
    y = jf.permute_dims(jf.reshape(jf.broadcast_to(jf.reshape(x, (1,)), ("n",)), ("n", 1)), (1, 0))
    assert after(cancel_movement, y, x) is jf.broadcast_to(x, (1, "n"))
    one = jf.placeholder("one", jf.float64, (1, 1))
    wide = jf.flip(jf.broadcast_to(one, (2, 3)))
    assert ops_of(after(cancel_movement, wide, one)) == ["reshape", "broadcast_to"]
    assert after(cancel_movement, jf.reshape(jf.reshape(one, (1,)), (1, 1)), one) is one
    assert after(cancel_movement, jf.broadcast_to(x, (4,)), x) is jf.broadcast_to(x, (4,))


def test_different_movements_stay() -> None:
    x = f64("n", 6)
    y = jf.permute_dims(jf.reshape(x, (-1, 2)), (1, 0))
    assert after(cancel_movement, y, x) is y


def test_a_merge_that_needs_a_new_assumption_does_not_happen() -> None:
    x = f64("n")
    y = jf.reshape(jf.reshape(x, ("m", 2)), ("k",))
    merged = after(cancel_movement, y, x)
    known = {(g.left, g.right) for n in toposort([y.node]) for g in n.guards}
    assert all((g.left, g.right) in known for n in toposort([merged.node]) for g in n.guards)


# ---- simplify_algebra


def algebra(y: Tensor, *feeds: Tensor) -> Tensor:
    return after(simplify_algebra, y, *feeds)


def test_neutral_elements_vanish_where_that_is_exact() -> None:
    x = f64("n")
    for y in (x * 1.0, 1.0 * x, x / 1.0, x - 0.0, x + -0.0, -0.0 + x, x**1.0, x * 1, x.astype(jf.float64)):
        assert algebra(y, x) is x, y
    i = jf.placeholder("i", jf.int32, ("n",))
    for y in (i * 1, i + 0, 0 + i, i - 0, i // 1, i**1):
        assert algebra(y, i) is i, y
    b = jf.placeholder("b", jf.bool_, ("n",))
    for y in (jf.logical_and(b, True), jf.logical_or(b, False), jf.logical_and(b, b), jf.logical_or(b, b)):
        assert algebra(y, b) is b, y


def test_what_changes_a_zero_or_a_nan_stays() -> None:
    x = f64("n")
    for y in (x + 0.0, 0.0 + x, x - -0.0, x * 0.0, x - x, x / x, 0.0 - x, 1.0 / x, x // 1.0, x * -1.0):
        assert algebra(y, x) is y, y


def test_a_neutral_element_that_changes_the_shape_or_dtype_stays() -> None:
    x = f64("n")
    y = x * jf.ones((3, 1))
    assert algebra(y, x) is y
    i = jf.placeholder("i", jf.int32, ("n",))
    assert algebra(i * 1.0, i).dtype is jf.float64


def test_a_fill_of_neutral_elements_counts() -> None:
    x = f64("n", 3)
    assert algebra(x * jf.ones(x.shape), x) is x
    assert algebra(x * jf.constant([1.0, 1.0, 1.0]), x) is x
    y = x * jf.constant([1.0, 1.0, 2.0])
    assert algebra(y, x) is y


def test_division_by_a_power_of_two_is_a_multiplication() -> None:
    x = f64("n")
    assert algebra(x / 4.0, x) is x * 0.25
    assert algebra(x / -0.5, x) is x * -2.0
    y = x / jf.full((3, 1), 8.0)
    assert algebra(y, x) is x * jf.full((3, 1), 0.125)
    for c in (3.0, 0.0, -0.0, np.inf, np.nan, 2.0**-1074, 2.0**1023):
        y = x / c
        assert algebra(y, x) is y
    f = jf.placeholder("f", jf.float32, ("n",))
    for c in (2.0**-149, 2.0**127):
        y = f / c
        assert algebra(y, f) is y
    assert algebra(f / 2.0**126, f) is f * 2.0**-126


def test_inverses_and_idempotent_functions_cancel() -> None:
    x, b = f64("n"), jf.placeholder("b", jf.bool_, ("n",))
    assert algebra(jf.negative(-x), x) is x
    assert algebra(jf.logical_not(jf.logical_not(b)), b) is b
    assert algebra(abs(abs(-x)), x) is abs(x)
    assert algebra(jf.floor(jf.floor(x)), x) is jf.floor(x)
    assert algebra(jf.maximum(x, x), x) is x
    y = jf.floor(jf.ceil(x))
    assert algebra(y, x) is y


def test_where_with_a_known_condition_or_equal_arms_is_an_arm() -> None:
    x, z, c = f64("n"), f64("n", name="z"), jf.placeholder("c", jf.bool_, ("n",))
    assert algebra(jf.where(c, x, x), c, x) is x
    assert algebra(jf.where(True, x, z), x, z) is x
    assert algebra(jf.where(jf.constant([False]), x, z), x, z) is z
    y = jf.where(c, x, z)
    assert algebra(y, c, x, z) is y
    s = jf.placeholder("s", jf.float64, ())
    y = jf.where(c, s, s)
    assert algebra(y, c, s) is y


@pytest.mark.parametrize(
    ("source", "middle", "last"),
    list(itertools.product(jf_dtypes := (jf.bool_, jf.int32, jf.int64, jf.float32, jf.float64), jf_dtypes, jf_dtypes)),
)
def test_conversions_by_way_of_a_dtype_that_holds_every_value_merge(source: Any, middle: Any, last: Any) -> None:
    x = jf.placeholder("x", source, ("n",))
    y = x.astype(middle).astype(last)
    merged = algebra(y, x)
    values = {
        "b": np.array([True, False]),
        "i": np.array([0, 1, -1, 2**24 + 1, 2**31 - 1, -(2**31), 2**53 + 1, 2**62 + 1]),
        "f": np.array([0.5, -0.0, np.nan, np.inf, 1e300, 1e-45, 16777217.0, 2.0**31, -(2.0**63), 1 / 3]),
    }[source.kind]
    with np.errstate(all="ignore"):
        fed = {x: values.astype(source.np)}
    assert same_bits(jf.interpret(y, fed), jf.interpret(merged, fed))
    if source is jf.int32 and middle is jf.int64:
        assert merged is x.astype(last)
    if source is jf.int64 and middle is jf.float64 and last is not jf.float64:
        assert merged is y


@pytest.mark.parametrize(
    "build",
    [
        lambda x: x * 1.0,
        lambda x: x + -0.0,
        lambda x: x - 0.0,
        lambda x: x / 4.0,
        lambda x: jf.negative(-x),
        lambda x: x**1.0,
        lambda x: jf.maximum(x, x),
        lambda x: abs(-x),
        lambda x: jf.round(jf.round(x)),
        lambda x: x / 2.0**-1020,
    ],
)
def test_algebra_keeps_every_bit_of_special_values(build: Any) -> None:
    x = f64("n")
    y = build(x)
    assert algebra(y, x) is not y
    assert same_bits(jf.interpret(y, {x: SPECIAL}), jf.interpret(algebra(y, x), {x: SPECIAL}))


# ---- cut


def test_cut_replaces_fed_nodes_everywhere() -> None:
    x = f64("n")
    h = jf.exp(x)
    y = h + jf.sin(h)
    new = after(cut, y, h)
    assert ops_of(new) == ["sin", "add"]
    sources: list[Node] = [n for n in toposort([new.node]) if n.op.source]
    assert [n.op.name for n in sources] == ["placeholder"]
    assert sources[0] is not x.node


def test_folding_overflows_in_silence_as_a_run_does() -> None:
    big = jf.constant(np.full(3, 1e300))
    y = jf.cumulative_prod(big)
    (dx,) = jf.gradients(jf.sum(y), [big])
    assert jf.Session(dx).run(dx).tolist()[0] == float("inf")
