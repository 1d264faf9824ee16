"""The guards themselves: what goes out of bounds is noticed."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

import jitflow as jf
from jitflow.expr import Expr, const_index
from lowering import arena
from runtime.guarded import allocate_guarded, guarded_array
from tests.fuzz.check import check_case
from tests.fuzz.generate import random_case
from tests.fuzz.guard import GapWritten, run_guarded

BEYOND = """
import ctypes, numpy as np, jitflow as jf
from runtime.guarded import guarded_array
a = guarded_array((7,), jf.float32, 4)
a[:] = 1
print("inside", flush=True)
ctypes.c_char.from_address(a.ctypes.data + {offset}).value
"""


@pytest.mark.parametrize("offset", [7 * 4, -4096])
def test_an_access_outside_of_guarded_memory_ends_the_process(offset: int) -> None:
    done = subprocess.run([sys.executable, "-c", BEYOND.format(offset=offset)], capture_output=True, text=True)
    assert done.stdout == "inside\n", done.stderr
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("nbytes", [0, 1, 64, 4096, 5000])
def test_guarded_memory_is_aligned_and_filled(nbytes: int) -> None:
    _owner, address = allocate_guarded(nbytes, 64)
    assert address % 64 == 0
    a = guarded_array((nbytes,), jf.uint8, 1)
    assert np.all(a == 255)
    assert (a.ctypes.data + nbytes) % 4096 == 0


def test_arrays_of_a_guarded_session_are_apart_and_its_results_are_the_same() -> None:
    for seed in range(6):
        check_case(random_case(seed), guard=True)


def test_a_cell_of_the_arena_that_is_too_small_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jf.placeholder("x", jf.float32, (100, 7))
    y = jf.flip(jf.softmax(x, axis=1) @ jf.constant(np.ones((7, 3), np.float32)), axis=0) @ jf.constant(
        np.ones((3, 5), np.float32)
    )
    value = np.ones((100, 7), np.float32)

    def run() -> None:
        with jf.config.override(debug_guard=True), jf.Session([y]) as session:
            assert session._default.made_by.lowered.program.plan.cells
            run_guarded(session, [y], {x: value})

    run()

    def short(nbytes: Expr) -> Expr:
        return const_index(64)

    monkeypatch.setattr(arena, "padded", short)
    with pytest.raises(GapWritten, match="behind cell 0"):
        run()
