"""A run with every buffer next to an inaccessible page: one access out of bounds ends the process, or is a mismatch.

Inputs and outputs are arrays that end where their page does, constants and packed weights likewise
(``debug_guard``). Arrays inside an arena have poisoned gaps between them, which must stay as they are; what is read
from a gap is NaN, and shows in the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import jitflow as jf
from jitflow.compilation import GAP
from jitflow.dtypes import as_dtype
from jitflow.simplify import evaluate_index
from runtime.guarded import guarded_array

Array = np.ndarray[Any, Any]


class GapWritten(Exception):
    """A kernel has written between the arrays of an arena."""


def run_guarded(session: jf.Session, fetched: list[Any], feeds: dict[Any, Array]) -> list[Array]:
    """Return the results of `session`, which was made with ``debug_guard``, from guarded inputs in guarded outputs."""
    given = {t: _copy(v) for t, v in feeds.items()}
    shapes = [(r.shape, r.dtype) for r in session.run(fetched, given)]
    function = session.function(list(given), fetched)
    out = [guarded_array(shape, as_dtype(dtype), dtype.itemsize) for shape, dtype in shapes]
    function(*given.values(), out=out)
    _check_gaps(session, feeds)
    return out


def _copy(value: Array) -> Array:
    new = guarded_array(value.shape, as_dtype(value.dtype), value.dtype.itemsize)
    np.copyto(new, value)
    return new


def _check_gaps(session: jf.Session, feeds: dict[Any, Array]) -> None:
    arena = session._arenas.last
    compiled = list(session._functions.values())[-1]
    plan = compiled.made_by.lowered.program.plan
    if arena is None or not plan.cells:
        return
    given = {t.node: v for t, v in feeds.items()}
    dims = {
        d: size
        for declared, fed in zip(plan.inputs, compiled.feeds, strict=True)
        for d, size in zip(declared.shape, given[fed].shape, strict=True)
        if not isinstance(d, int)
    }
    held = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * arena.nbytes).from_address(arena.address))
    end = 0
    for number, cell in enumerate(plan.cells):
        end += evaluate_index(cell, dims)
        if np.any(held[end - GAP : end] != 0xFF):
            raise GapWritten(f"something was written behind cell {number} of the arena")
