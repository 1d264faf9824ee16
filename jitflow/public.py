"""The functions that users call, by name space: filled as operator modules are imported, and nowhere listed.

An operator's function is made public where it is written::

    @public()  # jitflow.cumulative_sum
    def cumulative_sum(x: Operand, /, *, axis: int | None = None) -> Node: ...

    @public("jitflow", "nn")  # jitflow.softmax and jitflow.nn.softmax
    def softmax(x: Operand, /, axis: int = -1) -> Node: ...

so that a new operator is one new file. The price is that tools which read the code without running it do not see the
names; at run time ``dir``, ``help`` and completion do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from jitflow.errors import CompilerBug

F = TypeVar("F", bound=Callable[..., Any])

#: The name spaces, and what each one offers: functions of Nodes, which `jitflow.tensor` lifts to Tensors.
SPACES: dict[str, dict[str, Callable[..., Any]]] = {"jitflow": {}, "nn": {}, "linalg": {}, "random": {}}


def public(*spaces: str, name: str | None = None) -> Callable[[F], F]:
    """Make a function public in `spaces` (by default in `jitflow` itself), as `name` if that is given."""

    def register(function: F) -> F:
        called = name or function.__name__
        for space in spaces or ("jitflow",):
            if called in SPACES[space]:
                raise CompilerBug(f"{space}.{called} is made public twice")
            SPACES[space][called] = function
        return function

    return register
