"""The documentation of what users call: every example runs, and signatures read as the user's."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest

import jitflow as jf

PUBLIC = [name for name in jf.__all__ if callable(getattr(jf, name)) and not name.startswith("_")]
FUNCTIONS = [name for name in PUBLIC if not isinstance(getattr(jf, name), (type, jf.DType))]


@pytest.mark.parametrize("name", [*PUBLIC, "config.override"])
def test_examples_run(name: str) -> None:
    thing: Any = jf
    for part in name.split("."):
        thing = getattr(thing, part)
    finder = doctest.DocTestFinder(recurse=isinstance(thing, type))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    for test in finder.find(thing, name, module=False, globs={}):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_look_like_the_users(name: str) -> None:
    function = getattr(jf, name)
    assert function.__name__ == name
    signature = inspect.signature(function)
    assert "Node" not in str(signature)
    assert "Node" not in function.__doc__
    # A wrapper shows the parameters of what it wraps, not its own.
    assert not any(p.kind is p.VAR_POSITIONAL and p.name == "args" for p in signature.parameters.values()), signature
    first = function.__doc__.strip().splitlines()[0]
    assert first.endswith((".", ":")) or len(first) > 60, first
