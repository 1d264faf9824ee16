"""Locks after ``fork``: a thread that held one in the parent does not exist in the child, which would wait for ever."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_fork_in_child(renew: Callable[[], None]) -> None:
    """Call `renew` in every forked child, where there are forks.

    What a lock protects is consistent there if each of its changes is a single operation under the GIL.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
