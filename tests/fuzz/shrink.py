"""A failing case in, the smallest failing case found out: fewer fetches, fewer steps, smaller inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from tests.fuzz.generate import Case, Input, Step


def shrink(case: Case, fails: Callable[[Case], bool], *, attempts: int = 300) -> Case:
    """Return a case that still fails and of which no single simplification does, within `attempts` tries."""
    changed = True
    while changed and attempts > 0:
        changed = False
        for smaller in _simpler(case):
            attempts -= 1
            if attempts <= 0:
                break
            if fails(smaller):
                case, changed = smaller, True
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    for k in range(len(case.fetches)):
        if len(case.fetches) > 1:
            yield replace(case, fetches=case.fetches[:k] + case.fetches[k + 1 :])
    total = len(case.inputs) + len(case.steps)
    # Fetch something earlier instead.
    for number in range(len(case.inputs), total):
        if case.fetches != (number,) and number < max(case.fetches):
            yield _drop_unused(replace(case, fetches=(number,)))
    # Replace a step by one of its operands.
    for at, step in enumerate(case.steps):
        for operand in step.operands:
            yield _drop_unused(_redirect(case, len(case.inputs) + at, operand))
    for at, x in enumerate(case.inputs):
        if x.kind != "constant":
            yield _with_input(case, at, Input("constant", x.value.shape, x.value))
        if x.value.size and np.any(x.value != 1):
            yield _with_input(case, at, Input(x.kind, x.shape, np.ones_like(x.value)))


def _with_input(case: Case, at: int, x: Input) -> Case:
    return replace(case, inputs=(*case.inputs[:at], x, *case.inputs[at + 1 :]))


def _redirect(case: Case, number: int, other: int) -> Case:
    def go(k: int) -> int:
        return other if k == number else k

    steps = tuple(Step(s.call, tuple(go(k) for k in s.operands), s.arguments) for s in case.steps)
    return replace(case, steps=steps, fetches=tuple(dict.fromkeys(go(k) for k in case.fetches)))


def _drop_unused(case: Case) -> Case:
    """Return `case` without the steps that no fetch needs."""
    base = len(case.inputs)
    needed = set(case.fetches)
    for at in range(len(case.steps) - 1, -1, -1):
        if base + at in needed:
            needed.update(case.steps[at].operands)
    new: dict[int, int] = {k: k for k in range(base)}
    steps: list[Step] = []
    for at, step in enumerate(case.steps):
        if base + at in needed:
            new[base + at] = base + len(steps)
            steps.append(Step(step.call, tuple(new[k] for k in step.operands), step.arguments))
    return replace(case, steps=tuple(steps), fetches=tuple(new[k] for k in case.fetches))
