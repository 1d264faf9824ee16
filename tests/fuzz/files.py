"""``python -m tests.fuzz.files --count N``: damage valid graph files and see that reading them does no harm.

Each case is one damaged file: bits flipped, the end cut off, parts of files joined, lines, tokens, numbers, operators
and attributes of the text or keys and offsets of the weights exchanged. `load` must refuse it with FormatError or
LimitError, or return a graph that can be saved, loaded, interpreted and now and then compiled, where again only errors
of jitflow's family may come up; in 2 seconds and a fixed amount of memory. ``--seed S --only K`` repeats one case and
keeps the file.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import jitflow as jf
from jitflow.dtypes import ALL, as_dtype
from jitflow.graph import OPS, Node, make_node, make_placeholder, toposort
from jitflow.ops.naming import identity_op
from jitflow.simplify import evaluate_index, free_vars
from jitflow.structure import leaves
from jitflow.tensor import as_tensor
from tests.support.random_graph import random_graph

#: Seconds and bytes that one case may take.
TIME_LIMIT = 2.0
MEMORY_LIMIT = 1 << 30
#: Graphs with more elements are not interpreted.
MAX_ELEMENTS = 20_000
#: One in this many of the graphs that load is compiled.
COMPILED = 40

NUMBERS = ["-1", "0", "1", "2", "3", "7", "64", "65", str(2**31), str(2**60), str(2**63 - 1), str(2**63), str(2**64)]
NUMBERS += ["-" + str(2**63), "9" * 30, "1e400", "1.5", "-0.0", "nan", "inf", "true", "none", "f32", "n", "()", '"a"']
BLOBS = [
    b"",
    b"\x00",
    b"\xff",
    b"\n",
    b"(",
    b")" * 3,
    b"[" * 200,
    b"{",
    b'"',
    b"\\",
    b"-",
    b"# ",
    b"\xc3\xa9",
    b"(" * 5000,
]


class TooSlow(BaseException):
    """A case ran over the time limit."""


@contextmanager
def time_limit(seconds: float) -> Any:
    def stop(signum: int, frame: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)  # of the processor: others may use the machine
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# ---- files to begin with


def seeds(folder: Path) -> list[tuple[bytes, bytes | None]]:
    """Return valid files that use every operator, each with the bytes of its second file, if it has one."""
    rng = np.random.default_rng(0)
    outputs: list[Any] = [list(random_graph(seed).fetches) for seed in range(30)]
    nodes: list[Any] = []
    for op in OPS.values():
        samples = op.samples(rng) if op.samples is not None else ()
        kept = [s for s in samples if s.raises is None]
        for sample in kept[:: max(1, len(kept) // 5)]:
            inputs = [_input(array, len(nodes) + k) for k, array in enumerate(sample.inputs)]
            nodes.append(as_tensor(make_node(op, inputs, sample.attrs)))
    nodes = [t for t in nodes if t.node.op is not identity_op]  # names are unique in a file
    outputs += [nodes[k : k + 5] for k in range(0, len(nodes), 5)]
    outputs += [jf.placeholder("x", jf.bool, ("n",)), [as_tensor(identity_op(jf.constant([1.0]).node, name="h"))]]
    x = jf.placeholder("x", jf.float32, ("n", "m"))
    w = jf.variable("w", np.arange(40, dtype=np.float32).reshape(8, 5))
    y = jf.softmax(jf.reshape(jf.concat([x, x[1:]], axis=0), (-1, 8)) @ w)
    outputs += [y, {"y": y, "more": [y, (x, {1: w})]}, [], (y,), {"a": jf.constant(np.arange(50) % 2 == 0), "w": w}]
    files: list[tuple[bytes, bytes | None]] = []
    for k, out in enumerate(outputs):
        path = folder / f"{k}.jitflow"
        second = folder / f"{k}.safetensors"
        jf.save(path, out)
        files.append((path.read_bytes(), None))
        if k % 8 == 0:
            jf.save(path, out, weights=second.name)
            if second.exists():
                files.append((path.read_bytes().replace(second.name.encode(), b"w.safetensors"), second.read_bytes()))
    return files


def _input(array: Any, k: int) -> Node:
    array = np.asarray(array)
    if k % 2 and array.size <= 64:
        return jf.constant(array).node
    return make_placeholder(None, as_dtype(array.dtype), array.shape)


# ---- damage


def damaged(rng: random.Random, files: list[tuple[bytes, bytes | None]]) -> tuple[bytes, bytes | None]:
    """Return one of `files` with something changed."""
    data, second = rng.choice(files)
    if second is not None and rng.random() < 0.5:
        return data, _damage_weights(rng, second) if rng.random() < 0.7 else _damage_bytes(rng, second, second)
    if rng.random() < 0.25:
        return _damage_bytes(rng, data, rng.choice(files)[0]), second
    head, text, weights = _parts(data)
    if weights and rng.random() < 0.25:
        return _join(head, text, _damage_weights(rng, weights)), second
    if rng.random() < 0.5:  # types are checked against what is inferred, which hides what comes after
        text = re.sub(r"(?m)^(  \S+): [a-z0-9]+\[[^=]*\] = (?!placeholder)", r"\1 = ", text)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        text = rng.choice(TEXT_DAMAGE)(rng, text)
    if rng.random() < 0.03:
        head = rng.choice(HEADS)
    return _join(head, text, weights), second


HEADS = [
    b"jitflow graph 2\nweights: none\n",
    b"jitflow graph 1\nweights: none\n",
    b"jitflow graph 1\nweights: at byte 64\n",
    b"jitflow graph 1\nweights: at byte 999999999999999999\n",
    b'jitflow graph 1\nweights: in "w.safetensors"\n',
    b'jitflow graph 1\nweights: in "../w.safetensors"\n',
    b'jitflow graph 1\nweights: in "/etc/passwd"\n',
    b'jitflow graph 1\nweights: in "link"\n',
    b'jitflow graph 1\nweights: in ".."\n',
    b"jitflow graph 00000001\nweights: none\n",
]


def _parts(data: bytes) -> tuple[bytes, str, bytes]:
    """Return the first two lines, the text without what fills it up, and the weights in the file."""
    first, where, _ = data.split(b"\n", 2)
    head = first + b"\n" + where + b"\n"
    found = re.match(rb"weights: at byte ([0-9]+)", where)
    at = int(found[1]) if found else len(data)
    return head, data[len(head) : at].decode().rstrip("\n") + "\n", data[at:]


def _join(head: bytes, text: str, weights: bytes) -> bytes:
    data = text.encode()
    if b"at byte 0000" in head:
        size = len(head) + len(data)
        head = re.sub(rb"[0-9]{12}", b"%012d" % (size + -size % 64), head)
        data += b"\n" * (-size % 64)
    return head + data + weights


def _damage_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 1:
            del changed[rng.randrange(len(changed)) :]
        case 2:
            changed[rng.randrange(len(changed)) :] = other[rng.randrange(len(other)) :]
        case 3:
            at = rng.randrange(len(changed))
            changed[at : at + rng.randint(0, 20)] = rng.choice(BLOBS)
        case _:
            a, b = sorted(rng.randrange(len(changed)) for _ in range(2))
            changed[a:a] = changed[a:b]
    return bytes(changed)


def _damage_weights(rng: random.Random, weights: bytes) -> bytes:
    """Change the header of a block of weights; its length mostly follows."""
    size = int.from_bytes(weights[:8], "little")
    header, data = weights[8 : 8 + size].decode(), weights[8 + size :]
    match rng.randrange(6):
        case 0:
            header = _number(rng, header)
        case 1:
            header = _token(rng, header)
        case 2:
            header = header.replace(
                "{", rng.choice(["[" * 3000, '{"__metadata__":{"a":"b"},', '{"a":1,"a":2,', "{{"]), 1
            )
        case 3:
            words = ["BOOL", "I8", "U64", "BF16", "F64", "F99", "F32"]
            header = re.sub('"[BFIU][A-Z]*[0-9]*"', lambda m: f'"{rng.choice(words)}"', header, count=1)
        case 4:
            at = rng.randrange(len(data) + 1)
            data = rng.choice([data[:at], data + b"\0" * rng.randint(1, 100), data[:at] + b"\xff" + data[at + 1 :]])
        case _:
            length = rng.choice([0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1])
            return length.to_bytes(8, "little") + weights[8:]
    encoded = header.encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def _lines(rng: random.Random, text: str) -> str:
    rows = text.split("\n")
    a, b = rng.randrange(len(rows)), rng.randrange(len(rows))
    match rng.randrange(4):
        case 0:
            rows.insert(a, rows[b])
        case 1:
            del rows[a]
        case 2:
            rows[a], rows[b] = rows[b], rows[a]
        case _:
            rows[a] = rows[a][: rng.randrange(len(rows[a]) + 1)] + rows[b][rng.randrange(len(rows[b]) + 1) :]
    return "\n".join(rows)


_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|\w+(?:\.\w+)?|//|@[0-9a-f]+|\S')


def _token(rng: random.Random, text: str) -> str:
    found = list(_TOKENS.finditer(text))
    if not found:
        return text
    a, b = rng.choice(found), rng.choice(found)
    match rng.randrange(4):
        case 0:
            new = ""
        case 1:
            new = f"{a[0]} {a[0]}"
        case 2:
            new = b[0]
        case _:
            new = rng.choice(["(", ")", ",", "=", "[", "]", "{", "}", "-", "//", "%", "n", "min", "0", "return", "@"])
    return text[: a.start()] + new + text[a.end() :]


def _number(rng: random.Random, text: str) -> str:
    found = list(re.finditer(r"-?\b[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?\b", text))
    if not found:
        return text
    m = rng.choice(found)
    return text[: m.start()] + rng.choice(NUMBERS) + text[m.end() :]


def _operator(rng: random.Random, text: str) -> str:
    found = list(re.finditer(r"= ([a-z_0-9]+)\(", text))
    if not found:
        return text
    m = rng.choice(found)
    return text[: m.start(1)] + rng.choice(list(OPS)) + text[m.end(1) :]


def _value(rng: random.Random, text: str) -> str:
    """Exchange the value of one attribute, mostly for that of another."""
    found = list(re.finditer(r"\b([a-z_]+)=(\((?:[^()]|\([^()]*\))*\)|[^\s,()]+)", text))
    if not found:
        return text
    a, b = rng.choice(found), rng.choice(found)
    new = rng.choice([b[2], b[2], b[2], rng.choice(NUMBERS), "(0,)", "(0, 0)", "(-1,)", "(99,)", "((1, 1),)", "(n,)"])
    which = rng.choice([1, 2, 2, 2])
    return text[: a.start(which)] + (b[1] if which == 1 else new) + text[a.end(which) :]


def _input_label(rng: random.Random, text: str) -> str:
    labels = re.findall(r"(?m)^  (\w+)[:=]", text) or ["x"]
    found = list(re.finditer(rf"(?<=[(, ])({'|'.join(map(re.escape, labels))})(?=[,)])", text))
    if not found:
        return text
    m = rng.choice(found)
    return text[: m.start()] + rng.choice(labels) + text[m.end() :]


def _dtype(rng: random.Random, text: str) -> str:
    found = list(re.finditer(rf"\b({'|'.join(d.short for d in ALL)})\b", text))
    if not found:
        return text
    m = rng.choice(found)
    return text[: m.start()] + rng.choice([*(d.short for d in ALL), "index"]) + text[m.end() :]


TEXT_DAMAGE: list[Callable[[random.Random, str], str]] = [
    _lines,
    _token,
    _number,
    _number,
    _operator,
    _value,
    _value,
    _input_label,
    _dtype,
]


# ---- what must hold


def check(path: Path, *, compiled: bool = False) -> str:
    """Read the file and return how it went; whatever must not happen is raised."""
    try:
        outputs = jf.load(path)
    except (jf.FormatError, jf.LimitError) as error:
        if not re.search("byte [0-9]|weights", str(error)):
            raise AssertionError(f"this does not say where: {error}") from None
        return type(error).__name__
    try:
        verify(path, outputs, compiled)
    except jf.CompilerBug:
        raise
    except jf.JitflowError as error:
        return f"loaded, then {type(error).__name__}"
    return "loaded"


def verify(path: Path, outputs: Any, compiled: bool) -> None:
    """See that a graph that was loaded is a graph: it can be saved, interpreted and, if asked for, compiled."""
    copy = path.with_name("copy.jitflow")
    jf.save(copy, outputs)
    try:
        again = jf.load(copy)
    except jf.JitflowError as error:
        raise AssertionError(f"what was saved is not loaded: {error}") from error
    assert jf.same_graph(again, outputs)
    order = toposort(t.node for t in leaves(outputs))
    feeds, count = {}, 0
    for node in order:
        sizes = tuple(evaluate_index(d, dict.fromkeys(free_vars(d), 3)) for d in node.shape)
        if any(n < 0 for n in sizes):
            return
        count += int(np.prod(sizes, dtype=object))
        if count > MAX_ELEMENTS:
            return
        if node.op.name == "placeholder":
            if node.dtype.np is None:
                return
            feeds[as_tensor(node)] = np.ones(sizes, node.dtype.np)
    jf.interpret(outputs, feeds)
    if compiled:
        with jf.Session(outputs) as session:
            session.run(outputs, feeds)


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.files", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.fsync = lambda fd: None  # these files are not to outlive anything
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = (0.0, 0)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = seeds(folder)
        path = folder / "case.jitflow"
        (folder / "link").symlink_to("w.safetensors")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_LIMIT, hard))
        for k in range(args.count) if args.only is None else [args.only]:
            rng = random.Random(f"{args.seed}:{k}")
            data, second = damaged(rng, files)
            path.write_bytes(data)
            (folder / "w.safetensors").write_bytes(second or b"")
            before = time.monotonic()
            try:
                compiled = args.compile and k % COMPILED == 0
                with time_limit(TIME_LIMIT * (10 if compiled else 1)):
                    outcomes[check(path, compiled=compiled)] += 1
            except (Exception, TooSlow) as error:  # every kind of failure is a finding
                outcomes["FAILED"] += 1
                at = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(at.filename).name}:{at.lineno}"
                failures.append(f"case {k}: {type(error).__name__}: {error} ({place})")
                print(failures[-1], file=sys.stderr)
                if args.only is not None:
                    traceback.print_exc()
            slowest = max(slowest, (time.monotonic() - before, k))
            if args.only is not None:
                Path("damaged.jitflow").write_bytes(data)
                print("the file is ./damaged.jitflow")
    counts = ", ".join(f"{count} {what}" for what, count in outcomes.most_common())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{sum(outcomes.values())} damaged files from {len(files)}: {counts}; "
        f"slowest {slowest[0]:.2f} s (case {slowest[1]}), {peak} MiB at most, {time.monotonic() - start:.1f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
