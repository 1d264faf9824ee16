"""The graph between feeds and fetches to the text that compiled code depends on, and what that text leaves out.

Two graphs of one text are compiled to the same code. It holds every node with its name, operator, attributes and
type; large constants by a digest of their bits; variables by their type, since their values are data. It does not hold
what only messages show: source lines and the numbers of fresh dims. A :class:`GraphKey` has those apart, in the order
of the text, so that what was compiled for one graph can speak of another. The constants and variables are numbered in
that order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from jitflow.graph import Node, constant_op, toposort, variable_op
from jitflow.graph_printer import FRESH, Values, arguments_text, label
from jitflow.types import dim_text
from runtime.abi import ProgramSignature

_AT = "\n  at "
_FRESH_WORD = re.compile(rf"(?<!\w){FRESH.pattern}(?!\w)")
#: A source line in what outlives the graph: its number.
_PLACE = re.compile(r"@([0-9]{1,9})")


@dataclass(frozen=True)
class GraphKey:
    """A graph as `text`, with the `sites` and the names of `fresh` dims that it mentions by number."""

    text: str
    sites: tuple[str, ...]
    fresh: Mapping[str, str]

    def portable(self, signature: ProgramSignature) -> ProgramSignature:
        """Return `signature` as it is for every graph of this text."""
        number = {site: f"@{k}" for k, site in enumerate(self.sites)}
        return _renamed(signature, lambda site: number.get(site, site), self.fresh)

    def local(self, signature: ProgramSignature) -> ProgramSignature:
        """Return a portable signature in the words of this graph."""

        def site(text: str) -> str:
            found = _PLACE.fullmatch(text)
            return self.sites[int(found[1])] if found is not None and int(found[1]) < len(self.sites) else text

        return _renamed(signature, site, self._fresh_names)

    @cached_property
    def _fresh_names(self) -> dict[str, str]:
        return {new: old for old, new in self.fresh.items()}


def is_portable(signature: ProgramSignature) -> bool:
    """Tell whether a signature that was made portable mentions no source line."""
    found = [x.site for x in signature.inputs] + [y.site for y in signature.outputs]
    found += [m.partition(_AT)[2] or None for m in (*signature.guards, *signature.checks)]
    return all(site is None or _PLACE.fullmatch(site) is not None for site in found)


def graph_key(fetches: Sequence[Node], feeds: Sequence[Node], names: Mapping[Node, str]) -> GraphKey:
    """Return the key of the graph that computes `fetches` from `feeds`, in these orders; `names` has all its nodes."""
    values = Values(exact=True)
    numbers: dict[str, int] = {}
    fed, fetched = set(feeds), set(fetches)
    order = toposort((*fetches, *feeds), fed)
    labels = {node: label(names[node]) for node in order}
    lines = []
    for node in order:
        if node in fed and node.op.name != "placeholder":
            made = "fed"
        elif node.op is variable_op:
            made = "variable"
        else:
            made = f"{node.op.name}({arguments_text(node, labels, values)})"
        # A constant that many graphs have was made where one of them was; nobody speaks of that place.
        is_silent = node.site is None or (node.op is constant_op and node not in fetched)
        place = "" if is_silent else f" @{numbers.setdefault(str(node.site), len(numbers))}"
        lines.append(f"{labels[node]}: {values.type(node.type)} = {made}{place}")
    lines.append("feed " + ", ".join(labels[n] for n in feeds))
    lines.append("return " + ", ".join(labels[n] for n in fetches))
    fresh = {old.name: dim_text(new) for old, new in values.dims.items() if FRESH.fullmatch(old.name)}
    return GraphKey("\n".join(lines), tuple(numbers), fresh)


def sources_of(order: Sequence[Node], feeds: Collection[Node]) -> tuple[Node, ...]:
    """Return the constants and variables among the nodes of `order` that are not fed, in this order."""
    fed = set(feeds)
    return tuple(n for n in order if n.op.source and n not in fed and n.op.name != "placeholder")


def _renamed(signature: ProgramSignature, site: Callable[[str], str], dims: Mapping[str, str]) -> ProgramSignature:
    """Return `signature` with sites replaced, and fresh dims in its messages."""

    def dim(text: str) -> str:
        return _FRESH_WORD.sub(lambda found: dims.get(found[0], found[0]), text) if dims else text

    def message(text: str) -> str:
        what, at, where = text.partition(_AT)
        return dim(what) + at + (site(where) if at else "")

    def place(at: str | None) -> str | None:
        return None if at is None else site(at)

    return replace(
        signature,
        inputs=tuple(replace(x, site=place(x.site)) for x in signature.inputs),
        outputs=tuple(replace(y, site=place(y.site)) for y in signature.outputs),
        guards=tuple(map(message, signature.guards)),
        checks=tuple(map(message, signature.checks)),
        slot_names=tuple(map(dim, signature.slot_names)),
    )
