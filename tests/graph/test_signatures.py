"""The names and signatures of the Python array API standard 2024.12; where jitflow differs, it is listed, with why."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import jitflow as jf

ONE, TWO = "x, /", "x1, x2, /"
REDUCTION = "x, /, *, axis=None, keepdims=False"
CREATION = "dtype=None, device=None"
UNARY = """
    abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor imag isfinite isinf isnan log
    log1p log2 log10 logical_not negative positive real reciprocal round sign signbit sin sinh square sqrt
    tan tanh trunc
"""
BINARY = """
    add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide equal
    floor_divide greater greater_equal hypot less less_equal logaddexp logical_and logical_or logical_xor maximum
    minimum multiply nextafter not_equal pow remainder subtract
"""

#: Every function of the standard by the name under which a namespace has it. (`linalg` beyond the ones here and `fft`
#: are optional extensions.)
STANDARD: dict[str, str] = {
    # creation
    "arange": f"start, /, stop=None, step=1, *, {CREATION}",
    "asarray": "obj, /, *, dtype=None, device=None, copy=None",
    "empty": f"shape, *, {CREATION}",
    "empty_like": f"x, /, *, {CREATION}",
    "eye": f"n_rows, n_cols=None, /, *, k=0, {CREATION}",
    "from_dlpack": "x, /, *, device=None, copy=None",
    "full": f"shape, fill_value, *, {CREATION}",
    "full_like": f"x, /, fill_value, *, {CREATION}",
    "linspace": f"start, stop, /, num, *, {CREATION}, endpoint=True",
    "meshgrid": "*arrays, indexing='xy'",
    "ones": f"shape, *, {CREATION}",
    "ones_like": f"x, /, *, {CREATION}",
    "tril": "x, /, *, k=0",
    "triu": "x, /, *, k=0",
    "zeros": f"shape, *, {CREATION}",
    "zeros_like": f"x, /, *, {CREATION}",
    # dtypes
    "astype": "x, dtype, /, *, copy=True, device=None",
    "can_cast": "from_, to, /",
    "finfo": "type, /",
    "iinfo": "type, /",
    "isdtype": "dtype, kind",
    "result_type": "*arrays_and_dtypes",
    # elementwise
    **dict.fromkeys(UNARY.split(), ONE),
    **dict.fromkeys(BINARY.split(), TWO),
    "clip": "x, /, min=None, max=None",
    # indexing, searching, sets, sorting
    "take": "x, indices, /, *, axis=None",
    "take_along_axis": "x, indices, /, *, axis=-1",
    "argmax": REDUCTION,
    "argmin": REDUCTION,
    "count_nonzero": REDUCTION,
    "nonzero": ONE,
    "searchsorted": "x1, x2, /, *, side='left', sorter=None",
    "where": "condition, x1, x2, /",
    "unique_all": ONE,
    "unique_counts": ONE,
    "unique_inverse": ONE,
    "unique_values": ONE,
    "argsort": "x, /, *, axis=-1, descending=False, stable=True",
    "sort": "x, /, *, axis=-1, descending=False, stable=True",
    # linear algebra at the top
    "matmul": TWO,
    "matrix_transpose": ONE,
    "tensordot": "x1, x2, /, *, axes=2",
    "vecdot": "x1, x2, /, *, axis=-1",
    # manipulation
    "broadcast_arrays": "*arrays",
    "broadcast_to": "x, /, shape",
    "concat": "arrays, /, *, axis=0",
    "expand_dims": "x, /, axis",
    "flip": "x, /, *, axis=None",
    "moveaxis": "x, source, destination, /",
    "permute_dims": "x, /, axes",
    "repeat": "x, repeats, /, *, axis=None",
    "reshape": "x, /, shape, *, copy=None",
    "roll": "x, /, shift, *, axis=None",
    "squeeze": "x, /, axis",
    "stack": "arrays, /, *, axis=0",
    "tile": "x, repetitions, /",
    "unstack": "x, /, *, axis=0",
    # statistics and tests
    "cumulative_prod": "x, /, *, axis=None, dtype=None, include_initial=False",
    "cumulative_sum": "x, /, *, axis=None, dtype=None, include_initial=False",
    "max": REDUCTION,
    "mean": REDUCTION,
    "min": REDUCTION,
    "prod": "x, /, *, axis=None, dtype=None, keepdims=False",
    "std": "x, /, *, axis=None, correction=0.0, keepdims=False",
    "sum": "x, /, *, axis=None, dtype=None, keepdims=False",
    "var": "x, /, *, axis=None, correction=0.0, keepdims=False",
    "all": REDUCTION,
    "any": REDUCTION,
    "diff": "x, /, *, axis=-1, n=1, prepend=None, append=None",
    "__array_namespace_info__": "",
    # the extension for linear algebra
    "linalg.cross": "x1, x2, /, *, axis=-1",
    "linalg.diagonal": "x, /, *, offset=0",
    "linalg.matmul": TWO,
    "linalg.matrix_norm": "x, /, *, keepdims=False, ord='fro'",
    "linalg.matrix_transpose": ONE,
    "linalg.outer": TWO,
    "linalg.tensordot": "x1, x2, /, *, axes=2",
    "linalg.trace": "x, /, *, offset=0, dtype=None",
    "linalg.vecdot": "x1, x2, /, *, axis=-1",
    "linalg.vector_norm": "x, /, *, axis=None, keepdims=False, ord=2",
}

#: Parameters that jitflow has besides those of the standard, or with a default where the standard has none.
EXTENDED = {
    "squeeze": ("axis=None", "numpy's: all axes that are known to have size 1"),
}


def _function(name: str) -> Any:
    thing: Any = jf
    for part in name.split("."):
        thing = getattr(thing, part, None)
    return thing


def _parameters(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def test_the_names_of_the_standard_are_there() -> None:
    assert not {name for name in STANDARD if _function(name) is None}


@pytest.mark.parametrize("name", STANDARD)
def test_signatures_are_the_standards(name: str) -> None:
    expected = inspect.signature(eval(f"lambda {STANDARD[name]}: 0"))
    own = _parameters(inspect.signature(_function(name)))
    wanted = _parameters(expected)
    if name in EXTENDED:
        assert own != wanted, f"{name} is no extension any more"
        assert [p[:2] for p in own] == [p[:2] for p in wanted]
    else:
        assert own == wanted


# ---- the array object

_PLAIN = """
    dtype device mT ndim shape size T to_device __array_namespace__ __getitem__ __setitem__ __abs__ __invert__ __neg__
    __pos__ __bool__ __complex__ __float__ __index__ __int__ __dlpack__ __dlpack_device__ __lt__ __le__ __gt__ __ge__
    __eq__ __ne__
"""
_NUMERIC = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
#: What the standard asks of an array object.
ATTRIBUTES = {
    *_PLAIN.split(),
    *(f"__{name}__" for name in _NUMERIC.split()),
    *(f"__r{name}__" for name in _NUMERIC.split()),
}
#: Attributes that Tensors have not.
WITHOUT = {"__index__": "Python and numpy would take a Tensor for an integer wherever one is wanted"}
#: Attributes that do something else than the standard says.
DIFFERENT = {
    "T": "reverses any number of axes, as numpy's; the standard knows two",
    "shape": "has symbolic dims where the standard has None",
    "size": "is a symbolic dim where the standard has None",
    "__setitem__": "raises TypeError: Tensors are values; x.at[key].set(value) makes another one",
    "__bool__": "raises TypeError as the other conversions do; the standard asks for ValueError",
    "__complex__": "raises TypeError, like the other conversions",
    "__float__": "raises TypeError: nothing has a value before it is run",
    "__int__": "raises TypeError: nothing has a value before it is run",
    "__dlpack__": "raises TypeError: there is no memory before a run",
    "__dlpack_device__": "raises TypeError: there is no memory before a run",
}


def test_tensors_have_the_attributes_of_the_standard() -> None:
    assert {name for name in ATTRIBUTES if not hasattr(jf.Tensor, name)} == set(WITHOUT)
    assert set(DIFFERENT) <= ATTRIBUTES


def test_what_needs_values_or_memory_raises_type_error() -> None:
    x = jf.placeholder("x", jf.float32, ())
    for name in ("__bool__", "__complex__", "__float__", "__int__", "__dlpack__", "__dlpack_device__"):
        assert name in DIFFERENT
        with pytest.raises(TypeError, match="before it is run"):
            getattr(x, name)()
    with pytest.raises(TypeError, match="Tensors are immutable"):
        x[()] = 1.0
    y = jf.placeholder("y", jf.float32, ("n", 2, 3))
    assert (y.T.shape, y.shape[0], y.size) == ((3, 2, "n"), "n", 6 * y.shape[0])
