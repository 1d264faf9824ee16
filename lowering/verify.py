"""Check the invariants of loop IR: a kernel in, nothing out; a CompilerBug names the first statement that breaks one.

Always: types fit (operands, stored values, conditions, subscripts, masks and their lanes); a variable is bound once,
a variable or buffer used only where it is visible; parameters marked ``read`` are not written; there is no `Reduce`;
float16 and bfloat16 are loaded, stored, moved, selected and cast, but nothing else is done to them;
a ``parallel`` loop is the last statement of the kernel, after Lets and Allocs only; ``block`` and ``thread`` loops do
not mix with it; barriers are where all threads of a block come by.

By stage: ``scalar`` (before ``vectorize``) allows no vectors; ``after_unroll`` wants no ``unrolled`` loop of constant
extent and only constant subscripts of ``register`` buffers.

What it does not prove: bounds, definedness and the independence of iterations; the interpreter checks these as it runs.
"""

from __future__ import annotations

from typing import Literal, NoReturn, TypeAlias

from jitflow.dtypes import index, int32, int64, uint64
from jitflow.errors import CompilerBug
from jitflow.expr import (
    BOOL,
    INDEX,
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
    Reduce,
    Select,
    Shuffle,
    Splat,
    Type,
    Unary,
    Var,
    as_index,
    round_to,
    type_of,
)
from jitflow.record import walk
from lowering.loop_ir import (
    LOOP_KINDS,
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
from lowering.printer import ATOMIC_OPS, BUILTINS, ENTRIES, LEAD, LOOKUP, MASK_CALLS, SPACES, show
from lowering.to_python import SHUFFLES
from lowering.vecmath import philox

Stage: TypeAlias = Literal["any", "scalar", "after_unroll"]

#: Bytes of one buffer on the stack: a frame beyond 16 KB could jump over the guard page.
STACK_LIMIT = 16 << 10

_NUMBERS, _BITS = "iufx", "biux"
_BINARY_KINDS = {
    "add": "biufx",
    "sub": _NUMBERS,
    "mul": "biufx",
    "div": "f",
    "floordiv": "iux",
    "mod": "iux",
    "min": "biufx",
    "max": "biufx",
    "and": _BITS,
    "or": _BITS,
    "xor": _BITS,
    "shl": "iu",
    "shr": "iu",
}
_UNARY_KINDS = {
    "neg": _NUMBERS,
    "not": "biu",
    "abs": _NUMBERS,
    "sqrt": "f",
    "floor": _NUMBERS,
    "ceil": _NUMBERS,
    "trunc": _NUMBERS,
    "round": _NUMBERS,
}


def verify(kernel: Kernel, *, stage: Stage = "any") -> None:
    """Raise CompilerBug if `kernel` or one of its callees breaks an invariant of loop IR at `stage`."""
    _Verifier(kernel, stage).kernel_()
    for callee in kernel.callees:
        if any(isinstance(s, For) and s.kind in ("parallel", "block", "thread") for s in statements(callee.body)):
            raise CompilerBug(f"a called kernel has no parallel, block or thread loops\n  in kernel {callee.name}")
        verify(callee, stage=stage)


class _Verifier:
    def __init__(self, kernel: Kernel, stage: Stage) -> None:
        self.kernel, self.stage = kernel, stage
        self.visible: set[Var | Buffer] = set()
        self.bound: set[Var | Buffer] = set()
        self.at: Stmt | None = None
        loops = [s for s in statements(kernel.body) if isinstance(s, For)]
        self.is_gpu = any(s.kind in ("block", "thread") for s in loops)
        self.is_parallel = any(s.kind == "parallel" for s in loops)
        #: Extents of thread loops by axis: a block is as large as the largest.
        self.threads: dict[int, set[Expr]] = {}
        for s in loops:
            if s.kind == "thread":
                self.threads.setdefault(s.axis, set()).add(s.extent)
        #: Variables that may differ between the threads of a block.
        self.varying: set[Var] = set()

    def fail(self, message: str) -> NoReturn:
        where = f": {show(self.at).splitlines()[0]}" if self.at is not None else ""
        raise CompilerBug(f"{message}\n  in kernel {self.kernel.name}{where}")

    def check(self, ok: bool, message: str, e: Expr | None = None) -> None:
        """Fail with `message`, followed by the expression `e`, unless `ok`."""
        if not ok:
            self.fail(message if e is None else f"{message}: {show(e)}")

    # kernels

    def kernel_(self) -> None:
        k = self.kernel
        self.check(k.name.isidentifier(), f"a kernel's name must be an identifier, not {k.name!r}")
        for v in k.dims:
            self.check(v.type is INDEX, f"dim {v.name} must be an index, not {v.type}")
            self.bind(v)
        for b in k.params:
            self.check(b.space == "global", f"parameter {b.name} must be global, not {b.space}")
            self.shape(b)
            self.bind(b)
        self.check(k.reads <= set(k.params), "only parameters can be marked as read")
        self.check(k.aliased <= set(k.params), "only parameters can be marked as aliased")
        self.body(k.body, (), divergent=False)

    def bind(self, x: Var | Buffer) -> None:
        self.check(x not in self.bound, f"{x.name} is bound twice")
        self.bound.add(x)
        self.visible.add(x)

    def shape(self, b: Buffer) -> None:
        for n in b.shape:
            e = as_index(n)
            self.check(e.type is INDEX, f"a size of {b.name} is {e.type}, not an index")
            self.expr(e)
            self.check(not isinstance(e, Const) or e.value >= 0, f"{b.name} has a negative size")

    # statements

    def body(self, body: Body, loops: tuple[For | While, ...], divergent: bool) -> None:
        outer = set(self.visible)
        for s in body:
            self.at = s
            self.statement(s, loops, divergent)
        self.visible = outer

    def statement(self, s: Stmt, loops: tuple[For | While, ...], divergent: bool) -> None:
        match s:
            case Let(var, value):
                self.expr(value)
                self.check(var.type is value.type, f"{var.name} is {var.type}, its value {value.type}")
                if self.varies(value):
                    self.varying.add(var)
                self.bind(var)
            case Store(buffer, subscripts, value, mask, _):
                self.expr(value)
                of = self.access(buffer, subscripts, mask)
                self.check(value.type is of, f"{value.type} is stored where {of} belongs")
                self.written(buffer)
            case For():
                self.loop(s, loops, divergent)
            case While(cond, body):
                self.condition(cond)
                self.body(body, (*loops, s), divergent or self.varies(cond))
            case If(cond, then, otherwise):
                self.condition(cond)
                divergent = divergent or self.varies(cond)
                self.body(then, loops, divergent)
                self.body(otherwise, loops, divergent)
            case Alloc(buffer):
                self.alloc(buffer)
            case Barrier():
                self.check(bool(self.threads), "a barrier needs thread loops")
                self.check(not divergent, "this barrier is not reached by all threads of the block alike")
            case CheckIndex():
                self.check_index(s)
            case Atomic(op, buffer, subscripts, value):
                self.check(op in ATOMIC_OPS, f"unknown atomic operation {op!r}")
                self.expr(value)
                of = self.access(buffer, subscripts, None)
                self.check(of.lanes == 1, "an atomic updates one element, not a vector")
                self.check(value.type is of, f"an update of {of} by {value.type}")
                self.written(buffer)
            case Prefetch(buffer, subscripts, _):
                self.check(buffer.space in ("global", "scratch"), f"nothing to prefetch from {buffer.space} memory")
                of = self.access(buffer, subscripts, None)
                self.check(of.lanes == 1, "a prefetch names one element, not a vector")
            case CallKernel():
                self.call_kernel(s)
            case _:
                self.fail(f"{type(s).__name__} is no statement of loop IR")

    def loop(self, s: For, loops: tuple[For | While, ...], divergent: bool) -> None:
        self.check(s.kind in LOOP_KINDS, f"unknown kind of loop {s.kind!r}")
        self.check(s.var.type is INDEX, f"loop variable {s.var.name} is {s.var.type}, not an index")
        self.expr(s.extent)
        self.check(s.extent.type is INDEX, f"the extent is {s.extent.type}, not an index")
        on_gpu = s.kind in ("block", "thread")
        self.check(s.axis in ((0, 1, 2) if on_gpu else (0,)), f"a {s.kind} loop has no axis {s.axis}")
        if s.poll is not None:
            self.expr(s.poll)
            self.check(s.poll.type is INDEX, f"the loop polls every {s.poll.type}, not every index")
            self.check(s.kind in ("serial", "parallel"), f"a {s.kind} loop does not poll")
            self.check(not self.is_gpu, "a loop polls in a kernel with block or thread loops")
        constant = isinstance(s.extent, Const)
        if s.kind == "parallel":
            before = self.kernel.body[:-1]
            alone = s is self.kernel.body[-1] and all(isinstance(x, (Let, Alloc)) for x in before)
            self.check(alone, "a parallel loop must be the last statement of the kernel, after Lets and Allocs only")
        if on_gpu:
            self.check(not self.is_parallel, f"a {s.kind} loop in a kernel with a parallel loop")
            around = [x for x in loops if isinstance(x, For)]
            self.check(
                all(x.kind != s.kind or x.axis != s.axis for x in around),
                f"a {s.kind} loop inside one of the same axis",
            )
            self.check(s.kind == "thread" or all(x.kind != "thread" for x in around), "a block loop in a thread loop")
            self.check(not self.varies(s.extent), f"the extent of a {s.kind} loop differs between threads")
        if self.stage == "after_unroll":
            self.check(s.kind != "unrolled" or not constant, "an unrolled loop is left after unroll")
        if s.kind == "thread":
            self.varying.add(s.var)
            # Where thread loops of one axis differ, the threads beyond the smaller extent do not come by.
            divergent = divergent or len(self.threads[s.axis]) > 1
        elif self.varies(s.extent):
            divergent = True
            self.varying.add(s.var)
        outer = set(self.visible)
        self.bind(s.var)
        self.body(s.body, (*loops, s), divergent)
        self.visible = outer

    def condition(self, cond: Expr) -> None:
        self.expr(cond)
        self.check(cond.type is BOOL, f"a condition must be a bool, not {cond.type}")

    def alloc(self, b: Buffer) -> None:
        self.check(b.space in SPACES and b.space != "global", f"{b.name} cannot be allocated in {b.space} space")
        self.check(b.dtype is not index, f"{b.name} holds indices; memory holds i64")
        self.check(b.space != "shared" or self.is_gpu, "shared memory in a kernel without block or thread loops")
        self.shape(b)
        if b.space != "scratch":
            size = b.dtype.itemsize
            for n in b.shape:
                e = as_index(n)
                if not isinstance(e, Const):
                    self.fail(f"the size of a {b.space} buffer must be constant")
                size *= int(e.value)
            self.check(b.space == "shared" or size <= STACK_LIMIT, f"{size} bytes of {b.space}; use scratch")
        self.bind(b)

    def check_index(self, s: CheckIndex) -> None:
        for e in (s.ok, s.position):
            self.expr(e)
        self.use(s.status)
        self.check(s.status.dtype is int64 and len(s.status.shape) == 1, "a status is a vector of i64")
        size = as_index(s.status.shape[0])
        self.check(s.slot >= 0 and not (isinstance(size, Const) and s.slot >= size.value), f"no status slot {s.slot}")
        lanes = s.ok.type.lanes
        self.check(s.ok.type is BOOL.with_lanes(lanes), f"the test of an index must be a bool, not {s.ok.type}")
        fits = s.position.type.lanes == lanes and s.position.type.dtype in (index, int64)
        self.check(fits, f"the position must be an index with {lanes} lanes, not {s.position.type}")
        self.mask(s.mask, lanes)
        self.written(s.status)

    def call_kernel(self, s: CallKernel) -> None:
        callee = next((k for k in self.kernel.callees if k.name == s.kernel), None)
        if callee is None:
            self.fail(f"{s.kernel} is not among the callees")
        counts = (len(s.buffers), len(s.offsets), len(s.args))
        wanted = (len(callee.params), len(callee.params), len(callee.dims))
        self.check(counts == wanted, f"{s.kernel} takes {wanted[0]} buffers and {wanted[2]} arguments")
        for e in (*s.offsets, *s.args):
            self.expr(e)
            self.check(e.type is INDEX, f"offsets and arguments of a call are indices, not {e.type}")
        for given, param in zip(s.buffers, callee.params, strict=True):
            self.use(given)
            self.check(given.dtype is param.dtype, f"{given.name} is {given.dtype.short}, wanted {param.dtype.short}")
            if param not in callee.reads:
                self.written(given)

    def written(self, b: Buffer) -> None:
        self.check(b not in self.kernel.reads, f"{b.name} is marked as read but written")

    def use(self, x: Var | Buffer) -> None:
        if x not in self.visible:
            self.fail(f"{x.name} is used {'outside of its scope' if x in self.bound else 'before it is bound'}")

    # expressions

    def access(self, b: Buffer, subscripts: tuple[Expr, ...], mask: Expr | None) -> Type:
        """Check the subscripts of an access; return the type of what it reads or writes."""
        self.use(b)
        self.check(len(subscripts) == len(b.shape), f"{len(subscripts)} subscripts for {b.name} of rank {len(b.shape)}")
        lanes = 1
        for e in subscripts:
            self.expr(e)
            self.check(e.type.dtype is index, f"a subscript of {b.name} is {e.type}, not an index")
            self.check(e.type.lanes in (1, lanes) or lanes == 1, f"subscripts of {b.name} differ in lanes")
            lanes = max(lanes, e.type.lanes)
            if b.space == "register" and self.stage == "after_unroll":
                self.check(_is_constant(e), f"a subscript of register buffer {b.name} is not constant after unroll")
        self.check(mask is None or lanes > 1, "a mask without lanes; use If")
        self.mask(mask, lanes)
        return type_of(b.dtype, lanes)

    def mask(self, mask: Expr | None, lanes: int) -> None:
        if mask is not None:
            self.expr(mask)
            self.check(mask.type is BOOL.with_lanes(lanes), f"the mask is {mask.type} for {lanes} lanes")

    def expr(self, e: Expr) -> None:
        """Check `e` and everything below it."""
        if self.stage == "scalar":
            self.check(e.type.lanes == 1, "a vector before vectorize", e)
        match e:
            case Const(value, of):
                self.literal(value, of)
            case Var():
                self.use(e)
            case Load(buffer, subscripts, mask):
                self.access(buffer, subscripts, mask)
            case Binary(op, a, b):
                self.operands(e, a, b)
                self.operator(e, op, _BINARY_KINDS)
                self.computes(e, a)
            case Unary(op, a):
                self.operands(e, a)
                self.operator(e, op, _UNARY_KINDS)
                self.computes(e, a)
            case Compare(op, a, b):
                self.operands(e, a, b)
                self.computes(e, a)
                self.check(op in Compare.OPS, f"unknown comparison {op!r}")
            case Select(cond, a, b):
                self.expr(cond)
                fits = cond.type in (BOOL, BOOL.with_lanes(a.type.lanes))
                self.check(fits, f"the condition is {cond.type} for {a.type}", e)
                if cond.type.lanes > 1:
                    # Its loads happen where their arm is taken, lane by lane, which a shuffle would mix up.
                    mixed = any(_mixes_loaded_lanes(x) for arm in (a, b) for x in walk(arm))
                    self.check(not mixed, "a load under a shuffle in an arm of a select with lanes", e)
                self.operands(e, a, b)
            case Cast(a, _):
                self.operands(e, a)
            case Bitcast(a, to):
                self.operands(e, a)
                same = a.type.dtype.bits == to.bits and not to.is_bool
                self.check(same, f"a bitcast of {a.type.dtype.short} to {to.short}", e)
            case Call():
                self.call(e)
            case Fma(a, b, c):
                self.operands(e, a, b, c)
                self.check(e.type.dtype.is_float, f"no fma of {e.type}", e)
                self.computes(e, a)
            case Splat(a, lanes):
                self.operands(e, a)
                self.check(a.type.lanes == 1 and lanes >= 1, "a splat makes lanes of a scalar", e)
            case Ramp(base, _, lanes):
                self.operands(e, base)
                fits = base.type.lanes == 1 and base.type.dtype.is_integer and lanes >= 1
                self.check(fits, "a ramp starts from a scalar integer", e)
            case Shuffle(a, lanes, b):
                self.operands(e, a, *(() if b is None else (b,)))
                self.check(b is None or a.type.lanes > 1, "a shuffle of two takes vectors", e)
                count = a.type.lanes if b is None else 2 * a.type.lanes
                inside = bool(lanes) and all(0 <= i < count for i in lanes)
                self.check(inside, f"a shuffle picks from {count} lanes", e)
            case Reduce():
                self.fail(f"a reduce must have become a loop: {show(e)}")
            case _:
                self.fail(f"{type(e).__name__} is no expression of loop IR")

    def operands(self, e: Expr, *operands: Expr) -> None:
        for x in operands:
            self.expr(x)
            same = x.type is operands[0].type
            self.check(same, f"operands of different types, {operands[0].type} and {x.type}", e)

    def computes(self, e: Expr, operand: Expr) -> None:
        self.check(not operand.type.dtype.is_half, f"{operand.type} is stored, moved, selected and cast only", e)

    def operator(self, e: Expr, op: str, kinds: dict[str, str]) -> None:
        self.check(op in kinds, f"unknown operator {op!r}")
        self.check(e.type.dtype.kind in kinds[op], f"no {op} of {e.type}", e)

    def literal(self, value: int | float | bool, of: Type) -> None:
        dtype = of.dtype
        if dtype.is_bool:
            fits = isinstance(value, bool)
        elif dtype.is_float:
            fits = isinstance(value, float) and (value != value or round_to(value, dtype) == value)
        else:
            fits = isinstance(value, int) and not isinstance(value, bool)
            fits = fits and dtype.min <= value <= dtype.max
        self.check(fits, f"{value!r} is no literal of type {of}")

    def call(self, e: Call) -> None:
        for a in e.args:
            self.expr(a)
        self.check(e.name.isidentifier() and e.name not in BUILTINS, f"{e.name!r} is no name of a function")
        types = [a.type for a in e.args]
        if e.name in SHUFFLES:
            self.check(bool(self.threads), "a shuffle needs thread loops")
            fits = len(types) == 2 and types[0] is e.type and types[1] is INDEX
            self.check(fits, "a shuffle takes a value and an index", e)
        elif e.name == LOOKUP:
            entries, index = e.args[:-1], types[-1]
            fits = len(entries) == ENTRIES and all(isinstance(c, Const) for c in entries)
            fits = fits and all(c.type is e.type.with_lanes(1) for c in entries)
            fits = fits and index is e.type.with_dtype(int32)
            self.check(fits, "a lookup takes 16 constants and a vector of i32", e)
        elif e.name == LEAD:
            of = e.args[0] if len(e.args) == 1 else None
            fits = isinstance(of, Load) and of.buffer.space == "global" and of.type.lanes == 1 and e.type is INDEX
            self.check(fits, "lead takes an element of an array and gives an index", e)
        elif e.name in MASK_CALLS:
            fits = len(types) == 1 and types[0] is BOOL.with_lanes(types[0].lanes) and e.type is BOOL
            self.check(fits, f"{e.name} takes a vector of bools and gives one", e)
        else:
            # Powers are defined for integers too, random bits for u64 alone.
            dtype = e.type.dtype
            fits = dtype.is_float or (e.name == "pow" and dtype.is_integer)
            fits = dtype is uint64 if e.name in philox.NAMES else fits
            fits = fits and bool(types) and all(t is e.type for t in types)
            self.check(fits, "a function takes and gives floats of one type", e)
            self.computes(e, e)

    def varies(self, e: Expr) -> bool:
        """Say whether `e` may differ between the threads of a block."""
        for x in walk(e):
            private = isinstance(x, Load) and x.buffer.space in ("stack", "register", "scratch")
            if private or x in self.varying or (isinstance(x, Call) and x.name in SHUFFLES):
                return self.is_gpu
        return False


def _mixes_loaded_lanes(e: Expr) -> bool:
    crosses = isinstance(e, Shuffle) or (isinstance(e, Call) and e.name in MASK_CALLS)
    return crosses and any(isinstance(x, Load) for x in walk(e))


def _is_constant(e: Expr) -> bool:
    match e:
        case Const():
            return True
        case Ramp(a, _, _) | Splat(a, _):
            return isinstance(a, Const)
        case _:
            return False
