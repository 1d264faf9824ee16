"""Replace each fused multiply-add by a product and a sum, for targets that have no such instruction.

Before                                  After
    acc[0] = fma(a[k], b[k], acc[0])        acc[0] = a[k] * b[k] + acc[0]

The one pass that changes what is computed: kernels hold ``fma`` only in contractions, which are defined as one rounding
per step on targets that have it and two elsewhere. Emulating one rounding would cost ten times the contraction.
"""

from __future__ import annotations

from typing import Any

from jitflow.expr import Fma
from jitflow.record import map_children
from lowering.loop_ir import Kernel, map_body


def split_fma(kernel: Kernel) -> Kernel:
    """Return `kernel` without Fma."""
    return kernel.with_body(map_body(_split, kernel.body))


def _split(x: Any) -> Any:
    new = map_children(_split, x)
    return new.a * new.b + new.c if isinstance(new, Fma) else new
