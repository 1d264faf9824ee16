"""``jitflow.nn``: functions of neural networks as users call them. The common ones are also at the top of `jitflow`."""

from __future__ import annotations

from jitflow.ops import composite, convolution, convolution_transpose, pooling
from jitflow.tensor import lift

__all__ = [
    "avg_pool",
    "conv",
    "conv_transpose",
    "gelu",
    "layer_norm",
    "log_softmax",
    "max_pool",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
]

# activations
gelu = lift(composite.gelu)
log_softmax = lift(composite.log_softmax)
relu = lift(composite.relu)
sigmoid = lift(composite.sigmoid)
silu = lift(composite.silu)
softmax = lift(composite.softmax)

# convolution and pooling
avg_pool = lift(pooling.avg_pool)
conv = lift(convolution.conv)
conv_transpose = lift(convolution_transpose.conv_transpose)
max_pool = lift(pooling.max_pool)

# normalization
layer_norm = lift(composite.layer_norm)
