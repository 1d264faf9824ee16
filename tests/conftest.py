"""Options and settings of all tests: the IR is verified after every pass, and no code comes from a cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before jitflow reads its environment, and for all processes that tests start.
os.environ["JITFLOW_CACHE_DIR"] = "off"

import pytest

from jitflow import config


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-count", type=int, default=200, help="random graphs to compile and compare")
    parser.addoption("--fuzz-seed", type=int, default=0, help="seed of the first random graph")


@pytest.fixture(autouse=True)
def verify_every_pass() -> Iterator[None]:
    with config.override(verify=True):
        yield
