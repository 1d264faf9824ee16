"""Random graphs, compiled and interpreted. ``--fuzz-count N`` and ``--fuzz-seed S`` choose how many and which."""

from __future__ import annotations

import pytest

from tests.fuzz.generate import random_case
from tests.fuzz.run import failure_of
from tests.fuzz.shrink import shrink

#: Graphs per test, so that a failure names few seeds and a run can be interrupted.
BATCH = 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first_seed" in metafunc.fixturenames:
        start, count = metafunc.config.getoption("--fuzz-seed"), metafunc.config.getoption("--fuzz-count")
        metafunc.parametrize("first_seed", range(start, start + count, BATCH))


def test_compiled_random_graphs_agree_with_the_interpreter(first_seed: int, pytestconfig: pytest.Config) -> None:
    end = pytestconfig.getoption("--fuzz-seed") + pytestconfig.getoption("--fuzz-count")
    for seed in range(first_seed, min(first_seed + BATCH, end)):
        case = random_case(seed)
        if failure_of(case) is not None:
            small = shrink(case, lambda c: failure_of(c) is not None)
            pytest.fail(f"seed {seed}:\n{small.text()}\n{failure_of(small)}")


def test_the_reducer_keeps_a_failure_and_drops_what_it_does_not_need() -> None:
    case = random_case(3, size=12)
    wanted = case.steps[-1].call

    def fails(c: object) -> bool:
        return any(s.call == wanted for s in c.steps)  # type: ignore[attr-defined]

    small = shrink(case, fails)
    assert fails(small)
    assert len(small.steps) <= len(case.steps)
    assert len(small.fetches) == 1
