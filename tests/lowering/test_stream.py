"""Stores at cache lines, and past the caches where arrays are large."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf
from jitflow import session
from jitflow.expr import Compare
from lowering.loop_ir import Kernel, Store, statements
from lowering.parser import parse_kernel
from lowering.passes.vectorize import vectorize
from lowering.stream import array_bytes, is_large, stream_results
from lowering.target import Target, from_name, host
from tests.support.check_pass import check_pass

V4, V2 = from_name("x86-64-v4"), from_name("x86-64-v2")


def kernel(n: str, dims: str = "") -> Kernel:
    text = f"kernel k(a: f32[{n}] read, o: f32[{n}]{dims}):\n  vectorized i in {n}:\n    o[i] = a[i] * 2.0\n"
    return parse_kernel(text)


def streams(k: Kernel) -> int:
    return sum(isinstance(s, Store) and s.stream for s in statements(k.body))


def marked(k: Kernel) -> Kernel:
    return stream_results(k, [k.params[1]])


def test_arrays_are_large_by_what_all_of_them_take() -> None:
    limit = V4.stream_bytes // 8
    assert is_large(array_bytes(kernel(str(limit))), V4) is True
    assert is_large(array_bytes(kernel(str(limit - 1))), V4) is False
    assert isinstance(is_large(array_bytes(kernel("n", ", n: index")), V4), Compare)


def test_only_results_that_the_kernel_does_not_read_are_marked() -> None:
    large = kernel(str(1 << 24))
    assert streams(marked(large)) == 1
    assert stream_results(large, []) is large
    again = parse_kernel(
        "kernel k(a: f32[n] read, o: f32[n], n: index):\n  vectorized i in n:\n    o[i] = a[i] + o[i]\n"
    )
    assert marked(again) is again


def test_whole_vectors_stream_and_masked_ones_do_not() -> None:
    done = vectorize(marked(kernel(str(1 << 24))), target=V4)
    assert streams(done) == 4
    assert streams(vectorize(marked(kernel(str(1 << 24))), target=V2)) == 0


def test_dims_decide_at_run_time() -> None:
    done = vectorize(marked(kernel("n", ", n: index")), target=V4)
    stores = [s for s in statements(done.body) if isinstance(s, Store)]
    assert [s.stream for s in stores] == [True] * 4 + [False] * 5


def test_a_long_light_loop_writes_whole_cache_lines() -> None:
    check_pass(
        lambda k: vectorize(k, target=V4, unroll=4),
        before="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  vectorized i in n:
    o[i] = a[i] * 2.0
""",
        after="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  let i_lead: index = min(lead(o[0]), n)
  let i_whole: index = (n - i_lead) // 64
  serial i_o in i_whole:
    o[ramp(i_lead + i_o * 64, 1, 16)] = a[ramp(i_lead + i_o * 64, 1, 16)] * 2.0:f32x16
    o[ramp(i_lead + i_o * 64 + 16, 1, 16)] = a[ramp(i_lead + i_o * 64 + 16, 1, 16)] * 2.0:f32x16
    o[ramp(i_lead + i_o * 64 + 32, 1, 16)] = a[ramp(i_lead + i_o * 64 + 32, 1, 16)] * 2.0:f32x16
    o[ramp(i_lead + i_o * 64 + 48, 1, 16)] = a[ramp(i_lead + i_o * 64 + 48, 1, 16)] * 2.0:f32x16
  let i_done: index = i_lead + i_whole * 64
  let i_heads: index = (i_lead + 15) // 16
  serial i_t in i_heads + (n - i_done + 15) // 16:
    let start: index = select(i_t < i_heads, i_t * 16, i_done + (i_t - i_heads) * 16)
    let end: index = select(i_t < i_heads, i_lead, n)
    let mask: boolx16 = ramp(start, 1, 16) < splat(end, 16)
    o[ramp(start, 1, 16) if mask] = a[ramp(start, 1, 16) if mask] * 2.0:f32x16
""",
        dims=[{"n": n} for n in (0, 1, 16, 63, 64, 65, 200)],
    )


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_any_address_and_length_gives_the_same(dtype: str, cpu: str) -> None:
    if not from_name(cpu).runs_here():
        pytest.skip(f"no {cpu} here")
    p = jf.placeholder("x", getattr(jf, dtype), ("n",))
    y = p * p + p
    of = np.dtype(dtype)
    with jf.config.override(target_cpu=cpu), jf.Session([y]) as sess:
        f = sess.function([p], y)
        for n in (0, 1, 15, 33, 1000):
            for given, wanted in ((0, 8), (16, 16), (8, 56), (24, 0)):
                x, out = placed(n, given, of), placed(n + 9, wanted, of)
                x[:], out[:] = np.arange(n) % 7, 99
                f(x, out=out[:n])
                np.testing.assert_array_equal(out[:n], x * x + x)
                assert (out[n:] == 99).all()


def placed(n: int, offset: int, dtype: np.dtype) -> np.ndarray:
    """Return an array that begins `offset` bytes after a cache line."""
    memory = np.zeros(n * dtype.itemsize + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start : start + n * dtype.itemsize].view(dtype)


def test_streaming_stores_write_what_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    p = jf.placeholder("x", jf.float32, (9, 1023))
    y = jf.layer_norm(p * 3.0)
    x = np.random.default_rng(0).normal(size=p.shape).astype(np.float32)
    with jf.Session([y]) as plain:
        assert "nontemporal" not in plain.dump("llvm")
        expected = plain.run(y, {p: x})
    here = host()
    if not here.mask_bytes:
        pytest.skip("a target without masked stores aligns nothing, so it streams nothing")
    given = {f: getattr(here, f) for f in Target.__record_fields__}
    eager = Target(**{**given, "stream_bytes": 4096})
    monkeypatch.setattr(session, "host", lambda: eager)
    with jf.Session([y]) as streaming:
        assert "nontemporal" in streaming.dump("llvm")
        f = streaming.function([p], y)
        for offset in (0, 4, 16, 60):
            out = placed(x.size, offset, x.dtype).reshape(x.shape)
            np.testing.assert_array_equal(f(x, out=out), expected)
