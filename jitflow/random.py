"""``jitflow.random``: random numbers as functions of an explicit key, as users call them.

The functions are written in `jitflow.ops` and made public there (`jitflow.public`).
"""

from __future__ import annotations

from typing import Any

import jitflow.ops  # noqa: F401  (operators make their functions public)
from jitflow.tensor import functions_of

_FUNCTIONS = functions_of("random")
__all__ = sorted(_FUNCTIONS)
globals().update(_FUNCTIONS)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # For tools that do not run the code: there may be more names than they see.
    raise AttributeError(f"module 'jitflow.random' has no attribute {name!r}")
