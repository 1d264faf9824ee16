"""``jitflow.nn``: functions of neural networks as users call them. The common ones are also at the top of `jitflow`."""

from __future__ import annotations

from jitflow.ops import (
    activations,
    convolution,
    convolution_transpose,
    encoding,
    exponential,
    losses,
    normalization,
    pooling,
)
from jitflow.ops import attention as attending
from jitflow.ops import dropout as dropping
from jitflow.ops import softmax as exponentials
from jitflow.tensor import lift, lift_many

__all__ = [
    "attention",
    "avg_pool",
    "batch_norm",
    "batch_statistics",
    "binary_cross_entropy_with_logits",
    "conv",
    "conv_transpose",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "huber",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "mish",
    "mse",
    "one_hot",
    "relu",
    "relu6",
    "rms_norm",
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
sigmoid = lift(exponential.sigmoid)
silu = lift(activations.silu)
softmax = lift(exponentials.softmax)
softplus = lift(activations.softplus)

# convolution and pooling
avg_pool = lift(pooling.avg_pool)
conv = lift(convolution.conv)
conv_transpose = lift(convolution_transpose.conv_transpose)
max_pool = lift(pooling.max_pool)

# attention, tables, dropout
attention = lift(attending.attention)
dropout = lift(dropping.dropout)
embedding = lift(encoding.embedding)
one_hot = lift(encoding.one_hot)

# losses
binary_cross_entropy_with_logits = lift(losses.binary_cross_entropy_with_logits)
cross_entropy = lift(losses.cross_entropy)
huber = lift(losses.huber)
mse = lift(losses.mse)

# normalization
batch_norm = lift(normalization.batch_norm)
batch_statistics = lift_many(normalization.batch_statistics)
group_norm = lift(normalization.group_norm)
instance_norm = lift(normalization.instance_norm)
layer_norm = lift(normalization.layer_norm)
rms_norm = lift(normalization.rms_norm)
