"""One case by one thread and by several: the same bits, or the same error.

Graphs of the fuzzer are small. So that their loops are shared all the same, each iteration counts as work of
which there may be no more without a look at whether to go on; every loop that can be is then shared one by one, and
serial ones poll in every iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import jitflow as jf
from jitflow.graph import toposort
from lowering.passes import poll
from tests.fuzz.check import Mismatch
from tests.fuzz.generate import Case
from tests.support.bits import same_bits

Array = np.ndarray[Any, Any]


@contextmanager
def everything_shared() -> Iterator[None]:
    """Make code in which whatever can be shared is."""
    before = poll.WORK_BETWEEN_POLLS, poll.WORK_WORTH_SHARING
    poll.WORK_BETWEEN_POLLS, poll.WORK_WORTH_SHARING = 1, 0
    try:
        yield
    finally:
        poll.WORK_BETWEEN_POLLS, poll.WORK_WORTH_SHARING = before


def check_threads(case: Case, threads: int) -> None:
    """Raise Mismatch if the results of `case` depend on whether `threads` threads share its loops."""
    _, fetched, feeds = case.build()
    if not fetched:
        return
    needed = set(toposort([t.node for t in fetched]))
    feeds = {t: v for t, v in feeds.items() if t.node in needed}
    alone = _outcome(fetched, feeds, 1)
    with everything_shared():
        shared = _outcome(fetched, feeds, threads)
    if type(alone) is not type(shared) or (isinstance(alone, Exception) and str(alone) != str(shared)):
        raise Mismatch(f"one thread gives {alone!r}, {threads} threads give {shared!r}")
    if isinstance(alone, list) and isinstance(shared, list):
        for tensor, a, b in zip(fetched, alone, shared, strict=True):
            if not same_bits(a, b):
                raise Mismatch(f"one thread and {threads} differ at {tensor!r}:\n{a!r}\n{b!r}")


def _outcome(fetched: list[Any], feeds: dict[Any, Array], threads: int) -> list[Array] | Exception:
    try:
        with jf.Session(fetched, threads=threads) as session:
            results: list[Array] = session.run(fetched, feeds)
    except (jf.FeedError, IndexError) as error:
        return error
    return results
