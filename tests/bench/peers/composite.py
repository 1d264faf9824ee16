"""Composite functions of arrays, written with the elementary ones that a subclass has.

The name space that the body of a workload is written against is that of the subclasses together with this one:
operators, slices, ``exp log tanh erf sqrt maximum``, ``sum max var argmax argmin`` with `axis`, ``matmul transpose
permute reshape contiguous flip concat take to_float32``, and ``relu gelu softmax log_softmax layer_norm rms_norm linear
attention conv``.
"""

from __future__ import annotations

import math
from typing import Any


class Composite:
    """The textbook formulas, for systems that have no such functions of their own."""

    @classmethod
    def relu(cls, x: Any) -> Any:
        return cls.maximum(x, 0.0)

    @classmethod
    def gelu(cls, x: Any, *, approximate: str = "none") -> Any:
        if approximate == "tanh":
            return 0.5 * x * (1.0 + cls.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        return 0.5 * x * (1.0 + cls.erf(x * math.sqrt(0.5)))

    @classmethod
    def softmax(cls, x: Any) -> Any:
        e = cls.exp(x - cls.max(x, axis=-1, keepdims=True))
        return e / cls.sum(e, axis=-1, keepdims=True)

    @classmethod
    def log_softmax(cls, x: Any) -> Any:
        shifted = x - cls.max(x, axis=-1, keepdims=True)
        return shifted - cls.log(cls.sum(cls.exp(shifted), axis=-1, keepdims=True))

    @classmethod
    def layer_norm(cls, x: Any, scale: Any, bias: Any) -> Any:
        centred = x - cls.mean(x, axis=-1, keepdims=True)
        y = centred / cls.sqrt(cls.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
        return y if scale is None else y * scale + bias

    @classmethod
    def rms_norm(cls, x: Any, scale: Any) -> Any:
        y = x / cls.sqrt(cls.mean(x * x, axis=-1, keepdims=True) + 1e-5)
        return y if scale is None else y * scale

    @classmethod
    def linear(cls, x: Any, weight: Any, bias: Any) -> Any:
        return cls.matmul(x, weight) + bias
