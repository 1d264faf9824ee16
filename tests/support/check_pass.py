"""Test one loop pass: text in, text expected, and the same bits from both programs on random buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.dtype_info import finfo
from jitflow.expr import Const, Expr, as_index, substitute
from lowering.exact import np_dtype
from lowering.interp import interpret
from lowering.loop_ir import For, Kernel, statements
from lowering.text import difference, parse_body, parse_fragment, parse_kernel, show
from lowering.verify import verify
from tests.support.bits import equal_bits

Array = np.ndarray[Any, Any]

#: The first dim of the program in each run; every further dim is larger by one.
SIZES = (1, 4, 7, 19)


def check_pass(
    pass_fn: Callable[[Kernel], Kernel],
    *,
    before: str,
    after: str | None = None,
    dims: Sequence[Mapping[str, int]] | None = None,
    inputs: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> None:
    """Check that `pass_fn` turns `before` into `after` (None: returns the very same kernel) and keeps its meaning.

    A text is a kernel, or statements without a header, whose undeclared names are large f32 arrays and dims. Both
    programs run with `dims` (by default with several sizes) and `inputs`, the other buffers being random.
    """
    kernel = parse_program(before)
    result = pass_fn(kernel)
    if after is None:
        assert result is kernel, f"the pass must leave this alone:\n{show(kernel)}\nit gave:\n{show(result)}"
        return
    expected = _expected(after, kernel)
    where = difference(result, expected)
    assert where is None, f"differs at {where}\nexpected:\n{show(expected)}\ngot:\n{show(result)}"
    verify(result)
    text = show(result)
    assert show(parse_program(text)) == text, f"the text does not read back:\n{text}"
    check_same_meaning(kernel, result, dims=dims, inputs=inputs, seed=seed)


def parse_program(text: str) -> Kernel:
    """Return the kernel written in `text`, with or without a header, verified."""
    kernel = parse_fragment(text)
    verify(kernel)
    return kernel


def _expected(text: str, before: Kernel) -> Kernel:
    if text.lstrip().startswith("kernel"):
        return parse_kernel(text)
    return before.with_body(parse_body(text, before.params, before.dims))


def check_same_meaning(
    before: Kernel,
    after: Kernel,
    *,
    dims: Sequence[Mapping[str, int]] | None = None,
    inputs: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> None:
    """Check that both kernels leave the same bits in random buffers, in either order of independent iterations."""
    if dims is None:
        names = [v.name for v in before.dims]
        dims = [{name: n + i for i, name in enumerate(names)} for n in (SIZES if names else (0,))]
    for sizes in dims:
        arrays = random_arrays(before, sizes, np.random.default_rng(seed), inputs)
        expected = {name: a.copy() for name, a in arrays.items()}
        interpret(before, expected, sizes)
        for reverse in (False, True) if _has_order(after) else (False,):
            # A pass may declare a parameter with another shape of the same memory.
            shapes = declared_shapes(
                after, {v.name: sizes[u.name] for u, v in zip(before.dims, after.dims, strict=True)}
            )
            found = {
                b.name: arrays[a.name].copy().reshape(shapes[b.name])
                for a, b in zip(before.params, after.params, strict=True)
            }
            interpret(
                after,
                found,
                {v.name: sizes[u.name] for u, v in zip(before.dims, after.dims, strict=True)},
                reverse=reverse,
            )
            for a, b in zip(before.params, after.params, strict=True):
                same_shape = found[b.name].reshape(expected[a.name].shape)
                assert_same_bits(same_shape, expected[a.name], f"{a.name} with {dict(sizes)}\n{show(after)}")


def _has_order(kernel: Kernel) -> bool:
    return any(isinstance(s, For) and s.kind not in ("serial", "unrolled") for s in statements(kernel.body))


def assert_same_bits(found: Array, expected: Array, what: str) -> None:
    """Check that two arrays hold the same bits, any NaN being as good as another."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    same = equal_bits(found, expected)
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        raise AssertionError(f"{found[at]!r} instead of {expected[at]!r} at {list(at)} of {what}")


def random_arrays(
    kernel: Kernel, sizes: Mapping[str, int], rng: np.random.Generator, inputs: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Return an array for each parameter of `kernel`: those of `inputs`, else random ones."""
    arrays: dict[str, Array] = {}
    for name, shape in declared_shapes(kernel, sizes).items():
        b = next(b for b in kernel.params if b.name == name)
        arrays[name] = inputs[name].copy() if inputs and name in inputs else random_array(np_dtype(b.dtype), shape, rng)
    return arrays


def declared_shapes(kernel: Kernel, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of `kernel` for given dims."""
    values: dict[Any, Expr] = {v: as_index(sizes[v.name]) for v in kernel.dims}
    shapes = {}
    for b in kernel.params:
        shape = []
        for n in b.shape:
            size = substitute(as_index(n), values)
            assert isinstance(size, Const), f"the shape of {b.name} is no expression of the dims"
            shape.append(int(size.value))
        shapes[b.name] = tuple(shape)
    return shapes


def random_array(dtype: np.dtype[Any], shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return random values: floats with some special ones, small non-negative integers (they may be subscripts)."""
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        return rng.integers(0, 8, shape).astype(dtype)
    out = np.asarray(rng.standard_normal(shape) * 2.0 ** rng.integers(-3, 4, shape)).astype(dtype)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, finfo(dtype).smallest_subnormal], dtype)
    return np.where(rng.random(shape) < 0.05, rng.choice(special, shape), out).astype(dtype)
