"""Random kernels through every pass and through LLVM: always the bits of the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jitflow.expr import Fma
from jitflow.record import map_children, walk
from lowering.interp import interpret
from lowering.loop_ir import Body, For, Kernel, Stmt, map_body, statements
from lowering.pipeline import passes
from lowering.target import Target
from lowering.text import difference, parse_kernel, show
from lowering.verify import verify
from tests.support.check_pass import assert_same_bits, random_arrays
from tests.support.compiled import Compiled, runnable
from tests.support.random_program import random_kernel

Arrays = dict[str, np.ndarray[Any, Any]]


def copies(arrays: Arrays) -> Arrays:
    return {name: a.copy() for name, a in arrays.items()}


def check_arrays(found: Arrays, expected: Arrays, what: str) -> None:
    for name, a in expected.items():
        assert_same_bits(found[name], a, f"{name} of {what}")


def targets(kernel: Kernel, seed: int) -> tuple[Target, ...]:
    """Return this machine and, for some seeds, the older x86 levels; a level without it cannot run Fma of f64."""
    some = runnable() if seed % 5 == 0 else runnable()[-1:]
    has_fma = any(isinstance(x, Fma) for s in statements(kernel.body) for x in walk(s))
    return tuple(t for t in some if t.has_fma or not has_fma)


def serial(body: Body) -> Body:
    """Return `body` with the loops that no emitter takes made serial."""

    def change(x: Any) -> Any:
        if isinstance(x, For) and x.kind in ("vectorized", "unrolled"):
            return For(x.var, x.extent, map_body(change, x.body))
        return map_children(change, x) if isinstance(x, Stmt) else x

    return map_body(change, body)


@pytest.mark.parametrize("seed", range(40))
def test_machine_code_leaves_the_bits_of_the_interpreter(seed: int) -> None:
    kernel, n = random_kernel(seed), 1 + seed % 13
    arrays: Arrays = random_arrays(kernel, {"n": n}, np.random.default_rng(seed))
    for target in targets(kernel, seed):
        expected, found = copies(arrays), copies(arrays)
        interpret(kernel, expected, {"n": n}, fma=target.has_fma)
        Compiled(kernel.with_body(serial(kernel.body)), target)(found, {"n": n})
        check_arrays(found, expected, f"seed {seed} on {target.name}\n{show(kernel)}")


@pytest.mark.parametrize("seed", range(100, 140))
def test_every_pass_keeps_the_bits_and_leaves_readable_valid_kernels(seed: int) -> None:
    kernel, n = random_kernel(seed, vectors=False), 1 + seed % 13
    arrays: Arrays = random_arrays(kernel, {"n": n}, np.random.default_rng(seed))
    for target in targets(kernel, seed):
        expected = copies(arrays)
        interpret(kernel, expected, {"n": n}, fma=target.has_fma)
        now = kernel
        for name, run in passes(target):
            what = f"seed {seed} on {target.name} after {name}"
            before, now = now, run(now, target)
            if now is not before:
                verify(now)
                assert difference(parse_kernel(show(now)), now) is None, what
                found = copies(arrays)
                interpret(now, found, {"n": n}, fma=target.has_fma)
                check_arrays(found, expected, f"{what}\n{show(before)}")
        found = copies(arrays)
        # A pass may have merged axes of the parameters.
        shapes = random_arrays(now, {"n": n}, np.random.default_rng(seed))
        Compiled(now, target)({name: a.reshape(shapes[name].shape) for name, a in found.items()}, {"n": n})
        check_arrays(found, expected, f"seed {seed} compiled for {target.name}\n{show(now)}")
