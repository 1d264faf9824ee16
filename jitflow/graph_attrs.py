"""Operators to the attributes that they take: names and kinds, read off the signatures of their type rules.

The keyword parameters of `OpDef.infer` are an operator's attributes, and their annotations say what values they take:
``axes: tuple[int, ...]``, ``shape: Shape``, ``dtype: DType``. Python code passes through the operator's function, which
converts what users give; text does not, so the parser of graphs checks each value against the annotation instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from jitflow.dtypes import SUPPORTED, DType
from jitflow.expr import INDEX, Expr
from jitflow.graph import ArrayData, OpDef


class Attribute(NamedTuple):
    """What an operator says of one attribute: the annotation of its values (`Any` if there is none)."""

    kind: Any
    required: bool


@cache
def attributes_of(op: OpDef) -> Mapping[str, Attribute]:
    """Return the attributes that `op` may have in text, by name."""
    hints = get_type_hints(op.infer)
    found = {
        p.name: Attribute(hints.get(p.name, Any), p.default is p.empty)
        for p in inspect.signature(op.infer).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    if op.name in ("placeholder", "variable"):
        found["name"] = Attribute(str, required=False)
    return MappingProxyType(found)


def is_of_kind(value: Any, kind: Any) -> bool:
    """Tell whether attribute `value` is what annotation `kind` says. Types count exactly: True is no int."""
    if kind is Any:
        return True
    if kind is bool or kind is str or kind is NoneType:
        return type(value) is kind
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind is float:
        return type(value) is float or is_of_kind(value, int)
    if kind is DType:
        return isinstance(value, DType) and value in SUPPORTED
    if kind is Expr:
        return isinstance(value, Expr) and value.type is INDEX
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of_kind(value, k) for k in arguments)
    if origin is Literal:
        return any(type(value) is type(x) and value == x for x in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[1:] == (...,):
            return all(is_of_kind(x, arguments[0]) for x in value)
        return len(value) == len(arguments) and all(map(is_of_kind, value, arguments))
    return isinstance(value, kind)


_WORDS = {
    bool: "true or false",
    int: "an integer of 64 bits",
    float: "a number",
    str: "a string",
    DType: "a dtype",
    ArrayData: "an array",
    Expr: "a dim",
    NoneType: "none",
}


def kind_text(kind: Any) -> str:
    """Return annotation `kind` in the words of error messages."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        # Numbers of several types are one word to readers.
        words = [kind_text(k) for k in arguments if not (k is int and float in arguments)]
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        if arguments[1:] == (...,):
            return f"a tuple, each item {kind_text(arguments[0])}"
        return f"a tuple of {', '.join(map(kind_text, arguments))}"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
