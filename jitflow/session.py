"""Sessions: fetched tensors in, compiled programs out, run as often as wanted. The one module that sees everything.

    fetches ─ rewrite ─ primitive graph ─ lowering.program ─ object code ─ runtime.entry ─ callable

Everything that the fetches named at creation need is compiled then. Another set of fetches or of fed nodes compiles
once, when first used, and is kept. The session owns the values of its variables and what follows from constants alone.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jitflow.config import Config, current
from jitflow.errors import ClosedError, DeviceError, FeedError, GraphError, LimitError, at_site
from jitflow.graph import Node, name_nodes, toposort
from jitflow.graph_text import show_graph
from jitflow.rewrite import rewrite
from jitflow.tensor import Tensor, as_tensor
from lowering.gpu_program import GpuProgram, lower_gpu
from lowering.loop_ir import Kernel
from lowering.program import Program, find_static, lower
from lowering.target import Target, from_name, host
from lowering.text import show
from runtime.buffers import ArenaPool
from runtime.cpu import load_object
from runtime.entry import LIST, LoadedProgram, Structure, make_entry

#: More nodes than this are refused: compiling them would take hours.
MAX_NODES = 1_000_000

STAGES = ("graph", "fused", "loops", "plan", "llvm", "llvm-opt", "asm", "ptx")
_SUFFIX = {"graph": "graph", "fused": "txt", "loops": "loop", "plan": "txt", "llvm": "ll", "llvm-opt": "ll", "asm": "s"}


class _Compiled(NamedTuple):
    """A program ready to run: `feeds` in the order of its inputs, and for each fetch the number of its output."""

    program: Program | GpuProgram
    loaded: LoadedProgram | None
    feeds: tuple[Node, ...]
    results: tuple[int, ...]
    entry: Callable[..., list[np.ndarray[Any, Any]]] | None


class Session:
    """Compiled programs for a set of fetches.

    Parameters
    ----------
    fetches : Tensor, or list, tuple or dict of Tensors
        What the session computes. Their graph is compiled here, and fixed: building on does not change the session.
    device : str
        ``"cpu"``, or ``"cuda:N"``.
    threads : int, optional
        Workers to use at most. Results do not depend on it.
    fast_math : bool
        Allow float identities that are not exact.
    specialize : None
        Reserved for fixing symbolic dims at compile time.
    load : bool
        With False nothing is loaded, so that code for a device that is not there can be dumped.

    Raises
    ------
    GraphError
        Two reachable nodes have one name, or the feeds would not determine a dim.
    DeviceError
        The device is unknown or not there.

    Examples
    --------
    >>> import numpy as np, jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n",))
    >>> with jf.Session(jf.exp(x) + 1.0) as sess:
    ...     sess.run(jf.exp(x) + 1.0, {x: np.zeros(3, np.float32)})
    array([2., 2., 2.], dtype=float32)
    """

    def __init__(
        self,
        fetches: Any,
        *,
        device: str = "cpu",
        threads: int | None = None,
        fast_math: bool = False,
        specialize: None = None,
        load: bool = True,
    ) -> None:
        self._open = False
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise LimitError(f"threads must be a positive number, got {threads!r}")
        self._config: Config = current()
        self._target = _target_of(device, self._config)
        self._load = load
        self._fused = self._config.fuse
        self._lock = threading.RLock()
        self._fetches = flatten(fetches)
        order = toposort(self._fetches)
        if len(order) > MAX_NODES:
            raise LimitError(f"the graph has {len(order)} nodes, over the limit of {MAX_NODES}")
        self._names = name_nodes(order)
        self._nodes = {name: node for node, name in self._names.items()}
        self._arenas = ArenaPool(poison=self._config.debug_poison)
        self._programs: dict[tuple[tuple[Node, ...], frozenset[Node]], _Compiled] = {}
        self._loaded: list[LoadedProgram] = []
        self._values: dict[Node, np.ndarray[Any, Any]] = {}
        self._times: list[tuple[str, str, float]] = []
        self._open = True
        self._default = self._compile(tuple(dict.fromkeys(self._fetches)), _placeholders(self._fetches))

    # ---- running

    def run(self, fetches: Any, feeds: Mapping[Any, Any] | None = None) -> Any:
        """Return the values of `fetches`: an array for a tensor (or its name), else the same structure of arrays.

        Parameters
        ----------
        fetches : Tensor, str, or list, tuple or dict of them
            Any nodes of the session's graph.
        feeds : dict
            Values by tensor or name. A fed inner node cuts the graph there. Arrays must have the declared dtype;
            Python scalars and lists are converted.

        Raises
        ------
        FeedError
            A feed is missing, unknown, not needed, given twice, or does not fit in dtype or shape.
        IndexRangeError
            An index is out of range while it runs.
        OutOfMemoryError
            The arrays do not fit; nothing was run.
        """
        self._check_open()
        nodes = flatten(fetches, self._nodes)
        given = self.feed_nodes(feeds or {})
        if not nodes:
            if given:
                raise FeedError(f"nothing is fetched, so feed {self._names[next(iter(given))]!r} is not needed")
            return rebuild(fetches, iter(()))
        compiled = self._compiled(tuple(dict.fromkeys(nodes)), given)
        if compiled.entry is None:
            raise DeviceError("the session was created with load=False: it can be dumped, not run")
        arrays = compiled.entry(*[given[n] for n in compiled.feeds])
        where = dict(zip(dict.fromkeys(nodes), compiled.results, strict=True))
        return rebuild(fetches, _spread(arrays, [where[n] for n in nodes]))

    def function(self, inputs: Any, outputs: Any, *, name: str = "function", native: bool | None = None) -> Any:
        """Return a callable that takes arrays for `inputs` by position and returns `outputs`, in their structure.

        Parameters
        ----------
        inputs : sequence of Tensors or names
            Every placeholder that `outputs` need, and any inner nodes to feed.
        outputs : Tensor, str, or list, tuple or dict of them
        name : str
            What the callable is called.
        native : bool, optional
            Insist on the compiled entry (True) or the portable one (False).

        Returns
        -------
        callable
            ``f(*arrays, out=None)``; `out` mirrors the structure of the outputs, is written and returned.
        """
        self._check_open()
        fed = tuple(flatten(list(inputs), self._nodes))
        nodes = flatten(outputs, self._nodes)
        if len(set(fed)) != len(fed):
            raise FeedError("an input of the function is named twice")
        compiled = self._compile_new(tuple(dict.fromkeys(nodes)), fed)
        if compiled.loaded is None:
            raise DeviceError("the session was created with load=False: it can be dumped, not run")
        structure = _structure(outputs)
        where = dict(zip(dict.fromkeys(nodes), compiled.results, strict=True))
        results = tuple(where[n] for n in nodes)
        if structure is None or results != tuple(range(len(compiled.loaded.signature.outputs))):
            inner = make_entry(compiled.loaded, LIST, arena=self._arenas, name=name, native=native)
            return _Rearranged(inner, outputs, results, name)
        return make_entry(compiled.loaded, structure, arena=self._arenas, name=name, native=native)

    # ---- looking

    def dump(self, stage: str, fetches: Any = None, kernel: str | None = None) -> str:
        """Return the text of `stage`: graph, fused, loops, plan, llvm, llvm-opt, asm or ptx.

        `fetches` chooses another fetch set than that of creation, `kernel` one kernel by name.
        """
        self._check_open()
        if stage not in STAGES:
            raise GraphError(f"unknown stage {stage!r}; stages are {', '.join(STAGES)}")
        nodes = self._fetches if fetches is None else flatten(fetches, self._nodes)
        if stage == "graph":
            return show_graph([as_tensor(n) for n in nodes])
        program = self._default.program
        if fetches is not None:
            unique = tuple(dict.fromkeys(nodes))
            program = self._compile(unique, _placeholders(unique)).program
        if (stage == "ptx") != self._target.is_gpu and stage in ("ptx", "asm", "llvm-opt"):
            advice = "create the session with device='cuda:0', load=False" if stage == "ptx" else "its code is 'ptx'"
            raise DeviceError(f"stage {stage!r} does not exist on {self._target.name}: {advice}")
        if kernel is not None and kernel not in (names := program.kernel_names):
            raise GraphError(f"no kernel is called {kernel!r}; there are {', '.join(names)}")
        return program.text(stage, kernel)

    def dump_all(self, folder: str | Path) -> list[Path]:
        """Write every stage of the session's own fetches to `folder`; return the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for number, stage in enumerate(s for s in STAGES if self._has_stage(s)):
            path = folder / f"{number:02d}-{stage}.{_SUFFIX.get(stage, 'txt')}"
            path.write_text(self.dump(stage))
            written.append(path)
        return written

    def _has_stage(self, stage: str) -> bool:
        return stage not in ("asm", "llvm-opt") if self._target.is_gpu else stage != "ptx"

    def report(self) -> str:
        """Return what was compiled: kernels, buffers, peak memory of the arena, and the time of each compile step."""
        self._check_open()
        program = self._default.program
        lines = [f"target {self._target.name} ({self._target.cpu})", "kernels:"]
        for built in program.kernels:
            runs = f" x{len(built.groups)}" if len(built.groups) > 1 else ""
            lines.append(f"  {built.kernel.name}{runs}: {len(built.groups[0].members)} nodes")
        lines.append(program.text("plan").rstrip())
        lines.append(f"arena held: {self._arenas.nbytes} bytes")
        lines.append("compile time:")
        total: dict[str, float] = {}
        for step, _, seconds in self._times:
            total[step] = total.get(step, 0.0) + seconds
        lines += [f"  {step:<8} {seconds * 1e3:8.2f} ms" for step, seconds in total.items()]
        return "\n".join(lines) + "\n"

    def trim(self) -> int:
        """Give the arena memory that is not in use back; return the number of bytes."""
        return self._arenas.trim()

    # ---- life

    def close(self) -> None:
        """Free everything. Waits for runs under way; later use raises ClosedError. Closing twice is fine."""
        if not self._open:
            return
        self._open = False
        with self._lock:
            for loaded in self._loaded:
                loaded.close()
        self._arenas.close()

    def __enter__(self) -> Session:
        self._check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._open else " (closed)"
        return f"<Session of {', '.join(self._names[n] for n in self._fetches)} on {self._target.name}{state}>"

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the session is closed")

    # ---- feeds

    def feed_nodes(self, feeds: Mapping[Any, Any]) -> dict[Node, Any]:
        """Return `feeds` by node. FeedError for what names no node of this session, or one twice."""
        if not isinstance(feeds, Mapping):
            raise FeedError(f"feeds must be a dict from tensors or names to values, got {type(feeds).__name__}")
        given: dict[Node, Any] = {}
        for key, value in feeds.items():
            node = _find(key, self._nodes, FeedError, "feed")
            if node not in self._names:
                raise FeedError(at_site(f"feed {node!r} is no part of this session's graph", node.site))
            if node in given:
                raise FeedError(f"{self._names[node]!r} is fed twice")
            given[node] = value
        return given

    def name_of(self, tensor: Any) -> str:
        """Return the name of a node of this session's graph: the user's, or ``op_N``."""
        return self._names[_find(tensor, self._nodes, GraphError, "fetch")]

    def group_of(self, tensor: Any) -> str:
        """Return which fusion group of the session's own program computes a fetched node."""
        node = _find(tensor, self._nodes, GraphError, "fetch")
        program = self._default.program
        target = program.plan.outputs[self._default.results[list(dict.fromkeys(self._fetches)).index(node)]]
        for number, group in enumerate(program.groups):
            if any(n is target for n, _ in group.outputs):
                return f"group {number}: {program.kernel_of(group)}"
        return f"no group: {self._names[node]} is copied"

    # ---- compiling

    def _compiled(self, fetches: tuple[Node, ...], given: Mapping[Node, Any]) -> _Compiled:
        found = self._programs.get((fetches, frozenset(given)))
        return self._compile(fetches, tuple(given)) if found is None else found

    def _compile(self, fetches: tuple[Node, ...], feeds: Sequence[Node]) -> _Compiled:
        key = (fetches, frozenset(feeds))
        with self._lock:
            found = self._programs.get(key)
            if found is None:
                found = self._compile_new(fetches, feeds)
                self._programs[key] = found
            return found

    def _compile_new(self, fetches: tuple[Node, ...], feeds: Sequence[Node]) -> _Compiled:
        self._check_feeds(fetches, feeds)
        config = self._config
        dumper = _Dumper(config)
        start = time.perf_counter()
        original = toposort(fetches, set(feeds))
        replaced = rewrite(fetches, feeds)
        self._clock("rewrite", f"{len(original)} nodes", time.perf_counter() - start)
        inputs = [replaced[f] for f in feeds]
        wanted = [replaced[f] for f in fetches]
        unique = list(dict.fromkeys(wanted))
        names = self._names_of(replaced, unique, inputs)
        static = find_static(unique, inputs)
        make = lower_gpu if self._target.is_gpu else lower
        program = make(
            unique,
            inputs,
            static,
            [n for n in original if n not in feeds],
            names,
            self._target,
            fused=self._fused,
            observer=dumper,
            check=config.verify,
            clock=self._clock,
        )
        results = tuple(unique.index(w) for w in wanted)
        if not self._load or isinstance(program, GpuProgram):
            return _Compiled(program, None, tuple(feeds), results, None)
        consts = [self._value(n, names) for n in program.plan.consts]
        code = load_object(program.object_code())
        loaded = LoadedProgram(program.signature, code, consts)
        with self._lock:
            self._loaded.append(loaded)
        entry = make_entry(loaded, LIST, arena=self._arenas)
        return _Compiled(program, loaded, tuple(feeds), results, entry)

    def _check_feeds(self, fetches: Sequence[Node], feeds: Iterable[Node]) -> None:
        fed = set(feeds)
        needed = toposort(fetches, fed)
        foreign = [n for n in needed if n not in self._names]
        if foreign:
            n = foreign[-1]
            raise GraphError(at_site(f"{n!r} is no part of this session's graph: create a session with it", n.site))
        for node in fed - set(needed):
            raise FeedError(at_site(f"feed {self._name(node)!r} is not needed by these fetches", node.site))
        for node in needed:
            if node.op.name == "placeholder" and node not in fed:
                raise FeedError(at_site(f"placeholder {self._name(node)!r} ({node.type!r}) is not fed", node.site))

    def _name(self, node: Node) -> str:
        return self._names.get(node) or repr(node)

    def _names_of(
        self, replaced: Mapping[Node, Node], fetches: Sequence[Node], inputs: Sequence[Node]
    ) -> dict[Node, str]:
        """Return names for the rewritten nodes: those of the nodes they stand for, others counted on."""
        names: dict[Node, str] = {}
        for old, new in replaced.items():
            if old in self._names:
                names.setdefault(new, self._names[old])
        taken = set(names.values())
        counters: dict[str, int] = {}
        for node in toposort(fetches, set(inputs)):
            if node in names:
                continue
            while True:
                n = counters.get(node.op.name, 0)
                counters[node.op.name] = n + 1
                name = f"{node.op.name}_{n}"
                if name not in taken:
                    break
            names[node] = name
            taken.add(name)
        return names

    def _value(self, node: Node, names: Mapping[Node, str]) -> np.ndarray[Any, Any]:
        """Return the array of a variable, a constant, or a node that depends on these alone."""
        found = self._values.get(node)
        if found is None:
            found = node.attr("value").array if node.op.source else self._compute(node, names)
            found = np.require(found, requirements=["C", "A"])
            self._values[node] = found
        return found

    def _compute(self, node: Node, names: Mapping[Node, str]) -> np.ndarray[Any, Any]:
        """Run the init program of one constant node: compiled, so that folded and computed values are the same."""
        program = lower([node], [], [], [], names, self._target, fused=self._fused, clock=self._clock)
        consts = [self._value(n, names) for n in program.plan.consts]
        loaded = LoadedProgram(program.signature, load_object(program.object_code()), consts)
        (value,) = make_entry(loaded, LIST, arena=self._arenas, native=False)()
        loaded.close()
        return value  # type: ignore[no-any-return]

    def _clock(self, step: str, what: str, seconds: float) -> None:
        self._times.append((step, what, seconds))
        if self._config.time:
            print(f"jitflow: {step:<8} {seconds * 1e3:8.3f} ms  {what}")


class _Rearranged:
    """A bound function whose outputs are nested, or not one to one the program's: `results` says which is which."""

    def __init__(self, inner: Any, outputs: Any, results: Sequence[int], name: str) -> None:
        self._inner, self._outputs, self._results = inner, outputs, results
        self.__name__ = self.__qualname__ = name

    def __call__(self, *args: Any, out: Any = None) -> Any:
        if out is None:
            return rebuild(self._outputs, _spread(self._inner(*args), self._results))
        given = flatten_arrays(out)
        if len(given) != len(self._results):
            raise FeedError(f"out must mirror the outputs: {len(self._results)} arrays, got {len(given)}")
        first: dict[int, Any] = {}
        for k, array in zip(self._results, given, strict=True):
            first.setdefault(k, array)
        self._inner(*args, out=[first[k] for k in range(len(first))])
        for k, array in zip(self._results, given, strict=True):
            if array is not first[k]:
                np.copyto(array, first[k])
        return out


def _spread(arrays: Sequence[Any], results: Sequence[int]) -> Iterator[Any]:
    """Yield the arrays numbered by `results`; one that comes again is copied, since results alias nothing."""
    used: set[int] = set()
    for k in results:
        yield arrays[k].copy() if k in used else arrays[k]
        used.add(k)


class _Dumper:
    """Prints or writes kernels after passes, as the configuration asks."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._number = 0

    def __call__(self, name: str, before: Kernel, after: Kernel, seconds: float) -> None:
        if self.config.time:
            print(f"jitflow: pass {name:<12} {seconds * 1e3:8.3f} ms  {after.name}")
        if after is before or not (self.config.dumps(name) or self.config.dump_dir is not None):
            return
        text = show(after)
        if self.config.dump_dir is None:
            print(f"# after {name}\n{text}")
            return
        folder = Path(self.config.dump_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{after.name}-{self._number:03d}-{name}.loop").write_text(text)
        self._number += 1


def _target_of(device: str, config: Config) -> Target:
    wanted = config.target_cpu
    for_gpu = wanted is not None and wanted.startswith("nvptx")
    if device == "cpu":
        if for_gpu:
            raise DeviceError(f"{wanted} is no CPU: create the session with device='cuda:0'")
        return host() if wanted is None else from_name(wanted)
    if isinstance(device, str) and re.fullmatch(r"cuda:\d+", device):
        return from_name(wanted if wanted is not None and for_gpu else "nvptx:sm_90")
    raise DeviceError(f"unknown device {device!r}; devices are 'cpu' and 'cuda:N'")


def _placeholders(fetches: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(n for n in toposort(fetches) if n.op.name == "placeholder")


# ---- structures of fetches


def _find(x: Any, names: Mapping[str, Node] | None, error: type[Exception], what: str) -> Node:
    if isinstance(x, Tensor):
        return x.node
    if isinstance(x, Node):
        return x
    if isinstance(x, str) and names is not None:
        node = names.get(x)
        if node is None:
            raise error(f"unknown {what} {x!r}: no node of this session's graph has that name")
        return node
    raise error(f"a {what} must be a tensor or a name, got {type(x).__name__}")


def flatten(fetches: Any, names: Mapping[str, Node] | None = None) -> list[Node]:
    """Return the nodes of a structure of tensors and names, in order. GraphError for anything else."""
    if isinstance(fetches, (list, tuple)):
        return [n for x in fetches for n in flatten(x, names)]
    if isinstance(fetches, dict):
        return [n for x in fetches.values() for n in flatten(x, names)]
    return [_find(fetches, names, GraphError, "fetch")]


def flatten_arrays(out: Any) -> list[Any]:
    """Return the arrays of a structure of arrays, in order."""
    if isinstance(out, (list, tuple)):
        return [a for x in out for a in flatten_arrays(x)]
    if isinstance(out, dict):
        return [a for x in out.values() for a in flatten_arrays(x)]
    return [out]


def rebuild(fetches: Any, values: Any) -> Any:
    """Return `values`, an iterator, in the structure of `fetches`."""
    if isinstance(fetches, list):
        return [rebuild(x, values) for x in fetches]
    if isinstance(fetches, tuple):
        items = [rebuild(x, values) for x in fetches]
        return type(fetches)(*items) if hasattr(fetches, "_fields") else tuple(items)
    if isinstance(fetches, dict):
        return {k: rebuild(x, values) for k, x in fetches.items()}
    return next(values)


def _structure(outputs: Any) -> Structure | None:
    """Return how results are handed over, or None for a nested structure."""
    if isinstance(outputs, (list, tuple, dict)):
        items = outputs.values() if isinstance(outputs, dict) else outputs
        if any(isinstance(x, (list, tuple, dict)) for x in items) or hasattr(outputs, "_fields"):
            return None
        if isinstance(outputs, dict):
            keys: tuple[Hashable, ...] = tuple(outputs)
            return Structure("dict", keys)
        return Structure("list" if isinstance(outputs, list) else "tuple")
    return Structure("array")
