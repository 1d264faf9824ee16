"""A plan into LLVM text: the two functions of a program, ``measure`` and ``run`` (`runtime.abi` says what they take).

``measure`` computes every size in 64 bits and notices overflow; ``run`` repeats only the arithmetic of its steps, which
is then known to fit. Both are short straight-line code: branches only at guards and checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitflow.errors import CompilerBug
from jitflow.expr import Binary, Const, Expr, as_index
from jitflow.simplify import simplify_index
from lowering.llvm import kernel_abi, parallel_extent, symbol
from lowering.loop_ir import Kernel
from lowering.plan import Check, Copy, Launch, Place, Plan, nbytes_of
from lowering.trace import substitute_all

_WITH_OVERFLOW = {"add": "sadd", "sub": "ssub", "mul": "smul"}
_GREATEST = (1 << 63) - 1

#: The default floating-point environment (subnormals kept, round to nearest, no traps); the caller's is restored.
_DEFAULT_MXCSR = 0x1F80


class _Writer:
    """Instructions under construction, with index arithmetic that may be asked to notice overflow."""

    def __init__(self, *, checked: bool) -> None:
        self.lines: list[str] = []
        self.names: dict[Expr, str] = {}
        self.checked = checked
        self.overflows: list[str] = []
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def put(self, text: str) -> str:
        """Append an instruction and return its result."""
        name = self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def index(self, e: Expr) -> str:
        """Return the operand that holds index expression `e`."""
        if isinstance(e, Const):
            return str(int(e.value))
        known = self.names.get(e)
        if known is None:
            known = self.names[e] = self._compute(e)
        return known

    def _compute(self, e: Expr) -> str:
        if not isinstance(e, Binary):
            raise CompilerBug(f"{e!r} is no expression of the program's dims")
        a, b = self.index(e.a), self.index(e.b)
        if e.op in _WITH_OVERFLOW:
            return self._operation(e.op, a, b)
        if e.op in ("min", "max"):
            return self.put(f"call i64 @llvm.s{e.op}.i64(i64 {a}, i64 {b})")
        if e.op in ("floordiv", "mod"):
            return self._divide(e.op, a, b)
        raise CompilerBug(f"no size is computed by {e.op}")

    def _operation(self, op: str, a: str, b: str) -> str:
        if not self.checked:
            return self.put(f"{op} i64 {a}, {b}")
        pair = self.put(f"call {{i64, i1}} @llvm.{_WITH_OVERFLOW[op]}.with.overflow.i64(i64 {a}, i64 {b})")
        self.overflows.append(self.put(f"extractvalue {{i64, i1}} {pair}, 1"))
        return self.put(f"extractvalue {{i64, i1}} {pair}, 0")

    def _divide(self, op: str, a: str, b: str) -> str:
        """Round towards minus infinity; by zero both give 0."""
        zero = self.put(f"icmp eq i64 {b}, 0")
        safe = self.put(f"select i1 {zero}, i64 1, i64 {b}")
        quotient = self.put(f"sdiv i64 {a}, {safe}")
        remainder = self.put(f"srem i64 {a}, {safe}")
        nonzero = self.put(f"icmp ne i64 {remainder}, 0")
        signs = self.put(f"xor i64 {remainder}, {safe}")
        differ = self.put(f"icmp slt i64 {signs}, 0")
        adjust = self.put(f"and i1 {nonzero}, {differ}")
        if op == "floordiv":
            one = self.put(f"zext i1 {adjust} to i64")
            result = self.put(f"sub i64 {quotient}, {one}")
        else:
            more = self.put(f"select i1 {adjust}, i64 {safe}, i64 0")
            result = self.put(f"add i64 {remainder}, {more}")
        return self.put(f"select i1 {zero}, i64 0, i64 {result}")

    def add(self, a: str, b: str) -> str:
        """Return the operand that holds the sum of two operands."""
        if a.isdecimal() and b.isdecimal():
            return str(int(a) + int(b))
        return b if a == "0" else a if b == "0" else self._operation("add", a, b)

    def total(self, terms: Iterable[Expr]) -> list[str]:
        """Return the operands of the sums of the first 0, 1, 2, ... of `terms`.

        One by one, so that no expression gets as deep as there are terms.
        """
        sums = ["0"]
        for term in terms:
            sums.append(self.add(sums[-1], self.index(term)))
        return sums

    def slot(self, table: str, number: int) -> str:
        """Return a pointer to word `number` of `table`."""
        return self.put(f"getelementptr i64, ptr {table}, i64 {number}")


def emit_measure(plan: Plan, name: str) -> str:
    """Return the text of ``measure``. The guard after the last one stands for sizes over 2**63."""
    w = _Writer(checked=True)
    for k, var in enumerate(plan.slots):
        w.names[var] = w.put(f"load i64, ptr {w.slot('%dims', k)}")
    for k, s in enumerate(plan.solved):
        gap = simplify_index(Binary("sub", s.slot, s.rest))
        w.names[s.var] = w._divide("floordiv", w.index(gap), str(s.factor))
        w.lines.append(f"  store i64 {w.names[s.var]}, ptr {w.slot('%dims', len(plan.slots) + k)}")
    blocks: list[str] = []
    for number, g in enumerate(plan.guards):
        bad = w.put(f"icmp ne i64 {w.index(g.left)}, {w.index(g.right)}")
        w.lines.append(f"  br i1 {bad}, label %bad{number}, label %good{number}\ngood{number}:")
        blocks.append(f"bad{number}:\n  ret i32 {number + 1}")
    arena = w.total([*plan.cells, plan.scratch])[-1]
    for node in plan.outputs:
        w.index(nbytes_of(node))  # noticed if it overflows
    shapes = [w.index(simplify_index(as_index(d))) for node in plan.outputs for d in node.shape]
    # Last, since what is not noticed must not be used by anything else: an estimate may overflow.
    noticed = len(w.overflows)
    values = [arena, w.total(plan.work)[-1], *shapes]
    del w.overflows[noticed:]
    for k, value in enumerate(values):
        w.lines.append(f"  store i64 {value}, ptr {w.slot('%sizes', k)}")
    flag = "false"
    for o in w.overflows:
        flag = w.put(f"or i1 {flag}, {o}")
    w.lines.append(f"  %code = select i1 {flag}, i32 {len(plan.guards) + 1}, i32 0")
    w.lines.append("  ret i32 %code")
    body = "\n".join([*w.lines, *blocks])
    return f"define i32 {symbol(name)}(ptr %dims, ptr %sizes) nounwind {{\nentry:\n{body}\n}}\n"


def emit_run(plan: Plan, name: str, *, x86: bool) -> str:
    """Return the text of ``run``."""
    w = _Writer(checked=False)
    for k, var in enumerate(plan.dims):
        w.names[var] = w.put(f"load i64, ptr {w.slot('%dims', k)}")
    *offsets, scratch_at = w.total(plan.cells)
    if x86:
        w.lines += [
            "  %saved = alloca i32",
            "  %default = alloca i32",
            "  call void @llvm.x86.sse.stmxcsr(ptr %saved)",
            f"  store i32 {_DEFAULT_MXCSR}, ptr %default",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %default)",
        ]
    for k in range(len(plan.checks)):
        w.lines.append(f"  store i64 {_GREATEST}, ptr {w.slot('%status', k)}")
    pointers: dict[Place, str] = {}

    def pointer(place: Place) -> str:
        if place not in pointers:
            if place.space == "arena":
                pointers[place] = w.put(f"getelementptr i8, ptr %arena, i64 {offsets[place.number]}")
            else:
                at = w.put(f"getelementptr ptr, ptr %{place.space}s, i64 {place.number}")
                pointers[place] = w.put(f"load ptr, ptr {at}")
        return pointers[place]

    failures: list[tuple[str, str]] = []
    block, checks = "entry", 0
    for step in plan.steps:
        match step:
            case Launch(kernel, places, dims, status):
                _launch(w, kernel, [pointer(p) for p in places], dims, status, scratch_at)
            case Copy(source, target, nbytes):
                w.lines.append(
                    f"  call void @llvm.memcpy.p0.p0.i64(ptr {pointer(target)}, ptr {pointer(source)}, "
                    f"i64 {w.index(nbytes)}, i1 false)"
                )
            case Check(first, last):
                for k in range(first, last):
                    value = w.put(f"load i64, ptr {w.slot('%status', k)}")
                    bad = w.put(f"icmp ne i64 {value}, {_GREATEST}")
                    after = f"after{checks}"
                    w.lines.append(f"  br i1 {bad}, label %done, label %{after}\n{after}:")
                    failures.append((f"{k + 1}", block))
                    block, checks = after, checks + 1
    w.lines.append("  br label %done\ndone:")
    incoming = ", ".join(f"[ {code}, %{b} ]" for code, b in [*failures, ("0", block)])
    w.lines.append(f"  %code = phi i32 {incoming}")
    if x86:
        w.lines.append("  call void @llvm.x86.sse.ldmxcsr(ptr %saved)")
    w.lines.append("  ret i32 %code")
    parameters = "ptr %inputs, ptr %outputs, ptr %consts, ptr %arena, ptr %dims, ptr %status"
    body = "\n".join(w.lines)
    return f"define i32 {symbol(name)}({parameters}) nounwind {{\nentry:\n{body}\n}}\n"


def _launch(
    w: _Writer, kernel: Kernel, pointers: Sequence[str], dims: Sequence[Expr], status: int | None, scratch_at: str
) -> None:
    abi = kernel_abi(kernel)
    arguments = [f"ptr {p}" for p in pointers]
    if status is not None:
        arguments.append(f"ptr {w.slot('%status', status)}")
    arguments += [f"i64 {w.index(d)}" for d in dims]
    if abi.has_scratch:
        arguments.append(f"ptr {w.put(f'getelementptr i8, ptr %arena, i64 {scratch_at}')}")
    if abi.is_parallel:
        extent = parallel_extent(kernel)
        assert extent is not None
        extent = simplify_index(substitute_all(extent, dict(zip(abi.dims, dims, strict=True))))
        arguments += ["i64 0", f"i64 {w.index(extent)}"]
    w.lines.append(f"  call void {symbol(kernel.name)}({', '.join(arguments)})")
