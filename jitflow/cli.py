"""The ``jitflow`` command: demo, run, dump, compare, bench, doctor. Arguments in, text and files out.

``run``, ``dump`` and ``compare`` take a graph as text (a ``.graph`` file, `jitflow.graph_text`) and feeds as ``.npy``
files (``--feed x=images.npy``); ``run`` and ``compare`` make random feeds with ``--random SEED``.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jitflow import demo, doctor
from jitflow.comparison import compare
from jitflow.compile_log import STAGES
from jitflow.config import override
from jitflow.errors import FeedError, FormatError, JitflowError
from jitflow.graph import Node
from jitflow.graph_text import Graph, parse_graph
from jitflow.session import Session
from jitflow.simplify import evaluate_index, free_vars


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
    except (JitflowError, OSError) as error:
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
    p.add_argument("graph", type=Path, help="a .graph file, or - for standard input")
    p.add_argument(
        "--arrays",
        type=Path,
        metavar="FILE.npz",
        help="the large arrays that the text only names: numpy.savez(FILE, **jitflow.graph_arrays(fetches))",
    )
    if feeds:
        p.add_argument("--feed", action="append", default=[], metavar="NAME=FILE.npy", help="the value of an input")
        p.add_argument("--random", type=int, metavar="SEED", help="make up the feeds that are not given")
        p.add_argument("--dim", action="append", default=[], metavar="NAME=N", help="size of a dim in made-up feeds")


def _read(args: argparse.Namespace) -> Graph:
    data = sys.stdin.buffer.read() if str(args.graph) == "-" else args.graph.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{args.graph} is no graph: byte {error.start} is no text") from None
    if args.arrays is None:
        # Code does not depend on what is in constants, except for single numbers, which stand in the text.
        return parse_graph(text, stand_ins=args.run is _dump)
    with np.load(args.arrays, allow_pickle=False) as arrays:
        return parse_graph(text, dict(arrays))


def _placeholders(graph: Graph) -> list[tuple[str, Node]]:
    return [(label, t.node) for label, t in graph.nodes.items() if t.node.op.name == "placeholder"]


def _feeds(graph: Graph, args: argparse.Namespace) -> dict[Any, Any]:
    given: dict[str, Any] = {}
    for item in args.feed:
        name, equals, file = item.partition("=")
        if not equals:
            raise FeedError(f"--feed {item!r}: expected NAME=FILE.npy")
        given[name] = np.load(file, allow_pickle=False)
    sizes: dict[str, int] = {}
    for item in args.dim:
        name, _, number = item.partition("=")
        if not number.isdigit():
            raise FormatError(f"--dim {item!r}: expected NAME=N")
        sizes[name] = int(number)
    rng = np.random.default_rng(args.random)
    feeds: dict[Any, Any] = {}
    for label, node in _placeholders(graph):
        tensor = graph.nodes[label]
        name = node.name or label
        if name in given:
            feeds[tensor] = given.pop(name)
        elif args.random is not None:
            feeds[tensor] = _made_up(node, sizes, rng)
        else:
            raise FeedError(f"input {name!r} is not fed: give --feed {name}=FILE.npy, or --random SEED")
    if given:
        raise FeedError(
            f"unknown feed {next(iter(given))!r}: the graph's inputs are "
            f"{', '.join(repr(n.name or label) for label, n in _placeholders(graph))}"
        )
    return feeds


def _made_up(node: Node, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    shape = tuple(evaluate_index(d, {v: sizes.setdefault(v.name, 7) for v in free_vars(d)}) for d in node.shape)
    kind = node.dtype.kind
    if kind == "f":
        return rng.standard_normal(shape).astype(node.dtype.np)
    if kind == "b":
        return rng.random(shape) < 0.5
    return rng.integers(0, 10, shape).astype(node.dtype.np)


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
