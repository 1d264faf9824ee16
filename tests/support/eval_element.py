"""Element rules into values, index by index, with numpy scalars: the meaning of `jitflow.expr` written a second time.

A rule is called once with variables as subscripts, as lowering calls it. Arms of ``Select`` are evaluated only where
they are taken and every load is checked, so a read outside an input fails the test.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from jitflow.dtypes import bfloat16, float16, float32
from jitflow.errors import IndexRangeError
from jitflow.expr import (
    INDEX,
    Binary,
    Bitcast,
    Buffer,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Load,
    Reduce,
    Select,
    Unary,
    Var,
    type_of,
)
from jitflow.graph import Index, OpDef
from jitflow.ops.philox import philox_half
from jitflow.simplify import evaluate_index
from jitflow.types import TensorType


class ArrayReader:
    """An input of an element rule: reading it builds a Load of a buffer that stands for the array."""

    def __init__(self, type: TensorType, array: np.ndarray) -> None:
        self.type, self.array = type, array
        self.buffer = Buffer("x", type.dtype, type.shape)

    def __call__(self, *subscripts: Expr) -> Expr:
        assert len(subscripts) == self.type.rank
        assert all(s.type is INDEX for s in subscripts)
        return Load(self.buffer, subscripts)


def evaluate_element(op: OpDef, types, arrays, attrs, out: TensorType, dims=None) -> np.ndarray:
    """Return what the element rule of `op` gives at every index of its result."""
    dims = dims or {}
    if not (op.movement or op.storage) and any(t.dtype.is_half for t in (*types, out)):
        types = [TensorType(float32, t.shape) if t.dtype.is_half else t for t in types]
        arrays = [a.astype(t.dtype.np) for a, t in zip(arrays, types, strict=True)]
        attrs = {k: float32 if v in (float16, bfloat16) else v for k, v in attrs.items()}
        wide = TensorType(float32, out.shape) if out.dtype.is_half else out
        with np.errstate(all="ignore"):
            return evaluate_element(op, types, arrays, attrs, wide, dims).astype(out.dtype.np)
    readers = [ArrayReader(t, a) for t, a in zip(types, arrays, strict=True)]
    subscripts = [Var(f"i{k}", floor=0) for k in range(out.rank)]
    rule = op.element(Index(subscripts, out), *readers, **attrs)
    assert rule.type is type_of(out.dtype), f"the rule gives {rule.type}, not {out.dtype}"
    memory = {r.buffer: r.array for r in readers}
    shape = tuple(evaluate_index(d, dims) for d in out.shape)
    result = np.zeros(shape, out.dtype.np)
    with np.errstate(all="ignore"):
        for place in np.ndindex(shape):
            env = dict(dims) | dict(zip(subscripts, place, strict=True))
            result[place] = value_of(rule, env, memory)
    return result


def _scalar(value, dtype):
    return int(value) if dtype.np is None else dtype.np.type(value)


def value_of(e: Expr, env, memory):
    """Return the value of `e`: a Python int for an index, else a numpy scalar."""

    def v(x):
        return value_of(x, env, memory)

    dtype = e.type.dtype
    match e:
        case Const(value):
            return _scalar(value, dtype)
        case Var():
            return env[e]
        case Load(buffer, index):
            array, place = memory[buffer], tuple(v(i) for i in index)
            assert all(0 <= i < n for i, n in zip(place, array.shape, strict=True)), f"read of {place} in {array.shape}"
            return array[place]
        case Select(cond, a, b):
            return v(a) if v(cond) else v(b)
        case Compare(op, a, b):
            x, y = v(a), v(b)
            return np.bool_({"lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y, "eq": x == y, "ne": x != y}[op])
        case Cast(a, to):
            return convert(v(a), a.type.dtype, to)
        case Bitcast(a, to):
            return np.asarray(v(a)).view(to.np)[()]
        case Unary(op, a):
            return _unary(op, v(a), dtype)
        case Binary(op, a, b):
            return _binary(op, v(a), v(b), dtype)
        case Call(name, args):
            return _call(name, [v(a) for a in args], dtype)
        case Reduce():
            return _reduce(e, env, memory)
        case _:
            raise AssertionError(f"{type(e).__name__} has no place in an element rule")


def convert(x, source, to):
    """Return the number `x` in dtype `to`, by the rules of ``Cast``."""
    if to.is_bool:
        return np.bool_(x != 0)
    if to.is_half and np.isfinite(x):
        return _nearest_half(Fraction(int(x) if source.is_integer or source.is_bool else float(x)), x, to)
    if to.is_float:
        # An integer is rounded once, not by way of float64.
        return to.np.type(x)
    if source.is_float:
        number = 0.0 if np.isnan(x) else float(x)
        whole = to.max if number == math.inf else to.min if number == -math.inf else int(number)
        return _scalar(min(max(whole, to.min), to.max), to)
    return _wrap(int(x), to)


def _nearest_half(exact: Fraction, x, to):
    """Return which of the neighbours of a first guess is nearest to `exact`; of two the one with an even last bit."""
    guess = int(to.np.type(np.float32(float(x))).view(np.uint16)) & 0x7FFF
    infinite = 0x7C00 if to is float16 else 0x7F80

    def distance(bits):
        power = 2 ** (16 if to is float16 else 128)
        size = power if bits == infinite else Fraction(float(np.uint16(bits).view(to.np)))
        return abs(size - abs(exact)), bits & 1

    best = min((b for b in (guess - 1, guess, guess + 1) if 0 <= b <= infinite), key=distance)
    return np.uint16(best | (0x8000 if math.copysign(1.0, x) < 0 else 0)).view(to.np)


def _wrap(x: int, dtype):
    if dtype.np is None:
        return x
    x &= (1 << dtype.bits) - 1
    return dtype.np.type(x - (1 << dtype.bits) if dtype.kind == "i" and x >> (dtype.bits - 1) else x)


def _unary(op, x, dtype):
    if dtype.is_float:
        return {
            "neg": lambda: -x,
            "abs": lambda: dtype.np.type(math.copysign(x, 1.0)),
            "sqrt": lambda: np.sqrt(x),
            "floor": lambda: np.floor(x),
            "ceil": lambda: np.ceil(x),
            "trunc": lambda: np.trunc(x),
            "round": lambda: np.rint(x),
        }[op]()
    if dtype.is_bool:
        assert op == "not"
        return np.bool_(not x)
    return _wrap({"neg": -int(x), "abs": abs(int(x)), "not": ~int(x)}[op], dtype)


def _binary(op, x, y, dtype):
    if dtype.is_bool:
        return np.bool_({"and": bool(x and y), "or": bool(x or y), "xor": bool(x) != bool(y)}[op])
    if op in ("min", "max"):
        # NaN if either is, of equal ones the first.
        if x != x or y != y:
            return x if x != x else y
        first = x >= y if op == "max" else x <= y
        return x if first else y
    if dtype.is_float:
        return {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[op](x, y)
    a, b = int(x), int(y)
    shift = min(max(b, 0), 200)
    assert op not in ("shl", "shr") or b >= 0
    return _wrap(
        {
            "add": lambda: a + b,
            "sub": lambda: a - b,
            "mul": lambda: a * b,
            "floordiv": lambda: a // b if b else 0,
            "mod": lambda: a % b if b else 0,
            "and": lambda: a & b,
            "or": lambda: a | b,
            "xor": lambda: a ^ b,
            "shl": lambda: a << shift,
            "shr": lambda: a >> shift,
        }[op](),
        dtype,
    )


def _power(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf
    except ValueError:
        # A zero to a negative power, or a negative number to a fraction.
        if x != 0:
            return math.nan
        return math.copysign(math.inf, x) if y % 2 == 1 else math.inf


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _finite_or(fn, x: float, beyond: float) -> float:
    try:
        return fn(x)
    except OverflowError:
        return beyond


_MATHS = {
    "exp": _exp,
    "exp2": lambda x: _finite_or(math.exp2, x, math.inf),
    "expm1": lambda x: _finite_or(math.expm1, x, math.inf),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
    "log": _log,
    "log2": lambda x: math.log2(x) if x > 0 else _log(x),
    "log10": lambda x: math.log10(x) if x > 0 else _log(x),
    "log1p": lambda x: math.log1p(x) if x > -1 else -math.inf if x == -1 else math.nan,
    "logaddexp": lambda x, y: x if x == y and math.isinf(x) else max(x, y) + math.log1p(math.exp(-abs(x - y))),
    "cbrt": math.cbrt,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else math.copysign(math.inf, x) if x == 0 else math.nan,
    "hypot": math.hypot,
    "tanh": math.tanh,
    "erf": math.erf,
    "sin": lambda x: math.sin(x) if math.isfinite(x) else math.nan,
    "cos": lambda x: math.cos(x) if math.isfinite(x) else math.nan,
    "tan": lambda x: math.tan(x) if math.isfinite(x) else math.nan,
    "asin": lambda x: math.asin(x) if abs(x) <= 1 else math.nan,
    "acos": lambda x: math.acos(x) if abs(x) <= 1 else math.nan,
    "atan": math.atan,
    "atan2": math.atan2,
    "sinh": lambda x: _finite_or(math.sinh, x, math.copysign(math.inf, x)),
    "cosh": lambda x: _finite_or(math.cosh, x, math.inf),
    "asinh": math.asinh,
    "acosh": lambda x: math.acosh(x) if x >= 1 else math.nan,
    "atanh": lambda x: math.atanh(x) if abs(x) < 1 else math.copysign(math.inf, x) if abs(x) == 1 else math.nan,
    "pow": _power,
}


def _call(name, args, dtype):
    if name == "check_index":
        raw, extent, _ = args
        safe = raw + extent if raw < 0 else raw
        if not 0 <= safe < extent:
            raise IndexRangeError(f"index {raw} of {extent}")
        return safe
    if name in ("philox_low", "philox_high"):
        return philox_half(*args, first=0 if name == "philox_low" else 2)[()]
    x = args[0]
    if name in ("floordiv", "floormod"):
        return _floor_division(name, x, args[1])
    if name == "pow" and dtype.is_integer:
        return _integer_power(int(x), int(args[1]), dtype)
    return dtype.np.type(_MATHS[name](*(float(a) for a in args)))


def _integer_power(x: int, y: int, dtype):
    if y < 0:
        return dtype.np.type({1: 1, -1: -1 if y % 2 else 1}.get(x, 0))
    return _wrap(pow(x, y, 1 << dtype.bits), dtype)


def _floor_division(name, a, b):
    """As the docstrings of `floor_divide` and `remainder` say."""
    of = type(a)
    r = np.fmod(a, b)
    if b == 0 or r != r:
        return of(a / b) if name == "floordiv" and b == 0 else of(np.nan) if name == "floormod" else of(a / b * 0 + r)
    if r != 0 and (r < 0) != (b < 0):
        r = of(r + b)
        shifted = True
    else:
        shifted = False
    if name == "floormod":
        return r if r != 0 else of(math.copysign(0.0, b))
    q = (a - np.fmod(a, b)) / b - (1 if shifted else 0)
    if q == 0:
        return of(math.copysign(0.0, a / b))
    floor = np.floor(q)
    return of(floor + 1 if q - floor > 0.5 else floor)


def _fma(a, b, c):
    of = type(c)
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return of(a * b + c)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return of(a * b + c)
    try:
        return of(float(exact))
    except OverflowError:
        return of(math.inf if exact > 0 else -math.inf)


def _reduce(e: Reduce, env, memory):
    extents = [value_of(x, env, memory) for x in e.extents]
    dtype = e.body.type.dtype
    lanes = e.lanes
    assert lanes & (lanes - 1) == 0
    if e.op in ("argmin", "argmax"):
        best, at = None, -1
        for position, place in enumerate(np.ndindex(*extents)):
            x = value_of(e.body, env | dict(zip(e.vars, place, strict=True)), memory)
            if best is None or (best == best and (x != x or (x < best if e.op == "argmin" else x > best))):
                best, at = x, position
        return np.int64(at)
    identity = {
        "add": 0,
        "mul": 1,
        "and": True,
        "or": False,
        "max": -np.inf if dtype.is_float else None,
        "min": np.inf if dtype.is_float else None,
    }[e.op]
    if identity is None:
        identity = dtype.min if e.op == "max" else dtype.max
    accumulators = [dtype.np.type(identity)] * lanes
    for place in np.ndindex(*extents):
        inner = env | dict(zip(e.vars, place, strict=True))
        k = place[-1] % lanes
        if e.contract and dtype.is_float:
            assert isinstance(e.body, Binary)
            assert e.body.op == "mul"
            a, b = value_of(e.body.a, inner, memory), value_of(e.body.b, inner, memory)
            accumulators[k] = _fma(a, b, accumulators[k])
        else:
            accumulators[k] = _binary(e.op, accumulators[k], value_of(e.body, inner, memory), dtype)
    while len(accumulators) > 1:
        half = len(accumulators) // 2
        accumulators = [
            _binary(e.op, a, b, dtype) for a, b in zip(accumulators[:half], accumulators[half:], strict=True)
        ]
    return accumulators[0]
