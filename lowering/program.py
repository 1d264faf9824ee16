"""A graph of primitive operators into a program: groups, kernels, plan, LLVM text and object code.

:func:`lower` goes as far as the plan. A :class:`Program` gives the text of every stage from there and, once, its object
code; texts are made when asked for. Groups that do the same to different nodes share one kernel.
"""

from __future__ import annotations

import functools
import hashlib
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitflow.errors import at_site
from jitflow.expr import Expr, Var, const_index
from jitflow.fork import after_fork_in_child
from jitflow.graph import Node, make_placeholder, toposort
from jitflow.simplify import evaluate_index, free_vars, simplify_index
from jitflow.types import dim_of, dim_text, element_count
from lowering import cpu
from lowering.analysis.cost import Costs, work_within
from lowering.arena import greatest, padded, place_arrays
from lowering.build import build
from lowering.build_stages import PackedFactor, build_stages, packed_factors
from lowering.check_first import split_checks
from lowering.contract import PackedOperand, build_contract, build_pack
from lowering.fuse import FusionGroup, fuse
from lowering.llvm import emit_module, parallel_chunk, parallel_extent, scratch_bytes, symbol
from lowering.loop_ir import Kernel
from lowering.native import can_emit, emit_entry, emit_watched
from lowering.passes.poll import WORK_BETWEEN_POLLS
from lowering.pipeline import run_pipeline
from lowering.plan import (
    Check,
    Copy,
    Equal,
    Launch,
    Packed,
    Place,
    Plan,
    Solved,
    Step,
    bind_dims,
    guards_of,
    nbytes_of,
    show_plan,
    show_shared,
)
from lowering.plan_llvm import emit_measure, emit_run, shares_work
from lowering.report import show_report
from lowering.schedule import Schedule, choose_contraction
from lowering.signature import notes_of
from lowering.stage import StageSchedule, choose_stages, kept_by, stage
from lowering.stream import is_large, stream_results
from lowering.target import Target
from lowering.text import show
from lowering.trace import literal_of
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot

#: Called with the name of a compile step, what it is about, the seconds it took, and the step it is a part of, if any.
Clock = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Built:
    """One kernel: as built from its group, and after the loop passes. `groups` are those that share it."""

    kernel: Kernel
    final: Kernel
    groups: tuple[FusionGroup, ...]


@dataclass(eq=False)
class Program:
    """A lowered fetch set; see the module docstring. `names` says how nodes are called in the texts.

    `has_entry` tells whether the code has a function that Python calls directly.
    """

    plan: Plan
    groups: tuple[FusionGroup, ...]
    kernels: tuple[Built, ...]
    names: Mapping[Node, str]
    signature: ProgramSignature
    target: Target
    clock: Clock
    frame: Frame
    has_entry: bool = True
    _texts: dict[str, str] = field(default_factory=dict)

    @property
    def llvm(self) -> str:
        """The LLVM module of the whole program."""
        text = self._texts.get("llvm")
        if text is None:
            start = time.perf_counter()
            x86 = self.target.triple.startswith("x86_64")
            extra = [
                emit_measure(self.plan, self.signature.measure),
                emit_run(self.plan, self.signature.run, x86=x86),
                emit_watched(self.signature, x86=x86),
            ]
            if self.has_entry and can_emit(self.signature):
                extra.append(emit_entry(self.signature))
            text = emit_module([b.final for b in self.kernels], self.target, extra="\n".join(extra))
            self._texts["llvm"] = text
            self.clock("emit", "", time.perf_counter() - start)
        return text

    def object_code(self) -> bytes:
        """Return the program's object file, compiling it unless this process has compiled the same text before."""
        text = self.llvm
        start = time.perf_counter()
        code = _compile_once(text, self.target, self.clock)
        self.clock("llvm", "", time.perf_counter() - start)
        return code

    def text(self, stage: str, kernel: str | None = None) -> str:
        """Return stage ``fused``, ``loops``, ``loops-opt``, ``plan``, ``llvm``, ``llvm-opt`` or ``asm`` as text."""
        if stage == "fused":
            return "\n".join(
                show_group(g, k, self.names) for k, g in enumerate(self.groups) if _chosen(kernel, self.kernel_of(g))
            )
        if stage in ("loops", "loops-opt"):
            return "\n".join(
                show(b.kernel if stage == "loops" else b.final) for b in self.kernels if _chosen(kernel, b.kernel.name)
            )
        if stage == "plan":
            return show_plan(self.plan, self.names)
        if kernel is not None:
            some = [b.final for b in self.kernels if _chosen(kernel, b.kernel.name)]
            module = emit_module(some, self.target, exported=True)
        else:
            module = self.llvm
        if stage == "llvm":
            return module
        if stage == "llvm-opt":
            return self._annotated(cpu.optimized(module, self.target), r"define .*@{}\(.*", ";")
        mark = "#" if self.target.triple.startswith("x86_64") else "//"
        return self._annotated(cpu.assembly(module, self.target), "{}:.*", mark)

    def _annotated(self, text: str, head: str, mark: str) -> str:
        """Return `text` with the notes of each kernel before the line that begins it: LLVM drops comments."""
        for b in self.kernels:
            notes = "".join(f"{mark} {note}\n" for note in b.final.notes)
            pattern = re.compile(f"^{head.format(re.escape(symbol(b.final.name)[1:]))}$", re.MULTILINE)
            text = pattern.sub(lambda found, notes=notes: notes + found[0], text, count=1)  # type: ignore[misc]
        return text

    @property
    def kernel_names(self) -> tuple[str, ...]:
        """The names of all kernels, in the order in which they first run."""
        return tuple(b.kernel.name for b in self.kernels)

    def report(self, workers: int) -> str:
        """Return a table of kernels with their work, and the buffers of a run by at most so many `workers`."""
        frame = self.frame
        shared = {
            s.kernel.name: show_shared(s.kernel, s.chunk)
            for s in self.plan.steps
            if isinstance(s, Launch) and s.chunk is not None
        }
        return show_report(
            frame.groups,
            self.kernel_of,
            frame.places,
            frame.cells,
            self.plan.scratch,
            self.names,
            frame.consts,
            workers if self.signature.shares else 1,
            shared,
        )

    def kernel_of(self, group: FusionGroup) -> str:
        """Return the name of the kernel that computes `group`."""
        return self._kernel_names[group]

    @functools.cached_property
    def _kernel_names(self) -> dict[FusionGroup, str]:
        return {g: b.kernel.name for b in self.kernels for g in b.groups}


def _chosen(wanted: str | None, name: str) -> bool:
    return wanted is None or wanted == name


_OBJECTS: OrderedDict[str, bytes] = OrderedDict()
_OBJECTS_LIMIT = 256
_COMMENT = re.compile(r"^;.*\n", re.MULTILINE)
_LOCK = threading.Lock()


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.Lock()


after_fork_in_child(_renew_lock)


def _compile_once(text: str, target: Target, clock: Clock) -> bytes:
    # Comments, which name the user's lines, do not change the code.
    code_only = _COMMENT.sub("", text)
    key = hashlib.sha256(f"{target.fingerprint}\0{code_only}".encode()).hexdigest()
    with _LOCK:
        found = _OBJECTS.get(key)
        if found is not None:
            _OBJECTS.move_to_end(key)
            return found
    code = cpu.compile_object(text, target, clock=lambda step, seconds: clock(step, "", seconds, "llvm"))
    with _LOCK:
        _OBJECTS[key] = code
        while len(_OBJECTS) > _OBJECTS_LIMIT:
            _OBJECTS.popitem(last=False)
    return code


@dataclass(frozen=True, eq=False)
class Frame:
    """What every target's program has in common: the groups, where arrays are, and what must hold of the dims."""

    groups: tuple[FusionGroup, ...]
    consts: tuple[Node, ...]
    sizes: tuple[Expr, ...]
    slots: tuple[Var, ...]
    solved: tuple[Solved, ...]
    guards: tuple[Equal, ...]
    places: Mapping[Node, Place]
    cells: tuple[Expr, ...]

    def copies(self, fetches: Sequence[Node]) -> list[Copy]:
        """Return the copies of fetched nodes that are inputs or constants."""
        found = [(self.places[n], Place("output", k), nbytes_of(n)) for k, n in enumerate(fetches)]
        return [Copy(source, target, nbytes) for source, target, nbytes in found if source != target]


def prepare(
    fetches: Sequence[Node],
    inputs: Sequence[Node],
    static: Collection[Node],
    original: Sequence[Node],
    *,
    fused: bool,
    gap: int,
    clock: Clock,
    target: Target | None = None,
) -> Frame:
    """Return the groups of `fetches` and all that is decided before kernels are built; see :func:`lower`.

    With a `target`, groups that hand arrays on row by row are joined for it (`lowering.stage`).
    """
    leaves = {*inputs, *static}
    start = time.perf_counter()
    order = toposort(fetches, leaves)
    groups = tuple(fuse(fetches, leaves, enabled=fused))
    if fused and target is not None:
        groups = stage(groups, fetches, target)
    clock("fuse", f"{len(order)} nodes", time.perf_counter() - start)
    sizes, slots, solved = bind_dims(inputs)
    known_leaves = {x for x in (*original, *order) if x in leaves or x.op.source}
    guards = guards_of([*inputs, *original, *order], sizes, slots, solved, known_leaves)
    stored = [x for x in order if (x in static or x.op.source) and x not in inputs]
    consts = tuple(x for x in stored if literal_of(x) is None or x in fetches)
    places, cells = place_arrays(groups, fetches, inputs, consts, gap)
    return Frame(groups, consts, sizes, slots, solved, tuple(guards), places, cells)


def lower(
    fetches: Sequence[Node],
    inputs: Sequence[Node],
    static: Collection[Node],
    original: Sequence[Node],
    names: Mapping[Node, str],
    target: Target,
    *,
    fused: bool = True,
    gap: int = 0,
    observer: Any = None,
    check: bool = False,
    clock: Clock = lambda *_: None,
    entry: bool = True,
) -> Program:
    """Return the program that computes `fetches` from arrays for `inputs`, which come in this order.

    `static` are nodes whose values are known when the session starts; they are read from memory like constants.
    `original` are the nodes of the graph before rewriting, whose guards must hold; `names` calls nodes in texts.
    `gap` are bytes to leave unused after each array of the arena, for debugging. A program that only sessions run needs
    no `entry` for Python.
    Expects primitive operators only. Raises GraphError if the inputs do not determine a dim.
    """
    frame = prepare(fetches, inputs, static, original, fused=fused, gap=gap, clock=clock, target=target)
    groups, places = frame.groups, frame.places
    kernels: dict[Any, tuple[tuple[Kernel, Kernel], ...]] = {}
    sharing: dict[Any, list[FusionGroup]] = {}
    steps: list[Step] = []
    checks: list[str] = []
    scratch: list[Expr] = []
    packed: dict[tuple[Node, str], Packed] = {}
    again = {n for group in groups for n in group.leaves}
    for group in groups:
        schedule = choose_stages(group, target) if group.kind == "stages" else choose_contraction(group, target)
        factors = [f for f in packed_factors(group, schedule) if _is_packable(f.operand, places)]
        final = _final(group, places, again, target)
        key = (group_key(group), *final, *(group.leaves.index(f.operand.node) for f in factors))
        fallible = [n for n in group.members if n.op.fallible]
        made = kernels.get(key)
        if made is None:
            start = time.perf_counter()
            name = f"k{len(kernels)}_{label_of(group, names)}"
            kernel = _build(group, name, local_names(group, names), schedule, [f.operand for f in factors])
            kernel = stream_results(kernel, [kernel.params[k] for k in final])
            clock("build", name, time.perf_counter() - start)
            start = time.perf_counter()
            parts = (split_checks(kernel) if fallible else None) or (kernel,)
            made = kernels[key] = tuple((k, run_pipeline(k, target, observer=observer, check=check)) for k in parts)
            clock("passes", name, time.perf_counter() - start)
            scratch += [padded(scratch_bytes(final)) for _, final in made]
        sharing.setdefault(key, []).append(group)
        status = len(checks) if fallible else None
        checks += [_check_message(n, names) for n in fallible]
        here = dict(places)
        for f in factors:
            at = (f.operand.node, f.operand.layout)
            if at not in packed:
                packed[at] = _pack(f, f"p{len(packed)}_{names[f.operand.node]}", names, target)
            here[f.operand.node] = Place("const", len(frame.consts) + list(packed).index(at))
        arguments = tuple(here[n] for n in (*group.leaves, *(n for n, _ in group.outputs)))
        steps += _launches(made, arguments, status, len(checks))
    steps += frame.copies(fetches)
    if checks and Check(0, len(checks)) not in steps:
        steps.append(Check(0, len(checks)))
    plan = Plan(
        tuple(inputs),
        (*frame.consts, *packed.values()),
        tuple(fetches),
        frame.sizes,
        frame.slots,
        frame.solved,
        frame.guards,
        tuple(steps),
        frame.cells,
        greatest(scratch),
        _work(steps),
        tuple(checks),
    )
    built = tuple(
        _built(*pair, sharing[key] if pair is made[-1] else (), names) for key, made in kernels.items() for pair in made
    )
    return Program(plan, groups, built, names, _signature(plan, names), target, clock, frame, entry)


def _launches(
    made: Sequence[tuple[Kernel, Kernel]], arguments: Sequence[Place], status: int | None, checks: int
) -> list[Step]:
    """Return the steps that run the kernels of a group; if one of two does the checks, the other waits for them."""
    kernel, final = made[-1]
    if len(made) == 1:
        return [Launch(final, tuple(arguments), final.dims, status, parallel_chunk(final))]
    place = dict(zip(kernel.params, arguments, strict=True))
    before, first = made[0]
    read = tuple(place[b] for b in before.params if b in place)
    return [
        Launch(first, read, first.dims, status, parallel_chunk(first)),
        Check(0, checks),
        Launch(final, tuple(arguments), final.dims, None, parallel_chunk(final)),
    ]


def _fails_early(steps: Sequence[Step]) -> bool:
    """Tell whether everything is checked before any result of the program is written."""
    last = max((k for k, s in enumerate(steps) if isinstance(s, Check)), default=-1)
    for s in steps[: last + 1]:
        places = s.places if isinstance(s, Launch) else (s.target,) if isinstance(s, Copy) else ()
        if any(p.space == "output" for p in places):
            return False
    return True


def _final(group: FusionGroup, places: Mapping[Node, Place], again: Collection[Node], target: Target) -> list[int]:
    """Return which arguments of the kernel of `group` may bypass the caches: large results that no group reads `again`.

    The kernels of products store in their own way.
    """
    arrays = [*group.leaves, *(n for n, _ in group.outputs)]
    if group.kind not in ("map", "reduce") or is_large(map(nbytes_of, arrays), target) is False:
        return []
    return [
        k for k, n in enumerate(arrays) if k >= len(group.leaves) and places[n].space == "output" and n not in again
    ]


def _is_packable(operand: PackedOperand, places: Mapping[Node, Place]) -> bool:
    """Tell whether a factor is known when a session starts, and so is its size (an extent may be another's dim)."""
    return places[operand.node].space == "const" and not any(free_vars(d) for d in operand.shape)


def _build(
    group: FusionGroup,
    name: str,
    names: Mapping[Node, str],
    schedule: Schedule | StageSchedule,
    operands: Iterable[PackedOperand],
) -> Kernel:
    """Return the kernel of `group` for a CPU."""
    packed = {x.node: x.buffer(f"{names[x.node]}_packed") for x in operands}
    if isinstance(schedule, StageSchedule):
        return build_stages(group, name, names, schedule, packed)
    if schedule.form == "strips":
        return build(group, name, names)
    return build_contract(group, name, names, schedule, packed)


def _pack(factor: PackedFactor, name: str, names: Mapping[Node, str], target: Target) -> Packed:
    """Return how a constant factor is packed when a session starts."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    operand = factor.operand
    built = build_pack(factor.group, plain, local_names(factor.group, names), factor.schedule)
    shape = tuple(evaluate_index(d, {}) for d in operand.shape)
    return Packed(operand.node, operand.dtype, shape, operand.layout, run_pipeline(built, target))


def pack_program(packed: Sequence[Packed], names: Mapping[Node, str], target: Target, clock: Clock) -> Program:
    """Return the program that packs the arrays of its constants, to be run once when a session starts."""
    results = [make_placeholder(None, p.dtype, p.shape) for p in packed]
    called = {**names, **{r: f"packed_{k}" for k, r in enumerate(results)}}
    sources = list(dict.fromkeys(p.node for p in packed))
    steps = [
        Launch(
            p.kernel,
            (Place("const", sources.index(p.node)), Place("output", k)),
            p.kernel.dims,
            None,
            parallel_chunk(p.kernel),
        )
        for k, p in enumerate(packed)
    ]
    zero = const_index(0)
    plan = Plan((), tuple(sources), tuple(results), (), (), (), (), tuple(steps), (), zero, (), ())
    built = tuple(Built(p.kernel, p.kernel, ()) for p in packed)
    frame = Frame((), tuple(sources), (), (), (), (), {}, ())
    return Program(plan, (), built, called, _signature(plan, called), target, clock, frame, has_entry=False)


def _built(kernel: Kernel, final: Kernel, groups: Sequence[FusionGroup], names: Mapping[Node, str]) -> Built:
    """Return a kernel with the groups that share it; its notes say which these are."""
    again = []
    for group in groups[1 : _NOTED_GROUPS + 1]:
        node = group.outputs[-1][0]
        again.append(f"again for {names.get(node, node.op.name)}  # {node.site}")
    if len(groups) > _NOTED_GROUPS + 1:
        again.append(f"and for {len(groups) - _NOTED_GROUPS - 1} more")

    def noted(k: Kernel) -> Kernel:
        notes = (*k.notes, *again)
        return Kernel(k.name, k.params, k.dims, k.body, k.reads, notes, k.callees, k.aliased) if again else k

    return Built(noted(kernel), noted(final), tuple(groups))


#: Groups besides the first that a shared kernel's notes list one by one.
_NOTED_GROUPS = 8


def label_of(group: FusionGroup, names: Mapping[Node, str]) -> str:
    """Return what the group computes, in the user's words: the names of its outputs, without their numbers."""
    words = [names.get(n, n.op.name) for n, _ in group.outputs]
    plain = [re.sub(r"_\d+$", "", w) for w in words]
    return re.sub(r"\W", "_", "_".join(list(dict.fromkeys(plain))[:3]), flags=re.ASCII)[:_LABEL_LENGTH]


#: Characters of a user's names in the name of a kernel: symbols should stay readable.
_LABEL_LENGTH = 60


def local_names(group: FusionGroup, names: Mapping[Node, str]) -> dict[Node, str]:
    """Return names for the nodes of `group`, all those it reads included."""
    local = {n: names.get(n, n.op.name) for n in (*group.members, *group.leaves)}
    for node in group.members:
        for x in node.inputs:
            literal = literal_of(x)
            local.setdefault(x, names.get(x, x.op.name) if literal is None else repr(literal))
    return local


def group_key(group: FusionGroup) -> Any:
    """Return a key that is equal for groups whose kernels differ in nothing but the nodes they run on."""
    number: dict[Node, int] = {}
    for node in (*group.leaves, *group.members):
        number[node] = len(number)

    def known(node: Node) -> Any:
        return number.get(node, ("constant", node.attrs))

    def elements(es: Iterable[tuple[Node, tuple[Expr, ...]]]) -> Any:
        return tuple((number[n], tuple(dim_text(dim_of(i)) for i in at)) for n, at in es)

    return (
        group.kind,
        tuple((n.dtype, n.shape) for n in group.leaves),
        tuple((n.op.name, n.attrs, n.dtype, n.shape, tuple(known(x) for x in n.inputs)) for n in group.members),
        tuple((a.var.name, a.extent) for a in (*group.rows, *group.inner)),
        elements(group.outputs),
        elements(group.reductions),
        None if group.contract is None else number[group.contract],
        tuple((group_key(s), tuple(number.get(n) for n in (*s.leaves, *s.members))) for s in group.stages),
    )


def _check_message(node: Node, names: Mapping[Node, str]) -> str:
    text = f"{node.op.name} {names.get(node, '')!r}: index out of range at position {{position}} of its indices"
    return at_site(text, node.site)


def _work(steps: Iterable[Step]) -> tuple[Expr, ...]:
    """Return a rough estimate of the nanoseconds that `steps` take."""
    kernels = [s.kernel for s in steps if isinstance(s, Launch)]
    times = Counter(map(id, kernels))
    copied = [s.nbytes for s in steps if isinstance(s, Copy)]
    return (
        *(simplify_index(_work_of(k) * times[number]) for number, k in {id(k): k for k in kernels}.items()),
        *(simplify_index(nbytes // _COPIED_IN_A_NANOSECOND) for nbytes in copied),
    )


#: Bytes.
_COPIED_IN_A_NANOSECOND = 16


def _work_of(kernel: Kernel) -> Expr:
    """Return a rough estimate of the nanoseconds that `kernel` takes after all passes."""
    extent, chunk = parallel_extent(kernel), parallel_chunk(kernel)
    if extent is not None and chunk is not None and not kernel.dims:
        return simplify_index(extent * work_within(WORK_BETWEEN_POLLS, chunk) // 1000)
    return simplify_index(Costs(kernel, exact=bool(kernel.dims)).body(kernel.body) // 1000)


def _signature(plan: Plan, names: Mapping[Node, str]) -> ProgramSignature:
    slot_of = {size: k for k, size in enumerate(plan.sizes)}
    inputs = tuple(
        ArraySpec(names[n], n.dtype, tuple(Slot(slot_of[d]) if isinstance(d, Expr) else d for d in n.shape), n.site)
        for n in plan.inputs
    )
    return ProgramSignature(
        measure="measure",
        run="run",
        inputs=inputs,
        outputs=tuple(OutputSpec(names[n], n.dtype, len(n.shape), n.site) for n in plan.outputs),
        n_slots=len(plan.dims),
        n_status=len(plan.checks),
        guards=tuple(g.message for g in plan.guards),
        index_guards=tuple(k for k, g in enumerate(plan.guards) if g.is_index),
        checks=plan.checks,
        fails_early=_fails_early(plan.steps),
        shares=shares_work(plan),
        slot_names=tuple(dim_text(s) for s in plan.sizes) + tuple(s.var.name for s in plan.solved),
    )


def find_static(fetches: Sequence[Node], feeds: Collection[Node]) -> list[Node]:
    """Return the nodes to compute once when a session starts: results of constants alone that something else reads.

    Not those that are cheaper to recompute than to read (a broadcast scalar), nor those much larger than what they
    are made of.
    """
    order = toposort(fetches, set(feeds))
    static: dict[Node, bool] = {}
    for node in order:
        if node in feeds or node.op.name == "placeholder" or _has_dims(node.shape) or _has_dims(node.attrs):
            static[node] = False
        else:
            # What may fail must fail in the run that asks for it, not when the session starts.
            static[node] = not node.op.fallible and all(static[x] for x in node.inputs)
    frontier: dict[Node, None] = {}
    fetched = set(fetches)
    for node in order:
        if static[node] and node in fetched:
            frontier[node] = None
        if not static[node] and node not in feeds:
            frontier.update((x, None) for x in node.inputs if static[x])
    out: list[Node] = []
    for node in frontier:
        if node.op.source or node in feeds:
            continue
        below = toposort([node], set(feeds))
        if all(n.op.source or n.op.movement for n in below) and not _permutes(below):
            continue
        given = sum(_count(n) for n in below if n.op.source)
        if _count(node) <= max(1 << 16, 4 * given):
            out.append(node)
    return out


def _has_dims(x: Any) -> bool:
    """Tell whether a symbolic dim occurs in a shape or in attributes."""
    return isinstance(x, Expr) or (isinstance(x, tuple) and any(_has_dims(y) for y in x))


def _permutes(nodes: Iterable[Node]) -> bool:
    """Tell whether a movement among `nodes` costs something to redo: it changes the order of elements in memory."""
    return any(n.op.name in ("permute_dims", "flip", "roll", "concat", "pad") for n in nodes)


def _count(node: Node) -> int:
    count = element_count(node.shape)
    return count if isinstance(count, int) else 1 << 62


def show_group(group: FusionGroup, number: int, names: Mapping[Node, str]) -> str:
    """Return `group` as text: its domain, its nodes, what it writes."""
    axes = ", ".join(f"{a.var.name} in {dim_text(dim_of(a.extent))}" for a in group.rows)
    inner = ", ".join(f"{a.var.name} in {dim_text(dim_of(a.extent))}" for a in group.inner)
    head = f"group {number} {group.kind} over ({axes})" + (f" folding ({inner})" if inner else "")
    lines = [head + ":"]
    for s in group.stages or (group,):
        lines += [f"  stage {s.kind}"] * bool(group.stages)
        lines += [f"  {line}" for line in notes_of(s, local_names(s, names))]
    if group.stages:
        lines.append(f"  keeps {', '.join(names.get(n, n.op.name) for n in kept_by(group))}")
    lines.append(f"  writes {', '.join(names.get(n, n.op.name) for n, _ in group.outputs)}")
    return "\n".join(lines) + "\n"
