"""Attention, a small network with constant weights, and a transformer encoder layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.workloads.workload import Array, Workload, family, random


@family(
    sizes=((8, 512, 64, False), (8, 512, 64, True), (12, 1024, 64, False), (12, 1024, 64, True)),
    odd=((3, 500, 40, False), (3, 500, 40, True)),
    small=(2, 5, 4, True),
)
def attention(heads: int, length: int, dim: int, causal: bool) -> Workload:
    return Workload(
        name=f"attention {heads}x{length}x{dim}{' causal' * causal}",
        bar=1.2,
        body=lambda xp, q, k, v: xp.attention(q, k, v, causal=causal),
        inputs=lambda: tuple(random(1, heads, length, dim, seed=s) for s in range(3)),
        # Half of the scores are masked away.
        flops=4.0 * heads * length * length * dim * (0.5 if causal else 1.0),
        options={"dim": dim},
    )


def _weights(*sizes: tuple[int, int]) -> tuple[Array, ...]:
    arrays: list[Array] = []
    for seed, (rows, columns) in enumerate(sizes):
        arrays += [
            random(rows, columns, seed=2 * seed) * np.float32(rows**-0.5),
            random(columns, seed=2 * seed + 1) * np.float32(0.1),
        ]
    return tuple(arrays)


@family(sizes=((1,), (32,), (256,)), odd=((7,), (50,)), small=(3,))
def mlp(batch: int) -> Workload:
    def body(xp: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        hidden = xp.gelu(xp.linear(xp.layer_norm(x, None, None), w1, b1))
        return xp.softmax(xp.linear(hidden, w2, b2))

    return Workload(
        name=f"MLP batch {batch}",
        bar=1.5 if batch == 1 else 1.2,
        body=body,
        inputs=lambda: (random(batch, 256, seed=9),),
        constants=lambda: _weights((256, 512), (512, 128)),
        dims=(("batch", 256),),
        flops=2.0 * batch * (256 * 512 + 512 * 128),
        options={"width": 256},
    )


@family(sizes=((128, 768, 12),), odd=((100, 384, 6),), small=(5, 8, 2))
def encoder_layer(length: int, width: int, heads: int) -> Workload:
    """Attention and a network of four times the width, each after a norm and added to what went in."""

    def body(xp: Any, x: Any, wq: Any, bq: Any, wo: Any, bo: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        qkv = xp.reshape(xp.linear(xp.layer_norm(x, None, None), wq, bq), (length, 3, heads, width // heads))
        parts = xp.permute(qkv, (1, 2, 0, 3))
        q, k, v = (xp.reshape(parts[i], (1, heads, length, width // heads)) for i in range(3))
        mixed = xp.permute(xp.attention(q, k, v, causal=False), (0, 2, 1, 3))
        x = x + xp.linear(xp.reshape(mixed, (length, width)), wo, bo)
        hidden = xp.gelu(xp.linear(xp.layer_norm(x, None, None), w1, b1))
        return x + xp.linear(hidden, w2, b2)

    shapes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    return Workload(
        name=f"encoder layer {length}x{width}, {heads} heads",
        bar=1.2,
        body=body,
        inputs=lambda: (random(length, width, seed=99),),
        constants=lambda: _weights(*shapes),
        flops=2.0 * length * 12 * width**2 + 4.0 * length * length * width,
        options={"width": width, "dim": width // heads},
    )
