"""``jitflow.linalg``: the linear algebra of the array API standard that needs no factorisation, as users call it."""

from __future__ import annotations

from jitflow.ops import linalg
from jitflow.tensor import lift

__all__ = [
    "cross",
    "diagonal",
    "matmul",
    "matrix_norm",
    "matrix_transpose",
    "outer",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]

cross = lift(linalg.cross)
diagonal = lift(linalg.diagonal)
matmul = lift(linalg.matmul)
matrix_norm = lift(linalg.matrix_norm)
matrix_transpose = lift(linalg.matrix_transpose)
outer = lift(linalg.outer)
tensordot = lift(linalg.tensordot)
trace = lift(linalg.trace)
vecdot = lift(linalg.vecdot)
vector_norm = lift(linalg.vector_norm)
