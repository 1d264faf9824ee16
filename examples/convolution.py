"""Train a small convolutional net to tell horizontal bars from vertical ones, with dropout and one key for each step.

The whole step (draw a batch of pictures, the loss, its gradients, the new weights) is one graph, compiled once.
Run it: ``python examples/convolution.py``.
"""

from __future__ import annotations

import numpy as np

import jitflow as jf
from jitflow import nn, random

SIDE, BATCH, RATE = 12, 32, 0.2

Weights = dict[str, jf.Tensor]


def pictures(key: jf.Tensor) -> tuple[jf.Tensor, jf.Tensor]:
    """Return a batch of noisy pictures [N, 1, S, S] with a bar across each, and whether it is upright: all drawn."""
    where, which, noise = random.split(key, 3)
    place = random.randint(where, 0, SIDE, (BATCH,))
    upright = random.bernoulli(which, 0.5, (BATCH,))
    bar = nn.one_hot(place, SIDE, dtype=jf.float32)
    rows = bar[:, :, None] * jf.ones((SIDE,), dtype=jf.float32)
    clean = jf.where(upright[:, None, None], jf.matrix_transpose(rows), rows)
    blurred = clean + 0.4 * random.normal(noise, (BATCH, SIDE, SIDE), dtype=jf.float32)
    return blurred[:, None], jf.astype(upright, jf.int64)


def net(x: jf.Tensor, w: Weights, dropout: jf.Tensor | None = None) -> jf.Tensor:
    """Return two logits for each picture."""
    h = nn.relu(nn.conv(x, w["conv"], w["shift"], padding="same"))
    h = nn.max_pool(h, 3)
    h = jf.reshape(h, (-1, 4 * (SIDE // 3) ** 2))
    if dropout is not None:
        h = nn.dropout(h, 0.25, dropout)
    return h @ w["dense"]


def initial(key: jf.Tensor) -> dict[str, np.ndarray]:
    """Return weights to start from."""
    a, b = random.split(key)
    start = {
        "conv": 0.5 * random.normal(a, (4, 1, 3, 3), dtype=jf.float32),
        "shift": jf.zeros((4,), dtype=jf.float32),
        "dense": 0.2 * random.normal(b, (4 * (SIDE // 3) ** 2, 2), dtype=jf.float32),
    }
    return jf.Session(start).run(start, {})


def main() -> None:
    """Train, and say how often the net is right about pictures that it has not seen."""
    values = initial(random.key(0))
    weights = {name: jf.placeholder(name, jf.float32, value.shape) for name, value in values.items()}
    key = jf.placeholder("key", jf.uint64, ())

    drawn, drop = random.split(key)
    x, labels = pictures(drawn)
    loss = nn.cross_entropy(net(x, weights, drop), labels)
    slopes = jf.gradients(loss, weights)
    new = {name: w - RATE * slopes[name] for name, w in weights.items()}
    unseen, truth = pictures(key)
    share = jf.mean(jf.astype(jf.argmax(net(unseen, weights), axis=1) == truth, jf.float32))

    with jf.Session([loss, new, share]) as session:
        keys = jf.interpret(random.split(random.key(1), 120), {})
        for step, k in enumerate(keys):
            cost, values = session.run([loss, new], {"key": k, **values})
            if step % 30 == 0:
                print(f"step {step:3}: loss {cost:.3f}")
        right = np.mean([session.run(share, {"key": np.uint64(k), **values}) for k in range(20)])
    print(f"right about {right:.0%} of {20 * BATCH} new pictures")
    print("compiled and interpreted agree:", jf.compare(loss, {"key": keys[0], **values}).ok)


if __name__ == "__main__":
    main()
