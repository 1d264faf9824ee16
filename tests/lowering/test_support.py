"""The helpers that pass tests rest on: they must fail when they should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jitflow.errors import CompilerBug
from lowering.loop_ir import Kernel
from lowering.text import parse_body, parse_kernel, show
from tests.support.check_lines import check_lines
from tests.support.check_pass import assert_same_bits, check_pass, check_same_meaning, parse_program, random_array
from tests.support.random_program import random_gpu_kernel, random_kernel

BEFORE = """
    serial j in 8:
      out[j * 2] = a[0] * 2.0
    """


def becoming(text: str) -> Callable[[Kernel], Kernel]:
    """Return a pass that turns any kernel into `text`."""
    return lambda kernel: kernel.with_body(parse_body(text, kernel.params, kernel.dims))


def test_a_pass_that_does_what_is_expected_is_accepted() -> None:
    after = BEFORE.replace("a[0] * 2.0", "a[0] + a[0]")
    check_pass(becoming(after), before=BEFORE, after=after.replace("j", "k"))
    check_pass(lambda kernel: kernel, before=BEFORE)


def test_other_text_is_refused_and_the_place_named() -> None:
    with pytest.raises(AssertionError, match=r"differs at body\[0\]\.body\[0\]\.value\.op: 'mul' against 'add'"):
        check_pass(lambda kernel: kernel, before=BEFORE, after=BEFORE.replace("*", "+", 2).replace("j +", "j *"))


def test_a_pass_that_must_not_fire_must_return_the_same_object() -> None:
    copy = lambda k: Kernel(k.name, k.params, k.dims, k.body, k.reads)  # noqa: E731
    with pytest.raises(AssertionError, match="the pass must leave this alone"):
        check_pass(copy, before=BEFORE)


def test_an_expectation_that_means_something_else_is_refused() -> None:
    wrong = BEFORE.replace("a[0] * 2.0", "a[1] * 2.0")
    with pytest.raises(AssertionError, match=r"instead of .* of out"):
        check_pass(becoming(wrong), before=BEFORE, after=wrong)


def test_a_loop_made_independent_that_is_not_is_refused() -> None:
    racing = "parallel j in 8:\n  out[0] = a[j]"
    with pytest.raises(CompilerBug, match="race"):
        check_pass(becoming(racing), before="serial j in 8:\n  out[0] = a[j]", after=racing)


def test_an_invalid_program_is_refused() -> None:
    with pytest.raises(CompilerBug, match="f64 is stored where f32 belongs"):
        parse_program("out[0] = 1.0:f64")
    wrong = "out[0] = 1.0:f64"
    with pytest.raises(CompilerBug, match="f64 is stored where f32 belongs"):
        check_pass(becoming(wrong), before="out[0] = 1.0", after=wrong)


def test_every_size_is_run() -> None:
    before = parse_kernel("kernel f(a: f32[n], n: index):\n  serial i in n:\n    a[i] = 1.0")
    after = parse_kernel("kernel f(a: f32[n], n: index):\n  serial i in min(n, 18):\n    a[i] = 1.0")
    with pytest.raises(AssertionError, match=r"at \[18\] of a with \{'n': 19\}"):
        check_same_meaning(before, after)
    check_same_meaning(before, after, dims=[{"n": 0}, {"n": 18}])


def test_given_inputs_are_used() -> None:
    p = np.array([3, 1], np.int64)
    text = "kernel f(p: i64[2] read, out: f32[4]):\n  serial i in 2:\n    out[index(p[i])] = 1.0"
    check_pass(lambda k: parse_kernel(text), before=text, after=text, inputs={"p": p})
    assert p.tolist() == [3, 1]


def test_same_bits_know_zeros_nans_shapes_and_dtypes() -> None:
    assert_same_bits(np.array([np.nan, 1.0]), np.array([-np.nan, 1.0]), "x")
    for found, expected in [
        (np.array([0.0]), np.array([-0.0])),
        (np.array([np.nan]), np.array([1.0])),
        (np.zeros(1, np.float32), np.zeros(1, np.float64)),
        (np.zeros((1, 2)), np.zeros((2, 1))),
        (np.array([1]), np.array([2])),
    ]:
        with pytest.raises(AssertionError):
            assert_same_bits(found, expected, "x")


def test_random_arrays_hold_special_values_and_small_integers() -> None:
    rng = np.random.default_rng(0)
    x = random_array(np.dtype(np.float32), (1000,), rng)
    assert np.isnan(x).any()
    assert np.isinf(x).any()
    assert x.dtype == np.float32
    i = random_array(np.dtype(np.int64), (1000,), rng)
    assert (i.min(), i.max()) == (0, 7)
    assert random_array(np.dtype(bool), (10,), rng).dtype == bool
    assert random_array(np.dtype(np.float64), (), rng).shape == ()


def test_random_kernels_are_those_of_their_seed() -> None:
    assert show(random_kernel(7)) == show(random_kernel(7))
    assert show(random_kernel(7)) != show(random_kernel(8))
    assert show(random_gpu_kernel(7)) == show(random_gpu_kernel(7))


def test_check_lines_wants_the_fragments_in_order() -> None:
    text = "define void @f() {\n  %a =  fadd   float 1.0\n  store float %a\n}\n"
    check_lines(text, "define void", "fadd float", "store", absent=["fmul"])
    with pytest.raises(AssertionError, match=r"'fmul' is not found anywhere"):
        check_lines(text, "fmul")
    with pytest.raises(AssertionError, match=r"'fadd' is not found after line 3 \(it is there, but earlier\)"):
        check_lines(text, "store", "fadd")
    with pytest.raises(AssertionError, match="'store' must not be there, but is on line 3"):
        check_lines(text, absent=["store"])
