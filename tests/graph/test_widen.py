"""float16 and bfloat16: computed in float32 and rounded once, in the oracle, the compiled program and the gradients."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import DType, bfloat16, float16
from jitflow.graph import toposort
from jitflow.rewrite import rewrite
from tests.support.bits import same_bits

HALVES = pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
NUMPY = {float16: np.dtype(np.float16), bfloat16: np.dtype(ml_dtypes.bfloat16)}


def both(fetches, feeds):
    """Return the compiled values, which must be those of the oracle, bit for bit."""
    with jf.config.override(verify=True):
        compiled = jf.Session(fetches).run(fetches, feeds)
    for got, want in zip(compiled, jf.interpret(fetches, feeds), strict=True):
        assert same_bits(got, want)
    return compiled


@HALVES
def test_every_operation_is_rounded(dtype: DType) -> None:
    x, y = (jf.placeholder(n, dtype, (3,)) for n in "xy")
    a, b = np.array([1, 1, 100], NUMPY[dtype]), np.array([2.0**-12, 3, 0.125], NUMPY[dtype])
    total, product = both([x + y - x, x * y / x], {x: a, y: b})
    np.testing.assert_array_equal(total, (a + b).astype(NUMPY[dtype]) - a)
    # 1 + 2**-12 is 1 in either type, so nothing of it is left.
    assert total[0] == 0
    np.testing.assert_array_equal(product, (a * b) / a)


@HALVES
def test_one_operation_is_numpys(dtype: DType) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 1 << 16, 4000, np.uint16).view(NUMPY[dtype]) for _ in range(2))
    x, y = (jf.placeholder(n, dtype, (None,)) for n in "xy")
    with np.errstate(all="ignore"):
        expected = [a + b, a - b, a * b, a / b, np.sqrt(a), a < b, a == b, np.abs(a)]
    got = both([x + y, x - y, x * y, x / y, jf.sqrt(x), x < y, jf.equal(x, y), abs(x)], {x: a, y: b})
    assert all(same_bits(g, e) for g, e in zip(got, expected, strict=True))


@HALVES
def test_sums_are_added_in_float32_and_rounded_once(dtype: DType) -> None:
    x = jf.placeholder("x", dtype, (3000,))
    value = np.full(3000, 1.0, NUMPY[dtype])
    value[0] = 0.5
    # In steps of the type itself the sum would stop at 2048 or 256.
    exact = 2999.5
    total, wide, mean = both([jf.sum(x), jf.sum(x, dtype=jf.float32), jf.mean(x)], {x: value})
    assert total.dtype == NUMPY[dtype]
    assert float(total) == float(NUMPY[dtype].type(exact))
    assert float(wide) == exact
    assert float(mean) == float(NUMPY[dtype].type(exact / 3000))
    square = both([x @ x], {x: value})[0]
    assert float(square) == float(NUMPY[dtype].type(2999.25))


def test_a_definition_is_rounded_as_a_whole() -> None:
    x = jf.placeholder("x", jf.float16, (4,))
    value = np.array([-20, 0.3, 11, 12], np.float16)
    wide = value.astype(np.float64)
    expected = np.exp(wide - wide.max()) / np.exp(wide - wide.max()).sum()
    (got,) = both([jf.softmax(x)], {x: value})
    np.testing.assert_array_equal(got, expected.astype(np.float16))


@HALVES
def test_only_movement_storage_and_conversions_see_halves(dtype: DType) -> None:
    x = jf.placeholder("x", dtype, ("n", 4))
    y = jf.where(x > 0, jf.flip(x), jf.pad(x, ((0, 0), (1, 0)))[:, :4])
    fetches = [jf.softmax(jf.take(y, jf.argmax(x, axis=0), axis=0)), jf.zeros((2,), dtype=dtype) + 1]
    nodes = [t.node for t in fetches]
    found = rewrite(nodes, [x.node])
    for node in toposort([found[n] for n in nodes]):
        halves = [t for t in (node, *node.inputs) if t.dtype.is_half]
        assert not halves or node.op.movement or node.op.storage or node.op.source, node


def test_narrowing_is_not_undone() -> None:
    x = jf.placeholder("x", jf.float32, (2,))
    value = np.array([1 + 2.0**-12, 1e6], np.float32)
    there_and_back, through = both(
        [x.astype(jf.float16).astype(jf.float32), x.astype("bfloat16").astype("float16")], {x: value}
    )
    np.testing.assert_array_equal(there_and_back, [1, np.inf])
    np.testing.assert_array_equal(through, np.array([1, np.inf], np.float16))


def test_widening_is_undone() -> None:
    x = jf.placeholder("x", jf.float16, (2,))
    y = x.astype(jf.float32).astype(jf.float16)
    assert rewrite([y.node], [x.node])[y.node] is x.node


@HALVES
def test_attributes_may_name_halves(dtype: DType) -> None:
    n = jf.placeholder("x", jf.float32, ("n",))
    fetches = [jf.arange(0, 2, 0.1, dtype=dtype), jf.full((3,), 0.1, dtype=dtype), jf.arange(n.shape[0], dtype=dtype)]
    fetches += [jf.zeros_like(n, dtype=dtype) + 1, jf.sum(n, dtype=dtype)]
    ramp, fill, count, ones, total = both(fetches, {n: np.full(300, 0.1, np.float32)})
    of = NUMPY[dtype]
    np.testing.assert_array_equal(ramp, (np.arange(20, dtype=np.float32) * np.float32(0.1)).astype(of))
    np.testing.assert_array_equal(fill, np.full(3, 0.1, of))
    np.testing.assert_array_equal(count, np.arange(300).astype(np.float32).astype(of))
    assert (ones == 1).all()
    assert float(total) == float(of.type(30))


@HALVES
def test_gradients_of_a_network_are_those_of_float32_rounded(dtype: DType) -> None:
    rng = np.random.default_rng(3)
    shapes = {"x": (5, 8), "w": (8, 16), "b": (16,), "v": (16, 3)}
    values = {name: rng.normal(size=shape).astype(NUMPY[dtype]) / 2 for name, shape in shapes.items()}

    def gradients(of: DType):
        t = {name: jf.placeholder(name, of, shape) for name, shape in shapes.items()}
        hidden = jf.layer_norm(jf.gelu(t["x"] @ t["w"] + t["b"]))
        loss = -jf.mean(jf.log_softmax(hidden @ t["v"])[:, 1]) + jf.sum(jf.max(hidden, axis=1)) * 0.01
        grads = jf.gradients(loss, [t["w"], t["b"], t["v"]])
        assert all(g.dtype == of for g in grads)
        feeds = {t[name]: v.astype(of.np) for name, v in values.items()}
        return [g.astype(np.float32) for g in (*jf.Session(grads).run(grads, feeds), *jf.interpret(grads, feeds))]

    eps = 2.0**-10 if dtype is float16 else 2.0**-7
    for half, single in zip(gradients(dtype), gradients(jf.float32), strict=True):
        np.testing.assert_allclose(half, single, rtol=0, atol=24 * eps * np.abs(single).max())
