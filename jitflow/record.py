"""The ``record`` decorator: frozen, slotted classes with fast constructors and generated child access.

Both IRs are made of records. A record is compared by its fields, hashed once, printed as a constructor call and
never changed after construction. From the field annotations the decorator also generates how to reach the
children of a tree node, so that a pass built on :func:`map_children` cannot overlook a field added later:

- ``Expr``, ``Stmt``: one child; ``Expr | None``: perhaps one; ``tuple[Expr, ...]``, ``Body``: several.

A class may define ``__derive__``, which is called once at the end of the constructor and sets slots that follow
from the fields (a type, say) by :func:`set_slot`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

_ONE = frozenset({"Expr", "Stmt"})
_OPTIONAL = frozenset({"Expr | None"})
_SEVERAL = frozenset({"tuple[Expr, ...]", "Body"})

set_slot = object.__setattr__


def _refuse_write(self: object, name: str, value: object) -> None:
    raise AttributeError(f"{type(self).__name__} is immutable; build a new one instead of setting {name!r}")


def _generate(cls: type, fields: list[str], defaults: dict[str, Any], kinds: dict[str, str]) -> str:
    """Return the source of the generated methods of `cls`."""
    args = "".join(f", {f}={'_d_' + f if f in defaults else ''}" if f in defaults else f", {f}" for f in fields)
    lines = [f"def __init__(self{args}):"]
    lines += [f"    _s_{f}(self, {f})" for f in fields]
    if hasattr(cls, "__derive__"):
        lines.append("    self.__derive__()")
    lines.append("    pass")
    key = "".join(f"self.{f}, " for f in fields)
    other = "".join(f"other.{f}, " for f in fields)
    lines += [
        "def __eq__(self, other):",
        "    if self is other: return True",
        "    if other.__class__ is not self.__class__: return NotImplemented",
        f"    return hash(self) == hash(other) and ({key}) == ({other})",
        "def __hash__(self):",
        "    try: return self._hash",
        "    except AttributeError: pass",
        f"    h = hash((_cls_name, {key}))",
        "    _s__hash(self, h)",
        "    return h",
    ]
    lines += ["def _children(self):", f"    return ({_children_source(fields, kinds)})"]
    lines += ["def _map_children(self, fn):"]
    new, same = [], []
    for f in fields:
        kind = kinds.get(f)
        if kind is None:
            new.append(f"self.{f}")
            continue
        if kind == "one":
            lines.append(f"    {f} = fn(self.{f})")
            same.append(f"{f} is self.{f}")
        elif kind == "optional":
            lines.append(f"    {f} = None if self.{f} is None else fn(self.{f})")
            same.append(f"{f} is self.{f}")
        else:
            lines.append(f"    {f} = _map_tuple(fn, self.{f})")
            same.append(f"{f} is self.{f}")
        new.append(f)
    if same:
        lines.append(f"    if {' and '.join(same)}: return self")
        lines.append(f"    return self.__class__({', '.join(new)})")
    else:
        lines.append("    return self")
    return "\n".join(lines)


def _children_source(fields: list[str], kinds: dict[str, str]) -> str:
    parts = []
    for f in fields:
        kind = kinds.get(f)
        if kind == "one":
            parts.append(f"self.{f}, ")
        elif kind == "optional":
            parts.append(f"*(() if self.{f} is None else (self.{f},)), ")
        elif kind == "several":
            parts.append(f"*self.{f}, ")
    return "".join(parts)


def _map_tuple(fn: Callable[[Any], Any], items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Apply `fn` to each item; return `items` itself when nothing changed. An item mapped to a tuple is spliced in."""
    out: list[Any] = []
    changed = False
    for item in items:
        new = fn(item)
        if new is not item:
            changed = True
        if new.__class__ is tuple:
            out.extend(new)
        else:
            out.append(new)
    return tuple(out) if changed else items


def _repr(self: Any) -> str:
    fields = ", ".join(f"{f}={getattr(self, f)!r}" for f in type(self).__record_fields__)
    return f"{type(self).__name__}({fields})"


@dataclass_transform(frozen_default=True, eq_default=True)
def record(cls: type[T]) -> type[T]:
    """Turn a class with annotated fields into a frozen, slotted record.

    Fields come from the annotations of `cls` (bases contribute only through ``__slots__``); a class attribute of
    the same name is the default. Methods written in the class win over generated ones.
    """
    annotations: dict[str, str] = inspect.get_annotations(cls)
    fields = [f for f in annotations if not str(annotations[f]).startswith("ClassVar")]
    defaults = {f: cls.__dict__[f] for f in fields if f in cls.__dict__}
    kinds: dict[str, str] = {}
    for f in fields:
        text = str(annotations[f])
        if text in _ONE:
            kinds[f] = "one"
        elif text in _OPTIONAL:
            kinds[f] = "optional"
        elif text in _SEVERAL:
            kinds[f] = "several"
    body = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__", *fields)}
    inherited = {s for base in cls.__mro__[1:] for s in getattr(base, "__slots__", ())}
    extra = tuple(body.pop("__slots__", ()))
    slots = [*fields, *extra] + ([] if "_hash" in inherited else ["_hash"])
    body["__slots__"] = tuple(slots)
    body["__record_fields__"] = tuple(fields)
    body["__match_args__"] = tuple(fields)
    metaclass: Any = type(cls)
    new: Any = metaclass(cls.__name__, cls.__bases__, body)
    namespace: dict[str, Any] = {f"_d_{f}": v for f, v in defaults.items()}
    namespace.update({f"_s_{f}": getattr(new, f).__set__ for f in [*fields, "_hash"]})
    namespace.update(_cls_name=cls.__name__, _map_tuple=_map_tuple)
    exec(_generate(new, fields, defaults, kinds), namespace)
    for name in ("__init__", "__eq__", "__hash__", "_children", "_map_children"):
        if name not in body or (name == "__hash__" and body[name] is None):
            setattr(new, name, namespace[name])
    if "__repr__" not in body:
        new.__repr__ = _repr
    new.__setattr__ = _refuse_write
    return new  # type: ignore[no-any-return]


def children(x: Any) -> tuple[Any, ...]:
    """Return the direct children of a record, in field order."""
    return x._children()  # type: ignore[no-any-return]


def map_children(fn: Callable[[Any], Any], x: T) -> T:
    """Return `x` with `fn` applied to each direct child, or `x` itself when every child came back unchanged.

    For a child inside a tuple field `fn` may also return a tuple, which is spliced in (``()`` deletes the child).
    """
    return x._map_children(fn)  # type: ignore[attr-defined, no-any-return]


def walk(x: Any) -> Iterator[Any]:
    """Yield `x` and everything below it, parents before children, without recursion."""
    stack = [x]
    while stack:
        y = stack.pop()
        yield y
        stack.extend(reversed(y._children()))
