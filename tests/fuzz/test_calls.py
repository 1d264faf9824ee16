"""Public functions called at random: some hundred calls now, as many as one likes by ``python -m tests.fuzz.calls``."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jitflow as jf
from tests.fuzz import calls

ROOT = Path(__file__).resolve().parents[2]


def test_calls_at_random_end_as_they_may() -> None:
    command = [sys.executable, "-m", "tests.fuzz.calls", "--count", "200"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.startswith("200 calls of ")


def test_every_public_function_and_method_is_called() -> None:
    for name in ("jf.sum", "jf.nn.conv", "jf.linalg.cross", "jf.random.normal", ".reshape", ".__getitem__", ".at.set"):
        assert name in calls.FUNCTIONS
    assert len(calls.FUNCTIONS) > 250
    texts = [calls.random_call(random.Random(k)) for k in range(300)]
    assert len(set(texts)) > 280
    assert texts == [calls.random_call(random.Random(k)) for k in range(300)]


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*args: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (jf.CompilerBug("x"), "CompilerBug"),
        (KeyError("x"), "KeyError"),
        (ValueError("x"), "ValueError"),
        (TypeError("float() argument must be a string"), "TypeError"),
        (jf.ShapeError("x"), "does not end with the caller's line"),
        (jf.ShapeError(f"\n  at {calls.PLACE}:1"), "says nothing"),
    ],
    ids=str,
)
def test_what_may_not_come_is_found(error: BaseException, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calls.NAMESPACE, "wrong", raises(error))
    with pytest.raises(calls.Wrong, match=found):
        calls.call("wrong(x)")


def test_what_may_come_is_none_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calls.NAMESPACE, "right", raises(calls.Theirs()))
    ends = {
        "right(x)": "their own error",
        "jf.sum(x, axis=5)": "StaticIndexError",
        "jf.sum()": "TypeError",
        "bool(x)": "TypeError",
        "x + 1": "nodes",
        "jf.finfo(x)": "FloatInfo",
    }
    assert {text: calls.call(text).kind for text in ends} == ends


def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = calls.call("jf.exp(y)").tensors
    assert list(calls.compute([(0, "jf.exp(y)", tensors)])) == []

    def mismatch(case: object) -> None:
        raise calls.Mismatch("they differ")

    monkeypatch.setattr(calls, "check_case", mismatch)
    assert list(calls.compute([(0, "jf.exp(y)", tensors)])) == [(0, "jf.exp(y)\n    Mismatch: they differ")]
