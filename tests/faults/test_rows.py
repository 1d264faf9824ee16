"""Every promise of the fault model has a test that names it: ``test_f7_...``, ``test_f35_f36_...``."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
#: The promises are numbered F1 to F66.
ROWS = range(1, 67)

#: Promises about what does not exist yet, which no test can break. Who adds it removes the row here.
EXEMPT = {
    6: "there are no functions within graphs, so none can be recursive; a cycle of nodes is F1",
}


def named_rows(text: str) -> set[int]:
    """Return the rows that the tests of a file name."""
    found: set[int] = set()
    for names in re.findall(r"^def test_((?:f[0-9]+_)+)", text, re.MULTILINE):
        found |= {int(number) for number in re.findall(r"[0-9]+", names)}
    return found


def test_every_promise_is_named_by_a_test() -> None:
    tested: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        tested |= named_rows(path.read_text())
    assert tested <= set(ROWS)
    assert sorted(set(ROWS) - tested) == sorted(EXEMPT)


def test_names_are_read_as_they_are_meant() -> None:
    text = "def test_f1_f22_is_so() -> None: ...\ndef test_of_f32_numbers() -> None: ...\n# def test_f3_x\n"
    assert named_rows(text) == {1, 22}
