"""numexpr: the body of a workload becomes one string, evaluated in blocks into a given array.

Numbers in the body become scalars of the inputs' dtype, since numexpr takes literals as float64. Slices of inputs are
views. What numexpr has no function for is left out: products, reductions but the last, moving data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numexpr
import numpy as np

from tests.bench.peers.composite import Composite
from tests.bench.peers.form import Array, Data, Form, Unsupported
from tests.bench.workloads import Workload


class _Expression:
    """The text of an expression and the arrays that its names stand for."""

    def __init__(self, text: str, arrays: dict[str, Any], dtype: Any) -> None:
        self.text, self.arrays, self.dtype = text, arrays, dtype

    def _with(self, form: str, *others: Any) -> _Expression:
        arrays, texts = dict(self.arrays), [self.text]
        for other in others:
            if isinstance(other, _Expression):
                arrays |= other.arrays
                texts.append(other.text)
            else:
                name = f"c{float(other).hex()}".replace(".", "_").replace("-", "m").replace("+", "")
                arrays[name] = self.dtype.type(other)
                texts.append(name)
        return _Expression(form.format(*texts), arrays, self.dtype)

    def __add__(self, other: Any) -> _Expression:
        return self._with("({0} + {1})", other)

    def __radd__(self, other: Any) -> _Expression:
        return self._with("({1} + {0})", other)

    def __sub__(self, other: Any) -> _Expression:
        return self._with("({0} - {1})", other)

    def __mul__(self, other: Any) -> _Expression:
        return self._with("({0} * {1})", other)

    def __rmul__(self, other: Any) -> _Expression:
        return self._with("({1} * {0})", other)

    def __truediv__(self, other: Any) -> _Expression:
        return self._with("({0} / {1})", other)

    def __neg__(self) -> _Expression:
        return self._with("(-{0})")

    def __getitem__(self, key: Any) -> _Expression:
        if self.text not in self.arrays:
            raise Unsupported("numexpr slices only inputs")
        name = f"x{abs(hash(str((self.text, key))))}"
        return _Expression(name, {name: self.arrays[self.text][key]}, self.dtype)


def _call(name: str) -> Callable[..., _Expression]:
    return staticmethod(lambda x: x._with(f"{name}({{0}})"))


def _fold(name: str) -> Callable[..., _Expression]:
    def function(x: _Expression, *, axis: int | None, keepdims: bool = False) -> _Expression:
        if keepdims:
            raise Unsupported("numexpr reduces only at the end of an expression")
        return x._with(f"{name}({{0}}{'' if axis is None else f', axis={axis}'})")

    return staticmethod(function)


class Namespace(Composite):
    """numexpr's functions, by the names that workloads use."""

    exp, log, tanh, sqrt = map(_call, ("exp", "log", "tanh", "sqrt"))
    sum, max = _fold("sum"), _fold("max")

    @staticmethod
    def maximum(x: _Expression, y: float) -> _Expression:
        # Its own maximum makes a float64 of a float32 and a scalar.
        return x._with("where({0} > {1}, {0}, {1})", y)

    @staticmethod
    def contiguous(x: _Expression) -> _Expression:
        return x

    @staticmethod
    def permute(x: _Expression, axes: tuple[int, ...]) -> _Expression:
        if x.text not in x.arrays:
            raise Unsupported("numexpr permutes only inputs")
        return _Expression(x.text, {x.text: np.transpose(x.arrays[x.text], axes)}, x.dtype)

    @staticmethod
    def to_float32(x: _Expression) -> _Expression:
        # A byte becomes an int32, and that times a float32 a float64.
        raise Unsupported("numexpr computes with bytes in float64")


class Numexpr:
    """One call of `evaluate` per workload, compiled before it is timed (`re_evaluate`)."""

    name, version = "numexpr", numexpr.__version__

    def __init__(self, threads: int) -> None:
        numexpr.set_num_threads(threads)

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        arrays = (*data.inputs, *data.constants)
        dtype = data.inputs[0].dtype
        leaves = [_Expression(f"a{k}", {f"a{k}": array}, dtype) for k, array in enumerate(arrays)]
        try:
            whole = w.body(Namespace, *leaves)
        except AttributeError as error:
            raise Unsupported(f"numexpr has no {error.name}") from None
        out = np.empty(data.expected.shape, dtype)
        numexpr.validate(whole.text, local_dict=whole.arrays, out=out)
        yield Form("out=", lambda: _evaluate(whole, out))


def _evaluate(whole: _Expression, out: Array) -> Array:
    numexpr.re_evaluate(whole.arrays)
    return out
