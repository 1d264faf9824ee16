"""numba: loops as its users write them, compiled in nopython mode, into a given array; `prange` on several threads.

Without fastmath, as numba does by default, but for reductions: their sums may be reordered (``reassoc``, ``contract``),
without which numba adds one number at a time. Products and convolutions are left out, as its users call BLAS for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba import prange

from tests.bench.peers.form import Data, Form, Unsupported
from tests.bench.workloads import Workload

Kernel = Callable[..., Any]

_REORDER = {"reassoc", "contract", "nsz"}


def _gelu_tanh(out: Any, a: Any, b: Any) -> None:
    half, one = np.float32(0.5), np.float32(1)
    c, d = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
    for i in prange(out.size):
        x = a[i] + b[i]
        out[i] = half * x * (one + math.tanh(c * (x + d * x * x * x)))


def _gelu(out: Any, a: Any, b: Any) -> None:
    half, one, c = np.float32(0.5), np.float32(1), np.float32(math.sqrt(0.5))
    for i in prange(out.size):
        x = a[i] + b[i]
        out[i] = half * x * (one + math.erf(c * x))


def _relu_chain(out: Any, a: Any, b: Any, c: Any) -> None:
    for i in prange(out.size):
        out[i] = max(a[i] * b[i] + c[i], np.float32(0))


def _relu_strided(out: Any, a: Any, b: Any, c: Any) -> None:
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = max(a[i, j] * b[i, j] + c[i, j], np.float32(0))


def _long_chain(out: Any, a: Any, b: Any, c: Any) -> None:
    one = np.float32(1)
    for i in prange(out.size):
        x, y, z = a[i], b[i], c[i]
        out[i] = math.exp(-(x * x)) * math.tanh(y) + math.log(z * z + one) * (x - y) / (math.exp(z) + one)


def _black_scholes(out: Any, spot: Any, strike: Any, time: Any) -> None:
    rate, volatility = 0.1, 0.2
    for i in prange(out.size):
        spread = volatility * math.sqrt(time[i])
        d1 = (math.log(spot[i] / strike[i]) + (rate + 0.5 * volatility * volatility) * time[i]) / spread
        d2 = d1 - spread
        cdf1 = 0.5 + 0.5 * math.erf(d1 * 0.7071067811865476)
        cdf2 = 0.5 + 0.5 * math.erf(d2 * 0.7071067811865476)
        out[i] = spot[i] * cdf1 - strike[i] * math.exp(-rate * time[i]) * cdf2


def _softmax(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        largest = x[i, 0]
        for j in range(1, x.shape[1]):
            largest = max(largest, x[i, j])
        total = np.float32(0)
        for j in range(x.shape[1]):
            e = math.exp(x[i, j] - largest)
            out[i, j] = e
            total += e
        inverse = np.float32(1) / total
        for j in range(x.shape[1]):
            out[i, j] *= inverse


def _log_softmax(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        largest = x[i, 0]
        for j in range(1, x.shape[1]):
            largest = max(largest, x[i, j])
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += math.exp(x[i, j] - largest)
        shift = largest + math.log(total)
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] - shift


def _layer_norm(out: Any, x: Any, scale: Any, bias: Any) -> None:
    for i in prange(x.shape[0]):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        mean = total / np.float32(x.shape[1])
        squares = np.float32(0)
        for j in range(x.shape[1]):
            squares += (x[i, j] - mean) ** 2
        inverse = np.float32(1) / math.sqrt(squares / np.float32(x.shape[1]) + np.float32(1e-5))
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - mean) * inverse * scale[j] + bias[j]


def _rms_norm(out: Any, x: Any, scale: Any) -> None:
    for i in prange(x.shape[0]):
        squares = np.float32(0)
        for j in range(x.shape[1]):
            squares += x[i, j] * x[i, j]
        inverse = np.float32(1) / math.sqrt(squares / np.float32(x.shape[1]) + np.float32(1e-5))
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] * inverse * scale[j]


def _sum_last(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        out[i, 0] = total


def _sum_inner(out: Any, x: Any) -> None:
    """Of each i over j, beside k."""
    for i in prange(x.shape[0]):
        for k in range(x.shape[2]):
            out[i, k] = np.float32(0)
        for j in range(x.shape[1]):
            for k in range(x.shape[2]):
                out[i, k] += x[i, j, k]


def _var_last(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        mean = total / np.float32(x.shape[1])
        squares = np.float32(0)
        for j in range(x.shape[1]):
            squares += (x[i, j] - mean) ** 2
        out[i, 0] = squares / np.float32(x.shape[1])


def _var_inner(out: Any, x: Any) -> None:
    n = np.float32(x.shape[1])
    for i in prange(x.shape[0]):
        mean = np.zeros(x.shape[2], np.float32)
        for j in range(x.shape[1]):
            for k in range(x.shape[2]):
                mean[k] += x[i, j, k]
        for k in range(x.shape[2]):
            mean[k] /= n
            out[i, k] = np.float32(0)
        for j in range(x.shape[1]):
            for k in range(x.shape[2]):
                out[i, k] += (x[i, j, k] - mean[k]) ** 2
        for k in range(x.shape[2]):
            out[i, k] /= n


def _max_last(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        largest = x[i, 0]
        for j in range(1, x.shape[1]):
            largest = max(largest, x[i, j])
        out[i, 0] = largest


def _max_inner(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for k in range(x.shape[2]):
            out[i, k] = x[i, 0, k]
        for j in range(1, x.shape[1]):
            for k in range(x.shape[2]):
                out[i, k] = max(out[i, k], x[i, j, k])


def _argmax_last(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        at = 0
        for j in range(1, x.shape[1]):
            if x[i, j] > x[i, at]:
                at = j
        out[i, 0] = at


def _argmax_inner(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        largest = np.empty(x.shape[2], np.float32)
        for k in range(x.shape[2]):
            largest[k] = x[i, 0, k]
            out[i, k] = 0
        for j in range(1, x.shape[1]):
            for k in range(x.shape[2]):
                if x[i, j, k] > largest[k]:
                    largest[k] = x[i, j, k]
                    out[i, k] = j


def _transpose(out: Any, x: Any) -> None:
    block = 16
    for ib in prange((x.shape[0] + block - 1) // block):
        for jb in range((x.shape[1] + block - 1) // block):
            for i in range(ib * block, min(x.shape[0], ib * block + block)):
                for j in range(jb * block, min(x.shape[1], jb * block + block)):
                    out[j, i] = x[i, j]


def _slice_strided(out: Any, x: Any) -> None:
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = x[1 + i, 1 + 2 * j]


def _slice_reversed(out: Any, x: Any) -> None:
    rows, columns = x.shape
    for i in prange(rows):
        for j in range(columns):
            out[i, j] = x[rows - 1 - i, columns - 1 - j]


def _concat_columns(out: Any, a: Any, b: Any) -> None:
    for i in prange(out.shape[0]):
        out[i, : a.shape[1]] = a[i]
        out[i, a.shape[1] :] = b[i]


def _concat_rows(out: Any, a: Any, b: Any) -> None:
    for i in prange(out.shape[0]):
        out[i] = a[i] if i < a.shape[0] else b[i - a.shape[0]]


def _gather(out: Any, x: Any, indices: Any) -> None:
    for i in prange(out.shape[0]):
        out[i] = x[indices[i]]


def _stencil(out: Any, x: Any) -> None:
    half, eighth = np.float32(0.5), np.float32(0.125)
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            around = x[i, j + 1] + x[i + 2, j + 1] + x[i + 1, j] + x[i + 1, j + 2]
            out[i, j] = half * x[i + 1, j + 1] + eighth * around


def _image(out: Any, x: Any, mean: Any, deviation: Any) -> None:
    full = np.float32(255)
    for i in prange(x.shape[0]):
        for c in range(3):
            for j in range(x.shape[1]):
                out[c, i, j] = (np.float32(x[i, j, c]) / full - mean[c, 0, 0]) / deviation[c, 0, 0]


def _pairwise_argmin(out: Any, x: Any, y: Any) -> None:
    for i in prange(x.shape[0]):
        smallest = np.float32(np.inf)
        for j in range(y.shape[0]):
            total = np.float32(0)
            for k in range(x.shape[1]):
                total += (x[i, k] - y[j, k]) ** 2
            if total < smallest:
                smallest = total
                out[i] = j


_KERNELS: dict[str, Kernel] = {
    "gelu_tanh": _gelu_tanh,
    "gelu": _gelu,
    "relu_chain": _relu_chain,
    "relu_unaligned": _relu_chain,
    "relu_strided": _relu_strided,
    "long_chain": _long_chain,
    "black_scholes": _black_scholes,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "transpose": _transpose,
    "slice_strided": _slice_strided,
    "slice_reversed": _slice_reversed,
    "gather": _gather,
    "stencil": _stencil,
    "image": _image,
    "pairwise_argmin": _pairwise_argmin,
}
_REDUCTIONS: dict[str, tuple[Kernel, Kernel]] = {
    "sum": (_sum_last, _sum_inner),
    "var": (_var_last, _var_inner),
    "max": (_max_last, _max_inner),
    "argmax": (_argmax_last, _argmax_inner),
}
_REORDERED = ("sum", "var", "softmax", "log_softmax", "layer_norm", "rms_norm", "pairwise_argmin")


class Numba:
    """One compiled function per workload, parallel when there are several threads."""

    name, version = "numba", numba.__version__

    def __init__(self, threads: int) -> None:
        numba.set_num_threads(threads)
        self._parallel = threads > 1

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        dtype = data.inputs[0].dtype if data.expected.dtype.kind == "f" else data.expected.dtype
        out = np.empty(data.expected.shape, np.float32 if dtype == np.uint8 else dtype)
        kernel, arguments = _kernel(w, data, out)
        fastmath = _REORDER if w.family in _REORDERED else False
        compiled = numba.njit(kernel, parallel=self._parallel, fastmath=fastmath, error_model="numpy", nogil=True)
        yield Form("out=", lambda: compiled(*arguments), lambda _: out)


def _kernel(w: Workload, data: Data, out: Any) -> tuple[Kernel, tuple[Any, ...]]:
    """Return the loops of a workload and what they are called with, the result first."""
    if w.family in _REDUCTIONS:
        (x,) = data.inputs
        last, inner = _REDUCTIONS[w.family]
        axis = w.options["axis"]
        if axis is None:
            return last, (out.reshape(1, 1), x.reshape(1, -1))
        before = int(np.prod(x.shape[:axis]))
        if axis == x.ndim - 1:
            return last, (out.reshape(before, 1), x.reshape(before, -1))
        return inner, (out.reshape(before, -1), x.reshape(before, x.shape[axis], -1))
    if w.family == "concat":
        return (_concat_columns if w.options["axis"] else _concat_rows), (out, *data.inputs)
    if w.family not in _KERNELS:
        raise Unsupported("no loops of numba for this: its users call a library")
    return _KERNELS[w.family], (out, *data.inputs, *data.constants)
