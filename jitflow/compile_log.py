"""What the configuration asks to see of a compilation: passes and stages printed or written, events, a table of times.

Whatever is printed goes to stderr: stdout belongs to the program.

A :class:`CompileLog` watches one compilation from the rewritten graph to object code. It keeps nothing of the session,
so a program that holds it holds no session.
"""

from __future__ import annotations

import difflib
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jitflow.config import Config
from jitflow.errors import FormatError
from jitflow.graph import Node
from jitflow.graph_text import show_graph
from jitflow.rewrite import FAST_PASSES, PASSES
from jitflow.tensor import as_tensor
from lowering.loop_ir import Kernel
from lowering.pipeline import CPU, GPU
from lowering.text import show

#: The stages of a compilation, in order, with the suffix of the files they are written to.
SUFFIX = {
    "graph": "graph",
    "fused": "txt",
    "loops": "loop",
    "loops-opt": "loop",
    "plan": "txt",
    "llvm": "ll",
    "llvm-opt": "ll",
    "asm": "s",
    "ptx": "ptx",
}
STAGES = tuple(SUFFIX)

_GRAPH_PASSES = tuple(name for name, _ in (*PASSES, *FAST_PASSES))
_LOOP_PASSES = tuple(dict.fromkeys(name for name, _ in (*CPU, *GPU)))

#: Numbers the compilations of this process, so that none overwrites the files of another.
_numbers = itertools.count()


class Timing(NamedTuple):
    """Seconds that a step of a compilation took: ``rewrite``, ``fuse``, ... or, inside one of them, a pass."""

    step: str
    inside: str | None
    seconds: float


class CompileLog:
    """Shows what `config` asks for, and keeps the times of all steps in `times`, which the caller may share."""

    def __init__(self, config: Config, times: list[Timing]) -> None:
        self._config = config
        self._all = times
        self.times: list[Timing] = []
        self._files = itertools.count()
        self._prefix = f"p{next(_numbers)}" if config.dump_dir is not None else ""
        self._graph = ""
        self._last = time.perf_counter()
        unknown = [n for n in config.dump if n not in ("all", *STAGES, *_GRAPH_PASSES, *_LOOP_PASSES)]
        if unknown:
            known = (*STAGES, *_GRAPH_PASSES, *_LOOP_PASSES)
            near = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise FormatError(f"JITFLOW_DUMP: no pass or stage is called {unknown[0]!r}; {hint}")

    def clock(self, step: str, what: str, seconds: float, inside: str | None = None) -> None:
        """Note that `step` (of step `inside`) took `seconds`."""
        timing = Timing(step, inside, seconds)
        self.times.append(timing)
        self._all.append(timing)

    def start_rewrite(self, fetches: Sequence[Node]) -> None:
        """Note the graph that the graph passes start from."""
        if self._wants_any(_GRAPH_PASSES):
            self._graph = _text_of(fetches)
        self._last = time.perf_counter()

    def graph_pass(self, name: str, fetches: Sequence[Node]) -> None:
        """Note that graph pass `name` has run, with `fetches` as its result."""
        self.clock(name, "", time.perf_counter() - self._last, "rewrite")
        if self._wants_any(_GRAPH_PASSES):
            text = _text_of(fetches)
            if text != self._graph and self._wants(name):
                self._put(f"graph-{next(self._files):03d}-{name}.graph", f"graph after {name}", text)
            self._graph = text
        self._last = time.perf_counter()

    def loop_pass(self, name: str, before: Kernel, after: Kernel, seconds: float) -> None:
        """Note that loop pass `name` has turned `before` into `after`."""
        self.clock(name, after.name, seconds, "passes")
        if after is not before and self._wants(name):
            file = f"{after.name}-{next(self._files):03d}-{name}.loop"
            self._put(file, f"{after.name} after {name}", show(after))

    def stages(self, some: Sequence[str], text: Callable[[str], str]) -> None:
        """Show those of the stages `some` that are wanted; `text` gives the text of one."""
        for stage in some:
            if self._wants(stage):
                self._put(f"{STAGES.index(stage)}-{stage}.{SUFFIX[stage]}", f"stage {stage}", text(stage))

    def finish(self) -> None:
        """Print the table of times, if it is wanted."""
        if self._config.time:
            print(f"jitflow: compile time\n{time_table(self.times)}", end="", file=sys.stderr)

    def trace(self, what: str, line: Callable[[], str]) -> None:
        """Print a line about `what`, if it is wanted."""
        if what in self._config.trace:
            print(f"jitflow: {what}: {line()}", file=sys.stderr)

    @property
    def shows_stages(self) -> bool:
        """Whether the IR after any pass or stage is wanted."""
        return bool(self._config.dump) or self._config.dump_dir is not None

    def _wants(self, name: str) -> bool:
        config = self._config
        return config.dumps(name) or (config.dump_dir is not None and not config.dump)

    def _wants_any(self, names: Sequence[str]) -> bool:
        return any(self._wants(n) for n in names)

    def _put(self, file: str, title: str, text: str) -> None:
        if self._config.dump_dir is None:
            print(f"# jitflow: {title}\n{text}", end="" if text.endswith("\n") else "\n", file=sys.stderr)
            return
        folder = Path(self._config.dump_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self._prefix}-{file}").write_text(text)


def _text_of(fetches: Sequence[Node]) -> str:
    return show_graph([as_tensor(n) for n in fetches])


def time_table(times: Sequence[Timing]) -> str:
    """Return `times`, summed by step and by pass, as a table in milliseconds."""
    steps: dict[str, float] = {}
    passes: dict[str, dict[str, float]] = {}
    for t in times:
        into = steps if t.inside is None else passes.setdefault(t.inside, {})
        into[t.step] = into.get(t.step, 0.0) + t.seconds
    lines = []
    for step, seconds in steps.items():
        lines.append(f"  {step:<18}{seconds * 1e3:10.3f} ms")
        lines += [f"    {name:<16}{s * 1e3:10.3f} ms" for name, s in passes.get(step, {}).items()]
    lines.append(f"  {'total':<18}{sum(steps.values()) * 1e3:10.3f} ms")
    return "\n".join(lines) + "\n"
