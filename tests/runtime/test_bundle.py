"""Compiled fetch sets as bytes: read back equal, and nothing else is read; the constants they ask for."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jitflow.dtypes import float32, float64
from jitflow.errors import FormatError
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot
from runtime.bundle import Bundle, Executable, Given, Kept, Made, Stored, from_bytes, to_bytes
from runtime.constants import Constants

OUTPUTS = (OutputSpec("a", float32, 1), OutputSpec("b", float32, 2))
INIT = Executable(
    b"init", ProgramSignature("measure", "run", (), OUTPUTS), (Given(1),), (Kept((2,)), Kept((1, 2), 0, "panels"))
)
SIGNATURE = ProgramSignature(
    "measure", "run", (ArraySpec("x \"é\n", float64, (Slot(0), 3), "@0"),), OUTPUTS[:1],
    1, 1, ("g\n  at @1",), ("c",), ("n",), (0,)
)  # fmt: skip
MAIN = Executable(
    bytes(range(256)), SIGNATURE, (Given(0), Made(0, 1), Made(0, 0), Stored(float32, (2,), bytes(range(8))))
)
BUNDLE = Bundle((INIT,), MAIN, (0, 0))


def test_a_bundle_reads_back_equal_and_has_one_spelling() -> None:
    data = to_bytes(BUNDLE)
    assert from_bytes(data) == BUNDLE
    assert to_bytes(from_bytes(data)) == data
    empty = Bundle((), Executable(b"", ProgramSignature("m", "r", (), ()), ()), ())
    assert from_bytes(to_bytes(empty)) == empty


def with_head(change: Any) -> bytes:
    """Return the bytes of the bundle with `change` made to what its head says."""
    data = to_bytes(BUNDLE)
    (length,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + length])
    change(head["Bundle"])
    new = json.dumps(head).encode()
    return struct.pack("<I", len(new)) + new + data[4 + length :]


def _main(bundle: Any) -> Any:
    return bundle["main"]["Executable"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: _main(b).pop("kept"), "Executable has the fields"),
        (lambda b: _main(b).update(more=1), "Executable has the fields"),
        (lambda b: _main(b).update(code="text"), "Executable.code cannot be text"),
        (lambda b: _main(b).update(code={"bytes": 300}), "300 bytes from byte"),
        (lambda b: _main(b).update(code={"bytes": -1}), "-1 bytes from byte"),
        (lambda b: _main(b).update(code={"bytes": 2**70}), "bytes from byte"),
        (lambda b: _main(b).update(code={"bytes": 255}), "the bundle ends at byte"),
        (lambda b: _main(b).update(code={"bytes": True}), "True bytes from byte"),
        (lambda b: _main(b).update(consts=[{"Given": {"number": "0"}}]), "Given.number cannot be 0"),
        (lambda b: _main(b).update(consts=[{"Given": {"number": True}}]), "Given.number cannot be True"),
        (lambda b: _main(b).update(consts=[{"Slot": {"number": 0}}]), "Executable.consts cannot be"),
        (lambda b: _main(b).update(consts=[{"Path": {"path": "/"}}]), "'Path' is no record"),
        (lambda b: _main(b).update(consts=[{"Made": {"program": 1, "output": 0}}]), "refers to what is not there"),
        (lambda b: _main(b).update(consts=[{"Made": {"program": 0, "output": 2}}]), "refers to what is not there"),
        (lambda b: _main(b).update(consts=[{"Made": {"program": -1, "output": 0}}]), "refers to what is not there"),
        (lambda b: _main(b)["signature"]["ProgramSignature"].update(n_slots=0), "slots"),
        (lambda b: _main(b)["signature"]["ProgramSignature"].update(inputs=[{"dtype": "f99"}]), "'f99' is no dtype"),
        (lambda b: _main(b)["signature"]["ProgramSignature"].update(inputs=[{}]), "stands for nothing"),
        (lambda b: _main(b)["signature"]["ProgramSignature"].update(inputs=[1.5]), "stands for nothing"),
        (lambda b: b.update(results=[1]), "are no outputs"),
        (lambda b: b.update(results=[-1]), "are no outputs"),
        (lambda b: b["inits"][0]["Executable"].update(kept=[]), "refers to what is not there"),
    ],
)
def test_f63_a_bundle_that_contradicts_itself_is_refused(change: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        from_bytes(with_head(change))


def test_f63_what_is_no_bundle_is_refused() -> None:
    data = to_bytes(BUNDLE)
    heads = [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"dtype": "f32"}',
        b'{"Slot": {"number": 1}}',
        b"1" * 5000,
    ]
    for wrong in (
        *(struct.pack("<I", len(head)) + head for head in heads),
        b"",
        b"\0\0\0",
        b"\xff\xff\xff\xff" + data[4:],
        data[:-1],
        data + b"\0",
        data[:200],
    ):
        with pytest.raises(FormatError):
            from_bytes(wrong)


def test_f63_a_stored_array_has_the_bytes_of_its_shape() -> None:
    assert Stored(float32, (0, 2**40), b"").data == b""
    for shape in ((3,), (1, 1), (-1, -2)):
        with pytest.raises(FormatError, match="are no array"):
            Stored(float32, shape, bytes(8))


def test_init_programs_run_once_and_bundles_share_what_they_make() -> None:
    w, v = np.array([1, 2], np.float32), np.array([5.0], np.float32)
    ran: list[bytes] = []

    def run(program: Executable, consts: Sequence[Any], out: Sequence[Any]) -> None:
        ran.append(program.code)
        for k, target in enumerate(out):
            target[...] = consts[0] + 10 * k

    constants = Constants(guard=False)
    first = constants.arrays(BUNDLE, [("v", v), ("w", w)], run)
    assert [a.tolist() for a in first] == [
        [5.0],
        [[11.0, 12.0]],
        [1.0, 2.0],
        [*np.arange(8, dtype=np.uint8).view("<f4")],
    ]
    again = constants.arrays(BUNDLE, [("v", v), ("w", w)], run)
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert ran == [b"init"]
    # Another graph numbers its arrays in another way, and its code makes nothing but the panels, of the same array.
    packing = replace(
        INIT,
        code=b"pack",
        signature=replace(INIT.signature, outputs=OUTPUTS[1:]),
        consts=(Given(0),),
        kept=INIT.kept[1:],
    )
    other = Bundle((packing,), replace(MAIN, consts=(Made(0, 0),)), (0,))
    (panels,) = constants.arrays(other, [("w", w)], run)
    assert panels is first[1]
    assert ran == [b"init"]
    (panels,) = constants.arrays(other, [("w2", w + 1)], run)
    assert panels.tolist() == [[2.0, 3.0]]
    assert ran == [b"init", b"pack"]
    assert constants.nbytes == 4 + 6 * 8
