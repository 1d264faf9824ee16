"""Any nodes fed, any nodes fetched, on random graphs: a cut changes no bit of what is above it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.graph import toposort
from jitflow.tensor import as_tensor
from tests.fuzz.generate import random_case
from tests.support.bits import same_bits


def values_of_all_nodes(seed: int) -> tuple[jf.Session, dict[jf.Tensor, np.ndarray[Any, Any]], set[jf.Tensor]] | None:
    """Return a session of a random graph, the value of each of its nodes, and which were fed; None if it is invalid."""
    _, fetched, feeds = random_case(seed).build()
    nodes = [as_tensor(n) for n in toposort([t.node for t in fetched])]
    feeds = {t: a for t, a in feeds.items() if t in set(nodes)}
    if not nodes:
        return None
    try:
        session = jf.Session(fetched)
        return session, dict(zip(nodes, session.run(nodes, feeds), strict=True)), set(feeds)
    except (jf.FeedError, IndexError):
        return None


def check_cuts(seed: int, cuts: int) -> int:
    """Feed and fetch random nodes of the graph of `seed`; return how many such runs were compared."""
    made = values_of_all_nodes(seed)
    if made is None:
        return 0
    session, values, placeholders = made
    rng = random.Random(seed)
    nodes = list(values)
    compared = 0
    with session:
        for _ in range(cuts):
            fetches = rng.sample(nodes, rng.randint(1, min(3, len(nodes))))
            fed = {*placeholders, *rng.sample(nodes, rng.randint(0, min(3, len(nodes))))}
            needed = set(toposort([t.node for t in fetches], {t.node for t in fed}))
            feeds: dict[Any, Any] = {t: values[t] for t in fed if t.node in needed}
            keyed = {session.name_of(t) if rng.random() < 0.5 else t: a for t, a in feeds.items()}
            try:
                got = session.run(fetches, keyed)
            except jf.GraphError as error:
                # What is left may not say how large an axis is.
                if "determine" in str(error):
                    continue
                raise
            for t, a in zip(fetches, got, strict=True):
                assert same_bits(a, values[t]), f"seed {seed}: {t!r} fetched with {fetches} from {list(feeds)}"
            f = session.function(list(feeds), tuple(fetches))
            for t, a in zip(fetches, f(*feeds.values()), strict=True):
                assert same_bits(a, values[t]), f"seed {seed}: {t!r} by a function of {list(feeds)}"
            compared += 1
    return compared


@pytest.mark.parametrize("first", [0, 100, 200, 300])
def test_any_node_can_be_fed_and_fetched(first: int) -> None:
    assert sum(check_cuts(seed, 3) for seed in range(first, first + 4)) > 3


@pytest.mark.slow
def test_any_node_can_be_fed_and_fetched_in_many_graphs() -> None:
    assert sum(check_cuts(seed, 5) for seed in range(10_000, 10_100)) > 200
