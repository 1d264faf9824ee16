"""Loop IR to a Python function for the loop interpreter: a line or block per statement, evaluated by `lowering.exact`.

A kernel with barriers or shuffles becomes a generator: ``yield ("barrier", site)`` waits for the other threads,
``yield (name, site, value, by)`` for the value of another one. The first argument is the running thread, which also
knows the clock of races; then come the memories of the parameters and the dims.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from jitflow.dtypes import DType
from jitflow.errors import CompilerBug
from jitflow.expr import (
    Binary,
    Bitcast,
    Buffer,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Fma,
    Load,
    Ramp,
    Select,
    Shuffle,
    Splat,
    Type,
    Unary,
    Var,
    as_index,
    substitute,
    type_of,
)
from jitflow.record import walk
from lowering import exact, vecmath
from lowering.checked_memory import Clock, Memory, allocate
from lowering.exact import np_dtype
from lowering.loop_ir import (
    Alloc,
    Atomic,
    Barrier,
    Body,
    CallKernel,
    CheckIndex,
    For,
    If,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
    While,
    statements,
)
from lowering.printer import COMPARE, INFIX, LEAD, LOOKUP, MASK_CALLS, show

SHUFFLES = ("shfl_down", "shfl_up", "shfl_xor", "shfl_idx")
_UNARY = {
    "abs": "abs",
    "sqrt": "np.sqrt",
    "floor": "np.floor",
    "ceil": "np.ceil",
    "trunc": "np.trunc",
    "round": "np.rint",
}


class Program:
    """A kernel as a Python function `run`; for a GPU kernel `launch` gives grid and block sizes for the dims."""

    __slots__ = ("kernel", "launch", "names", "origins", "run")

    def __init__(self, kernel: Kernel, fma: bool) -> None:
        self.kernel = kernel
        t = _Translator(kernel.name, fma, kernel.callees, self)
        source = t.function(kernel)
        #: Per line of the source, the statement it comes from; per Python variable, its name in the IR.
        self.origins: list[Stmt | None] = t.origins
        self.names: dict[str, str] = t.displayed
        exec(compile(source, f"<kernel {kernel.name}>", "exec"), t.env)
        self.run: Callable[..., Any] = t.env["run"]
        self.launch: Callable[..., tuple[tuple[int, ...], tuple[int, ...]]] | None = t.env.get("launch")

    def start(self, thread: object, *args: object) -> Generator[Any, Any, None]:
        """Run as a generator, also when the kernel has nothing to wait for."""
        waiting = self.run(thread, *args)
        if inspect.isgenerator(waiting):
            yield from waiting

    def describe(self, error: Exception) -> str:
        """Return what went wrong, in which statement, with which values of its variables."""
        message = (
            str(error) if isinstance(error, CompilerBug) else "".join(traceback.format_exception_only(error)).strip()
        )
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            program = frame.f_globals.get("__program__")
            if isinstance(program, Program):
                s = program.origins[line - 1]
                values = ", ".join(
                    f"{name} = {frame.f_locals[v]}"
                    for v, name in program.names.items()
                    if isinstance(frame.f_locals.get(v), int)
                )
                statement = show(s).split("\n")[0] if s is not None else "its header"
                where = f"{message}\n  in kernel {program.kernel.name}: {statement}"
                return f"{where}\n  with {values}" if values else where
        return f"{message}\n  in kernel {self.kernel.name}"


def waiting_at(thread: Generator[Any, Any, None]) -> str:
    """Return the statement of the program in which a started thread waits."""
    inner: Any = thread
    while inspect.isgenerator(inner.gi_yieldfrom):
        inner = inner.gi_yieldfrom
    program = inner.gi_frame.f_globals["__program__"]
    return show(program.origins[inner.gi_frame.f_lineno - 1]).split("\n")[0]


@functools.lru_cache(maxsize=64)
def to_python(kernel: Kernel, fma: bool = True) -> Program:
    """Return `kernel` as a program of the loop interpreter; `fma` chooses the form of the maths functions."""
    return Program(kernel, fma)


class _Translator:
    def __init__(self, name: str, fma: bool, callees: tuple[Kernel, ...] = (), program: Program | None = None) -> None:
        self.title, self.fma, self.callees = name, fma, callees
        self.lines: list[str] = []
        self.origins: list[Stmt | None] = []
        self.names: dict[Var | Buffer, str] = {}
        self.displayed: dict[str, str] = {}
        self.env: dict[str, Any] = {"__program__": program, "np": np, "exact": exact}
        self.origin: Stmt | None = None
        self.serial = 0
        self.allocated: list[Buffer] = []
        #: The lanes that are on in the arm of a vector select, as Python text.
        self.guard: str | None = None

    def fresh(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def site(self) -> str:
        """Return a name for the place in this kernel, as Python text; callees have others."""
        return repr(self.fresh(f"{self.title}."))

    def put(self, indent: str, text: str) -> None:
        self.lines.append(indent + text)
        self.origins.append(self.origin)

    def bind(self, x: Var | Buffer) -> str:
        name = self.names[x] = self.fresh("v" if isinstance(x, Var) else "b")
        if isinstance(x, Var):
            self.displayed[name] = x.name
        return name

    def name(self, x: Var | Buffer) -> str:
        found = self.names.get(x)
        if found is None:
            raise CompilerBug(f"{x.name} is used but not bound in {self.title}")
        return found

    def constant(self, value: object) -> str:
        name = self.fresh("c")
        self.env[name] = value
        return name

    # functions

    def function(self, k: Kernel) -> str:
        args = [self.bind(b) for b in k.params] + [self.bind(v) for v in k.dims]
        self.put("", f"def run({', '.join(['thread', *args])}):")
        for b in k.params:
            self.put("  ", f"{self.name(b)} = {self.name(b)}.declare({self.shape(b)})")
        self.body(k.body, "  ")
        self.launch(k)
        return "\n".join(self.lines)

    def launch(self, k: Kernel) -> None:
        """Add the function that computes the grid from the extents of block and thread loops."""
        loops = [s for s in statements(k.body) if isinstance(s, For) and s.kind in ("block", "thread")]
        if not loops:
            return
        lets: dict[Var, Expr] = {s.var: s.value for s in k.body if isinstance(s, Let)}
        self.origin = None
        self.put("", f"def launch({', '.join(self.name(v) for v in k.dims)}):")
        self.put("  ", "grid, block = [1, 1, 1], [1, 1, 1]")
        for s in loops:
            extent = s.extent
            while any(x in lets for x in walk(extent) if isinstance(x, Var)):
                extent = substitute(extent, lets)
            if any(isinstance(x, Load) or (isinstance(x, Var) and x not in k.dims) for x in walk(extent)):
                raise CompilerBug(f"the extent of a {s.kind} loop must follow from the dims: {show(s).splitlines()[0]}")
            size = f"{'grid' if s.kind == 'block' else 'block'}[{s.axis}]"
            self.put("  ", f"{size} = max({size}, {self.expr(extent)})")
        self.put("  ", "return tuple(grid), tuple(block)")

    def shape(self, b: Buffer) -> str:
        return _tuple([self.expr(as_index(n)) for n in b.shape])

    # statements

    def body(self, body: Body, indent: str) -> None:
        for s in body:
            self.origin = s
            self.statement(s, indent)
        if not body:
            self.put(indent, "pass")

    def statement(self, s: Stmt, indent: str) -> None:
        inner = indent + "  "
        match s:
            case Let(var, value):
                text = self.expr(value)
                self.put(indent, f"{self.bind(var)} = {text}")
            case Store():
                self.store(s, indent)
            case For(var, extent, body, kind, axis):
                bound = self.expr(extent)
                name = self.bind(var)
                if kind in ("block", "thread"):
                    self.put(indent, f"{name} = thread.{kind}[{axis}]")
                    self.put(indent, f"if {name} < {bound}:")
                elif kind in ("parallel", "vectorized"):
                    self.put(indent, f"for {name} in thread.clock.iterations({bound}):")
                    if kind == "parallel":
                        self.renew_private(inner)
                else:
                    self.put(indent, f"for {name} in range({bound}):")
                self.body(body, inner)
            case While(cond, body):
                self.put(indent, f"while {self.expr(cond)}:")
                self.body(body, inner)
            case If(cond, then, otherwise):
                self.put(indent, f"if {self.expr(cond)}:")
                self.body(then, inner)
                if otherwise:
                    self.put(indent, "else:")
                    self.body(otherwise, inner)
            case Alloc(buffer):
                self.bind(buffer)
                self.allocated.append(buffer)
                self.allocate(buffer, indent)
            case Barrier():
                self.put(indent, f"yield ('barrier', {self.site()})")
            case CheckIndex(status, slot, ok, position, mask):
                args = [str(slot), self.expr(ok), self.expr(position), "True" if mask is None else self.expr(mask)]
                self.put(indent, f"{self.name(status)}.check_index({', '.join(args)})")
            case Atomic(op, buffer, subscripts, value):
                args = [repr(op), self.expr(value), *map(self.expr, subscripts)]
                self.put(indent, f"{self.name(buffer)}.atomic({', '.join(args)})")
            case Prefetch():
                self.put(indent, "pass")
            case CallKernel():
                self.call_kernel(s, indent)
            case _:
                raise CompilerBug(f"the loop interpreter has no {type(s).__name__}")

    def allocate(self, buffer: Buffer, indent: str) -> None:
        site, spec = self.site(), self.constant(buffer)
        self.put(indent, f"{self.name(buffer)} = thread.allocate({site}, {spec}, {self.shape(buffer)})")

    def renew_private(self, indent: str) -> None:
        """Forget what is in buffers made before a parallel loop: each worker has its own, and runs any iterations."""
        for b in self.allocated:
            self.allocate(b, indent)

    def store(self, s: Store, indent: str) -> None:
        value, memory, where = self.expr(s.value), self.name(s.buffer), [self.expr(i) for i in s.index]
        lanes = max([i.type.lanes for i in s.index], default=1)
        if lanes > 1:
            mask = "None" if s.mask is None else self.expr(s.mask)
            self.put(indent, f"{memory}.store_lanes({', '.join([value, str(lanes), mask, *where])})")
        else:
            test = "" if s.mask is None else f"if {self.expr(s.mask)}: "
            self.put(indent, f"{test}{memory}.store({', '.join([value, *where])})")

    def call_kernel(self, s: CallKernel, indent: str) -> None:
        callee = next((k for k in self.callees if k.name == s.kernel), None)
        if callee is None:
            raise CompilerBug(f"{self.title} calls {s.kernel}, which is not among its callees")
        run = to_python(callee, self.fma).run
        views = [f"{self.name(b)}.view({self.expr(o)})" for b, o in zip(s.buffers, s.offsets, strict=True)]
        wait = "yield from " if inspect.isgeneratorfunction(run) else ""
        args = ["thread", *views, *map(self.expr, s.args)]
        self.put(indent, f"{wait}{self.constant(run)}({', '.join(args)})")

    # expressions

    def expr(self, e: Expr) -> str:
        match e:
            case Const(value, of):
                return self.literal(value, of)
            case Var():
                return self.name(e)
            case Load():
                return self.load(e)
            case Binary(op, a, b):
                return self.binary(op, self.expr(a), self.expr(b), e.type)
            case Unary(op, a):
                return self.unary(op, self.expr(a), e.type)
            case Compare(op, a, b):
                text = f"({self.expr(a)} {COMPARE[op]} {self.expr(b)})"
                return f"bool{text}" if a.type.dtype.is_float and a.type.lanes == 1 else text
            case Select():
                return self.select(e)
            case Cast(a, to):
                return self.cast(self.expr(a), a.type, to)
            case Bitcast(a, to):
                return self.bitcast(self.expr(a), a.type, to)
            case Call():
                return self.call(e)
            case Fma(a, b, c):
                return f"exact.fma({self.expr(a)}, {self.expr(b)}, {self.expr(c)})"
            case Splat(a, lanes) | Ramp(a, _, lanes) if lanes == 1:
                return self.expr(a)
            case Splat(a, lanes):
                return self.repeated(a, lanes)
            case Ramp(base, stride, lanes):
                dtype = np_dtype(base.type.dtype)
                steps = self.constant(np.arange(lanes, dtype=dtype) * dtype.type(stride))
                return f"(np.{dtype}({self.expr(base)}) + {steps})"
            case Shuffle(a, lanes, b):
                return self.shuffle(a, lanes, b)
            case _:
                raise CompilerBug(f"the loop interpreter has no {type(e).__name__}")

    def repeated(self, a: Expr, lanes: int) -> str:
        return f"np.full({lanes}, {self.expr(a)}, {self.constant(np_dtype(a.type.dtype))})"

    def literal(self, value: int | float | bool, of: Type) -> str:
        if of.lanes > 1:
            return self.constant(np.full(of.lanes, value, np_dtype(of.dtype)))
        if of.dtype.is_float:
            return self.constant(np_dtype(of.dtype).type(value))
        return f"({value})" if value < 0 else str(value)

    def load(self, e: Load) -> str:
        memory, where = self.name(e.buffer), [self.expr(i) for i in e.index]
        lanes, guard = e.type.lanes, self.guard
        if lanes > 1:
            masks = [m for m in (guard, None if e.mask is None else self.expr(e.mask)) if m is not None]
            return f"{memory}.load_lanes({', '.join([str(lanes), ' & '.join(masks) or 'None', *where])})"
        text = f"{memory}.load({', '.join(where)})"
        tests = [] if guard is None else [f"({guard}).any()"]
        tests += [] if e.mask is None else [self.expr(e.mask)]
        return f"({text} if {' and '.join(tests)} else {self.literal(0, e.type)})" if tests else text

    def select(self, e: Select) -> str:
        if e.cond.type.lanes == 1:
            return f"({self.expr(e.a)} if {self.expr(e.cond)} else {self.expr(e.b)})"
        cond, outer, on = self.expr(e.cond), self.guard, self.fresh("t")
        within = "" if outer is None else f"{outer} & "
        self.guard = f"{within}{on}"
        a = self.expr(e.a)
        self.guard = f"{within}~{on}"
        b = self.expr(e.b)
        self.guard = outer
        return f"np.where(({on} := {cond}), {a}, {b})"

    def binary(self, op: str, a: str, b: str, of: Type) -> str:
        dtype, lanes = of.dtype, "_lanes" if of.lanes > 1 else ""
        match op:
            case "add" | "mul" if dtype.is_bool:
                return f"({a} {'|' if op == 'add' else '&'} {b})"
            case "add" | "sub" | "mul":
                return _wrapped(f"({a} {INFIX[op][0]} {b})", of)
            case "div" | "and" | "or" | "xor":
                return f"({a} {INFIX[op][0]} {b})"
            case "floordiv" | "mod":
                return _wrapped(f"exact.{op}{lanes}({a}, {b})", of)
            case "shl" | "shr":
                return _wrapped(f"exact.{op}{lanes}({a}, {b}, {dtype.bits})", of)
            case "min" | "max" if dtype.is_float:
                return f"exact.f{op}{lanes}({a}, {b})"
            case "min" | "max":
                return f"np.{op}imum({a}, {b})" if lanes else f"{op}({a}, {b})"
            case _:
                raise CompilerBug(f"unknown operator {op!r}")

    def unary(self, op: str, a: str, of: Type) -> str:
        if op == "neg":
            return _wrapped(f"(-{a})", of)
        if op == "not":
            return f"(not {a})" if of.dtype.is_bool and of.lanes == 1 else _wrapped(f"(~{a})", of)
        if op != "abs" and of.dtype.is_integer:
            return a
        return _wrapped(f"{_UNARY[op]}({a})", of)

    def cast(self, a: str, of: Type, to: DType) -> str:
        source, lanes = of.dtype, of.lanes > 1
        if to.is_bool:
            return f"({a} != 0)" if lanes or not source.is_float else f"bool({a} != 0)"
        if to.is_float:
            convert = "to_float_lanes" if lanes else "from_int" if source.is_integer else "to_float"
            return f"exact.{convert}({a}, {self.constant(to)})"
        if source.is_float:
            args = self.constant(to) if lanes else f"{to.min}, {to.max}"
            return f"exact.saturate{'_lanes' if lanes else ''}({a}, {args})"
        if lanes:
            return f"{a}.astype(np.{np_dtype(to)})"
        return f"int({a})" if source.is_bool else _wrapped(a, type_of(to))

    def bitcast(self, a: str, of: Type, to: DType) -> str:
        if of.lanes > 1:
            return f"{a}.view({self.constant(np_dtype(to))})"
        return f"exact.bitcast({a}, {self.constant(np_dtype(of.dtype))}, {self.constant(np_dtype(to))})"

    def shuffle(self, a: Expr, lanes: tuple[int, ...], b: Expr | None) -> str:
        text, dtype = self.expr(a), a.type.dtype
        if b is not None:
            text = f"np.concatenate(({text}, {self.expr(b)}))"
        if a.type.lanes == 1:
            return text if len(lanes) == 1 else self.repeated(a, len(lanes))
        if len(lanes) > 1:
            return f"{text}[{self.constant(np.array(lanes))}]"
        return f"{text}[{lanes[0]}]" if dtype.is_float else f"{text}[{lanes[0]}].item()"

    def call(self, e: Call) -> str:
        if e.name == LEAD:
            (element,) = e.args
            assert isinstance(element, Load)
            # As if every row began at a cache line.
            return f"(-({self.expr(element.index[-1])}) % {64 // element.buffer.dtype.itemsize})"
        args = [self.expr(a) for a in e.args]
        if e.name in SHUFFLES:
            return f"(yield ({e.name!r}, {self.site()}, {args[0]}, {args[1]}))"
        if e.name == LOOKUP:
            table = np.array([c.value for c in e.args[:-1] if isinstance(c, Const)], np_dtype(e.type.dtype))
            return f"{self.constant(table)}[{args[-1]} & {len(table) - 1}]"
        if e.name in MASK_CALLS:
            return f"bool(({args[0]}).{e.name}())"
        return f"{self.constant(_function(e.name, e.of, self.fma))}({', '.join(args)})"


class _OwnMemory:
    """Stands for the running thread in a maths function: nobody else sees the buffers that it makes."""

    def allocate(self, site: int, buffer: Buffer, shape: tuple[int, ...]) -> Memory:
        return allocate(buffer.name, buffer.dtype, shape, Clock(False), 0)


@functools.cache
def _function(name: str, of: Type, fma: bool) -> Callable[..., Any]:
    """Return the vector-maths function `name` on values of type `of`."""
    f = vecmath.define(name, of, fma=fma)
    t = _Translator(name, fma)
    t.env["thread"] = _OwnMemory()
    t.put("", f"def run({', '.join(t.bind(p) for p in f.params)}):")
    t.body(f.body, "  ")
    t.put("  ", f"return {t.expr(f.result)}")
    exec(compile("\n".join(t.lines), f"<function {name}>", "exec"), t.env)
    run: Callable[..., Any] = t.env["run"]
    return run


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _wrapped(text: str, of: Type) -> str:
    """Return Python text whose value is `text` wrapped into the integers of `of`; vectors wrap by themselves."""
    dtype = of.dtype
    if of.lanes > 1 or dtype.kind not in "iu":
        return text
    mask, half = (1 << dtype.bits) - 1, -dtype.min
    return f"(({text} + {half} & {mask}) - {half})" if half else f"({text} & {mask})"
