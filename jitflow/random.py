"""``jitflow.random``: random numbers as functions of an explicit key, as users call them."""

from __future__ import annotations

from jitflow.ops import philox as generator
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
bits = lift(generator.bits)
categorical = lift(random.categorical)
choice = lift(random.choice)
exponential = lift(random.exponential)
fold_in = lift(generator.fold_in)
key = lift(generator.key)
normal = lift(random.normal)
permutation = lift(random.permutation)
philox = lift(generator.philox)
randint = lift(random.randint)
split = lift(generator.split)
uniform = lift(random.uniform)
