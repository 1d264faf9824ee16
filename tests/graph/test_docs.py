"""The documentation of what users call: every example runs, and signatures read as the user's."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import jitflow as jf

PUBLIC = [name for name in jf.__all__ if callable(getattr(jf, name)) and not name.startswith("_")]
#: Functions of the name spaces, such as ``nn.conv``.
SPACED = [f"{space}.{name}" for space in ("linalg", "nn", "random") for name in getattr(jf, space).__all__]
FUNCTIONS = [*(name for name in PUBLIC if not isinstance(getattr(jf, name), (type, jf.DType))), *SPACED]


def public(name: str) -> Any:
    """Return what users call `name`, which may have a dot in it."""
    thing: Any = jf
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("name", [*PUBLIC, *SPACED, "config.override"])
def test_examples_run(name: str) -> None:
    thing = public(name)
    finder = doctest.DocTestFinder(recurse=isinstance(thing, type))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    for test in finder.find(thing, name, module=False, globs={}):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_look_like_the_users(name: str) -> None:
    function = public(name)
    assert function.__name__ == name.rpartition(".")[2]
    signature = inspect.signature(function)
    assert "Node" not in str(signature)
    assert "Node" not in function.__doc__
    # A wrapper shows the parameters of what it wraps, not its own.
    assert not any(p.kind is p.VAR_POSITIONAL and p.name == "args" for p in signature.parameters.values()), signature
    first = function.__doc__.strip().splitlines()[0]
    assert first.endswith((".", ":")) or len(first) > 60, first


# ---- errors


def _calls(function: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield arguments that many functions refuse: bool and floats, shapes that do not fit, axes that are not there."""
    parameters = inspect.signature(function).parameters.values()
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    names = {p.name for p in parameters}
    for dtype in (jf.bool_, jf.int32, jf.float32):
        x, wider, scalar = (jf.placeholder(None, dtype, shape) for shape in ((2, 3), (2, 4), ()))
        given = (x,) * len(required)
        yield given, {}
        yield (scalar,) * len(required), {}
        if len(given) > 1:
            yield (x, wider, *given[2:]), {}
        for axis in (9, (0, 0)):
            if "axis" in names and "axis" not in {p.name for p in required}:
                yield given, {"axis": axis}


#: Arguments of a kind that the signature does not offer; errors of this sort go without saying.
_WRONG_KIND = re.compile(r"must be an? |must be ints|is no dim|is no dtype|tuple or list of|a place must")


def _raises_section(name: str) -> str:
    """Return what the docstring of `name` says about errors, or that of the function to which it refers."""
    doc = public(name).__doc__
    other = re.search(r"errors\s+as\s+for\s+`(\w+)`", doc)
    section: str = doc.partition("    Raises\n")[2].partition("    Examples\n")[0]
    return section + (_raises_section(f"{name.rpartition('.')[0]}.{other[1]}".lstrip(".")) if other else "")


def _undocumented(name: str) -> Iterator[str]:
    """Yield the errors that `name` raises and that its docstring has no line about."""
    function, documented = public(name), _raises_section(name)
    for args, kwargs in _calls(function):
        try:
            function(*args, **kwargs)
        except jf.JitflowError as error:
            message = str(error).split("\n")[0]
            kinds = "|".join(c.__name__ for c in type(error).__mro__ if issubclass(c, jf.JitflowError))
            if not re.search(rf"^ *({kinds})$", documented, re.M) and not _WRONG_KIND.search(message):
                yield f"{type(error).__name__}: {message}"


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if hasattr(public(n), "__wrapped__")])
def test_errors_that_are_raised_are_documented(name: str) -> None:
    assert list(_undocumented(name)) == []
