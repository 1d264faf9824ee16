"""The ``jitflow`` command: demo, run, dump, compare, bench, doctor. Arguments in, text and files out.

``run``, ``dump`` and ``compare`` take a graph with its weights (a ``.jitflow`` file, `jitflow.graph_file`) or as text
alone (a ``.graph`` file, `jitflow.graph_text`) and feeds as ``.npy`` files (``--feed x=images.npy``); ``run`` and
``compare`` make random feeds with ``--random SEED``.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from jitflow import demo, doctor
from jitflow.comparison import compare
from jitflow.compile_log import STAGES
from jitflow.config import override
from jitflow.dtypes import bfloat16, numpy_dtype
from jitflow.errors import FeedError, FormatError, JitflowError, LimitError
from jitflow.expr import Var
from jitflow.graph import Node, toposort
from jitflow.graph_file import MAGIC, load_graph, read_graph
from jitflow.graph_printer import FRESH
from jitflow.graph_text import Graph, parse_graph
from jitflow.session import Session
from jitflow.simplify import evaluate_index, free_vars
from jitflow.tensor import as_tensor


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: those of the process); return the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["bench"]:
        return _bench(words[1:])  # which has options of its own
    args = _parser().parse_args(words)
    try:
        return int(args.run(args))
    except BrokenPipeError:
        # Whoever reads has gone; what Python still holds must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (JitflowError, OSError, MemoryError) as error:
        print(f"jitflow: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jitflow", description="A JIT-lowering backend from dataflow graphs to LLVM.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    p = commands.add_parser("demo", help="classify handwritten digits, compiled, and show every stage")
    p.set_defaults(run=lambda args: demo.main())

    p = commands.add_parser("run", help="run a graph file and print or save what it returns")
    _graph_arguments(p, feeds=True)
    p.add_argument("--save", metavar="FILE.npz", type=Path, help="write the results to a file instead of printing them")
    p.set_defaults(run=_run)

    p = commands.add_parser("dump", help="print a stage of a graph file's compilation")
    _graph_arguments(p, feeds=False)
    p.add_argument("--stage", choices=STAGES, help="default: loops, or ptx for an nvptx target")
    p.add_argument("--target", help="host, x86-64-v2, x86-64-v3, x86-64-v4, or nvptx:sm_NN")
    p.add_argument("--kernel", help="only this kernel")
    p.set_defaults(run=_dump)

    p = commands.add_parser("compare", help="run a graph file compiled and interpreted, and report every node's error")
    _graph_arguments(p, feeds=True)
    p.set_defaults(run=_compare)

    commands.add_parser("bench", help="measure against numpy and whatever else is installed (in a checkout)")

    p = commands.add_parser("doctor", help="check what this machine offers")
    p.set_defaults(run=lambda args: doctor.main())
    return parser


def _graph_arguments(p: argparse.ArgumentParser, *, feeds: bool) -> None:
    p.add_argument("graph", type=Path, help="a .jitflow or .graph file, or - for standard input")
    p.add_argument(
        "--arrays",
        type=Path,
        metavar="FILE.npz",
        help="the large arrays that a .graph file only names: numpy.savez(FILE, **jitflow.graph_arrays(fetches))",
    )
    if feeds:
        p.add_argument("--feed", action="append", default=[], metavar="NAME=FILE.npy", help="the value of an input")
        p.add_argument("--random", type=int, metavar="SEED", help="make up the feeds that are not given")
        p.add_argument("--dim", action="append", default=[], metavar="NAME=N", help="size of a dim in made-up feeds")


def _read(args: argparse.Namespace) -> Graph:
    try:
        return _graph(args)
    except (FormatError, LimitError) as error:
        # What it names besides is the line of Python that called: ours.
        raise type(error)(str(error).split("\n  at ")[0]) from None


def _graph(args: argparse.Namespace) -> Graph:
    if str(args.graph) == "-":
        data = sys.stdin.buffer.read()
        if data.startswith(MAGIC):
            return read_graph(data)
    else:
        with args.graph.open("rb") as file:
            start = file.read(len(MAGIC))
            if start == MAGIC:
                return load_graph(args.graph)
            data = start + file.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{args.graph} is no graph: byte {error.start} is no text") from None
    if args.arrays is None:
        # Code does not depend on what is in constants, except for single numbers, which stand in the text.
        return parse_graph(text, stand_ins=args.run is _dump)
    try:
        with np.load(args.arrays, allow_pickle=False) as arrays:
            table = {name: _restored(array) for name, array in arrays.items()}
    except (ValueError, EOFError, TypeError, BadZipFile) as error:
        raise FormatError(f"--arrays {args.arrays}: this is no .npz file: {error}") from None
    return parse_graph(text, table)


def _inputs(graph: Graph) -> dict[str, Node]:
    """Return the placeholders that the graph's outputs depend on, by name."""
    labels = {t.node: label for label, t in graph.nodes.items()}
    order = toposort(t.node for t in graph.fetches.values())
    return {node.name or labels[node]: node for node in order if node.op.name == "placeholder"}


def _feeds(graph: Graph, args: argparse.Namespace) -> dict[Any, Any]:
    inputs = _inputs(graph)
    given = {name: _array(name, file) for name, file in _pairs(args.feed, "--feed", "NAME=FILE.npy", inputs, "input")}
    dims = _dim_names(inputs.values())
    sizes: dict[Var, int] = {}
    for name, number in _pairs(args.dim, "--dim", "NAME=N", {name: v for v, name in dims.items()}, "dim"):
        if not re.fullmatch("[0-9]{1,18}", number):
            raise FormatError(f"--dim {name}={number}: expected NAME=N")
        sizes[next(v for v, known in dims.items() if known == name)] = int(number)
    for name, array in given.items():
        for d, size in zip(inputs[name].shape, array.shape, strict=False):
            if isinstance(d, Var):
                sizes.setdefault(d, size)
    rng = np.random.default_rng(args.random)
    feeds: dict[Any, Any] = {}
    for name, node in inputs.items():
        if name in given:
            feeds[as_tensor(node)] = given[name]
        elif args.random is not None:
            feeds[as_tensor(node)] = _made_up(name, node, sizes, rng)
        else:
            raise FeedError(f"input {name!r} is not fed: give --feed {name}=FILE.npy, or --random SEED")
    return feeds


def _pairs(
    items: Sequence[str], option: str, form: str, known: Mapping[str, object], what: str
) -> Iterator[tuple[str, str]]:
    """Split ``NAME=VALUE`` arguments, each name once and among those `known`."""
    seen = set()
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise FormatError(f"{option} {item!r}: expected {form}")
        if name not in known:
            names = ", ".join(map(repr, known)) or "none"
            raise FeedError(f"{option} {item!r}: the graph has no {what} {name!r}; its {what}s are {names}")
        if name in seen:
            raise FeedError(f"{option} {item!r}: {what} {name!r} is given twice")
        seen.add(name)
        yield name, value


def _array(name: str, file: str) -> np.ndarray[Any, Any]:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FeedError(f"--feed {name}={file}: this is no .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise FeedError(f"--feed {name}={file}: this holds several arrays; expected one, in a .npy file")
    return _restored(array)


def _restored(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array from a file with its dtype: numpy writes bfloat16 as elements of two bytes without meaning."""
    return array.view(numpy_dtype(bfloat16)) if array.dtype == np.dtype("V2") else array


def _dim_names(inputs: Iterable[Node]) -> dict[Var, str]:
    """Return the dims of `inputs` by the names that the graph's text has for them."""
    dims = sorted({v for node in inputs for d in node.shape for v in free_vars(d)}, key=lambda v: v.serial)
    numbers = count()
    return {v: f"_{next(numbers)}" if FRESH.fullmatch(v.name) else v.name for v in dims}


def _made_up(name: str, node: Node, sizes: dict[Var, int], rng: np.random.Generator) -> Any:
    shape = tuple(evaluate_index(d, {v: sizes.setdefault(v, 7) for v in free_vars(d)}) for d in node.shape)
    if any(n < 0 for n in shape):
        raise FeedError(f"input {name!r} cannot have shape {shape}: choose other sizes with --dim")
    if node.dtype.is_float:
        return rng.standard_normal(shape).astype(numpy_dtype(node.dtype))
    if node.dtype.is_bool:
        return rng.random(shape) < 0.5
    return rng.integers(0, 10, shape).astype(numpy_dtype(node.dtype))


def _run(args: argparse.Namespace) -> int:
    graph = _read(args)
    feeds = _feeds(graph, args)
    fetches = dict(graph.fetches)
    with Session(fetches) as session:
        results = session.run(fetches, feeds)
    if args.save is not None:
        np.savez(args.save, **results)
        return 0
    for name, value in results.items():
        print(f"{name} = {np.array2string(value, threshold=100)}")
    return 0


def _dump(args: argparse.Namespace) -> int:
    graph = _read(args)
    gpu = args.target is not None and args.target.startswith("nvptx")
    stage = args.stage or ("ptx" if gpu else "loops")
    target = None if args.target in (None, "host") else args.target
    with (
        override(target_cpu=target),
        Session(dict(graph.fetches), device="cuda:0" if gpu else "cpu", load=False) as session,
    ):
        print(session.dump(stage, kernel=args.kernel), end="")
    return 0


def _compare(args: argparse.Namespace) -> int:
    graph = _read(args)
    report = compare(dict(graph.fetches), _feeds(graph, args))
    print(report)
    return 0 if report.ok else 1


def _bench(arguments: list[str]) -> int:
    folder = Path(__file__).resolve().parent.parent
    if not (folder / "tests" / "bench" / "__main__.py").exists():
        print("jitflow: the benchmarks are part of a checkout of jitflow, in tests/bench", file=sys.stderr)
        return 2
    sys.argv = ["jitflow bench", *arguments]
    sys.path.insert(0, str(folder))
    runpy.run_module("tests.bench", run_name="__main__")
    return 0
