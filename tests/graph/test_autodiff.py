"""Gradients: against central differences through the interpreter, and the rules around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.errors import CompilerBug
from jitflow.graph import OPS, toposort
from jitflow.tensor import Tensor


def evaluate(fetches: Any, feeds: dict[Tensor, np.ndarray]) -> Any:
    """Interpret `fetches` with those of `feeds` that they need."""
    needed = toposort([t.node for t in (fetches if isinstance(fetches, list) else [fetches])])
    return jf.interpret(fetches, {t: a for t, a in feeds.items() if t.node in needed})


def check_gradients(loss: Tensor, feeds: dict[Tensor, np.ndarray], wrt: list[Tensor], seed: int = 0) -> None:
    """Compare the gradient along a random direction with a central difference."""
    rng = np.random.default_rng(seed)
    found = evaluate(jf.gradients(loss, wrt), feeds)
    for x, g in zip(wrt, found, strict=True):
        assert g.shape == feeds[x].shape
        assert g.dtype == feeds[x].dtype
        direction = rng.standard_normal(feeds[x].shape)
        h = 1e-6
        up, down = ({**feeds, x: feeds[x] + s * h * direction} for s in (1, -1))
        slope = (jf.interpret(loss, up) - jf.interpret(loss, down)) / (2 * h)
        np.testing.assert_allclose((g * direction).sum(), slope, rtol=2e-6, atol=1e-8, err_msg=repr(x))


def f64(name: str, *shape: Any) -> Tensor:
    return jf.placeholder(name, jf.float64, shape)


def mlp_loss(batch: Any) -> tuple[Tensor, dict[Tensor, np.ndarray], list[Tensor]]:
    rng = np.random.default_rng(1)
    x, t = f64("x", batch, 5), jf.placeholder("t", jf.int64, (batch,))
    w1, b1, w2, b2 = f64("w1", 5, 7), f64("b1", 7), f64("w2", 7, 3), f64("b2", 3)
    h = jf.gelu(jf.layer_norm(x @ w1 + b1))
    logits = jf.log_softmax(h @ w2 + b2, axis=-1)
    one_hot = jf.expand_dims(t, axis=1) == jf.arange(3)
    loss = -jf.mean(jf.sum(jf.where(one_hot, logits, 0.0), axis=-1)) + 0.01 * jf.sum(w1 * w1)
    feeds: dict[Tensor, np.ndarray] = {
        p: rng.standard_normal(tuple(4 if d == "n" else int(d) for d in p.shape)) for p in (x, w1, b1, w2, b2)
    }
    feeds[t] = rng.integers(0, 3, 4)
    return loss, feeds, [x, w1, b1, w2, b2]


@pytest.mark.parametrize("batch", [4, "n"])
def test_a_network_with_a_fixed_and_with_a_symbolic_batch(batch: Any) -> None:
    loss, feeds, wrt = mlp_loss(batch)
    check_gradients(loss, feeds, wrt)


@pytest.mark.parametrize(
    "build",
    [
        lambda x, y: jf.sum(jf.exp(x) * y),
        lambda x, y: jf.sum(jf.softmax(x, axis=0) * y),
        lambda x, y: jf.sum(jf.tanh(x)[::-1, 1:] / (2.0 + y[0, 0] * y[0, 0])),
        lambda x, y: jf.mean(jf.concat([x, y, x], axis=1) ** 3),
        lambda x, y: jf.var(x * y) + jf.std(y + 10.0),
        lambda x, y: jf.sum(jf.max(x, axis=1) * jf.min(y, axis=1)),
        lambda x, y: jf.sum(jf.where(x > 0, x * y, jf.sin(y))),
        lambda x, y: jf.sum(jf.matrix_transpose(x) @ jf.roll(y, 1, axis=0)),
        lambda x, y: jf.sum(jf.erf(x) + jf.cos(y) + jf.sigmoid(x) + jf.silu(y) + jf.relu(x + 0.3)),
        lambda x, y: jf.sum(jf.sqrt(x * x + 1.0) * jf.log(y * y + 1.0)),
        lambda x, y: jf.sum(jf.pad(x, 1)[1:-1] * jf.broadcast_to(y[:1, :1], (3, 6))),
        lambda x, y: jf.sum(jf.take(x, jf.constant([2, 0, 2, -1]), axis=0)) + jf.prod(y[0]),
        lambda x, y: jf.sum(jf.stack([x, y]) * jf.flip(jf.stack([y, x]), axis=0)),
        lambda x, y: jf.sum(jf.maximum(x, y) - jf.minimum(x, 0.1) + jf.clip(y, -0.5, 0.5) + abs(x)),
        lambda x, y: jf.sum(jf.reshape(x, (2, 6))) * jf.sum(jf.squeeze(jf.expand_dims(y, axis=1), axis=1)),
        lambda x, y: jf.sum(x % 0.7) + jf.sum((x * y).astype(jf.float64)),
    ],
)
def test_functions_of_two_matrices(build: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, y = f64("x", 3, 4), f64("y", 3, 4)
    rng = np.random.default_rng(5)
    feeds = {x: rng.standard_normal((3, 4)), y: rng.standard_normal((3, 4))}
    check_gradients(build(x, y), feeds, [x, y])


def test_broadcast_inputs_get_gradients_of_their_own_shape_also_when_symbolic() -> None:
    x, row, column, scalar = f64("x", "n", "m"), f64("row", "m"), f64("column", "n", 1), f64("scalar")
    rng = np.random.default_rng(2)
    feeds = {
        x: rng.standard_normal((3, 4)),
        row: rng.standard_normal(4),
        column: rng.standard_normal((3, 1)),
        scalar: rng.standard_normal(()),
    }
    loss = jf.sum(jf.sin((x + row) * column) * scalar)
    check_gradients(loss, feeds, [x, row, column, scalar])
    assert jf.gradients(loss, column).shape == ("n", 1)


def test_gradients_flow_through_every_use_and_through_wrt_tensors() -> None:
    x = f64("x")
    h = x * x
    y = h * h + h
    gx, gh = jf.interpret(jf.gradients(y, [x, h]), {x: np.array(3.0)})
    assert gh == 2 * 9 + 1
    assert gx == 4 * 27 + 2 * 3


def test_the_loss_itself_has_gradient_one() -> None:
    x = f64("x")
    y = x * 2.0
    assert jf.interpret(jf.gradients(y, y), {}) == 1.0


def test_unconnected_tensors_get_zeros_of_their_shape() -> None:
    x, z = f64("x", "n"), jf.placeholder("z", jf.float32, ("n", 2))
    g = jf.gradients(jf.sum(x), z)
    assert g.dtype is jf.float32
    assert g.shape == ("n", 2)
    assert jf.interpret([g, z], {z: np.ones((3, 2), np.float32)})[0].tolist() == [[0, 0], [0, 0], [0, 0]]


def test_nothing_flows_through_integers_comparisons_and_floor() -> None:
    x = f64("x", 3)
    through_int = jf.sum(jf.astype(jf.astype(x, jf.int64), jf.float64))
    through_bool = jf.sum(jf.where(x > 1.0, 1.0, 2.0))
    through_floor = jf.sum(jf.floor(x))
    for loss in (through_int, through_bool, through_floor):
        assert evaluate(jf.gradients(loss, x), {x: np.ones(3)}).tolist() == [0, 0, 0]


def test_a_cotangent_gives_the_vector_jacobian_product() -> None:
    x = f64("x", "n")
    y = x * x
    ct = f64("ct", "n")
    g = jf.gradients(y, x, ct=ct)
    assert jf.interpret(g, {x: np.array([1.0, 2.0]), ct: np.array([10.0, 1.0])}).tolist() == [20.0, 4.0]
    weighted = jf.gradients(y, x, ct=np.array([1.0, 0.5]))
    assert jf.interpret(weighted, {x: np.array([1.0, 2.0])}).tolist() == [2.0, 2.0]
    assert jf.interpret(jf.gradients(jf.sum(y), x, ct=2), {x: np.array([1.0, 2.0])}).tolist() == [4.0, 8.0]


def test_the_result_has_the_structure_of_wrt() -> None:
    x, y = f64("x"), f64("y")
    loss = x * y
    assert isinstance(jf.gradients(loss, x), Tensor)
    assert isinstance(jf.gradients(loss, [x, y]), list)
    assert isinstance(jf.gradients(loss, (x, y)), tuple)
    assert list(jf.gradients(loss, {"a": x, "b": y})) == ["a", "b"]
    assert jf.gradients(loss, []) == []


def test_gradients_are_graphs_and_can_be_differentiated_again() -> None:
    x = f64("x", 3)
    g = jf.gradients(jf.sum(x**3), x)
    check_gradients(jf.sum(g * g), {x: np.array([1.0, -2.0, 0.5])}, [x])


def test_float32_gradients_are_float32() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 3))
    g = jf.gradients(jf.sum(jf.softmax(x) * 2.0), x)
    assert g.dtype is jf.float32


def test_a_composite_operator_without_a_rule_is_differentiated_as_its_expansion() -> None:
    op = OPS["softmax"]
    vjp = op.vjp
    x = f64("x", 2, 4)
    weights = jf.constant(np.arange(8.0).reshape(2, 4))
    object.__setattr__(op, "vjp", None)
    try:
        loss = jf.sum(jf.softmax(x) * weights) + jf.sum(jf.softmax(x + x))
        check_gradients(loss, {x: np.random.default_rng(0).standard_normal((2, 4))}, [x])
    finally:
        object.__setattr__(op, "vjp", vjp)


def test_f7_a_chain_of_twenty_thousand_nodes_is_differentiated_without_recursion() -> None:
    x = f64("x")
    y = x
    for _ in range(20_000):
        y = jf.negative(y)
    assert jf.interpret(jf.gradients(y, x), {}) == 1.0


def test_errors_say_what_is_wrong() -> None:
    x, i = f64("x", "n"), jf.placeholder("i", jf.int32, ("n",))
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: jf.gradients(x * 2.0, x), jf.ShapeError, "gradients: the loss must be 0-d, got shape (n,); reduce"),
        (lambda: jf.gradients(jf.sum(i), x), jf.DTypeError, "gradients: the loss must be floating, got <reduce_sum"),
        (lambda: jf.gradients(jf.sum(x), i), jf.DTypeError, "gradients: cannot differentiate by <placeholder 'i': i32"),
        (lambda: jf.gradients(jf.sum(x), "x"), jf.DTypeError, "gradients are taken of Tensors with respect to Tensors"),
        (
            lambda: jf.gradients(1.0, x),
            jf.DTypeError,
            "gradients are taken of Tensors with respect to Tensors, got flo",
        ),
        (lambda: jf.gradients(x, x, ct=i), jf.DTypeError, "gradients: ct has dtype int32, the loss float64"),
        (lambda: jf.gradients(x, x, ct=jf.ones(())), jf.ShapeError, "gradients: ct has shape (), the loss (n,)"),
    ]
    for call, error, message in cases:
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(message)
        assert "test_autodiff.py:" in str(caught.value).splitlines()[-1]


def test_an_operator_without_a_gradient_is_named_with_the_line_it_was_called_on() -> None:
    op = OPS["erf"]
    vjp = op.vjp
    object.__setattr__(op, "vjp", None)
    try:
        x = f64("x")
        y = jf.erf(x)
        with pytest.raises(jf.GraphError) as caught:
            jf.gradients(y, x)
        assert str(caught.value) == f"gradients: operator erf has no gradient\n  at {y.node.site}"
    finally:
        object.__setattr__(op, "vjp", vjp)


def test_a_wrong_vjp_rule_is_a_bug_of_ours() -> None:
    op = OPS["erf"]
    vjp = op.vjp
    try:
        object.__setattr__(op, "vjp", lambda ct, out, x: (jf.ones((2, 2)).node,))
        x = f64("x", 3)
        with pytest.raises(CompilerBug, match=r"vjp rule of erf gives f64\[2, 2\] for an input f64\[3\]"):
            jf.gradients(jf.sum(jf.erf(x)), x)
        object.__setattr__(op, "vjp", lambda ct, out, x: ())
        with pytest.raises(CompilerBug, match="gives 0 cotangents for 1 inputs"):
            jf.gradients(jf.sum(jf.erf(x)), x)
    finally:
        object.__setattr__(op, "vjp", vjp)
