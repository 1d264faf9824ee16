"""Random graphs with feeds: a seed in, a :class:`Case` out. Plain and readable; the seed is the whole state.

Dtypes, symbolic dims, broadcasting, odd and empty extents, and values that hurt: NaN, infinities, signed zeros,
subnormals, extreme integers. A step is stored as (name of the call, operands by number, arguments), so that the reducer
can drop steps and rebuild the rest.

Some calls are written here, since their arguments depend on the operands (`CALLS`). Every operator of the table enters
by its samples as well: a step ``sample`` is one of them, some of its inputs replaced by tensors of the graph.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import jitflow as jf
from jitflow.dtypes import as_dtype
from jitflow.graph import OPS, Sample, make_node
from jitflow.tensor import as_tensor

SAMPLED = sorted(name for name, op in OPS.items() if not op.source)

HALVES = (jf.float16, jf.bfloat16)
INTEGERS = (jf.int8, jf.int16, jf.int32, jf.int64, jf.uint8, jf.uint16, jf.uint32, jf.uint64)
DTYPES = (jf.bool_, *INTEGERS, *HALVES, jf.float32, jf.float64)
#: Of the inputs: mostly what people compute with.
INPUT_DTYPES = (*[jf.float32, jf.float64] * 4, *[jf.int32, jf.int64] * 2, *DTYPES)
SPECIAL = [0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 5e-324, 1e-40, 3.5, -2.5, 1e20]


@dataclass(frozen=True)
class Step:
    """One call: `make` gets the tensors of `operands` and `arguments`."""

    call: str
    operands: tuple[int, ...]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """A source: ``placeholder``, ``constant`` or ``variable``, its declared shape and its value."""

    kind: str
    shape: tuple[Any, ...]
    value: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A graph to test. Numbers name inputs first, then steps; `fetches` are numbers."""

    seed: int
    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    fetches: tuple[int, ...]

    def build(self) -> tuple[list[Any], list[Any], dict[Any, Any]]:
        """Return all tensors by number (None where a step is invalid), the fetched ones, and the feeds."""
        tensors: list[Any] = []
        feeds: dict[Any, Any] = {}
        for number, x in enumerate(self.inputs):
            if x.kind == "placeholder":
                t = jf.placeholder(f"x{number}", x.value.dtype, x.shape)
                feeds[t] = x.value
            else:
                t = jf.constant(x.value) if x.kind == "constant" else jf.variable(f"v{number}", x.value)
            tensors.append(t)
        for step in self.steps:
            operands = [tensors[k] for k in step.operands]
            tensors.append(None if None in operands else _make(step, operands))
        fetched = [tensors[k] for k in self.fetches if tensors[k] is not None]
        return tensors, fetched, feeds

    def text(self) -> str:
        """Return the case as Python that rebuilds it."""
        lines = [f"# seed {self.seed}"]
        for number, x in enumerate(self.inputs):
            value = f"np.array({x.value.tolist()!r}, {x.value.dtype.name!r}).reshape({x.value.shape})"
            lines.append(f"t{number} = {x.kind} of shape {x.shape}: {value}")
        for number, s in enumerate(self.steps, len(self.inputs)):
            args = ", ".join([*(f"t{k}" for k in s.operands), *(f"{k}={v!r}" for k, v in s.arguments.items())])
            lines.append(f"t{number} = {s.call}({args})")
        lines.append(f"fetch {', '.join(f't{k}' for k in self.fetches)}")
        return "\n".join(lines)


def _make(step: Step, operands: Sequence[Any]) -> Any:
    try:
        if step.call == "sample":
            return _make_sample(operands, **step.arguments)
        return CALLS[step.call].make(*operands, **step.arguments)
    except (jf.ShapeError, jf.DTypeError):
        return None


def _make_sample(operands: Sequence[Any], *, op: str, number: int, own: tuple[bool, ...]) -> Any:
    """Return sample `number` of operator `op`, with the inputs that are not its `own` made of `operands`."""
    sample = samples_of(op)[number]
    rest = iter(operands)
    inputs = [
        jf.constant(x) if is_own else _fitted(next(rest), as_dtype(x.dtype), x.shape)
        for x, is_own in zip(sample.inputs, own, strict=True)
    ]
    return as_tensor(make_node(OPS[op], [t.node for t in inputs], sample.attrs))


def _fitted(x: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Return elements of `x`, again and again if there are too few, in another dtype and shape."""
    size, wanted = int(np.prod(x.shape, dtype=np.int64)), int(np.prod(shape, dtype=np.int64))
    if size == 0 < wanted:
        raise jf.ShapeError("nothing to make it of")
    if x.shape != shape:
        flat = jf.reshape(x, (size,))
        x = jf.tile(flat, -(-wanted // size))[:wanted] if size < wanted else flat[:wanted]
        x = jf.reshape(x, shape)
    return x if x.dtype == dtype else jf.astype(x, dtype)


@cache
def samples_of(op: str) -> list[Sample]:
    """Return the samples of an operator that are valid calls."""
    made = OPS[op].samples
    return [] if made is None else [s for s in made(np.random.default_rng(0)) if s.raises is None]


def _sample_step(rng: random.Random, tensors: Sequence[Any]) -> Step | None:
    op = rng.choice(SAMPLED)
    if not samples_of(op):
        return None
    number = rng.randrange(len(samples_of(op)))
    fixed = [k for k, t in enumerate(tensors) if all(isinstance(d, int) for d in t.shape)]
    own = tuple(not fixed or rng.random() < 0.3 for _ in samples_of(op)[number].inputs)
    operands = tuple(rng.choice(fixed[-6:]) for is_own in own if not is_own)
    return Step("sample", operands, {"op": op, "number": number, "own": own})


@dataclass(frozen=True)
class _Call:
    """A kind of step: how many operands, what else to choose, how to build it."""

    make: Callable[..., Any]
    arity: int
    choose: Callable[[random.Random, Sequence[Any]], dict[str, Any]] = lambda rng, xs: {}
    weight: int = 1


def _axis(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    return {"axis": rng.randrange(-xs[0].ndim, xs[0].ndim) if xs[0].ndim else 0}


def _reduction(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    rank = xs[0].ndim
    pick = rng.random()
    axis: Any = None
    if rank and pick < 0.5:
        axis = rng.randrange(-rank, rank)
    elif rank > 1 and pick < 0.75:
        axis = tuple(rng.sample(range(rank), 2))
    return {"axis": axis, "keepdims": rng.random() < 0.4}


def _arg_reduction(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    axis = rng.randrange(-xs[0].ndim, xs[0].ndim) if xs[0].ndim and rng.random() < 0.8 else None
    return {"axis": axis, "keepdims": rng.random() < 0.3}


def _slices(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    ends = [None, None, 0, 1, 2, 5, -1, -2]
    key: list[Any] = []
    for _ in range(rng.randint(0, max(xs[0].ndim, 1))):
        pick = rng.random()
        if pick < 0.6:
            key.append(slice(rng.choice(ends), rng.choice(ends), rng.choice([None, None, 1, 2, 3, -1, -2])))
        elif pick < 0.8:
            key.append(rng.choice([0, -1]))
        elif pick < 0.9:
            key.append(None)
        elif Ellipsis not in key:
            key.append(Ellipsis)
    return {"key": tuple(key)}


def _permutation(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    return {"axes": tuple(rng.sample(range(xs[0].ndim), xs[0].ndim))}


def _pads(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    width = tuple((rng.randint(0, 2), rng.randint(0, 3)) for _ in range(xs[0].ndim))
    return {"pad_width": width or 0, "constant_values": rng.choice([0, 1])}


def _scalar(rng: random.Random, xs: Sequence[Any]) -> dict[str, Any]:
    return {"value": rng.choice([0, 1, -1, 2, 3, 0.0, -0.0, 1.0, -1.5, 0.5, 2.0, 1e-3])}


def _elementwise(*functions: Any, arity: int, weight: int = 1) -> dict[str, _Call]:
    return {f.__name__: _Call(f, arity, weight=weight) for f in functions}


def _reductions(*functions: Any) -> dict[str, _Call]:
    return {f.__name__: _Call(f, 1, _reduction, 2) for f in functions}


def _safe_matmul(a: Any, b: Any) -> Any:
    return a @ b


def _gather(x: Any, indices: Any, *, axis: int) -> Any:
    if indices.dtype not in INTEGERS or not x.ndim:
        raise jf.DTypeError("indices are integers")
    # Into range by remainder, so that most gathers succeed; an empty axis stays an error.
    size = jf.constant(np.asarray(3, indices.dtype.np))
    return jf.take(x, jf.remainder(indices, size), axis=axis)


def _attention(x: Any, y: Any, *, causal: bool, masked: bool) -> Any:
    """Each row of `x` looks at the rows of `y`."""
    mask = (jf.sum(y, axis=-1) > 0)[..., None, :] if masked else None
    return jf.nn.attention(x, y, y, causal=causal, mask=mask)


def _nearest(x: Any, y: Any, *, arg: bool) -> Any:
    """Distances of the rows of `x` from those of `y`, and the least of them."""
    d = jf.sum(x * x, axis=-1, keepdims=True) - 2 * (x @ y.mT) + jf.sum(y * y, axis=-1)[..., None, :]
    return jf.argmin(d, axis=-1) if arg else jf.min(d, axis=-1)


def _head(x: Any, w: Any, *, kind: str) -> Any:
    """A product and what is computed of its rows."""
    functions: dict[str, Any] = {
        "softmax": jf.softmax,
        "argmax": lambda y: jf.argmax(y, axis=-1),
        "norm": lambda y: jf.layer_norm(jf.tanh(y) + 1),
        "twice": lambda y: jf.softmax(y) @ w.mT,
        "lower": lambda y: jf.sum(jf.tril(y, k=1), axis=-1),
    }
    return functions[kind](x @ w)


CALLS: dict[str, _Call] = {
    **_elementwise(
        jf.negative,
        jf.abs,
        jf.sign,
        jf.floor,
        jf.ceil,
        jf.round,
        jf.sqrt,
        jf.exp,
        jf.log,
        jf.tanh,
        jf.sin,
        jf.cos,
        jf.erf,
        jf.logical_not,
        jf.relu,
        jf.gelu,
        arity=1,
    ),
    **_elementwise(jf.add, jf.subtract, jf.multiply, jf.divide, jf.maximum, jf.minimum, arity=2, weight=3),
    **_elementwise(
        jf.floor_divide,
        jf.remainder,
        jf.pow,
        jf.equal,
        jf.not_equal,
        jf.less,
        jf.less_equal,
        jf.greater,
        jf.greater_equal,
        jf.logical_and,
        jf.logical_or,
        jf.logical_xor,
        arity=2,
    ),
    "add_scalar": _Call(lambda x, *, value: x + value, 1, _scalar, 3),
    "multiply_scalar": _Call(lambda x, *, value: x * value, 1, _scalar, 3),
    "where": _Call(lambda c, x, y: jf.where(jf.astype(c, jf.bool_), x, y), 3, weight=2),
    "clip": _Call(lambda x: jf.clip(x, -1, 2), 1),
    "astype": _Call(lambda x, *, dtype: jf.astype(x, dtype), 1, lambda rng, xs: {"dtype": rng.choice(DTYPES)}, 3),
    **_reductions(jf.sum, jf.prod, jf.mean, jf.var, jf.max, jf.min, jf.any, jf.all),
    "argmax": _Call(jf.argmax, 1, _arg_reduction),
    "argmin": _Call(jf.argmin, 1, _arg_reduction),
    "softmax": _Call(jf.softmax, 1, _axis, 2),
    "log_softmax": _Call(jf.log_softmax, 1, _axis),
    "layer_norm": _Call(jf.layer_norm, 1, _axis, 2),
    "matmul": _Call(_safe_matmul, 2, weight=4),
    "transpose_matmul": _Call(lambda a, b: a @ b.mT, 2, weight=2),
    "attention": _Call(
        _attention, 2, lambda rng, xs: {"causal": rng.random() < 0.5, "masked": rng.random() < 0.3}, weight=2
    ),
    "nearest": _Call(_nearest, 2, lambda rng, xs: {"arg": rng.random() < 0.5}, weight=2),
    "head": _Call(
        _head, 2, lambda rng, xs: {"kind": rng.choice(["softmax", "argmax", "norm", "twice", "lower"])}, weight=3
    ),
    "getitem": _Call(lambda x, *, key: x[key], 1, _slices, 4),
    "permute_dims": _Call(lambda x, *, axes: jf.permute_dims(x, axes), 1, _permutation, 2),
    "flatten": _Call(lambda x: jf.reshape(x, (-1,)), 1),
    "reshape": _Call(
        lambda x, *, shape: jf.reshape(x, shape),
        1,
        lambda rng, xs: {"shape": rng.choice([(1, -1), (-1, 1), (3, -1), (-1, 2), (1, 1, -1), (2, 2, -1)])},
    ),
    "expand_dims": _Call(jf.expand_dims, 1, lambda rng, xs: {"axis": rng.randint(0, xs[0].ndim)}),
    "broadcast_to": _Call(
        lambda x, *, lead: jf.broadcast_to(x, (*lead, *x.shape)),
        1,
        lambda rng, xs: {"lead": rng.choice([(1,), (2,), (3, 1)])},
    ),
    "flip": _Call(jf.flip, 1, _axis),
    "roll": _Call(jf.roll, 1, lambda rng, xs: {"shift": rng.randint(-3, 3), **_axis(rng, xs)}),
    "pad": _Call(jf.pad, 1, _pads, 2),
    "concat": _Call(lambda x, y, *, axis: jf.concat([x, y], axis=axis), 2, _axis, 2),
    "stack": _Call(lambda x, y: jf.stack([x, y], axis=0), 2),
    "take": _Call(_gather, 2, _axis, 2),
}
_NAMES = list(CALLS)
_WEIGHTS = [CALLS[name].weight for name in _NAMES]


def random_values(rng: random.Random, dtype: Any, shape: tuple[int, ...], special: float) -> np.ndarray[Any, Any]:
    """Return an array of which about `special` of the elements are special values."""
    generator = np.random.default_rng(rng.getrandbits(32))
    size = int(np.prod(shape, dtype=np.int64))
    if dtype == jf.bool_:
        return (generator.random(shape) < 0.5).astype(bool)
    pick = generator.random(size) < special
    with np.errstate(all="ignore"):
        if dtype.is_float:
            values = generator.normal(0.0, 2.0, size)
            values[pick] = generator.choice(SPECIAL, int(pick.sum()))
        else:
            values = generator.integers(-9 * dtype.is_signed, 10, size).astype(dtype.np)
            extremes = np.array([0, 1, dtype.min, dtype.max - 1, dtype.max], dtype.np)
            values[pick] = generator.choice(extremes, int(pick.sum()))
        return np.asarray(values.astype(dtype.np).reshape(shape))


def random_case(seed: int, size: int | None = None) -> Case:
    """Return the case of `seed`, of about `size` steps."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return _with_product(rng, seed, size)
    big = rng.random() < 0.3
    extents = [0, 1, 2, 3, 5, 7] if not big else [1, 2, 15, 16, 17, 33, 64, 67, 130]
    dims = {"n": rng.choice(extents), "m": rng.choice(extents), "k": rng.choice(extents[1:])}
    literal = [rng.choice(extents[1:]) for _ in range(2)]
    is_static = rng.random() < 0.5
    shapes: list[tuple[Any, ...]] = [
        (), (1,), ("n",), (literal[0],), (literal[1],), ("n", 1), ("n", "m"), ("m", "k"), ("n", literal[0]),
        (literal[0], "m"), ("k", literal[0]), (literal[0], literal[1]), (2, "n", literal[0]),
    ]  # fmt: skip
    special = rng.choice([0.0, 0.0, 0.05, 0.3])
    inputs = []
    for _ in range(rng.randint(1, 3)):
        dtype, shape = rng.choice(INPUT_DTYPES), rng.choice(shapes)
        sizes = tuple(dims.get(d, d) for d in shape)
        inputs.append(Input("placeholder", sizes if is_static else shape, random_values(rng, dtype, sizes, special)))
    for _ in range(rng.randint(0, 2)):
        dtype, shape = rng.choice(INPUT_DTYPES), rng.choice([(), (1,), (literal[0],), (literal[0], literal[1])])
        inputs.append(Input(rng.choice(["constant", "variable"]), shape, random_values(rng, dtype, shape, special)))
    return _grown(rng, Case(seed, tuple(inputs), (), ()), dims, size)


def _with_product(rng: random.Random, seed: int, size: int | None) -> Case:
    """Return a case that begins with a product and what is computed of its rows."""
    n, m, k = (rng.choice([1, 3, 7, 16, 33, 67, 100]) for _ in range(3))
    dims = {"n": n, "m": m}
    lead = rng.choice([(), (), (2,)])
    name = rng.choice(["attention", "nearest", "head"])
    right = (k, "m") if name == "head" else (*lead, "m", k)
    is_static = rng.random() < 0.5
    dtype, special = rng.choice([jf.float32, jf.float32, jf.float64, jf.float16]), rng.choice([0.0, 0.0, 0.02])
    inputs = []
    for shape in ((*lead, "n", k), right):
        sizes = tuple(dims.get(d, d) if isinstance(d, str) else d for d in shape)
        kind = rng.choice(["placeholder", "constant"]) if inputs else "placeholder"
        declared = shape if kind == "placeholder" and not is_static else sizes
        inputs.append(Input(kind, declared, random_values(rng, dtype, sizes, special)))
    case = Case(seed, tuple(inputs), (), ())
    tensors, _, _ = case.build()
    first = Step(name, (0, 1), CALLS[name].choose(rng, tensors))
    return _grown(rng, Case(seed, case.inputs, (first,), ()), dims, rng.randint(0, 3) if size is None else size)


def _grown(rng: random.Random, case: Case, dims: dict[str, int], size: int | None) -> Case:
    """Return `case` with about `size` steps more, and with fetches."""
    tensors, _, _ = case.build()
    steps = list(case.steps)
    wanted = len(steps) + (rng.randint(1, 14) if size is None else size)
    for _ in range(4 * wanted):
        if len(steps) >= wanted:
            break
        step = _sample_step(rng, tensors) if rng.random() < 0.4 else _written_step(rng, tensors)
        made = None if step is None else _make(step, [tensors[k] for k in step.operands])
        if made is None or _too_large(made, dims):
            continue
        steps.append(step)
        tensors.append(made)
    last = len(tensors) - 1
    fetches = [last, *(rng.randrange(len(tensors)) for _ in range(rng.randint(0, 2)))]
    return Case(case.seed, case.inputs, tuple(steps), tuple(dict.fromkeys(fetches)))


def _written_step(rng: random.Random, tensors: Sequence[Any]) -> Step:
    name = rng.choices(_NAMES, _WEIGHTS)[0]
    call = CALLS[name]
    # Recent tensors more often, so that chains grow.
    recent = range(max(0, len(tensors) - 4), len(tensors))
    numbers = tuple(
        rng.choice(recent) if rng.random() < 0.6 else rng.randrange(len(tensors)) for _ in range(call.arity)
    )
    return Step(name, numbers, call.choose(rng, [tensors[k] for k in numbers]))


def _too_large(tensor: Any, dims: dict[str, int]) -> bool:
    count = 1
    for d in tensor.shape:
        count *= d if isinstance(d, int) else 140
    return count > 200_000
