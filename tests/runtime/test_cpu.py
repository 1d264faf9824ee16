"""From object code to addresses: which symbols are allowed, and how code is freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jitflow.errors import CompileError, CompilerBug
from lowering.cpu import compile_object
from lowering.target import from_name, host
from runtime import cpu
from runtime.cpu import load_object, read_symbols
from tests.runtime.programs import compile_text

TWICE = """
define i64 @twice(i64 %x) {
  %y = shl i64 %x, 1
  ret i64 %y
}
define internal void @hidden() {
  ret void
}
"""
CALLS = """
declare i64 @helper(i64)
define i64 @calls(i64 %x) {
  %y = call i64 @helper(i64 %x)
  %z = add i64 %y, 1
  ret i64 %z
}
"""
FILLS = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define void @fill(ptr %p, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %p, i8 7, i64 %n, i1 false)
  ret void
}
"""
INT_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def test_object_code_is_loaded_and_called() -> None:
    code = load_object(compile_text(TWICE))
    assert "twice" in code
    assert "hidden" not in code
    assert INT_FUNCTION(code.address("twice"))(21) == 42
    code.close()
    code.close()
    assert "twice" not in code


def test_each_load_has_its_own_memory() -> None:
    data = compile_text(TWICE)
    a, b = load_object(data), load_object(data)
    assert a.address("twice") != b.address("twice")
    a.close()
    assert INT_FUNCTION(b.address("twice"))(4) == 8


def test_asking_for_a_function_that_is_not_there_is_a_bug() -> None:
    code = load_object(compile_text(TWICE))
    with pytest.raises(CompilerBug, match=r"no function 'thrice', only \['twice'\]"):
        code.address("thrice")


def test_an_unknown_extern_is_refused_before_linking() -> None:
    data = compile_object(CALLS, host(), allowed=frozenset({"helper"}))
    assert read_symbols(data) == ({"calls"}, {"helper"})
    with pytest.raises(CompilerBug, match="compiled code refers to helper, which jitflow does not provide"):
        load_object(data)


def test_an_extern_on_the_list_is_called_where_it_is() -> None:
    data = compile_object(CALLS, host(), allowed=frozenset({"helper"}))
    for factor in (10, 100):  # the second load must not call the helper of the first

        @INT_FUNCTION
        def helper(x: int, factor: int = factor) -> int:
            return x * factor

        address = ctypes.cast(helper, ctypes.c_void_p).value
        assert address is not None
        code = load_object(data, {"helper": address})
        assert INT_FUNCTION(code.address("calls"))(5) == 5 * factor + 1


def test_the_memory_functions_of_the_c_library_are_there() -> None:
    data = compile_text(FILLS)
    assert read_symbols(data) == ({"fill"}, {"memset"})
    code = load_object(data)
    memory = (ctypes.c_uint8 * 1000)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("fill"))(ctypes.addressof(memory), 999)
    assert bytes(memory) == b"\7" * 999 + b"\0"


def test_symbols_of_another_machine_are_read_too() -> None:
    data = compile_object(CALLS, from_name("aarch64"), allowed=frozenset({"helper"}))
    assert read_symbols(data) == ({"calls"}, {"helper"})


def test_damaged_objects_never_reach_llvm() -> None:
    data = compile_text(TWICE)
    for bad in (b"", b"\x7fELF", b"MZ" + data[2:], data[:100], data[: len(data) // 2], bytes(len(data))):
        with pytest.raises(CompilerBug, match="compiled code is"):
            load_object(bad)


# F55
def test_forbidden_executable_memory_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> None:
        raise OSError(13, "Permission denied")

    cpu._check_executable_memory.cache_clear()
    monkeypatch.setattr(cpu.llvm, "check_jit_execution", forbidden)
    with pytest.raises(CompileError, match=r"may not make memory executable \(Permission denied\)"):
        load_object(compile_text(TWICE))
    cpu._check_executable_memory.cache_clear()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_code_pages_are_never_writable_and_executable_at_once() -> None:
    code = load_object(compile_text(TWICE))
    address = code.address("twice")
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, rights, *_ = line.split()
        start, end = (int(x, 16) for x in extent.split("-"))
        if start <= address < end:
            assert rights.startswith("r-x")
            return
    raise AssertionError("the code lies in no page")


# F51
def test_a_child_forked_while_others_compile_can_compile() -> None:
    script = textwrap.dedent("""
        import os, sys, threading, time, warnings
        warnings.simplefilter("ignore")  # forking with threads is the point
        from tests.runtime.programs import compile_text
        from runtime.cpu import load_object
        TEXT = "define i64 @f(i64 %x) {{\\n  %y = add i64 %x, {k}\\n  ret i64 %y\\n}}"
        stop = False
        def work(k):
            while not stop:
                load_object(compile_text.__wrapped__(TEXT.format(k=k))).close()
        for k in range(3):
            threading.Thread(target=work, args=(k,), daemon=True).start()
        compile_text(TEXT.format(k=9))
        for _ in range(6):
            child = os.fork()
            if child == 0:
                code = load_object(compile_text.__wrapped__(TEXT.format(k=5)))
                os._exit(0 if "f" in code else 3)
            limit = time.monotonic() + 10
            while True:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    assert status == 0, status
                    break
                if time.monotonic() > limit:
                    os.kill(child, 9)
                    sys.exit("the child hangs")
                time.sleep(0.005)
        stop = True
        os._exit(0)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
