"""JAX: one jitted function of the inputs, the constants closed over, arrays on its CPU device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.bench.peers.form import Data, Form, Unsupported
from tests.bench.workloads import Workload


class Namespace:
    """jax's functions, by the names that workloads use."""

    exp, log, tanh, sqrt, maximum, erf = jnp.exp, jnp.log, jnp.tanh, jnp.sqrt, jnp.maximum, jax.lax.erf
    sum, max, var, argmax, argmin = jnp.sum, jnp.max, jnp.var, jnp.argmax, jnp.argmin
    matmul, permute, reshape, flip, concat = jnp.matmul, jnp.transpose, jnp.reshape, jnp.flip, jnp.concatenate
    relu, softmax, log_softmax = jax.nn.relu, jax.nn.softmax, jax.nn.log_softmax
    layout = ("NCHW", "OIHW", "NCHW")

    @staticmethod
    def gelu(x: Any, *, approximate: str = "none") -> Any:
        return jax.nn.gelu(x, approximate=approximate == "tanh")

    @staticmethod
    def transpose(x: Any) -> Any:
        return jnp.swapaxes(x, -1, -2)

    @staticmethod
    def contiguous(x: Any) -> Any:
        return x

    @staticmethod
    def take(x: Any, indices: Any) -> Any:
        return jnp.take(x, indices, axis=0, mode="clip")

    @staticmethod
    def to_float32(x: Any) -> Any:
        return x.astype(jnp.float32)

    @staticmethod
    def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
        y = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
        return y if scale is None else y * scale + bias

    @staticmethod
    def rms_norm(x: Any, scale: Any) -> Any:
        y = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
        return y if scale is None else y * scale

    @staticmethod
    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return jnp.matmul(x, weight) + bias

    @classmethod
    def conv(cls, x: Any, weight: Any, bias: Any, *, stride: int, padding: int, groups: int) -> Any:
        y = jax.lax.conv_general_dilated(
            x, weight, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=cls.layout, feature_group_count=groups,
        )  # fmt: skip
        return y + (bias if cls.layout[0] == "NHWC" else bias[:, None, None])

    @staticmethod
    def attention(q: Any, k: Any, v: Any, *, causal: bool) -> Any:
        scores = jnp.matmul(q, jnp.swapaxes(k, -1, -2)) * (q.shape[-1] ** -0.5)
        if causal:
            scores = jnp.where(jnp.tri(*scores.shape[-2:], dtype=bool), scores, -jnp.inf)
        return jnp.matmul(jax.nn.softmax(scores), v)


class _ChannelsLast(Namespace):
    layout = ("NHWC", "HWIO", "NHWC")


class _OwnAttention(Namespace):
    @staticmethod
    def attention(q: Any, k: Any, v: Any, *, causal: bool) -> Any:
        q, k, v = (jnp.swapaxes(t, 1, 2) for t in (q, k, v))
        return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, is_causal=causal), 1, 2)


class Jax:
    """XLA's CPU back end; a call ends when its result is ready."""

    name, version = "jax", jax.__version__

    def __init__(self, threads: int) -> None:
        """The environment (`tests.bench.environment`) sets XLA's threads before jax is imported."""
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        # A call is over when its result is there: handing it to another thread would cost 3 microseconds.
        jax.config.update("jax_cpu_enable_async_dispatch", False)

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        if not all(a.flags.c_contiguous for a in data.inputs):
            raise Unsupported("jax would copy strided inputs before it is timed")
        jax.clear_caches()
        if w.section == "convolutions":
            x, (weight, bias) = data.inputs[0], data.constants
            last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            taps = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
            yield _form("channels last", w, _ChannelsLast, (last,), (taps, bias), lambda y: y.transpose(0, 3, 1, 2))
        if w.family in ("attention", "encoder_layer"):
            yield _form("dot_product_attention", w, _OwnAttention, data.inputs, data.constants)
        yield _form("", w, Namespace, data.inputs, data.constants)


def _form(
    label: str, w: Workload, xp: Any, inputs: Any, constants: Any, result: Callable[[Any], Any] = lambda y: y
) -> Form:
    arrays = [jax.device_put(a) for a in inputs]
    baked = [jnp.asarray(c) for c in constants]
    function = jax.jit(lambda *x: w.body(xp, *x, *baked))
    return Form(label, lambda: function(*arrays).block_until_ready(), lambda y: result(np.asarray(y)))
