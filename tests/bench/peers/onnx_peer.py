"""ONNX Runtime: the body of a workload becomes an ONNX graph with its constants inside, results bound ahead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from tests.bench.peers.form import Data, Form, Unsupported
from tests.bench.workloads import Workload

_OPSET = 23


class _Graph:
    """The nodes and constants made so far."""

    def __init__(self, dtype: Any, options: dict[str, Any]) -> None:
        self.dtype = dtype
        self.options = options
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names = (f"v{k}" for k in itertools.count())

    def constant(self, value: Any) -> _Value:
        array = np.asarray(value)
        name = next(self._names)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return _Value(self, name, array.ndim)

    def node(self, op: str, *inputs: Any, rank: int, outputs: int = 1, **attributes: Any) -> _Value:
        names = [next(self._names) for _ in range(outputs)]
        given = [x.name if isinstance(x, _Value) else x for x in inputs]
        self.nodes.append(helper.make_node(op, given, names, **attributes))
        return _Value(self, names[0], rank)


class _Value:
    """A value in an ONNX graph: a name and a rank."""

    def __init__(self, graph: _Graph, name: str, rank: int) -> None:
        self.graph, self.name, self.rank = graph, name, rank

    def operand(self, x: Any) -> _Value:
        return x if isinstance(x, _Value) else self.graph.constant(self.graph.dtype.type(x))

    def binary(self, op: str, left: Any, right: Any) -> _Value:
        left, right = self.operand(left), self.operand(right)
        return self.graph.node(op, left, right, rank=max(left.rank, right.rank))

    def __add__(self, other: Any) -> _Value:
        return self.binary("Add", self, other)

    def __radd__(self, other: Any) -> _Value:
        return self.binary("Add", other, self)

    def __sub__(self, other: Any) -> _Value:
        return self.binary("Sub", self, other)

    def __mul__(self, other: Any) -> _Value:
        return self.binary("Mul", self, other)

    def __rmul__(self, other: Any) -> _Value:
        return self.binary("Mul", other, self)

    def __truediv__(self, other: Any) -> _Value:
        return self.binary("Div", self, other)

    def __neg__(self) -> _Value:
        return self.graph.node("Neg", self, rank=self.rank)

    def __getitem__(self, key: Any) -> _Value:
        if isinstance(key, int):
            return self.graph.node("Gather", self, self.graph.constant(np.int64(key)), rank=self.rank - 1, axis=0)
        end = np.iinfo(np.int64).max
        starts, ends, steps = zip(
            *((s.start or 0, end if s.stop is None else s.stop, s.step or 1) for s in key), strict=True
        )
        parts = (starts, ends, tuple(range(len(key))), steps)
        return self.graph.node("Slice", self, *(self.graph.constant(np.array(p)) for p in parts), rank=self.rank)


def _unary(op: str) -> Callable[[_Value], _Value]:
    return staticmethod(lambda x: x.graph.node(op, x, rank=x.rank))


def _fold(op: str) -> Callable[..., _Value]:
    def function(x: _Value, *, axis: int | None, keepdims: bool = False) -> _Value:
        axes = range(x.rank) if axis is None else (axis,)
        rank = x.rank if keepdims else x.rank - len(axes)
        return x.graph.node(op, x, x.graph.constant(np.array(axes)), rank=rank, keepdims=int(keepdims))

    return staticmethod(function)


def _place(op: str) -> Callable[..., _Value]:
    def function(x: _Value, *, axis: int | None) -> _Value:
        if axis is None:
            x, axis = x.graph.node("Reshape", x, x.graph.constant(np.array([-1])), rank=1), 0
        return x.graph.node(op, x, rank=x.rank - 1, axis=axis, keepdims=0)

    return staticmethod(function)


class Namespace:
    """ONNX operators, by the names that workloads use."""

    exp, log, tanh, erf, sqrt, relu = map(_unary, ("Exp", "Log", "Tanh", "Erf", "Sqrt", "Relu"))
    sum, max, mean = map(_fold, ("ReduceSum", "ReduceMax", "ReduceMean"))
    argmax, argmin = _place("ArgMax"), _place("ArgMin")

    @classmethod
    def var(cls, x: _Value, *, axis: int | None) -> _Value:
        centred = x - cls.mean(x, axis=axis, keepdims=True)
        return cls.mean(centred * centred, axis=axis)

    @staticmethod
    def matmul(x: _Value, y: _Value) -> _Value:
        return x.graph.node("MatMul", x, y, rank=x.rank)

    @staticmethod
    def permute(x: _Value, axes: tuple[int, ...]) -> _Value:
        return x.graph.node("Transpose", x, rank=x.rank, perm=axes)

    @staticmethod
    def transpose(x: _Value) -> _Value:
        return x.graph.node("Transpose", x, rank=x.rank, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))

    @staticmethod
    def reshape(x: _Value, shape: tuple[int, ...]) -> _Value:
        return x.graph.node("Reshape", x, x.graph.constant(np.array(shape)), rank=len(shape))

    @staticmethod
    def contiguous(x: _Value) -> _Value:
        return x

    @staticmethod
    def flip(x: _Value) -> _Value:
        least = np.iinfo(np.int64).min
        parts = ([-1] * x.rank, [least] * x.rank, list(range(x.rank)), [-1] * x.rank)
        return x.graph.node("Slice", x, *(x.graph.constant(np.array(p)) for p in parts), rank=x.rank)

    @staticmethod
    def concat(parts: tuple[_Value, ...], *, axis: int) -> _Value:
        return parts[0].graph.node("Concat", *parts, rank=parts[0].rank, axis=axis)

    @staticmethod
    def take(x: _Value, indices: _Value) -> _Value:
        return x.graph.node("Gather", x, indices, rank=x.rank, axis=0)

    @staticmethod
    def to_float32(x: _Value) -> _Value:
        x.graph.dtype = np.dtype(np.float32)
        return x.graph.node("Cast", x, rank=x.rank, to=onnx.TensorProto.FLOAT)

    @staticmethod
    def gelu(x: _Value, *, approximate: str = "none") -> _Value:
        return x.graph.node("Gelu", x, rank=x.rank, approximate=approximate)

    @staticmethod
    def softmax(x: _Value) -> _Value:
        return x.graph.node("Softmax", x, rank=x.rank, axis=-1)

    @staticmethod
    def log_softmax(x: _Value) -> _Value:
        return x.graph.node("LogSoftmax", x, rank=x.rank, axis=-1)

    @staticmethod
    def layer_norm(x: _Value, scale: _Value | None, bias: _Value | None) -> _Value:
        if scale is None:
            scale = x.graph.constant(np.ones(x.graph.options["width"], x.graph.dtype))
        given = (x, scale) if bias is None else (x, scale, bias)
        return x.graph.node("LayerNormalization", *given, rank=x.rank, axis=-1, epsilon=1e-5)

    @classmethod
    def rms_norm(cls, x: _Value, scale: _Value | None) -> _Value:
        if scale is not None:
            return x.graph.node("RMSNormalization", x, scale, rank=x.rank, axis=-1, epsilon=1e-5)
        return x / cls.sqrt(cls.mean(x * x, axis=-1, keepdims=True) + 1e-5)

    @staticmethod
    def linear(x: _Value, weight: _Value, bias: _Value) -> _Value:
        return x.graph.node("Gemm", x, weight, bias, rank=2)

    @staticmethod
    def conv(x: _Value, weight: _Value, bias: _Value, *, stride: int, padding: int, groups: int) -> _Value:
        return x.graph.node(
            "Conv", x, weight, bias, rank=4, strides=[stride] * 2, pads=[padding] * 4, group=groups
        )  # fmt: skip

    @staticmethod
    def attention(q: _Value, k: _Value, v: _Value, *, causal: bool) -> _Value:
        return q.graph.node("Attention", q, k, v, rank=4, is_causal=int(causal))


class _PlainAttention(Namespace):
    @classmethod
    def attention(cls, q: _Value, k: _Value, v: _Value, *, causal: bool) -> _Value:
        if causal:
            raise Unsupported("only the operator Attention has a causal mask")
        scores = cls.matmul(q, cls.transpose(k)) * q.graph.options["dim"] ** -0.5
        return cls.matmul(cls.softmax(scores), v)


class OnnxRuntime:
    """One session per workload, all graph optimizations, memory reused, inputs and outputs bound once."""

    name, version = "onnxruntime", ort.__version__

    def __init__(self, threads: int) -> None:
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._options.log_severity_level = 4

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        if not all(a.flags.c_contiguous for a in data.inputs):
            raise Unsupported("ONNX Runtime takes no strided inputs")
        yield self._form("Attention" if "dim" in w.options else "", w, data, Namespace)
        if "dim" in w.options:
            yield self._form("MatMul, Softmax", w, data, _PlainAttention)

    def _form(self, label: str, w: Workload, data: Data, xp: Any) -> Form:
        model = _model(w, data, xp)
        session = ort.InferenceSession(model.SerializeToString(), self._options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        values = [ort.OrtValue.ortvalue_from_numpy(a) for a in data.inputs]
        for k, value in enumerate(values):
            binding.bind_ortvalue_input(f"x{k}", value)
        out = ort.OrtValue.ortvalue_from_shape_and_type(data.expected.shape, _result_dtype(data).type, "cpu")
        binding.bind_ortvalue_output("y", out)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return out

        return Form(label, call, lambda y: np.array(y.numpy()))


def _result_dtype(data: Data) -> Any:
    if data.expected.dtype.kind != "f":
        return data.expected.dtype
    return np.dtype(np.float32) if data.inputs[0].dtype == np.uint8 else data.inputs[0].dtype


def _model(w: Workload, data: Data, xp: Any) -> Any:
    graph = _Graph(data.inputs[0].dtype, w.options)
    inputs = [_Value(graph, f"x{k}", a.ndim) for k, a in enumerate(data.inputs)]
    constants = [graph.constant(c) for c in data.constants]
    try:
        y = w.body(xp, *inputs, *constants)
    except AttributeError as error:
        raise Unsupported(f"ONNX has no {error.name}") from None
    for node in graph.nodes:
        node.output[:] = ["y" if name == y.name else name for name in node.output]
    made = helper.make_graph(
        graph.nodes,
        w.family,
        [_info(f"x{k}", a.dtype, a.shape) for k, a in enumerate(data.inputs)],
        [_info("y", _result_dtype(data), data.expected.shape)],
        graph.constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _info(name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
