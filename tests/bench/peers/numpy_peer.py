"""numpy: the reference (in float64) and a peer (in the dtypes of the workload), from the same lines.

Functions that numpy lacks are written with the fastest it has: a convolution is one product with the patches (a
depthwise one a sum over the taps), `erf` is scipy's where scipy is installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tests.bench.peers.composite import Composite
from tests.bench.peers.form import Array, Data, Form, Unsupported
from tests.bench.workloads import Workload

try:
    from scipy.special import erf as _erf
except ImportError:
    _erf = None


class Namespace(Composite):
    """numpy's functions, by the names that workloads use."""

    exp, log, tanh, sqrt, maximum = np.exp, np.log, np.tanh, np.sqrt, np.maximum
    sum, max, mean, var, argmax, argmin = np.sum, np.max, np.mean, np.var, np.argmax, np.argmin
    matmul, permute, reshape, flip, concat = np.matmul, np.transpose, np.reshape, np.flip, np.concatenate

    @staticmethod
    def erf(x: Array) -> Array:
        if _erf is None:
            raise Unsupported("numpy has no erf, and scipy is not installed")
        return np.asarray(_erf(x))

    @staticmethod
    def transpose(x: Array) -> Array:
        return np.swapaxes(x, -1, -2)

    @staticmethod
    def contiguous(x: Array) -> Array:
        # Unlike ascontiguousarray never the argument itself.
        return np.array(x, order="C")

    @staticmethod
    def take(x: Array, indices: Array) -> Array:
        return np.take(x, indices, axis=0)

    @staticmethod
    def to_float32(x: Array) -> Array:
        return x.astype(np.float32)

    @classmethod
    def attention(cls, q: Array, k: Array, v: Array, *, causal: bool) -> Array:
        scores = np.matmul(q, np.swapaxes(k, -1, -2))
        scores *= q.shape[-1] ** -0.5
        if causal:
            scores[..., ~np.tri(*scores.shape[-2:], dtype=bool)] = -np.inf
        return np.matmul(cls.softmax(scores), v)

    @staticmethod
    def conv(x: Array, weight: Array, bias: Array, *, stride: int, padding: int, groups: int) -> Array:
        outputs, per_group, *window = weight.shape
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        patches = np.lib.stride_tricks.sliding_window_view(x, window, (2, 3))[:, :, ::stride, ::stride]
        if per_group == 1 and groups == outputs:
            taps = weight[:, 0, :, :, None, None]
            y = sum(patches[..., i, j] * taps[:, i, j] for i in range(window[0]) for j in range(window[1]))
            return np.asarray(y) + bias[:, None, None]
        batch, _, height, width, _, _ = patches.shape
        columns = patches.transpose(0, 1, 4, 5, 2, 3).reshape(batch, -1, height * width)
        y = weight.reshape(outputs, -1) @ columns + bias[:, None]
        return np.asarray(y.reshape(batch, outputs, height, width))


class Reference(Namespace):
    """The same in float64, where nothing needs to be fast."""

    @staticmethod
    def erf(x: Array) -> Array:
        return np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64) if _erf is None else np.asarray(_erf(x))

    @staticmethod
    def to_float32(x: Array) -> Array:
        return x.astype(np.float64)


def reference(w: Workload, inputs: tuple[Array, ...], constants: tuple[Array, ...]) -> Array:
    """Return the result of `w` computed in float64."""
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in (*inputs, *constants)]
    return np.asarray(w.body(Reference, *wide))


class Numpy:
    """numpy with its BLAS at the number of threads that the environment says."""

    name, version = "numpy", np.__version__

    def __init__(self, threads: int) -> None:
        """OPENBLAS_NUM_THREADS was read when numpy was imported."""

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        arguments = (*data.inputs, *data.constants)
        into = _INTO.get(w.family)
        if into is None:
            yield Form("", lambda: w.body(Namespace, *arguments))
        else:
            dtype = data.inputs[0].dtype if data.expected.dtype.kind == "f" else data.expected.dtype
            out = np.empty(data.expected.shape, dtype)
            yield Form("out=", lambda: into(w, out, *arguments))


def _relu_chain(w: Workload, out: Array, a: Array, b: Array, c: Array) -> Array:
    np.multiply(a, b, out=out)
    np.add(out, c, out=out)
    return np.maximum(out, 0, out=out)


def _reduction(w: Workload, out: Array, x: Array) -> Array:
    return getattr(np, w.options["function"])(x, axis=w.options["axis"], out=out)


def _permute(w: Workload, out: Array, x: Array) -> Array:
    np.copyto(out, np.transpose(x, w.options["axes"]))
    return out


def _product(w: Workload, out: Array, a: Array, b: Array) -> Array:
    return np.matmul(a, b, out=out)


#: Families that are one or few functions which write into a given array.
_INTO = {
    **dict.fromkeys(("relu_chain", "relu_unaligned", "relu_strided"), _relu_chain),
    **dict.fromkeys(("sum", "var", "max", "argmax"), _reduction),
    **dict.fromkeys(("matmul", "matmul_symbolic", "batched", "skinny", "vector_matrix", "matrix_vector"), _product),
    **dict.fromkeys(("transpose", "permute"), _permute),
    "concat": lambda w, out, a, b: np.concatenate((a, b), axis=w.options["axis"], out=out),
    "gather": lambda w, out, x, indices: np.take(x, indices, axis=0, out=out, mode="clip"),
}
