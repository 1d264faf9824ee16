"""``jitflow.random``: random numbers as functions of an explicit key, as users call them."""

from __future__ import annotations

from jitflow.ops import random
from jitflow.tensor import lift

__all__ = [
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "exponential",
    "fold_in",
    "key",
    "normal",
    "permutation",
    "philox",
    "randint",
    "split",
    "uniform",
]

bernoulli = lift(random.bernoulli)
bits = lift(random.bits)
categorical = lift(random.categorical)
choice = lift(random.choice)
exponential = lift(random.exponential)
fold_in = lift(random.fold_in)
key = lift(random.key)
normal = lift(random.normal)
permutation = lift(random.permutation)
philox = lift(random.philox)
randint = lift(random.randint)
split = lift(random.split)
uniform = lift(random.uniform)
