"""Sessions: fetched tensors in, compiled programs out, run as often as wanted. The one module that sees everything.

    fetches ─ compilation ─ Bundle ─ runtime.entry ─ callable

Everything that the fetches named at creation need is compiled then. Another set of fetches or of fed nodes compiles
once, when first used, and is kept. The session owns the values of its variables and what follows from constants alone.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jitflow.compilation import Compilation, has_stage, pool_code
from jitflow.compile_log import STAGES, SUFFIX, CompileLog, Timing, time_table
from jitflow.config import Config, current
from jitflow.errors import (
    ClosedError,
    CompileError,
    DeviceError,
    FeedError,
    GraphError,
    JitflowError,
    LimitError,
    OutOfMemoryError,
    at_site,
)
from jitflow.feeds import gives_dims, open_dims
from jitflow.fork import after_fork_in_child
from jitflow.graph import Node, name_nodes, toposort
from jitflow.graph_printer import show_nodes
from jitflow.structure import find_node, flatten, mirror, rebuild
from jitflow.tensor import Tensor
from lowering.gpu.program import GpuProgram
from lowering.target import Target, from_name, host
from runtime.arenas import ArenaPool, Array
from runtime.buffers import check_out, check_outs_apart, copy_array
from runtime.bundle import Executable
from runtime.constants import Constants
from runtime.cpu import load_object
from runtime.entry import LIST, LoadedProgram, PortableEntry, Structure, make_entry
from runtime.threads import MAX_WORKERS, processors, team

#: More nodes than this are refused: compiling them would take hours.
MAX_NODES = 1_000_000


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _renew_locks() -> None:
    for session in list(_sessions):
        session._lock = threading.RLock()


after_fork_in_child(_renew_locks)


class _Compiled(NamedTuple):
    """A program ready to run: `feeds` in the order of its inputs, and for each fetch the number of its output.

    `made_by` has its texts.
    """

    made_by: Compilation
    loaded: LoadedProgram | None
    feeds: tuple[Node, ...]
    results: Mapping[Node, int]
    entry: Callable[..., list[np.ndarray[Any, Any]]] | None


#: Distinct spellings of calls of :meth:`Session.run` that a session remembers.
MAX_CALLS = 256


class Session:
    """Compiled programs for a set of fetches.

    Parameters
    ----------
    fetches : Tensor, or list, tuple or dict of Tensors
        What the session computes. Their graph is compiled here, and fixed: building on does not change the session.
    device : str
        ``"cpu"``, or ``"cuda:N"``.
    threads : int, optional
        How many threads run a loop at most, the caller's among them: by default ``JITFLOW_THREADS``, or as many as
        there are processors that this process may use. More are allowed. Results do not depend on it.
    fast_math : bool
        Allow float identities that are not exact, such as multiplying by the inverse of a constant divisor. Without
        it results are the same bits on every run.
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
        if max(threads or 1, current().threads or 1) > MAX_WORKERS:
            raise LimitError(f"threads must be at most {MAX_WORKERS}, got {threads or current().threads}")
        if specialize is not None:
            raise GraphError("specialize is reserved: so far every symbolic dim stays symbolic")
        self._config: Config = replace(current(), fast_math=fast_math or current().fast_math)
        self._target = _target_of(device, self._config)
        if load and self._target.is_gpu:
            raise DeviceError(
                f"{device} cannot run anything yet: GPU code is generated, not loaded. "
                "Create the session with load=False to look at it, or with device='cpu' to run"
            )
        if load and not self._target.runs_here():
            raise DeviceError(
                f"this machine ({host().cpu}) cannot run code for {self._target.name}. "
                "Create the session with load=False to look at it"
            )
        self._load = load
        self.threads: int = threads or self._config.threads or len(processors())
        self._lock = threading.RLock()
        _sessions.add(self)
        self._fetches = flatten(fetches)
        order = toposort(self._fetches)
        if len(order) > MAX_NODES:
            raise LimitError(f"the graph has {len(order)} nodes, over the limit of {MAX_NODES}")
        self._names = name_nodes(order)
        self._nodes = {name: node for node, name in self._names.items()}
        self._arenas = ArenaPool(poison=self._config.debug_poison, guard=self._config.debug_guard)
        self._place = {node: k for k, node in enumerate(order)}
        self._programs: dict[tuple[frozenset[Node], frozenset[Node]], _Compiled] = {}
        self._loaded: list[LoadedProgram] = []
        self._constants = Constants(guard=self._config.debug_guard)
        self._functions: dict[tuple[tuple[Node, ...], tuple[Node, ...]], _Compiled] = {}
        #: Calls of :meth:`run` as they were written before, and what answers them without finding nodes again.
        self._calls: dict[Hashable, Callable[..., Any]] = {}
        self._times: list[Timing] = []
        self._compilations = 0
        self._open = True
        #: Dims that no placeholder of the graph gives (of zeros_like(x) alone, say): others must be fed for them.
        self._waiting = open_dims(order, _placeholders(self._fetches))
        self._first: _Compiled | None = None
        if not self._waiting:
            self._compile(self._fetches, _placeholders(self._fetches))

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

        Examples
        --------
        >>> import numpy as np, jitflow as jf
        >>> x = jf.placeholder("x", jf.float32, ("n",))
        >>> y = jf.exp(x)
        >>> sess = jf.Session([y + 1.0])
        >>> sess.run({"more": y + 1.0, "same": [x]}, {"x": [0.0, 0.0]})
        {'more': array([2., 2.], dtype=float32), 'same': [array([0., 0.], dtype=float32)]}
        >>> sess.run(y + 1.0, {y: np.ones(3, np.float32)})
        array([2., 2., 2.], dtype=float32)
        """
        self._check_open()
        key = _call_key(fetches, feeds)
        known = None if key is None else self._calls.get(key)
        if known is not None:
            return known(*feeds.values())  # type: ignore[union-attr]
        nodes = flatten(fetches, self._nodes)
        given = self.feed_nodes({} if feeds is None else feeds)
        if not nodes:
            for node in given:
                raise FeedError(at_site(f"nothing is fetched, so feed {self._names[node]!r} is not needed", node.site))
            return rebuild(fetches, iter(()))
        compiled = self._programs.get((frozenset(nodes), frozenset(given)))
        if compiled is None:
            compiled = self._compile(nodes, tuple(given))
        if compiled.entry is None:
            raise DeviceError(_NOT_LOADED)
        arrays = compiled.entry(*[given[n] for n in compiled.feeds])
        results = [compiled.results[n] for n in nodes]
        if key is not None and len(self._calls) < MAX_CALLS:
            self._calls[key] = self._bind(compiled, tuple(given), fetches, results)
        return rebuild(fetches, _spread(arrays, results))

    def _bind(
        self, compiled: _Compiled, fed: Sequence[Node], fetches: Any, results: Sequence[int]
    ) -> Callable[..., Any]:
        """Return what does the same as :meth:`run` for the same `fetches`, given values for `fed` by position."""
        assert compiled.loaded is not None
        entry: Callable[..., Any]
        structure = _structure(fetches)
        assert structure is not None
        if tuple(results) == tuple(range(len(compiled.loaded.signature.outputs))):
            entry = make_entry(compiled.loaded, structure, arena=self._arenas)
        else:
            inner = compiled.entry
            assert inner is not None
            entry = lambda *arrays: rebuild(fetches, _spread(inner(*arrays), results))  # noqa: E731
        if tuple(fed) == compiled.feeds:
            return entry
        order = [fed.index(n) for n in compiled.feeds]
        return lambda *arrays: entry(*[arrays[k] for k in order])

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

        Raises
        ------
        GraphError
            Something is no part of this session's graph, or the inputs do not determine a dim.
        FeedError
            A placeholder that `outputs` need is not among the inputs, or one of these is not needed or named twice.

        Examples
        --------
        >>> import numpy as np, jitflow as jf
        >>> x = jf.placeholder("x", jf.float32, ("n",))
        >>> double = jf.Session(x * 2.0).function([x], x * 2.0)
        >>> out = np.empty(3, np.float32)
        >>> double(np.ones(3, np.float32), out=out) is out
        True
        >>> out
        array([2., 2., 2.], dtype=float32)
        """
        self._check_open()
        if not isinstance(inputs, (list, tuple)):
            raise TypeError(f"inputs must be a list of tensors or names, not {type(inputs).__name__}")
        fed = tuple(find_node(x, self._nodes, GraphError, "input") for x in inputs)
        for k, node in enumerate(fed):
            if not self._may_feed(node):
                raise GraphError(at_site(f"input {node!r} is no part of this session's graph", node.site))
            if node in fed[:k]:
                raise FeedError(at_site(f"input {self._name(node)!r} of the function is named twice", node.site))
        if not isinstance(name, str):
            raise GraphError(f"a function's name is a string, got {type(name).__name__}")
        if native is not None and not isinstance(native, bool):
            raise GraphError(f"native must be True, False or None, got {native!r}")
        nodes = flatten(outputs, self._nodes)
        key = (fed, tuple(nodes))
        with self._lock:
            compiled = self._functions.get(key)
            if compiled is None:
                compiled = self._functions[key] = self._compile_safely(tuple(dict.fromkeys(nodes)), fed)
        if compiled.loaded is None:
            raise DeviceError(_NOT_LOADED)
        structure = _structure(outputs)
        results = tuple(compiled.results[n] for n in nodes)
        if structure is None or results != tuple(range(len(compiled.loaded.signature.outputs))):
            inner = make_entry(compiled.loaded, LIST, arena=self._arenas, name=name, native=native)
            return _Rearranged(inner, outputs, results, compiled.loaded, name)
        return make_entry(compiled.loaded, structure, arena=self._arenas, name=name, native=native)

    # ---- looking

    def dump(self, stage: str, fetches: Any = None, kernel: str | None = None) -> str:
        """Return the text of `stage`: graph, fused, loops, loops-opt, plan, llvm, llvm-opt, asm or ptx.

        "loops" are the kernels as built, "loops-opt" the same after the loop passes.

        `fetches` chooses another fetch set than that of creation, `kernel` one kernel by name.

        Raises
        ------
        GraphError
            There is no such stage or kernel.
        DeviceError
            The session's device has no such stage.

        Examples
        --------
        >>> import jitflow as jf
        >>> x = jf.placeholder("x", jf.float32, ("n",))
        >>> print(jf.Session(x * 2.0).dump("fused"))
        group 0 map over (i in n):
          multiply_0: f32[n] = multiply(x, 2.0)  # ...
          writes multiply_0
        """
        self._check_open()
        if stage not in STAGES:
            raise GraphError(f"unknown stage {stage!r}; stages are {', '.join(STAGES)}")
        nodes = self._fetches if fetches is None else flatten(fetches, self._nodes)
        if stage == "graph":
            return show_nodes([(None, n) for n in nodes], self._names)
        program = self._default.made_by.lowered.program
        if fetches is not None:
            program = self._compile(nodes, _placeholders(nodes)).made_by.lowered.program
        if (stage == "ptx") != self._target.is_gpu and stage in ("ptx", "asm", "llvm-opt"):
            advice = "create the session with device='cuda:0', load=False" if stage == "ptx" else "its code is 'ptx'"
            raise DeviceError(f"stage {stage!r} does not exist on {self._target.name}: {advice}")
        if kernel is not None and kernel not in (names := program.kernel_names):
            raise GraphError(f"no kernel is called {kernel!r}; there are {', '.join(names)}")
        return program.text(stage, kernel)

    def dump_all(self, folder: str | Path) -> list[Path]:
        """Write every stage of the session's own fetches to `folder`; return the files."""
        self._check_open()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for number, stage in enumerate(s for s in STAGES if self._has_stage(s)):
            path = folder / f"{number:02d}-{stage}.{SUFFIX[stage]}"
            path.write_text(self.dump(stage))
            written.append(path)
        return written

    def _has_stage(self, stage: str) -> bool:
        return has_stage(stage, self._target.is_gpu)

    def report(self) -> str:
        """Return what was compiled: kernels, buffers, peak memory of the arena, and the time of each compile step."""
        self._check_open()
        program = self._default.made_by.lowered.program
        held = self._constants.nbytes
        lines = [
            f"{self!r}, compiled for {self._target.cpu}; programs compiled: {self._compilations}",
            program.report(self.threads),
            f"held between runs: {held} bytes of constants, {self._arenas.nbytes} bytes of arenas",
            "compile time of all programs, by step and pass:",
            time_table(self._times),
        ]
        return "\n".join(lines)

    @property
    def compilations(self) -> int:
        """How many programs were compiled so far: one at creation, and one for each new set of fetches and feeds.

        Those that were found in the cache are not counted.
        """
        return self._compilations

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

    @property
    def _default(self) -> _Compiled:
        """The program of the session's own fetches: compiled at creation, or by the first run that gives all dims."""
        if self._first is None:
            names = ", ".join(sorted(v.name for v in self._waiting))
            raise GraphError(f"no input of this graph gives dim {names}: run it once, feeding a placeholder that does")
        return self._first

    def feed_nodes(self, feeds: Mapping[Any, Any]) -> dict[Node, Any]:
        """Return `feeds` by node. FeedError for what names no node of this session, or one twice."""
        if type(feeds) is not dict and not isinstance(feeds, Mapping):
            raise FeedError(f"feeds must be a dict from tensors or names to values, got {type(feeds).__name__}")
        given: dict[Node, Any] = {}
        for key, value in feeds.items():
            node = find_node(key, self._nodes, FeedError, "feed")
            if not self._may_feed(node):
                raise FeedError(at_site(f"feed {node!r} is no part of this session's graph", node.site))
            if node in given:
                raise FeedError(at_site(f"{self._name(node)!r} is fed twice", node.site))
            given[node] = value
        return given

    def _may_feed(self, node: Node) -> bool:
        """Tell whether `node` is of this graph, or a placeholder that gives a dim which nothing of the graph does."""
        return node in self._names or (node.op.name == "placeholder" and gives_dims(node, self._waiting))

    def name_of(self, tensor: Any) -> str:
        """Return the name of a node of this session's graph: the user's, or ``op_N``."""
        return self._names[find_node(tensor, self._nodes, GraphError, "fetch")]

    def group_of(self, tensor: Any) -> str:
        """Return which fusion group of the session's own program computes a fetched node."""
        node = find_node(tensor, self._nodes, GraphError, "fetch")
        program = self._default.made_by.lowered.program
        if isinstance(program, GpuProgram):
            raise DeviceError(_NOT_LOADED)
        target = program.plan.outputs[self._default.results[node]]
        for number, group in enumerate(program.groups):
            if any(n is target for n, _ in group.outputs):
                return f"group {number}: {program.kernel_of(group)}"
        return f"no group: {self._names[node]} is copied"

    # ---- compiling

    def _compile(self, fetches: Iterable[Node], feeds: Sequence[Node]) -> _Compiled:
        """Return the program of a set of fetches and a set of feeds, compiling it if it is new."""
        key = (frozenset(fetches), frozenset(feeds))
        with self._lock:
            found = self._programs.get(key)
            if found is None:
                # In the order of the graph, so that the same sets give the same code in whatever order they come.
                ordered = [sorted(nodes, key=lambda n: self._place.get(n, -1)) for nodes in key]
                found = self._programs[key] = self._compile_safely(*ordered)
            if self._first is None and key[0] == frozenset(self._fetches):
                self._first = found
            return found

    def _compile_safely(self, fetches: Sequence[Node], feeds: Sequence[Node]) -> _Compiled:
        """Compile, turning what a graph beyond all measure does to Python into errors of ours."""
        try:
            return self._compile_new(fetches, feeds)
        except RecursionError:
            raise CompileError("an expression of this graph is nested too deeply to be compiled") from None
        except MemoryError as error:
            if isinstance(error, JitflowError):
                raise
            raise OutOfMemoryError("there is no memory to compile this graph") from None

    def _compile_new(self, fetches: Sequence[Node], feeds: Sequence[Node]) -> _Compiled:
        self._check_open()
        self._check_feeds(fetches, feeds)
        log = CompileLog(self._config, self._times)
        made_by = Compilation(fetches, feeds, self._names, self._target, self._config, log)
        if not self._load:
            numbers = made_by.lowered.results
            self._compilations += 1
            log.finish()
            return _Compiled(made_by, None, tuple(feeds), dict(zip(fetches, numbers, strict=True)), None)
        bundle = made_by.bundle()
        self._compilations += not made_by.from_cache
        start = time.perf_counter()
        sources = [(node, node.attr("value").array) for node in made_by.sources]
        consts = self._constants.arrays(bundle, sources, self._run_once)
        log.clock("init", "", time.perf_counter() - start)
        start = time.perf_counter()
        loaded = self._loaded_program(bundle.main, consts)
        with self._lock:
            self._loaded.append(loaded)
        entry = make_entry(loaded, LIST, arena=self._arenas)
        log.clock("load", "", time.perf_counter() - start)
        log.finish()
        return _Compiled(made_by, loaded, tuple(feeds), dict(zip(fetches, bundle.results, strict=True)), entry)

    def _check_feeds(self, fetches: Sequence[Node], feeds: Iterable[Node]) -> None:
        fed = set(feeds)
        needed = toposort(fetches, fed)
        foreign = [n for n in needed if n not in self._names]
        if foreign:
            n = foreign[-1]
            raise GraphError(at_site(f"{n!r} is no part of this session's graph: create a session with it", n.site))
        unused = fed - set(needed)
        dims = open_dims(needed, fed) if unused else set()
        for node in unused:
            # One that gives the size of an axis is needed, though its values are not.
            if not gives_dims(node, dims):
                raise FeedError(at_site(f"feed {self._name(node)!r} is not needed by these fetches", node.site))
        for node in needed:
            if node.op.name == "placeholder" and node not in fed:
                raise FeedError(at_site(f"placeholder {self._name(node)!r} ({node.type!r}) is not fed", node.site))

    def _name(self, node: Node) -> str:
        return self._names.get(node) or node.name or repr(node)

    def _loaded_program(self, program: Executable, consts: Sequence[Array]) -> LoadedProgram:
        helpers = team(self.threads, self._pool_code) if program.signature.shares else None
        return LoadedProgram(program.signature, load_object(program.code), consts, helpers)

    def _pool_code(self) -> bytes:
        return pool_code(self._config, CompileLog(self._config, self._times))

    def _run_once(self, program: Executable, consts: Sequence[Array], out: Sequence[Array]) -> None:
        """Run a program without inputs and let go of it."""
        loaded = self._loaded_program(program, consts)
        PortableEntry(loaded, LIST, self._arenas).run_arrays((), out)
        loaded.close()


def _call_key(fetches: Any, feeds: Mapping[Any, Any] | None) -> Hashable | None:
    """Return what tells one spelling of a call of :meth:`Session.run` from another; None for an unusual one."""
    if type(feeds) is not dict:
        return None
    kind = type(fetches)
    if kind is not list and kind is not tuple:
        return (fetches, *feeds) if kind is Tensor or kind is str else None
    if all(type(x) is Tensor or type(x) is str for x in fetches):
        return (kind, len(fetches), *fetches, *feeds)
    return None


_NOT_LOADED = "the session was created with load=False: it can be dumped, not run"


class _Rearranged:
    """A bound function whose outputs are nested, or not one to one the program's: `results` says which is which."""

    def __init__(self, inner: Any, outputs: Any, results: Sequence[int], loaded: LoadedProgram, name: str) -> None:
        self._inner, self._outputs, self._results, self._loaded = inner, outputs, results, loaded
        self.__name__ = self.__qualname__ = name

    def __call__(self, *args: Any, out: Any = None) -> Any:
        if out is None:
            return rebuild(self._outputs, _spread(self._inner(*args), self._results))
        given = mirror(self._outputs, out)
        if self._results == tuple(range(len(given))):
            self._inner(*args, out=given)
            return out
        # One value goes to several arrays: these are checked, and written after everything has succeeded.
        arrays = self._inner(*args)
        specs = tuple(self._loaded.signature.outputs[k] for k in self._results)
        targets = [check_out(a, y, arrays[k].shape) for a, y, k in zip(given, specs, self._results, strict=True)]
        check_outs_apart(targets, specs)
        for target, k in zip(targets, self._results, strict=True):
            copy_array(target, arrays[k])
        return out


def _spread(arrays: Sequence[Any], results: Sequence[int]) -> Iterator[Any]:
    """Yield the arrays numbered by `results`; one that comes again is copied, since results alias nothing."""
    used: set[int] = set()
    for k in results:
        yield arrays[k].copy() if k in used else arrays[k]
        used.add(k)


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
