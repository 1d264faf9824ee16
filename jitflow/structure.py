"""Nested lists, tuples and dicts of tensors or names into flat nodes, and values back into the same structure.

Sessions and the interpreter share this, so that both hand results over in the same way.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jitflow.errors import FeedTypeError, GraphError
from jitflow.graph import Node, located

#: Structures nested deeper than this are taken for one that holds itself.
MAX_DEPTH = 100


def flatten(fetches: Any, names: Mapping[str, Node] | None = None) -> list[Node]:
    """Return the nodes of a structure of tensors (and names, if `names` are known) in order; else GraphError."""
    return [find_node(x, names, GraphError, "fetch") for x in leaves(fetches)]


def leaves(structure: Any, depth: int = 0) -> list[Any]:
    """Return what `structure` holds that is no list, tuple or dict, in order."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    elif not isinstance(structure, (list, tuple)):
        return [structure]
    if depth > MAX_DEPTH:
        raise located(GraphError(f"fetches are nested deeper than {MAX_DEPTH} levels"))
    found: list[Any] = []
    for x in structure:
        if isinstance(x, (list, tuple, dict)):
            found += leaves(x, depth + 1)
        else:
            found.append(x)
    return found


def rebuild(structure: Any, values: Iterator[Any]) -> Any:
    """Return `values` in the structure of `structure`: a list for a list, a dict with the same keys for a dict."""
    if isinstance(structure, list):
        return [rebuild(x, values) for x in structure]
    if isinstance(structure, tuple):
        items = [rebuild(x, values) for x in structure]
        return type(structure)(*items) if hasattr(structure, "_fields") else tuple(items)
    if isinstance(structure, dict):
        return {k: rebuild(x, values) for k, x in structure.items()}
    return next(values)


def mirror(structure: Any, out: Any, path: str = "out") -> list[Any]:
    """Return the leaves of `out` in the order of those of `structure`; FeedTypeError if it is built differently."""
    kind = next((t for t in (list, tuple, dict) if isinstance(structure, t)), None)
    if kind is None:
        return [out]
    if kind is dict:
        if not isinstance(out, dict) or out.keys() != structure.keys():
            raise FeedTypeError(f"{path} must be a dict with the keys {list(structure)}, as the results are")
        return [a for k, x in structure.items() for a in mirror(x, out[k], f"{path}[{k!r}]")]
    if not isinstance(out, kind) or len(out) != len(structure):
        raise FeedTypeError(f"{path} must be a {kind.__name__} of {len(structure)} arrays, as the results are")
    pairs = enumerate(zip(structure, out, strict=True))
    return [a for k, (x, y) in pairs for a in mirror(x, y, f"{path}[{k}]")]


def find_node(x: Any, names: Mapping[str, Node] | None, error: Callable[[str], Exception], what: str) -> Node:
    """Return the node that `x`, a tensor or a name among `names`, stands for as a `what`; raise `error` otherwise."""
    if isinstance(x, Node):
        return x
    node = getattr(x, "node", None)
    if isinstance(node, Node):
        return node
    if names is None:
        raise error(f"only tensors can be {_PAST.get(what, what)}, not {type(x).__name__}")
    if not isinstance(x, str):
        raise error(f"a {what} is given by tensor or by name, not by {type(x).__name__}")
    found = names.get(x)
    if found is None:
        close = difflib.get_close_matches(x, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise error(f"unknown {what} {x!r}: no node of this graph has that name{hint}")
    return found


_PAST = {"fetch": "fetched", "feed": "fed"}
