"""Arenas and large results: who has which memory, what is kept, what is given back."""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import float32, float64
from jitflow.errors import ClosedError, OutOfMemoryError
from runtime import arenas
from runtime.abi import RECYCLE_FROM
from runtime.arenas import Arena, ArenaPool, aligned_array, arena_size


@pytest.mark.parametrize("nbytes", [1, 63, 64, 4096, 100_000, 4 << 20, 9 << 20])
def test_arenas_are_aligned_and_as_large_as_asked(nbytes: int) -> None:
    pool = ArenaPool()
    with pool.lease(nbytes) as address:
        assert address is not None
        assert address % 64 == 0
        ctypes.memset(address, 1, nbytes)
    assert pool.nbytes >= nbytes


def test_no_bytes_need_no_arena() -> None:
    pool = ArenaPool()
    with pool.lease(0) as address:
        assert address is None
    assert pool.nbytes == 0


def test_an_arena_is_kept_for_the_next_run() -> None:
    pool = ArenaPool()
    with pool.lease(10_000) as first:
        pass
    with pool.lease(9_000) as second:
        assert second == first


def test_concurrent_leases_get_different_memory() -> None:
    pool = ArenaPool()
    with pool.lease(5000) as a, pool.lease(5000) as b, pool.lease(5000) as c:
        assert a is not None
        assert b is not None
        assert c is not None
        assert min(abs(a - b), abs(b - c), abs(a - c)) >= 5000
    held = pool.nbytes
    with pool.lease(5000) as d, pool.lease(5000) as e, pool.lease(5000) as f:
        assert {d, e, f} == {a, b, c}
    assert pool.nbytes == held


def test_the_pool_stays_out_of_the_slot_while_compiled_code_uses_it() -> None:
    pool = ArenaPool()
    with pool.lease(100) as usual:
        pass
    assert pool.slot.base == usual
    pool.slot.native_busy = 1
    with pool.lease(100) as other:
        assert other != usual
        assert pool.slot.python_busy == 0
    assert pool.trim() == 4096  # the other one; the slot is in use
    assert pool.slot.base == usual
    pool.slot.native_busy = 0
    assert pool.trim() == 4096
    assert pool.slot.base is None
    assert pool.slot.nbytes == 0


def test_a_lease_keeps_compiled_code_out_of_the_slot() -> None:
    pool = ArenaPool()
    with pool.lease(100):
        assert pool.slot.python_busy == 1
    assert pool.slot.python_busy == 0


def test_arenas_grow_in_few_steps() -> None:
    assert arena_size(1) == arena_size(4096) == 4096
    assert arena_size(4097) == 5120
    sizes = {arena_size(n) for n in range(1 << 16, (1 << 17) + 1, 64)}
    assert len(sizes) == 5  # the power of two itself and four steps to the next
    assert all(n <= arena_size(n) <= n * 1.25 for n in range(4096, 1 << 20, 1237))


def test_a_small_arena_gives_way_to_a_large_one() -> None:
    pool = ArenaPool()
    with pool.lease(10_000):
        pass
    with pool.lease(20_000):
        pass
    assert pool.nbytes == arena_size(20_000)


def test_trim_frees_what_is_not_leased() -> None:
    pool = ArenaPool()
    with pool.lease(5000), pool.lease(6000):
        assert pool.trim() == 0
    assert pool.trim() == arena_size(5000) + arena_size(6000)
    assert pool.nbytes == 0
    with pool.lease(5000) as address:
        assert address is not None


# F47
def test_too_large_an_arena_is_a_memory_error_with_the_bytes() -> None:
    pool = ArenaPool()
    for nbytes in (1 << 55, 1 << 62):
        with pytest.raises(OutOfMemoryError, match=r"^no memory for [0-9]+ bytes of intermediate results$") as caught:
            pool.lease(nbytes).__enter__()
        assert isinstance(caught.value, MemoryError)
    with pool.lease(100) as address:  # the slot was given up
        assert pool.slot.base == address


def test_poison_fills_every_lease_with_nan() -> None:
    pool = ArenaPool(poison=True)
    for _ in range(2):
        with pool.lease(4096) as address:
            assert address is not None
            floats = (ctypes.c_float * 1024).from_address(address)
            assert all(math.isnan(x) for x in floats)
            ctypes.memset(address, 0, 4096)
    assert pool.slot.nbytes == 0  # so that compiled entries come through here too


def test_a_closed_pool_refuses_leases_and_frees_what_comes_back() -> None:
    pool = ArenaPool()
    with pool.lease(100), pool.lease(100):
        pool.close()
    assert pool.nbytes == 0
    for nbytes in (0, 100):
        with pytest.raises(ClosedError, match="the session is closed"):
            pool.lease(nbytes).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_pages_of_a_large_arena_are_there_before_a_run() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    before = resident()
    pool = ArenaPool()
    with pool.lease(64 << 20):
        assert resident() - before > 60 << 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, OutOfMemoryError])
def test_the_slot_is_free_again_when_no_arena_could_be_made(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(nbytes: int) -> Arena:
        raise error

    pool = ArenaPool()
    with monkeypatch.context() as patch:
        patch.setattr(arenas, "Arena", fails)
        with pytest.raises(error), pool.lease(5000):
            pass
    assert pool.slot.python_busy == 0
    with pool.lease(5000) as address:
        assert address == pool.slot.base


def test_threads_never_share_an_arena() -> None:
    pool = ArenaPool()
    wrong = []

    def work(me: int) -> None:
        for k in range(300):
            with pool.lease(4096 + 64 * (k % 7)) as address:
                assert address is not None
                word = ctypes.c_int64.from_address(address)
                word.value = me
                sum(range(50))
                if word.value != me:
                    wrong.append(me)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert pool.slot.python_busy == 0


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (1 << 20, 2)])
def test_aligned_arrays_begin_at_a_cache_line_and_own_their_memory(shape: tuple[int, ...]) -> None:
    array = aligned_array(shape, float32)
    assert array.shape == shape
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array.size == 0 or array.__array_interface__["data"][0] % 64 == 0
    array[...] = 1.0
    assert array.sum() == array.size


# -- results


def _address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_large_result_lies_where_a_dropped_one_was() -> None:
    pool = ArenaPool()
    n = RECYCLE_FROM // 8
    first = pool.result((n,), float64)
    assert first.shape == (n,)
    assert first.dtype == np.float64
    assert first.flags.writeable
    assert first.flags.c_contiguous
    first[:] = 1.0
    at = _address(first)
    view = first[5:]
    del first
    second = pool.result((2, n // 2), float64)  # the view still needs the first one
    assert not np.may_share_memory(view, second)
    assert pool.nbytes == 0
    del view
    assert pool.nbytes >= RECYCLE_FROM
    third = pool.result((2 * n,), float32)
    assert _address(third) == at
    assert pool.nbytes == 0
    third[:] = 2.0
    second[:] = 3.0
    assert third.max() == 2.0


def test_small_results_and_much_smaller_ones_get_memory_of_their_own() -> None:
    pool = ArenaPool()
    assert pool.result((3, 0), float32).shape == (3, 0)
    assert pool.result((), float32).base is None
    big = pool.result((2 * RECYCLE_FROM,), float32)
    at = _address(big)
    del big
    assert _address(pool.result((RECYCLE_FROM // 4,), float32)) != at
    assert pool.trim() >= 9 * RECYCLE_FROM
    assert pool.nbytes == 0


def test_few_dropped_results_are_kept() -> None:
    pool = ArenaPool()
    held = [pool.result((RECYCLE_FROM // 4,), float32) for _ in range(arenas.RECYCLED + 3)]
    held.clear()
    assert pool.nbytes == arenas.RECYCLED * RECYCLE_FROM


def test_dropping_a_result_runs_no_python_code() -> None:
    """A signal handler that ran there would raise where nobody listens, and Ctrl-C would be lost."""
    pool = ArenaPool()
    ran = []
    result = pool.result((RECYCLE_FROM // 4,), float32)
    sys.setprofile(lambda frame, event, arg: ran.append((event, frame.f_code.co_name)))
    try:
        del result
    finally:
        sys.setprofile(None)
    assert [name for event, name in ran if event == "call"] == []
    assert pool.nbytes == RECYCLE_FROM


def test_results_outlive_their_pool() -> None:
    pool = ArenaPool()
    result = pool.result((RECYCLE_FROM // 4,), float32)
    result[-1] = 7.0
    pool.close()
    del pool
    gc.collect()
    assert result[-1] == 7.0


def test_a_result_beyond_all_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        ArenaPool().result((1 << 60,), float32)


@pytest.mark.parametrize("native", [True, False])
def test_both_entries_put_large_results_where_dropped_ones_were(native: bool) -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    with jf.Session([x + 1.0, x]) as session:
        run = session.function([x], [x + 1.0, x], native=native)
        given = np.zeros(RECYCLE_FROM // 4, np.float32)
        first = run(given)
        places = sorted(map(_address, first))
        del first
        again = run(given)
        assert sorted(map(_address, again)) == places
        assert again[0].min() == again[0].max() == 1.0
        assert not again[1].any()
        small = run(given[:5])
        assert small[0].base is None
        del again
        assert session.trim() >= 2 * RECYCLE_FROM
