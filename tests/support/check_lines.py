"""Check long outputs (LLVM, PTX, dumps) by a few fragments: present in order, or absent."""

from __future__ import annotations

from collections.abc import Iterable


def check_lines(text: str, *fragments: str, absent: Iterable[str] = ()) -> None:
    """Check that `fragments` occur in `text` one after another, each on a later line, and none of `absent` at all.

    A run of blanks in a fragment matches any run of blanks.
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    at = 0
    for fragment in fragments:
        wanted = " ".join(fragment.split())
        found = next((i for i in range(at, len(lines)) if wanted in lines[i]), None)
        if found is None:
            earlier = any(wanted in line for line in lines[:at])
            place = f"after line {at}" if at else "anywhere"
            hint = " (it is there, but earlier)" if earlier else ""
            raise AssertionError(f"{fragment!r} is not found {place}{hint} in:\n{text}")
        at = found + 1
    for fragment in absent:
        wanted = " ".join(fragment.split())
        for i, line in enumerate(lines, 1):
            if wanted in line:
                raise AssertionError(f"{fragment!r} must not be there, but is on line {i}: {line}\nin:\n{text}")
