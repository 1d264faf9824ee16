"""``jitflow.nn``: functions of neural networks as users call them. The common ones are also at the top of `jitflow`."""

from __future__ import annotations

from jitflow.ops import activations, convolution, convolution_transpose, normalization, pooling
from jitflow.ops import softmax as exponentials
from jitflow.tensor import lift

__all__ = [
    "avg_pool",
    "conv",
    "conv_transpose",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
]

# activations
elu = lift(activations.elu)
gelu = lift(activations.gelu)
hard_sigmoid = lift(activations.hard_sigmoid)
hard_swish = lift(activations.hard_swish)
leaky_relu = lift(activations.leaky_relu)
log_sigmoid = lift(activations.log_sigmoid)
log_softmax = lift(exponentials.log_softmax)
logsumexp = lift(exponentials.logsumexp)
mish = lift(activations.mish)
relu = lift(activations.relu)
relu6 = lift(activations.relu6)
selu = lift(activations.selu)
sigmoid = lift(activations.sigmoid)
silu = lift(activations.silu)
softmax = lift(exponentials.softmax)
softplus = lift(activations.softplus)

# convolution and pooling
avg_pool = lift(pooling.avg_pool)
conv = lift(convolution.conv)
conv_transpose = lift(convolution_transpose.conv_transpose)
max_pool = lift(pooling.max_pool)

# normalization
layer_norm = lift(normalization.layer_norm)
