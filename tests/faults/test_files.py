"""Graph files that are damaged, forged or half written: F56 to F62 of the fault model."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow import graph_file, safetensors
from jitflow.graph_line import MAX_LINE
from tests.fuzz.files import check

ROOT = Path(__file__).resolve().parents[2]
HEAD = b"jitflow graph 1\nweights: none\n"
TEXT = HEAD + b'graph 1:\n  x: f32[n] = placeholder(name="x")\n'  # 30 + 9 + 36 bytes, so that line 5 is at byte 75


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file with two arrays in it, of float32 and bool."""
    w = jf.variable("w", np.arange(32, dtype=np.float32))
    flags = jf.constant(np.arange(20) % 2 == 0)
    jf.save(tmp_path / "m.jitflow", [jf.exp(w), flags])
    return tmp_path / "m.jitflow"


def refused(path: Path, data: bytes, error: type[Exception] = jf.FormatError) -> str:
    """Return how `data` is refused: the first line of the message, after the path."""
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        jf.load(path)
    assert type(caught.value) is error
    first, place = str(caught.value).split("\n  at ")
    assert place.startswith(__file__)
    assert first.startswith(f"{path}: ")
    return first.removeprefix(f"{path}: ")


def split(data: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    """Return what is before the weights, their header, and their data."""
    found = re.search(rb"at byte ([0-9]+)", data)
    assert found is not None
    at = int(found[1])
    (size,) = struct.unpack("<Q", data[at : at + 8])
    return data[:at], json.loads(data[at + 8 : at + 8 + size]), data[at + 8 + size :]


def joined(before: bytes, header: Any, weights: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return before + struct.pack("<Q", len(text)) + text + weights


# ---- F56


def test_f56_a_file_cut_anywhere_is_refused_with_the_byte(path: Path) -> None:
    data = path.read_bytes()
    for end in (*range(0, len(data), 5), len(data) - 2, len(data) - 1):
        message = refused(path, data[:end])
        found = re.search(r"\bbyte ([0-9]+)", message)
        assert found is not None, message
        assert int(found[1]) <= max(end, len(data)), message


def test_f56_garbage_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "f"
    head = "this is no graph file, which begins with 'jitflow graph 1'"
    assert refused(path, b"") == "byte 0: the file ends here; a graph file begins with 'jitflow graph 1'"
    assert refused(path, b"jitflow gr") == "byte 10: the file ends here; a graph file begins with 'jitflow graph 1'"
    assert refused(path, b"\x93NUMPY\x01\x00" * 100) == f"byte 0: {head}"
    assert refused(path, b"jitflow text\n") == f"byte 8: {head}"
    assert refused(path, b"jitflow graph 1\nweights: all\n").startswith("byte 16: expected 'weights: none', ")
    assert refused(path, HEAD + b"graph 1:\n \xff") == "byte 40: this is no text"
    assert refused(path, HEAD + b"graph 1:\n return") == "byte 46: the file ends within a line"
    assert (
        refused(path, TEXT + b"  y = exp(x\n") == "byte 86, line 5, column 12: expected ',', found the end of the line"
    )
    assert refused(path, TEXT + b"  y = exp(x)\n") == "byte 88, line 6, column 1: the graph does not end with 'return'"


def test_f56_what_a_graph_cannot_be_is_a_format_error_whatever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for line, message in (
        (b"y = expo(x)", "byte 81, line 5, column 7: unknown operator 'expo'; did you mean 'exp'?"),
        (b"y = exp(x, axis=0)", "byte 75, line 5: exp has no attribute 'axis'"),
        (b"y = exp(x, x)", "byte 75, line 5: exp takes 1 inputs, got 2"),
        (b"y = exp(y)", "byte 75, line 5: the graph has a cycle: y -> y"),
        (b"x = exp(x)", "two nodes are called 'x': byte 39, line 4 and byte 75, line 5"),
        (b"y = flip(x, axes=(4,))", "byte 75, line 5: flip: axes (4,) are not distinct axes of (n,)"),
        (b"y: f32[2**70] = exp(x)", "byte 86, line 5, column 12: expected a value, found '*'"),
        (b"y = astype(x, dtype=index)", "byte 75, line 5: attribute 'dtype' of astype must be a dtype"),
    ):
        assert refused(path, TEXT + b"  " + line + b"\n  return y\n").startswith(message)


def test_f56_weights_that_are_not_those_of_the_text_are_refused(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    before, header, weights = split(data)
    changed = bytearray(data)
    changed[-1] ^= 1
    assert "of the weights is not one that the text names" in refused(path, bytes(changed))
    # The other way round: a text that names more than there is.
    last = "constant_0"
    header.pop(last)
    rest = weights[: 4 * 32]
    assert "is not in the table of arrays" in refused(path, joined(before, header, rest))


def test_f56_bools_other_than_0_and_1_are_refused(path: Path) -> None:
    data = path.read_bytes()
    assert data.endswith(b"\1\0")
    assert "array 'constant_0' of bool has elements other than 0 and 1" in refused(path, data[:-1] + b"\2")


def test_f56_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(jf.FormatError, match="this is no regular file"):
        jf.load(tmp_path / "fifo")
    with pytest.raises(jf.FormatError, match="this is no regular file"):
        jf.load("/dev/zero")
    with pytest.raises(FileNotFoundError):
        jf.load(tmp_path / "missing")


# ---- F57


def test_f57_an_unknown_version_is_refused_and_both_are_named(tmp_path: Path) -> None:
    path = tmp_path / "f"
    message = "byte 14: version 2 of graph files is not known; this jitflow reads version 1"
    assert refused(path, b"jitflow graph 2\nanything \xff") == message
    inner = refused(path, HEAD + b"graph 7:\n  return\n")
    assert inner == "byte 36, line 3, column 7: version 7 of the format is not known, only 1"


# ---- F58


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"w":1,"w":2}', "key 'w' twice"),
        (b'{"w":{"dtype":"F32","dtype":"F32"}}', "key 'dtype' twice"),
        (b'{"w":{"dtype":"F32","shape":[1e1],"data_offsets":[0,40]}}', "'1e1' where there are only integers"),
        (b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', "'NaN' where there are only integers"),
        (b'{"w":{"dtype":"F32","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,4]}}', "a number of too many digits"),
        (b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "has a shape that is no list of sizes"),
        (b'{"w":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', "has a shape that is no list of sizes"),
        (b'{"w":{"dtype":"F32","shape":[32],"data_offsets":[0,true]}}', "has offsets that are not two numbers"),
        (b'{"w":{"dtype":"F32","shape":[32],"data_offsets":[0]}}', "has offsets that are not two numbers"),
        (b'{"w":{"dtype":"C64","shape":[32],"data_offsets":[0,256]}}', "has a dtype that is none of BOOL, I8"),
        (b'{"w":{"dtype":["F32"],"shape":[32],"data_offsets":[0,128]}}', "has a dtype that is none of BOOL, I8"),
        (b'{"w":{"dtype":"F32","shape":[32]}}', "must have 'dtype', 'shape' and 'data_offsets', and nothing else"),
        (b'{"w":[]}', "must have 'dtype', 'shape' and 'data_offsets', and nothing else"),
        (b'{"a\\nb":{}}', "must have a name of one line of printable characters"),
        (b'{"__metadata__":{"a":1}}', "__metadata__ must map strings to strings"),
        (b"[]", "the header does not begin with '{'"),
        (b" {}", "the header does not begin with '{'"),
        (b'{"w":' + b"[" * 100_000, "the header is nested too deeply"),
        (b'{"w":}', "the header is no JSON: Expecting value"),
        (b'{"w":"\xff"}', "the header is no text"),
        (b"{} {}", "the header is no JSON: Extra data"),
    ],
)
def test_f58_headers_that_are_not_strict_json_are_refused(path: Path, header: bytes, message: str) -> None:
    before, _, weights = split(path.read_bytes())
    got = refused(path, joined(before, header, weights))
    assert message in got
    assert re.match("byte [0-9]+: ", got)


def test_f58_deep_nesting_in_the_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for line in (
        b"y: f32[" + b"(" * 100_000,
        b"y: f32[" + b"-" * 100_000,
        b"y: f32[" + b"min(" * 100_000,
        b"y = pad(x, widths=" + b"(" * 100_000,
        b"return " + b"[" * 100_000,
        b"return " + b"{1: " * 100_000,
    ):
        assert "nested deeper than" in refused(path, TEXT + b"  " + line + b"\n")


def test_f58_bad_numbers_in_the_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for number in (b"1e400", b"9" * 30, b"1.0.0", b"0x10", b"1_000", b"--", b"1e", b"99999999999999999999"):
        refused(path, TEXT + b"  y = roll(x, shifts=(" + number + b",), axes=(0,))\n  return y\n")


# ---- F59


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constant_0": [127, 147]}, "array 'constant_0' at offset 127 overlaps the array before it"),
        ({"constant_0": [0, 20]}, "array 'w' at offset 0 overlaps the array before it"),
        ({"constant_0": [129, 149]}, "array 'constant_0' at offset 129 leaves 1 bytes unused"),
        ({"constant_0": [2**62, 2**62 + 20]}, "leaves"),
        ({"constant_0": [128, 147]}, "of bool and shape (20,) cannot take 19 bytes"),
        ({"constant_0": [148, 128]}, "of bool and shape (20,) cannot take -20 bytes"),
        ({"w": [0, 2**64]}, "of float32 and shape (32,) cannot take 18446744073709551616 bytes"),
    ],
)
def test_f59_offsets_must_cover_the_data_exactly(path: Path, changes: dict[str, list[int]], message: str) -> None:
    before, header, weights = split(path.read_bytes())
    for name, offsets in changes.items():
        header[name]["data_offsets"] = offsets
    assert message in refused(path, joined(before, header, weights))


def test_f59_data_before_or_beyond_the_arrays_are_refused(path: Path) -> None:
    data = path.read_bytes()
    assert "the arrays end at offset 148, but there are 149 bytes of data" in refused(path, data + b"\0")
    before, header, weights = split(data)
    for at, message in (
        ("000000000001", "byte 33: 1 is not where weights can begin: at a multiple of 64 after the text"),
        ("000000000000", "byte 33: 0 is not where weights can begin: at a multiple of 64 after the text"),
        ("000000006400", f"byte 33: the weights begin at byte 6400, but the file ends at byte {len(data)}"),
    ):
        assert refused(path, re.sub(rb"(?<=at byte )[0-9]{12}", at.encode(), data)) == message
    huge = {**header, "w": {"dtype": "F32", "shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}}
    assert "has more elements than there can be" in refused(path, joined(before, huge, weights))


# ---- F60


def test_f60_weights_are_never_followed_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    w = jf.variable("w", np.arange(32, dtype=np.float32))
    for folder in (inside, outside):
        jf.save(folder / "m.jitflow", w, weights="w.safetensors")
    path = inside / "m.jitflow"
    data = path.read_bytes()
    secret = outside / "w.safetensors"
    assert jf.load(path).shape == (32,)
    for name in (
        str(secret),
        "../outside/w.safetensors",
        "..",
        ".",
        "",
        "./w.safetensors",
        "a/../w.safetensors",
        "C:w",
    ):
        message = refused(path, data.replace(b"w.safetensors", name.encode()))
        assert "is no plain file name" in message or "is not the name of a file" in message
    (inside / "link").symlink_to(secret)
    (inside / "dangling").symlink_to("nowhere")
    os.link(secret, inside / "hard")
    os.mkfifo(inside / "fifo")
    (inside / "folder").mkdir()
    for name, message in (
        ("link", "cannot be opened"),
        ("dangling", "cannot be opened"),
        ("missing", "which cannot be opened: No such file or directory"),
        ("hard", "which has hard links elsewhere"),
        ("fifo", "this is no regular file"),
        ("folder", "this is no regular file"),
    ):
        assert message in refused(path, data.replace(b"w.safetensors", name.encode()))
    for name in ("a/b", "..", "", "a\nb", "m.jitflow", '"', "x" * 300):
        with pytest.raises(jf.GraphError, match=r"is no plain file name|is not the name|own file"):
            jf.save(path, w, weights=name)


def test_f60_a_pair_that_does_not_belong_together_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.jitflow"
    for seed in (1, 2):
        w = jf.variable("w", np.random.default_rng(seed).random(32))
        jf.save(path, w, weights="w.safetensors")
        (tmp_path / f"{seed}").write_bytes((tmp_path / "w.safetensors").read_bytes())
    os.replace(tmp_path / "1", tmp_path / "w.safetensors")
    with pytest.raises(jf.FormatError, match="array 'w' of the weights is not one that the text names"):
        jf.load(path)


# ---- F8, F61


def test_f8_f61_claims_are_checked_before_memory_is_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes()
    before, header, weights = split(data)
    at = len(before)
    # Files with holes: 1 TiB that takes no room on the disk.
    path.write_bytes(data)
    os.truncate(path, 1 << 40)
    with pytest.raises(jf.FormatError, match="the arrays end at offset 148, but there are"):
        jf.load(path)
    path.write_bytes(before + struct.pack("<Q", 1 << 39))
    os.truncate(path, 1 << 40)
    with pytest.raises(
        jf.LimitError, match=f"byte {at}: a header of {1 << 39} bytes is over the limit of {1 << 25} bytes"
    ):
        jf.load(path)
    path.write_bytes(TEXT)
    os.truncate(path, 1 << 40)
    with pytest.raises(jf.LimitError, match=rf"a text of [0-9]+ bytes is over the limit of {1 << 28} bytes"):
        jf.load(path)
    got = refused(path, before + struct.pack("<Q", 2**64 - 1) + weights)
    assert got == f"byte {at}: a header of {2**64 - 1} bytes, but only {len(weights)} follow"
    for shape in ([2**31, 2**31], [2**60], [0, 2**62]):
        header["w"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape, dtype=object))]}
        refused(path, joined(before, header, weights))
    line = b"  y = constant(value=f32[1152921504606846976]{})\n  return y\n"
    assert "1152921504606846976 elements expected, found 0" in refused(path, TEXT + line)
    assert "over the limit" in refused(path, TEXT + b"#" * (MAX_LINE + 1) + b"\n", jf.LimitError)
    header["w"] = {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}
    assert "65 axes, over the limit of 64" in refused(path, joined(before, header, weights), jf.LimitError)
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 1)
    message = refused(path, data, jf.LimitError)
    assert "2 arrays are over the limit of 1" in message


def test_f8_what_could_not_be_loaded_is_not_saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    outputs = jf.load(path)
    for module, limit, message in (
        (safetensors, "MAX_TENSORS", "2 arrays are over the limit of 1 in one file"),
        (safetensors, "MAX_HEADER", "the header of the arrays has [0-9]+ bytes, over the limit of 1"),
        (graph_file, "MAX_TEXT", "the text of the graph has [0-9]+ bytes, over the limit of 1"),
        (graph_file, "MAX_LINE", "a node's line has [0-9]+ characters, over the limit of 1"),
    ):
        with monkeypatch.context() as m:
            m.setattr(module, limit, 1)
            with pytest.raises(jf.LimitError, match=message):
                jf.save(path, outputs)
    d: Any = jf.placeholder("x", jf.float32, ("n",)).shape[0]
    for _ in range(10):
        d = (d + 1) // 3
    y = jf.placeholder("y", jf.float32, (d,))
    jf.save(path.with_name("deep"), y)
    assert jf.same_graph(jf.load(path.with_name("deep")), y)
    path.with_name("deep").unlink()
    monkeypatch.setattr(graph_file, "MAX_NESTING", 10)
    with pytest.raises(jf.LimitError, match=r"a formula is nested deeper than 10: y: f32\[\(\("):
        jf.save(path, y)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# ---- F62


def test_f62_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    outputs = [jf.exp(jf.variable("v", np.ones(100)))]
    for function in ("fsync", "replace"):
        for weights in (None, "v.safetensors"):
            with monkeypatch.context() as m:

                def fail(*args: object, **options: object) -> None:
                    raise OSError(28, "No space left on device")

                m.setattr(os, function, fail)
                with pytest.raises(OSError, match="No space left"):
                    jf.save(path, outputs, weights=weights)
            assert path.read_bytes() == before
            assert os.listdir(path.parent) == [path.name]


def test_f62_where_files_without_a_name_do_not_exist_a_save_works_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [jf.exp(jf.variable("v", np.ones(100)))]
    monkeypatch.delattr(os, "O_TMPFILE")
    jf.save(path, outputs)
    assert jf.same_graph(jf.load(path), outputs)
    before = path.read_bytes()

    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        jf.save(path, [])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_f62_a_save_that_is_killed_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    # The child saves two graphs in turn; the arrays are large enough for most kills to hit a write.
    program = """
import sys
import numpy as np
import jitflow as jf
graphs = [jf.variable("w", np.full(1 << 18, k, np.float64)) for k in (0, 1)]
jf.save(sys.argv[1], graphs[0])
print("ready", flush=True)
k = 0
while True:
    k = 1 - k
    jf.save(sys.argv[1], graphs[k])
"""
    path = tmp_path / "m.jitflow"
    killed = 0
    delays = (0.0, 0.004, 0.009, 0.017)
    for delay in delays:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=ROOT
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline:
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        killed += child.returncode == -signal.SIGKILL
        value = jf.load(path).node.attr("value").array
        assert value.shape == (1 << 18,)
        assert (value == value[0]).all()
        # A name beside it exists for an instant only, and then for a complete file.
        for other in set(tmp_path.iterdir()) - {path}:
            assert other.name.endswith(".jitflow-tmp")
            jf.load(other)
            other.unlink()
    assert killed == len(delays)


# ---- anything


def test_damaged_files_do_no_harm() -> None:
    command = [sys.executable, "-m", "tests.fuzz.files", "--count", "300", "--no-compile"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("300 damaged files from ")


def test_the_fuzzer_finds_a_reader_that_does_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(jf, "load", load)
    with pytest.raises(KeyError):
        check(path)
