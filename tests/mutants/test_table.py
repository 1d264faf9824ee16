"""The table of mutants fits the code it changes. That they are killed takes long: ``python -m tests.mutants``."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.__main__ import ROOT, passes
from tests.mutants.table import MUTANTS, Mutant


def test_there_are_enough_mutants_of_different_names() -> None:
    assert len(MUTANTS) >= 40
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_changes_one_place_and_is_still_python(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.before) == 1
    assert mutant.before != mutant.after
    ast.parse(text.replace(mutant.before, mutant.after))
    for path in mutant.tests[: mutant.tests.index("-k") if "-k" in mutant.tests else None]:
        assert (ROOT / path).exists()


def test_a_failing_command_counts_as_noticed() -> None:
    assert passes(("this",), ROOT)
    assert not passes(("no_such_module",), ROOT)
