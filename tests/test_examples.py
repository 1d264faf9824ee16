"""Every file of `examples` runs, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

#: A few fragments of what each prints.
PRINTS = {
    "convolution.py": ("step  90: loss 0.", "right about 9", "compiled and interpreted agree: True"),
    "tour.py": ("13. Derivatives are graphs again", "all nodes agree", "the same result: True", "kernel k0_softmax("),
}


def test_every_example_is_listed_here() -> None:
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == sorted(PRINTS)


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in PRINTS[name]:
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []
