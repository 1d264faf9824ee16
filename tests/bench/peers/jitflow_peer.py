"""jitflow: the body of a workload is the graph, its constants are constants, results go into a given array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import jitflow as jf
from tests.bench.peers.form import Data, Form
from tests.bench.workloads import Workload


class Namespace:
    """jitflow's functions, by the names that workloads use."""

    exp, log, tanh, erf, sqrt, maximum = jf.exp, jf.log, jf.tanh, jf.erf, jf.sqrt, jf.maximum
    sum, max, var, argmax, argmin = jf.sum, jf.max, jf.var, jf.argmax, jf.argmin
    matmul, transpose, permute, reshape = jf.matmul, jf.matrix_transpose, jf.permute_dims, jf.reshape
    flip, concat = jf.flip, jf.concat
    relu, gelu, softmax, log_softmax = jf.relu, jf.gelu, jf.softmax, jf.log_softmax
    layer_norm, rms_norm = jf.layer_norm, jf.nn.rms_norm
    conv, attention = jf.nn.conv, jf.nn.attention

    @staticmethod
    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight + bias

    @staticmethod
    def take(x: Any, indices: Any) -> Any:
        return jf.take(x, indices, axis=0)

    @staticmethod
    def to_float32(x: Any) -> Any:
        return jf.astype(x, jf.float32)

    @staticmethod
    def contiguous(x: Any) -> Any:
        return x


def graph(w: Workload, data: Data) -> tuple[list[Any], Any]:
    """Return the inputs and the output of the workload's graph."""
    shapes = [a.shape for a in data.inputs] if w.dims is None else w.dims
    inputs = [
        jf.placeholder(f"x{k}", a.dtype, shape) for k, (a, shape) in enumerate(zip(data.inputs, shapes, strict=True))
    ]
    return inputs, w.body(Namespace, *inputs, *map(jf.constant, data.constants))


class Jitflow:
    """One session per workload, called through `Session.function`: with ``out=`` (what counts), and without."""

    name, version = "jitflow", jf.__version__

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        inputs, output = graph(w, data)
        run = jf.Session([output], threads=self._threads).function(inputs, output)
        out = np.empty_like(run(*data.inputs))
        yield Form("out=", lambda: run(*data.inputs, out=out))
        yield Form("fresh", lambda: run(*data.inputs))
