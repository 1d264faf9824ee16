"""``python -m tests.fuzz.calls --count N``: call public functions with random arguments and see how they take it.

A case is a line of Python, such as ``jf.sum(x, axis=(0, 0))``: a function or method that introspection finds (so that
new ones enter by themselves), with arguments that mostly suit the parameter's name and sometimes nothing at all. It
must

- return graph nodes, which print, parse back, and compile to what the interpreter gives where they are small; or
- raise an error of jitflow's family (never CompilerBug) that ends with the caller's file and line; or
- raise TypeError, if the arguments do not fit the signature, or it is one of the things a Tensor cannot do; or
- pass on the error of an object that raises one;

within two seconds of the processor and some memory, and without ending the process: cases run in forks of this one.
``--seed S --only K`` repeats one case.
"""

from __future__ import annotations

import argparse
import inspect
import os
import random
import re
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

import jitflow as jf
from jitflow.graph import Node, toposort
from jitflow.simplify import evaluate_index, free_vars
from tests.fuzz.check import Mismatch, check_case
from tests.fuzz.files import TIME_LIMIT, TooSlow, time_limit

#: Bytes that the cases of one process may take, beyond what it has.
MEMORY_LIMIT = 1 << 30
#: Results of more elements are not computed.
MAX_ELEMENTS = 2_000
#: Cases per process, and how many of their results are compiled together.
CHUNK, BATCH = 64, 16
#: What the file of a case is called in messages.
PLACE = "<case>"

MODULES = {"jf": jf, "jf.nn": jf.nn, "jf.linalg": jf.linalg, "jf.random": jf.random}
#: Not called at random: they use files, or compute, which is done with results anyway, or pass on others' errors.
LEFT_OUT = {"save", "load", "compare", "config", "interpret", "from_dlpack"}
#: What Python calls for operators and built-in functions, on a Tensor and with one argument more.
SPECIAL = ["__add__", "__rsub__", "__matmul__", "__pow__", "__lshift__", "__and__", "__eq__", "__getitem__"]


class Theirs(Exception):
    """What the objects below raise: an error that is not ours."""


class Raises:
    """An object that raises wherever it is looked at."""

    def _raise(self, *args: Any, **kwargs: Any) -> Any:
        raise Theirs

    __array__ = __index__ = __len__ = __iter__ = __float__ = __int__ = __bool__ = _raise
    __eq__ = __hash__ = __getitem__ = __repr__ = __str__ = __lt__ = _raise  # type: ignore[assignment]


class Lies:
    """An object that says one thing and is another."""

    shape, ndim, size, dtype = (2, 3), 7, -1, "float32"
    node = "not a node"

    def __len__(self) -> int:
        return 3

    def __index__(self) -> int:
        return -5

    def __float__(self) -> float:
        return float("nan")


def deep(levels: int) -> Any:
    found: Any = 1.0
    for _ in range(levels):
        found = [found]
    return found


def endless() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def inputs() -> dict[str, jf.Tensor]:
    """Return the tensors that cases are about, by the names they have there."""
    table: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "x": (jf.float32, ("n", 3)),
        "y": (jf.float32, (2, 3)),
        "v": (jf.float32, (3,)),
        "s": (jf.float64, ()),
        "m": (jf.float64, (3, 3)),
        "i": (jf.int64, (3,)),
        "j": (jf.int32, (2, 3)),
        "u": (jf.uint8, (3,)),
        "b": (jf.bool, (2, 3)),
        "h": (jf.float16, (2, 3)),
        "g": (jf.bfloat16, (3,)),
        "z": (jf.float32, (0, 3)),
        "image": (jf.float32, (1, 2, 5, 5)),
        "kernel": (jf.float32, (4, 2, 3, 3)),
        "key": (jf.uint32, (2,)),
        "wide": (jf.float32, (2**40, 3)),
        "l": (jf.float32, ("n",)),
    }
    return {name: jf.placeholder(name, dtype, shape) for name, (dtype, shape) in table.items()}


INPUTS = inputs()
NAMESPACE: dict[str, Any] = {
    **INPUTS, "jf": jf, "np": np, "ml_dtypes": ml_dtypes, "Raises": Raises, "Lies": Lies, "deep": deep,
    "endless": endless, "n": INPUTS["x"].shape[0],
    "c": jf.constant(np.arange(6, dtype=np.float32).reshape(2, 3)),
}  # fmt: skip
TENSORS = [name for name in INPUTS if name != "wide"]

NUMBERS = ["0", "1", "2", "3", "-1", "5", "0.5", "-2.0", "True"]
ARRAYS = ["np.ones((2, 3), np.float32)", "np.arange(3)", "[1.0, 2.0, 3.0]", "[[1, 2, 3]]", "c"]
AXES = ["0", "1", "-1", "None", "(0, 1)", "()", "(0,)", "(0, -1)"]
SHAPES = ["(2, 3)", "(3, 2)", "(-1,)", "6", "(n, 3)", "x.shape", "()", "(0, 3)", "(3,)", "(3, -1)", "(2, 1, 3)"]
DTYPES = ["jf.float32", "jf.int8", "np.float64", "'int64'", "jf.bool", "jf.bfloat16", "float", "None", "jf.uint64"]
SIZES = ["1", "2", "3", "0", "n", "4"]
WINDOWS = ["2", "3", "(2, 2)", "1", "(1, 3)", "(3, 3)"]
PADDING = ["0", "1", "'same'", "'valid'", "((1, 1), (0, 2))", "(1, 1)"]

#: What suits a parameter, by its name; a new parameter takes anything until it is listed.
SUITABLE: dict[str, list[str]] = {
    "axis": AXES, "axes": ["(1, 0)", "(0, 1)", "1", "0", "([1], [0])", "((0,), (1,))"], "axis1": ["0", "1"],
    "axis2": ["0", "-1"], "source": ["0", "(0, 1)"], "destination": ["-1", "(1, 0)"], "shape": SHAPES,
    "dtype": DTYPES, "to": DTYPES, "from_": DTYPES, "type": DTYPES, "kind": ["'numeric'", "'bool'", "jf.int8"],
    "keepdims": ["True", "False"], "descending": ["True", "False"], "indices": ["i", "0", "[0, 1]", "j", "[[0], [1]]"],
    "labels": ["i", "[0, 2, 1]"], "segment_ids": ["i", "[0, 0, 1]"], "num_segments": SIZES, "n": SIZES,
    "num": SIZES, "n_rows": SIZES, "n_cols": [*SIZES, "None"], "k": ["0", "1", "-1", "2"], "bins": ["3", "[0.0, 1.0]"],
    "start": NUMBERS, "stop": NUMBERS, "step": NUMBERS, "repeats": ["2", "[1, 2]", "0"], "repetitions": ["2", "(2, 1)"],
    "shift": ["1", "(1, 2)", "-7"], "indices_or_sections": ["3", "[1, 2]", "1"], "q": ["0.5", "[0.0, 1.0]", "50"],
    "pad_width": ["1", "(1, 2)", "((1, 0), (0, 2))"], "mode": ["'set'", "'add'", "'constant'", "'edge'", "'reflect'"],
    "window": WINDOWS, "stride": [*WINDOWS, "None"], "padding": PADDING, "dilation": WINDOWS, "groups": ["1", "2"],
    "subscripts": ["'ij,jk'", "'ij->ji'", "'...j->...'", "'i,i'"], "key": ["key", "jf.random.key(3)"], "name": ["'a'"],
    "w": ["kernel", "m"], "device": ["None", "'session'"], "copy": ["None", "True"], "rate": ["0.5", "0.0"],
    "p": ["0.5", "None", "v"], "low": ["0", "-1"], "high": ["5", "1"], "replace": ["True", "False"],
    "wrt": ["x", "[y]"],
    "loss": ["jf.sum(x * 2)", "jf.sum(jf.exp(y))"], "side": ["'left'", "'right'"], "indexing": ["'xy'", "'ij'"],
    "reduction": ["'mean'", "'sum'", "'none'"], "method": ["'linear'", "'nearest'", "'lower'"], "eps": ["1e-5", "0.1"],
    "correction": ["0", "1", "0.5"], "ord": ["1", "2", "jf.inf", "'fro'"], "condition": ["b", "True", "b[0]"],
    "counter": ["key", "np.zeros(4, np.uint32)"], "text": ["jf.show_graph(jf.exp(x))"], "arrays": ["[y, y]", "[v, v]"],
    "fetches": ["x", "[y, {'a': v}]"], "offset": ["0", "1", "-1"], "order": ["'C'"],
    "approximate": ["'tanh'", "'none'"],
    "x": TENSORS, "seed": ["0", "s"], "stream": ["None"], "api_version": ["'2024.12'", "None"],
    "length": [*SIZES, "None"],
}  # fmt: skip

#: What suits nothing, or only now and then.
STRANGE = [
    "None", "True", "-1", "2**31", "2**60", "2**63", "-2**63", "2**64", "10**30", "-10**400", "1.5", "1e308",
    "float('nan')", "float('inf')", "-0.0", "1j", "'abc'", "''", "'\\0'", "'n'", "b'x'", "[]", "()", "{}", "set()",
    "(0, 0)", "(1, 2, 3)", "[[1, 2], [3]]", "object()", "np.float64('nan')", "np.int8(3)", "np.bool_(True)",
    "np.zeros((0, 3), np.float32)", "np.array(['a'])", "np.array([1j])", "np.array(None)", "np.array([1], '>i4')",
    "np.datetime64('now')", "np.longdouble(1)", "np.ma.masked", "np.ma.ones(3)", "np.zeros(3, 'i4,f4')", "len", "jf",
    "jf.float32", "jf.Tensor", "'float99'", "slice(1, 2)", "...", "range(3)", "iter([1, 2])", "Raises()", "Lies()",
    "[Raises()]", "(Lies(), 1)", "n", "n - 5", "n * n", "2**62 * n", "deep(200)", "endless()", "[x, x]", "(x,)", "wide",
    "x", "i", "b", "np.array([0, 5])", "[2**63]", "[-1, 0]", "(2, -2)", "('n', 'm')", "[None]", "(None, 2)",
    "np.ones((3, 2))", "np.array(2)", "np.array([2**40])", "np.inf", "(2**40, 2**40)", "(1,) * 70", "'a' * 5000", "z",
    "s",
    "ml_dtypes.bfloat16(1)", "np.float16(70000)", "{'x': x}", "memoryview(b'abc')", "[[]]", "[True, False]", "b'\\xff'",
]  # fmt: skip

#: Keys of ``x[...]`` and ``x.at[...]``.
KEYS = [
    "0", "-1", "9", ":", "::-1", "1:", "..., 0", "None, 0", "b", "i", "[0, 1]", "0, :, 0", "::0", "1.5", "x", "'a'",
    "n", "[True, False]", "i, i", "..., ...", "2**70", "-2**70:2**70", "n - 1", "()", "[]", "np.array([], int)", "None",
    "[[0, 1], [1, 0]]", "0, [1, 2]", "slice('a')", "slice(n)", "Raises()", "[5]", "j",
]  # fmt: skip


def functions() -> dict[str, Callable[..., Any]]:
    """Return every public function by what a case writes for it; methods begin with a dot."""
    found: dict[str, Callable[..., Any]] = {}
    for prefix, module in MODULES.items():
        assert isinstance(module, ModuleType)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isroutine(value) and name not in LEFT_OUT and not name.startswith("_"):
                found[f"{prefix}.{name}"] = value
    for name, value in vars(jf.Tensor).items():
        if inspect.isroutine(value) and (not name.startswith("_") or name in SPECIAL):
            found[f".{name}"] = value
    for name in ("set", "add", "multiply", "min", "max"):
        found[f".at.{name}"] = getattr(jf.Tensor.at.__get__(INPUTS["x"])[0], name)
    return found


FUNCTIONS = functions()


def random_call(rng: random.Random) -> str:
    """Return a call as a line of Python."""
    name = rng.choice(list(FUNCTIONS))
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    care = rng.choice([0.6, 0.9, 1.0])
    if name.startswith(".at."):
        return f"{rng.choice(TENSORS)}.at[{rng.choice(KEYS)}].{name[4:]}({_argument(rng, 'x', care)})"
    if name == ".__getitem__":
        return f"{rng.choice(TENSORS)}[{rng.choice(KEYS)}]"
    if name.startswith("."):
        parameters, name = parameters[1:], rng.choice(TENSORS) + name
    texts = []
    for p in parameters:
        if p.default is not p.empty and rng.random() < 0.6:
            if p.kind is not p.KEYWORD_ONLY:
                break
            continue
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            texts += [_argument(rng, "x", care) for _ in range(rng.randrange(3))] if p.kind is p.VAR_POSITIONAL else []
        else:
            text = _argument(rng, p.name, care)
            texts.append(f"{p.name}={text}" if p.kind is p.KEYWORD_ONLY else text)
    if rng.random() < 0.02:
        texts = texts[1:] if rng.random() < 0.5 else [*texts, "strange=1"]
    return f"{name}({', '.join(texts)})"


def _argument(rng: random.Random, parameter: str, care: float) -> str:
    if rng.random() > care:
        return rng.choice(STRANGE)
    if parameter in SUITABLE:
        return rng.choice(SUITABLE[parameter])
    return rng.choice(rng.choice([TENSORS, TENSORS, ARRAYS, NUMBERS]))


class Wrong(Exception):
    """A call that ends as none may."""


@dataclass
class Outcome:
    """How a call ended: the kind of end, and what it returned that can be computed."""

    kind: str
    tensors: list[jf.Tensor]


def call(text: str) -> Outcome:
    """Make the call; raise Wrong if it ends as none may."""
    try:
        result = eval(compile(text, PLACE, "eval"), dict(NAMESPACE))
    except jf.CompilerBug as error:
        raise Wrong(f"CompilerBug: {error}") from error
    except jf.JitflowError as error:
        _check_message(text, error)
        return Outcome(type(error).__name__, [])
    except Theirs:
        return Outcome("their own error", [])
    except TypeError as error:
        if not _is_of_the_signature(error, text):
            raise Wrong(f"TypeError: {error}") from error
        return Outcome("TypeError", [])
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
    found = result if isinstance(result, (list, tuple)) else [result]
    tensors = list(dict.fromkeys(x for x in found if isinstance(x, jf.Tensor)))
    if tensors and not jf.same_graph(jf.parse_graph(jf.show_graph(tensors), jf.graph_arrays(tensors)).outputs, tensors):
        raise Wrong("the graph is not what its text says")
    return Outcome("nodes" if tensors else type(result).__name__, [t for t in tensors if _is_small(t.node)])


def _check_message(text: str, error: jf.JitflowError) -> None:
    first, _, last = str(error).rpartition("\n")
    if "parse_graph" in text or isinstance(error, jf.FormatError):
        return
    if last != f"  at {PLACE}:1":
        raise Wrong(f"{type(error).__name__} does not end with the caller's line: {error}")
    if not first.strip():
        raise Wrong(f"{type(error).__name__} says nothing")


def _is_of_the_signature(error: TypeError, text: str) -> bool:
    """Tell whether Python itself refused the call, or a Tensor was asked for what it has not got: a value."""
    message = str(error)
    if re.search(r"unsupported operand|not supported between|has no value before|is not possible|truth value", message):
        return True
    inside = error.__traceback__
    while inside is not None and inside.tb_next is not None:
        inside = inside.tb_next
    own_frame = inside is not None and inside.tb_frame.f_code.co_filename == PLACE
    lifted = re.search(r"^\w+(\.\w+)?\(\) (missing|got an unexpected|takes|got some|got multiple)", message)
    return own_frame or lifted is not None


def _is_small(node: Node) -> bool:
    count = 0
    for x in toposort([node]):
        sizes = [evaluate_index(d, dict.fromkeys(free_vars(d), 2)) for d in x.shape]
        if any(k < 0 for k in sizes):
            return False
        count += int(np.prod(sizes, dtype=object))
        if any(v.name != "n" for d in x.shape for v in free_vars(d)):
            return False
    return count <= MAX_ELEMENTS


# ---- results, computed


@dataclass(frozen=True)
class Computed:
    """Results and the feeds they need, as `check_case` takes them."""

    tensors: tuple[jf.Tensor, ...]
    seed: int = 1

    def build(self) -> tuple[None, list[jf.Tensor], dict[jf.Tensor, np.ndarray[Any, Any]]]:
        needed = set(toposort([t.node for t in self.tensors]))
        rng = np.random.default_rng(0)
        feeds = {}
        for t in INPUTS.values():
            if t.node in needed:
                sizes = tuple(evaluate_index(d, dict.fromkeys(free_vars(d), 2)) for d in t.node.shape)
                dtype = ml_dtypes.bfloat16 if t.dtype == jf.bfloat16 else t.dtype.np
                values = rng.integers(0, 2, sizes) if t.dtype.kind in "biu" else rng.random(sizes) + 0.25
                feeds[t] = np.asarray(values).astype(dtype)
        return None, list(dict.fromkeys(self.tensors)), feeds


def compute(cases: list[tuple[int, str, list[jf.Tensor]]]) -> Iterator[tuple[int, str]]:
    """Compile the results of some cases together and compare them with the interpreter's; yield what is wrong."""
    tensors = tuple(t for _, _, found in cases for t in found)
    try:
        if tensors:
            check_case(Computed(tensors))  # type: ignore[arg-type]
    except (Mismatch, jf.JitflowError) as error:
        if len(cases) > 1:
            for case in cases:
                yield from compute([case])
        elif isinstance(error, (Mismatch, jf.CompilerBug, jf.CompileError)) or "fails" in str(error):
            yield cases[0][0], f"{cases[0][1]}\n    {type(error).__name__}: {error}"


def run_cases(seed: int, numbers: range, begin: Callable[[int], None]) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Make the calls of these numbers; return how they ended and what was wrong."""
    ends: Counter[str] = Counter()
    wrong: list[tuple[int, str]] = []
    waiting: list[tuple[int, str, list[jf.Tensor]]] = []
    for k in numbers:
        begin(k)
        text = random_call(random.Random(f"{seed}:{k}"))
        try:
            with time_limit(TIME_LIMIT):
                outcome = call(text)
        except (Wrong, TooSlow) as error:
            ends["FAILED"] += 1
            wrong.append((k, f"{text}\n    {error or 'takes too long'}"))
            continue
        ends[outcome.kind] += 1
        if outcome.tensors:
            waiting.append((k, text, outcome.tensors))
        if len(waiting) == BATCH or k == numbers[-1]:
            wrong += compute(waiting)
            waiting = []
    wrong += compute(waiting)
    return ends, wrong


def _in_a_fork(seed: int, numbers: range) -> tuple[Counter[str], list[tuple[int, str]], int | None]:
    """Make the calls in a fork; return as `run_cases` does, and the number at which it died, if it did."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_LIMIT, hard))
        status = 1
        try:
            ends, wrong = run_cases(seed, numbers, lambda k: os.write(writer, f"{k}\n".encode()) and None)
            os.write(writer, repr((dict(ends), wrong)).encode() + b"\n")
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if status == 0:
        ends, wrong = eval(lines[-1])
        return Counter(ends), wrong, None
    at = int(lines[-1]) if lines else numbers[0]
    how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
    text = random_call(random.Random(f"{seed}:{at}"))
    return Counter({"FAILED": 1}), [(at, f"{text}\n    or a result compiled before it: ended by {how}")], at


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.calls", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case, to be made in this process")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.monotonic()
    if args.only is not None:
        print(random_call(random.Random(f"{args.seed}:{args.only}")))
        ends, wrong = run_cases(args.seed, range(args.only, args.only + 1), lambda k: None)
        print(dict(ends), *(text for _, text in wrong))
        return int(bool(wrong))
    jf.Session(jf.exp(INPUTS["v"]) + 1.0).close()  # so that every fork has what compiling needs
    ends, failed, k = Counter[str](), 0, 0
    while k < args.count:
        some, wrong, died = _in_a_fork(args.seed, range(k, min(k + CHUNK, args.count)))
        ends += some
        failed += len(wrong)
        for number, text in wrong:
            print(f"case {number}: {text}", file=sys.stderr)
        k = k + CHUNK if died is None else died + 1
    counts = ", ".join(f"{count} {kind}" for kind, count in ends.most_common())
    print(
        f"{args.count} calls of {len(FUNCTIONS)} functions: {failed} wrong; {counts}; {time.monotonic() - start:.1f} s"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
