"""A plan into LLVM text: the two functions of a program, ``measure`` and ``run`` (`runtime.abi` says what they take).

``measure`` computes every size in 64 bits and notices overflow; ``run`` repeats only the arithmetic of its steps, which
is then known to fit. Both are short straight-line code: branches only at guards and checks, and between the chunks of a
long launch.
"""

from __future__ import annotations

from collections.abc import Iterable

from jitflow.errors import CompilerBug
from jitflow.expr import Binary, Const, Expr, as_index
from jitflow.simplify import simplify_index
from lowering.llvm import POLL, KernelAbi, kernel_abi, parallel_extent, symbol
from lowering.plan import Check, Copy, Launch, Place, Plan, nbytes_of
from lowering.trace import substitute_all
from runtime.abi import STOPPED

_WITH_OVERFLOW = {"add": "sadd", "sub": "ssub", "mul": "smul"}
_GREATEST = (1 << 63) - 1

#: The default floating-point environment (subnormals kept, round to nearest, no traps); the caller's is restored.
DEFAULT_MXCSR = 0x1F80

#: After so many launches there is a look at whether to go on: each does little, or looks for itself.
_LAUNCHES_BETWEEN_POLLS = 8


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
    w = _RunWriter(plan)
    if x86:
        w.lines += [
            "  %saved = alloca i32",
            "  %default = alloca i32",
            "  call void @llvm.x86.sse.stmxcsr(ptr %saved)",
            f"  store i32 {DEFAULT_MXCSR}, ptr %default",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %default)",
        ]
    for k in range(len(plan.checks)):
        w.lines.append(f"  store i64 {_GREATEST}, ptr {w.slot('%status', k)}")
    for step in plan.steps:
        match step:
            case Launch():
                w.launch(step)
            case Copy(source, target, nbytes):
                w.lines.append(
                    f"  call void @llvm.memcpy.p0.p0.i64(ptr {w.pointer(target)}, ptr {w.pointer(source)}, "
                    f"i64 {w.index(nbytes)}, i1 false)"
                )
            case Check(first, last):
                for k in range(first, last):
                    value = w.put(f"load i64, ptr {w.slot('%status', k)}")
                    w.leave_if(w.put(f"icmp ne i64 {value}, {_GREATEST}"), k + 1)
    w.lines.append("  br label %done\ndone:")
    incoming = ", ".join(f"[ {code}, %{block} ]" for code, block in [*w.ends, (0, w.block)])
    w.lines.append(f"  %code = phi i32 {incoming}")
    if x86:
        w.lines.append("  call void @llvm.x86.sse.ldmxcsr(ptr %saved)")
    w.lines.append("  ret i32 %code")
    parameters = "ptr %inputs, ptr %outputs, ptr %consts, ptr %arena, ptr %dims, ptr %status, ptr %watch"
    body = "\n".join(w.lines)
    return f"define i32 {symbol(name)}({parameters}) nounwind {{\nentry:\n{body}\n}}\n"


class _RunWriter(_Writer):
    """The steps of ``run``. `block` labels the current block; `ends` says what is returned when coming from which."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(checked=False)
        for k, var in enumerate(plan.dims):
            self.names[var] = self.put(f"load i64, ptr {self.slot('%dims', k)}")
        *self.offsets, self.scratch = self.total(plan.cells)
        self.block = "entry"
        self.ends: list[tuple[int, str]] = []
        self.launches = 0
        self._pointers: dict[Place, str] = {}

    def pointer(self, place: Place) -> str:
        """Return the operand that holds the address of an array."""
        found = self._pointers.get(place)
        if found is None:
            if place.space == "arena":
                found = self.put(f"getelementptr i8, ptr %arena, i64 {self.offsets[place.number]}")
            else:
                found = self.put(
                    f"load ptr, ptr {self.put(f'getelementptr ptr, ptr %{place.space}s, i64 {place.number}')}"
                )
            self._pointers[place] = found
        return found

    def start(self, block: str) -> None:
        """Go on in a new block."""
        self.lines.append(f"{block}:")
        self.block = block

    def leave_if(self, bad: str, code: int) -> None:
        """End the run with `code` if `bad` holds."""
        after = f"after{len(self.ends)}"
        self.ends.append((code, self.block))
        self.lines.append(f"  br i1 {bad}, label %done, label %{after}")
        self.start(after)

    def look(self) -> None:
        """End the run if it is to be given up."""
        self.leave_if(self.put(f"call {POLL}(ptr %watch)"), STOPPED)

    def launch(self, step: Launch) -> None:
        """Call a kernel: once, or for one chunk of its iterations after the other."""
        if self.launches and self.launches % _LAUNCHES_BETWEEN_POLLS == 0:
            self.look()
        self.launches += 1
        abi = kernel_abi(step.kernel)
        arguments = [f"ptr {self.pointer(p)}" for p in step.places]
        if step.status is not None:
            arguments.append(f"ptr {self.slot('%status', step.status)}")
        arguments += [f"i64 {self.index(d)}" for d in step.dims]
        if abi.has_scratch:
            arguments.append(f"ptr {self.put(f'getelementptr i8, ptr %arena, i64 {self.scratch}')}")
        arguments += ["ptr %watch"] * abi.polls
        if not abi.is_parallel:
            self._call(abi, arguments)
            return
        extent = parallel_extent(step.kernel)
        assert extent is not None
        end = self.index(simplify_index(substitute_all(extent, dict(zip(abi.dims, step.dims, strict=True)))))
        if step.chunk is None:
            self._call(abi, [*arguments, "i64 0", f"i64 {end}"])
        else:
            self._call_in_chunks(abi, arguments, end, self.index(step.chunk))

    def _call(self, abi: KernelAbi, arguments: list[str]) -> None:
        call = f"call {abi.result} {symbol(abi.name)}({', '.join(arguments)})"
        if abi.polls:
            self.leave_if(self.put(call), STOPPED)
        else:
            self.lines.append(f"  {call}")

    def _call_in_chunks(self, abi: KernelAbi, arguments: list[str], end: str, chunk: str) -> None:
        """Call a kernel with chunks of the iterations up to `end`, at least once, and look in between."""
        k = self.launches
        before, chunks, more = self.block, f"chunks{k}", f"more{k}"
        self.lines.append(f"  br label %{chunks}")
        self.start(chunks)
        place_of_phi = len(self.lines)
        left = self.put(f"sub i64 {end}, %begin{k}")
        size = self.put(f"call i64 @llvm.smin.i64(i64 {left}, i64 {chunk})")
        self.lines.append(f"  %end{k} = add i64 %begin{k}, {size}")
        self._call(abi, [*arguments, f"i64 %begin{k}", f"i64 %end{k}"])
        again = self.put(f"icmp slt i64 %end{k}, {end}")
        self.lines.append(f"  br i1 {again}, label %{more}, label %launched{k}")
        self.start(more)
        stop = self.put(f"call {POLL}(ptr %watch)")
        self.ends.append((STOPPED, more))
        self.lines.append(f"  br i1 {stop}, label %done, label %{chunks}")
        self.lines.insert(place_of_phi, f"  %begin{k} = phi i64 [ 0, %{before} ], [ %end{k}, %{more} ]")
        self.start(f"launched{k}")
