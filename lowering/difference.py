"""Compare loop IR up to renaming: where do two kernels, bodies, statements or expressions first differ?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitflow.expr import (
    Buffer,
    Const,
    Expr,
    Var,
    as_index,
)
from lowering.loop_ir import (
    Stmt,
)
from lowering.printer import show


def structurally_equal(a: Any, b: Any) -> bool:
    """Say whether two kernels, bodies, statements or expressions are equal up to renaming."""
    return difference(a, b) is None


def difference(a: Any, b: Any) -> str | None:
    """Return where `a` and `b` first differ, up to renaming of variables and buffers; None if they do not.

    Free variables and buffers correspond in order of appearance.
    """
    return _Comparison().differ(a, b, "")


class _Comparison:
    def __init__(self) -> None:
        self.pairs: dict[Any, Any] = {}
        self.reverse: dict[Any, Any] = {}

    def differ(self, a: Any, b: Any, path: str) -> str | None:
        if isinstance(a, (Var, Buffer)) and type(a) is type(b):
            return self.names(a, b, path)
        if isinstance(a, tuple) and isinstance(b, tuple):
            return self.sequences(a, b, path)
        if isinstance(a, Const) or type(a) is not type(b) or not hasattr(a, "__record_fields__"):
            return None if type(a) is type(b) and a == b else f"{path or 'here'}: {_brief(a)} against {_brief(b)}"
        for field in type(a).__record_fields__:
            p, q = getattr(a, field), getattr(b, field)
            if isinstance(p, frozenset):
                p, q = frozenset(self.pairs.get(x, x) for x in p), frozenset(q)
                found = None if p == q else f"{path}.{field}: {_names(a, field)} against {_names(b, field)}"
            else:
                found = self.differ(p, q, f"{path}.{field}" if path else field)
            if found is not None:
                return found
        return None

    def sequences(self, a: Sequence[Any], b: Sequence[Any], path: str) -> str | None:
        for i, (p, q) in enumerate(zip(a, b, strict=False)):
            found = self.differ(p, q, f"{path}[{i}]")
            if found is not None:
                return found
        if len(a) == len(b):
            return None
        longer, side = (a, "left") if len(a) > len(b) else (b, "right")
        return f"{path or 'here'}: only on the {side}: {_brief(longer[min(len(a), len(b))])}"

    def names(self, a: Any, b: Any, path: str) -> str | None:
        if a in self.pairs or b in self.reverse:
            same = self.pairs.get(a) is b and self.reverse.get(b) is a
            return None if same else f"{path}: {a.name} against {b.name}"
        self.pairs[a], self.reverse[b] = b, a
        if isinstance(a, Var):
            return None if a.type is b.type else f"{path}: {a.name} is {a.type} against {b.type}"
        found = self.differ(tuple(map(as_index, a.shape)), tuple(map(as_index, b.shape)), f"{path}.shape")
        if found is None and (a.dtype, a.space, a.align) != (b.dtype, b.space, b.align):
            found = f"{path}: {a!r} align {a.align} against {b!r} align {b.align}"
        return found


def _brief(x: Any) -> str:
    if isinstance(x, (Expr, Stmt)):
        text = show(x).rstrip("\n")
        first, _, rest = text.partition("\n")
        return f"`{first}{' ...' if rest else ''}`"
    return repr(x)


def _names(x: Any, field: str) -> str:
    return "{" + ", ".join(sorted(b.name for b in getattr(x, field))) + "}"
