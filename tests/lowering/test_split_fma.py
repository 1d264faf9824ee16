"""Contractions for targets without fused multiply-add."""

from __future__ import annotations

import numpy as np

from lowering.parser import parse_kernel
from lowering.passes.split_fma import split_fma
from lowering.pipeline import run_pipeline
from lowering.target import from_name
from lowering.text import show
from tests.support.check_pass import check_pass

DOT = """
kernel k(a: f64[n] read, b: f64[n] read, o: f64[1], n: index):
  o[0] = 0.0:f64
  serial i in n:
    o[0] = fma(a[i], b[i], o[0])
"""


def test_fma_becomes_a_product_and_a_sum() -> None:
    exact = {"a": np.arange(19.0), "b": np.arange(19.0) - 7}
    check_pass(
        split_fma,
        before=DOT,
        after=DOT.replace("fma(a[i], b[i], o[0])", "a[i] * b[i] + o[0]"),
        dims=[{"n": 19}],
        inputs=exact,
    )


def test_a_kernel_without_fma_is_left_alone() -> None:
    check_pass(split_fma, before="serial i in n:\n  out[i] = a[i] * 2.0 + 1.0")


def test_only_targets_that_lack_the_instruction_split() -> None:
    kernel = parse_kernel(DOT)
    assert "fma(" not in show(run_pipeline(kernel, from_name("x86-64-v2"), check=True))
    assert "fma(" in show(run_pipeline(kernel, from_name("x86-64-v3"), check=True))
