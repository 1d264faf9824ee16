"""``jitflow.nn``: functions of neural networks as users call them. The common ones are also at the top of `jitflow`."""

from __future__ import annotations

from jitflow.ops import composite
from jitflow.tensor import lift

__all__ = ["gelu", "layer_norm", "log_softmax", "relu", "sigmoid", "silu", "softmax"]

gelu = lift(composite.gelu)
layer_norm = lift(composite.layer_norm)
log_softmax = lift(composite.log_softmax)
relu = lift(composite.relu)
sigmoid = lift(composite.sigmoid)
silu = lift(composite.silu)
softmax = lift(composite.softmax)
