"""Fetches and feeds into a bundle of compiled programs: found in the cache, or rewritten, lowered and compiled.

    fetches ─ rewrite ─▶ primitive graph ─ lower ─▶ programs ─ object_code ─▶ Bundle ◀─▶ runtime.cache

What the cache holds is keyed by the graph as the user built it (`jitflow.graph_key`), so that none of these steps is
taken when it is found. Texts never come from there: who asks for one has the graph lowered then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from jitflow.compile_log import STAGES, CompileLog
from jitflow.config import Config, use
from jitflow.errors import FormatError
from jitflow.graph import Node, number_nodes, toposort
from jitflow.graph_key import GraphKey, graph_key, is_portable, sources_of
from jitflow.graph_printer import show_nodes
from jitflow.rewrite import Replaced, rewrite
from jitflow.simplify import evaluate_index
from lowering.gpu.program import GpuProgram, lower_gpu
from lowering.plan import Packed
from lowering.pool import pool_object
from lowering.program import Program, find_static, lower, pack_program
from lowering.target import Target, host
from runtime.abi import ProgramSignature
from runtime.bundle import Bundle, Const, Executable, Given, Kept, Made, Stored, from_bytes, to_bytes
from runtime.cache import Cache, Key, open_cache
from runtime.versions import versions

#: Bytes between arrays of an arena with ``debug_guard``.
GAP = 4096


class Lowered(NamedTuple):
    """The program of a fetch set, the rewritten nodes that it computes, and which of its outputs each fetch is."""

    program: Program | GpuProgram
    results: tuple[int, ...]


class Compilation:
    """One fetch set of a session on its way to code.

    `names` are those of the session's nodes; `feeds` become inputs in their order.
    """

    def __init__(
        self,
        fetches: Sequence[Node],
        feeds: Sequence[Node],
        names: Mapping[Node, str],
        target: Target,
        config: Config,
        log: CompileLog,
    ) -> None:
        self.fetches, self.feeds = tuple(fetches), tuple(feeds)
        self._names, self._target, self._config, self._log = names, target, config, log
        #: Whether :meth:`bundle` has found the code in the cache.
        self.from_cache = False

    @cached_property
    def _order(self) -> list[Node]:
        """The graph above the feeds, these included."""
        return toposort((*self.fetches, *self.feeds), set(self.feeds))

    @cached_property
    def sources(self) -> tuple[Node, ...]:
        """The constants and variables of the graph, by the numbers that bundles call them."""
        return sources_of(self._order, self.feeds)

    @cached_property
    def lowered(self) -> Lowered:
        """The graph lowered for the session's target."""
        log, config = self._log, self._config
        log.stages(("graph",), lambda stage: show_nodes([(None, n) for n in self.fetches], self._names))
        start = time.perf_counter()
        log.start_rewrite(self.fetches)
        with use(config):
            replaced = rewrite(
                self.fetches, self.feeds, log.graph_pass, fast_math=config.fast_math, blocks=not self._target.is_gpu
            )
        log.clock("rewrite", f"{len(self._order)} nodes", time.perf_counter() - start)
        inputs = [replaced[f] for f in self.feeds]
        wanted = [replaced[f] for f in self.fetches]
        unique = list(dict.fromkeys(wanted))
        names = self._names_of(replaced, unique, inputs)
        fed = set(self.feeds)
        original = [n for n in self._order if n not in fed]
        is_gpu = self._target.is_gpu
        make = lower_gpu if is_gpu else lower
        static = find_static(unique, inputs)
        program = make(unique, inputs, static, original, names, self._target, **self._options)
        log.stages([s for s in STAGES[1:] if has_stage(s, is_gpu)], program.text)
        number = {node: k for k, node in enumerate(unique)}
        return Lowered(program, tuple(number[w] for w in wanted))

    def lower_init(self, nodes: Sequence[Node], names: Mapping[Node, str]) -> Program:
        """Return the program that computes `nodes`, which depend on constants alone."""
        return lower(nodes, [], [], [], names, self._target, entry=False, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        """What all lowerings of this session have in common."""
        return {
            "fused": self._config.fuse,
            "gap": GAP if self._config.debug_guard else 0,
            "observer": self._log.loop_pass,
            "check": self._config.verify,
            "clock": self._log.clock,
        }

    def _names_of(self, replaced: Replaced, fetches: Sequence[Node], inputs: Sequence[Node]) -> dict[Node, str]:
        """Return names for the rewritten nodes: those of the nodes they stand for, others counted on."""
        names: dict[Node, str] = {}
        # A name that the user has given says more than the number of the node it was given to.
        for old in sorted(replaced, key=lambda n: n.name is None):
            if old in self._names:
                names.setdefault(replaced[old], self._names[old])
        number_nodes(toposort((*fetches, *inputs), set(inputs)), names)
        return names

    # ---- code

    def bundle(self) -> Bundle:
        """Return the code of the fetch set, for a CPU: from the cache, or else compiled, and put there."""
        start = time.perf_counter()
        cache = _cache_of(self._config, self._log)
        key = None if cache is None else self._key(cache)
        if cache is None or key is None:
            return self._compiled()
        graph, entry = key
        found = self._found(cache, graph, entry)
        self._log.clock("cache", "", time.perf_counter() - start)
        self.from_cache = found is not None
        what = ", ".join(self._names[n] for n in self.fetches)
        if found is not None:
            self._log.trace("cache", lambda: f"hit for {what}: {entry.file}")
            return found
        self._log.trace("cache", lambda: f"miss for {what}: {cache.why_not(entry)}")
        bundle = self._compiled()
        portable = _portable(bundle, graph)
        if portable is not None:
            start = time.perf_counter()
            cache.put(entry, to_bytes(portable))
            self._log.clock("cache", "", time.perf_counter() - start)
        return bundle

    def _key(self, cache: Cache) -> tuple[GraphKey, Key] | None:
        parts = _parts(cache, self._target, self._config)
        if parts is None:
            return None
        names = self._names
        if any(f not in names for f in self.feeds):  # placeholders of no use but to give a dim
            names = {**names, **{f: f.name or repr(f) for f in self.feeds if f not in names}}
        graph = graph_key(self.fetches, self.feeds, names)
        return graph, Key(graph.text, parts)

    def _found(self, cache: Cache, graph: GraphKey, key: Key) -> Bundle | None:
        data = cache.get(key)
        if data is None:
            return None
        try:
            bundle = from_bytes(data)
            _check(bundle, self)
        except FormatError as error:
            cache.reject(key, error)
            return None
        return replace(bundle, main=replace(bundle.main, signature=graph.local(bundle.main.signature)))

    def _compiled(self) -> Bundle:
        program, results = self.lowered
        assert isinstance(program, Program)
        recipe = _Recipe(self)
        consts = recipe.consts(program)
        return Bundle(tuple(recipe.inits), Executable(program.object_code(), program.signature, consts), results)


class _Recipe:
    """The init programs of a bundle, each behind those whose results it reads."""

    def __init__(self, compilation: Compilation) -> None:
        self.inits: list[Executable] = []
        self._of = compilation
        self._number = {node: k for k, node in enumerate(compilation.sources)}

    def consts(self, program: Program) -> tuple[Const, ...]:
        """Return where the constants of `program` come from, adding init programs for those that are computed."""
        where: dict[Node, Const] = {}
        computed = []
        for node in dict.fromkeys(c.node if isinstance(c, Packed) else c for c in program.plan.consts):
            if node in self._number:
                where[node] = Given(self._number[node])
            elif node.op.source:
                array = node.attr("value").array
                where[node] = Stored(node.dtype, array.shape, array.tobytes())
            else:
                computed.append(node)
        if computed:
            init = self._of.lower_init(computed, program.names)
            shapes = [tuple(evaluate_index(d, {}) for d in n.shape) for n in init.plan.outputs]
            made = self._add(init, self.consts(init), [Kept(s) for s in shapes])
            where.update(zip(init.plan.outputs, made, strict=True))
        packed = [c for c in program.plan.consts if isinstance(c, Packed)]
        panels: dict[Packed, Const] = {}
        if packed:
            packing = pack_program(packed, program.names, self._of._target, self._of._log.clock)
            raw = list(dict.fromkeys(p.node for p in packed))
            kept = [Kept(p.shape, raw.index(p.node), p.layout) for p in packed]
            panels.update(zip(packed, self._add(packing, tuple(where[n] for n in raw), kept), strict=True))
        return tuple(panels[c] if isinstance(c, Packed) else where[c] for c in program.plan.consts)

    def _add(self, program: Program, consts: tuple[Const, ...], kept: Sequence[Kept]) -> list[Made]:
        self.inits.append(Executable(program.object_code(), program.signature, consts, tuple(kept)))
        return [Made(len(self.inits) - 1, k) for k in range(len(kept))]


def has_stage(stage: str, is_gpu: bool) -> bool:
    """Tell whether programs of a GPU, or else of a CPU, have the text of `stage`."""
    return stage not in ("asm", "llvm-opt") if is_gpu else stage != "ptx"


def _portable(bundle: Bundle, graph: GraphKey) -> Bundle | None:
    """Return `bundle` for every graph of the text of `graph`; None if it mentions a place that no node was made at."""
    main = replace(bundle.main, signature=graph.portable(bundle.main.signature))
    inits = tuple(replace(p, signature=_anonymous(p.signature)) for p in bundle.inits)
    return Bundle(inits, main, bundle.results) if is_portable(main.signature) else None


def _anonymous(signature: ProgramSignature) -> ProgramSignature:
    """Return the signature of an init program, which has no inputs and cannot fail, without source lines."""
    return replace(signature, outputs=tuple(replace(y, site=None) for y in signature.outputs))


def _check(bundle: Bundle, compilation: Compilation) -> None:
    """Raise FormatError if `bundle` cannot be one of this compilation's graph."""
    given = [c.number for p in (*bundle.inits, bundle.main) for c in p.consts if isinstance(c, Given)]
    if any(not 0 <= k < len(compilation.sources) for k in given):
        raise FormatError("it reads constants that the graph does not have")
    inputs, results = bundle.main.signature.inputs, bundle.results
    if len(inputs) != len(compilation.feeds) or len(results) != len(compilation.fetches):
        raise FormatError(f"it has {len(inputs)} inputs and {len(results)} results, unlike the graph")


# ---- the cache


def _cache_of(config: Config, log: CompileLog) -> Cache | None:
    """Return the cache to use, or None: who looks at the IR wants it made."""
    if config.cache_dir is None or config.verify or log.shows_stages:
        return None
    return open_cache(config.cache_dir, config.cache_limit << 20)


def _parts(cache: Cache, target: Target, config: Config) -> tuple[tuple[str, str], ...] | None:
    """Return what code depends on besides the graph, by name."""
    made_by = versions(cache)
    if made_by is None:
        return None
    masks = "/".join(map(str, target.mask_bytes)) or "no"
    facts = f"{target.vector_bits} bits; {target.vector_registers} registers; {masks} bytes masked"
    return (
        *made_by,
        ("target", f"{target.name} {target.triple}"),
        ("CPU", target.cpu),
        ("features", target.features),
        ("vectors", f"{facts}; FMA {target.has_fma}; float16 {target.has_f16}"),
        ("options", config.code()),
    )


def pool_code(config: Config, log: CompileLog) -> bytes:
    """Return the object code of the worker pool, for this machine."""
    cache = _cache_of(config, log)
    parts = None if cache is None else _parts(cache, host(), config)
    if cache is None or parts is None:
        return pool_object()
    key = Key("worker pool", parts)
    found = cache.get(key)
    if found is None:
        found = pool_object()
        cache.put(key, found)
    return found
