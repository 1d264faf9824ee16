"""A plan into LLVM text: the two functions of a program, ``measure`` and ``run`` (`runtime.abi` says what they take).

``measure`` computes every size in 64 bits and notices overflow; ``run`` repeats only the arithmetic of its steps, which
is then known to fit. Both are short straight-line code: branches only at guards and checks, and around launches that
may be long. Such a launch writes the arguments of its kernel to a *frame*, from which a *task* calls the kernel for
some of its iterations: here, one chunk after the other, or wherever the team's workers are.
"""

from __future__ import annotations

from collections.abc import Iterable

from jitflow.errors import CompilerBug
from jitflow.expr import Binary, Compare, Const, Expr, Select, as_index, const_index, maximum
from jitflow.simplify import simplify_index
from lowering.llvm import POLL, KernelAbi, kernel_abi, parallel_extent, symbol
from lowering.loop_ir import WORKERS
from lowering.passes.poll import WORK_BETWEEN_POLLS, WORK_WORTH_SHARING
from lowering.plan import Check, Copy, Launch, Place, Plan, nbytes_of
from lowering.trace import substitute_all
from runtime.abi import STOPPED
from runtime.threads import Team

_WITH_OVERFLOW = {"add": "sadd", "sub": "ssub", "mul": "smul"}
_GREATEST = (1 << 63) - 1

#: The default floating-point environment (subnormals kept, round to nearest, no traps); the caller's is restored.
DEFAULT_MXCSR = 0x1F80

#: After so many launches there is a look at whether to go on: each does little, or looks for itself.
_LAUNCHES_BETWEEN_POLLS = 8

#: Attributes of functions that run once for a kernel or less, and so are compiled quickly rather than well.
_GLUE = "noinline optnone nounwind"
#: Have a task do all iterations below `end`, by the team if there is one; returns whether it was stopped.
_SHARE = "@run.share"
#: The helpers of those who have no team.
_NOBODY = "@run.nobody"
_SHARE_ARGUMENTS = "ptr %team, ptr %task, ptr %frame, i64 %end, i64 %chunk, ptr %scratch, i64 %stride, ptr %watch"
_SHARE_TEXT = f"""define internal i1 {_SHARE}({_SHARE_ARGUMENTS}) noinline optnone nounwind {{
entry:
  %alone = icmp eq ptr %team, null
  br i1 %alone, label %next, label %together
together:
  %share = load ptr, ptr %team
  %given.up = call i1 %share({_SHARE_ARGUMENTS})
  ret i1 %given.up
next:
  %begin = phi i64 [ 0, %entry ], [ %until, %go.on ]
  %left = sub i64 %end, %begin
  %size = call i64 @llvm.smin.i64(i64 %left, i64 %chunk)
  %until = add i64 %begin, %size
  %stopped = call i1 %task(ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %until)
  br i1 %stopped, label %give.up, label %done
done:
  %more = icmp slt i64 %until, %end
  br i1 %more, label %look, label %finished
look:
  %stop = call {POLL}(ptr %watch)
  br i1 %stop, label %give.up, label %go.on
go.on:
  br label %next
give.up:
  ret i1 true
finished:
  ret i1 false
}}
"""


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
        if isinstance(e, Select) and isinstance(e.cond, Compare):
            relation = f"s{e.cond.op}" if e.cond.op in ("lt", "le", "gt", "ge") else e.cond.op
            chosen = self.put(f"icmp {relation} i64 {self.index(e.cond.a)}, {self.index(e.cond.b)}")
            return self.put(f"select i1 {chosen}, i64 {self.index(e.a)}, i64 {self.index(e.b)}")
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
        if b.isdecimal() and int(b) > 0:
            return self._divide_by(op, a, int(b))
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

    def _divide_by(self, op: str, a: str, divisor: int) -> str:
        """Divide by a positive number that is known. Of a negative a, the complement is divided: -1 - a >= 0."""
        if divisor & (divisor - 1) == 0:
            if op == "mod":
                return self.put(f"and i64 {a}, {divisor - 1}")
            return self.put(f"ashr i64 {a}, {divisor.bit_length() - 1}")
        sign = self.put(f"ashr i64 {a}, 63")
        quotient = self.put(f"udiv i64 {self.put(f'xor i64 {a}, {sign}')}, {divisor}")
        quotient = self.put(f"xor i64 {quotient}, {sign}")
        if op == "floordiv":
            return quotient
        return self.put(f"sub i64 {a}, {self.put(f'mul i64 {quotient}, {divisor}')}")

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
    w.names[WORKERS] = "%workers"
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
    cells, scratch = w.total(plan.cells)[-1], w.index(plan.scratch)
    if scratch != "0" and shares_work(plan):
        scratch = w._operation("mul", scratch, "%workers")
    arena = w.add(cells, scratch)
    for node in plan.outputs:
        w.index(nbytes_of(node))  # noticed if it overflows
    shapes = [w.index(simplify_index(as_index(d))) for node in plan.outputs for d in node.shape]
    # Last, since what is not noticed must not be used by anything else: an estimate may overflow.
    w.checked = False
    values = [arena, w.total(plan.work)[-1], *shapes]
    for k, value in enumerate(values):
        w.lines.append(f"  store i64 {value}, ptr {w.slot('%sizes', k)}")
    flag = "false"
    for o in w.overflows:
        flag = w.put(f"or i1 {flag}, {o}")
    w.lines.append(f"  %code = select i1 {flag}, i32 {len(plan.guards) + 1}, i32 0")
    w.lines.append("  ret i32 %code")
    body = "\n".join([*w.lines, *blocks])
    return f"define i32 {symbol(name)}(ptr %dims, ptr %sizes, i64 %workers) {_GLUE} {{\nentry:\n{body}\n}}\n"


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
    parameters = "ptr %inputs, ptr %outputs, ptr %consts, ptr %arena, ptr %dims, ptr %status, ptr %watch, ptr %team"
    frame = [f"  %frame = alloca [{max(map(_frame_words, w.tasks))} x i64], align 8"] if w.tasks else []
    body = "\n".join([*frame, *w.lines])
    run = f"define i32 {symbol(name)}({parameters}) {_GLUE} {{\nentry:\n{body}\n}}\n"
    nobody = [f"{_NOBODY} = internal constant i64 0\n"] if w.knows_workers else []
    return "\n".join([*nobody, run, *map(_task, w.tasks), *([_SHARE_TEXT] if w.tasks else [])])


def shares_work(plan: Plan) -> bool:
    """Tell whether there are launches in `plan` that several workers may share."""
    return any(isinstance(s, Launch) and s.chunk is not None for s in plan.steps)


def few_iterations(chunk: Expr) -> Expr:
    """Return how many iterations are not worth sharing, where `chunk` take as long as a run goes without a look."""
    return simplify_index(maximum(const_index(1), chunk // (WORK_BETWEEN_POLLS // WORK_WORTH_SHARING)))


def _frame_words(abi: KernelAbi) -> int:
    return len(abi.buffers) + len(abi.dims)


def _task_name(abi: KernelAbi) -> str:
    return symbol(f"{abi.name}.task")


def _task(abi: KernelAbi) -> str:
    """Return the function that calls a kernel for some iterations, with arguments from a frame."""
    lines, arguments = [], []
    for k, type_ in enumerate(abi.parameters[: _frame_words(abi)]):
        lines += [f"  %at{k} = getelementptr i64, ptr %frame, i64 {k}", f"  %a{k} = load {type_}, ptr %at{k}"]
        arguments.append(f"{type_} %a{k}")
    arguments += ["ptr %scratch"] * abi.has_scratch + ["ptr %watch"] * abi.polls + ["i64 %begin", "i64 %end"]
    call = f"call {abi.result} {symbol(abi.name)}({', '.join(arguments)})"
    lines += [f"  %stopped = {call}", "  ret i1 %stopped"] if abi.polls else [f"  {call}", "  ret i1 false"]
    parameters = "ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %end"
    body = "\n".join(lines)
    return f"define internal i1 {_task_name(abi)}({parameters}) {_GLUE} {{\n{body}\n}}\n"


class _RunWriter(_Writer):
    """The steps of ``run``. `block` labels the current block; `ends` says what is returned when coming from which."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(checked=False)
        for k, var in enumerate(plan.dims):
            self.names[var] = self.put(f"load i64, ptr {self.slot('%dims', k)}")
        self.knows_workers = any(isinstance(s, Launch) and WORKERS in s.kernel.dims for s in plan.steps)
        if self.knows_workers:
            alone = self.put("icmp eq ptr %team, null")
            helpers = self.put(f"getelementptr i8, ptr %team, i64 {Team.helpers.offset}")
            found = self.put(f"load i64, ptr {self.put(f'select i1 {alone}, ptr {_NOBODY}, ptr {helpers}')}")
            self.names[WORKERS] = self.put(f"add i64 {found}, 1")
        *self.offsets, self.scratch = self.total(plan.cells)
        self.stride = self.index(plan.scratch)
        self.block = "entry"
        self.ends: list[tuple[int, str]] = []
        self.launches = 0
        #: The kernels that are called by tasks.
        self.tasks: dict[KernelAbi, None] = {}
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
        scratch = self.put(f"getelementptr i8, ptr %arena, i64 {self.scratch}") if abi.has_scratch else "null"
        more = [f"ptr {scratch}"] * abi.has_scratch + ["ptr %watch"] * abi.polls
        if not abi.is_parallel:
            self._call(abi, [*arguments, *more])
            return
        extent = parallel_extent(step.kernel)
        assert extent is not None
        end = self.index(simplify_index(substitute_all(extent, dict(zip(abi.dims, step.dims, strict=True)))))
        whole = [*arguments, *more, "i64 0", f"i64 {end}"]
        if step.chunk is None:
            self._call(abi, whole)
            return
        few = few_iterations(step.chunk)
        if end.isdecimal() and isinstance(few, Const) and int(end) > int(few.value):
            self._share(abi, arguments, end, self.index(step.chunk), scratch)
            return
        k, outside = self.launches, dict(self.names)
        if not isinstance(few, Const):
            # Where there is one iteration, nobody need know how long it takes.
            self._unless(f"icmp sle i64 {end}, 1", f"short{k}", f"weigh{k}")
        self._unless(f"icmp sle i64 {end}, {self.index(few)}", f"short{k}", f"long{k}")
        self._share(abi, arguments, end, self.index(step.chunk), scratch)
        self.names = outside  # what was computed on the way is not known elsewhere
        self.lines.append(f"  br label %launched{k}")
        self.start(f"short{k}")
        self._call(abi, whole)
        self.lines.append(f"  br label %launched{k}")
        self.start(f"launched{k}")

    def _unless(self, condition: str, otherwise: str, block: str) -> None:
        """Go on in a new block, or in `otherwise` if `condition` holds."""
        self.lines.append(f"  br i1 {self.put(condition)}, label %{otherwise}, label %{block}")
        self.start(block)

    def _call(self, abi: KernelAbi, arguments: list[str]) -> None:
        call = f"call {abi.result} {symbol(abi.name)}({', '.join(arguments)})"
        if abi.polls:
            self.leave_if(self.put(call), STOPPED)
        else:
            self.lines.append(f"  {call}")

    def _share(self, abi: KernelAbi, arguments: list[str], end: str, chunk: str, scratch: str) -> None:
        """Run a kernel by its task, which may be shared."""
        self.tasks.setdefault(abi)
        for k, argument in enumerate(arguments):
            self.lines.append(f"  store {argument}, ptr {self.slot('%frame', k)}")
        call = f"ptr %team, ptr {_task_name(abi)}, ptr %frame, i64 {end}, i64 {chunk}, ptr {scratch}, i64 {self.stride}"
        self.leave_if(self.put(f"call i1 {_SHARE}({call}, ptr %watch)"), STOPPED)
