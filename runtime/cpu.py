"""Native object code in, callable addresses out.

MCJIT links the object and gives it pages that are writable first and executable after, never both. It must not meet
an object that it cannot link: a symbol it does not find becomes an address that crashes when called, and asking it
for a function that is not there ends the process. So the symbol table of the object is read here first, and only
names on an allow-list reach the linker.

Objects are ELF on every system (LLVM's JIT links ELF on Windows and macOS as well).
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm

from jitflow.errors import CompileError, CompilerBug

# The C functions that LLVM itself calls for large copies and fills. ctypes knows their addresses on every system;
# memmove also serves as memcpy, whose contract is a part of its own.
_MEMMOVE = ctypes.cast(ctypes.memmove, ctypes.c_void_p).value or 0
_MEMSET = ctypes.cast(ctypes.memset, ctypes.c_void_p).value or 0
LIBRARY: Mapping[str, int] = {"memcpy": _MEMMOVE, "memmove": _MEMMOVE, "memset": _MEMSET}

# Symbols given to the linker are global to the process, so that a name and the link it is meant for must stay together.
_linking = threading.Lock()


class LoadedCode:
    """Machine code in memory. It stays there until :meth:`close`, or until the object is garbage."""

    def __init__(self, engine: llvm.ExecutionEngine, functions: frozenset[str]) -> None:
        self._engine = engine
        self._functions = functions

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def address(self, name: str) -> int:
        """Return the address of the function `name`."""
        if name not in self._functions:
            raise CompilerBug(f"the loaded code has no function {name!r}, only {sorted(self._functions)}")
        return int(self._engine.get_function_address(name))

    def close(self) -> None:
        """Unload the code. Nothing may be running in it or call it later."""
        self._functions = frozenset()
        self._engine.close()


def load_object(code: bytes, externs: Mapping[str, int] | None = None) -> LoadedCode:
    """Link `code`, an ELF object, and return its functions.

    It may use the functions in :data:`LIBRARY` and in `externs` (name to address). Any other undefined symbol raises
    CompilerBug, before LLVM has seen the object.
    """
    defined, undefined = read_symbols(code)
    allowed = {**LIBRARY, **(externs or {})}
    unknown = sorted(undefined - allowed.keys())
    if unknown:
        raise CompilerBug(f"compiled code refers to {', '.join(unknown)}, which jitflow does not provide")
    _check_executable_memory()
    with _linking:
        for name in undefined:
            llvm.add_symbol(name, allowed[name])
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target().create_target_machine(jit=True))
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
    return LoadedCode(engine, frozenset(defined))


@functools.cache
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


@functools.cache
def _check_executable_memory() -> None:
    try:
        llvm.check_jit_execution()
    except OSError as error:
        raise CompileError(
            f"this process may not make memory executable ({error.strerror}); "
            "a security policy such as SELinux or a hardened container forbids it"
        ) from None


# ---------------------------------------------------------------------------------------------------------------------
# The symbol table of an ELF object (little-endian, 64 bit: x86-64 and aarch64)

_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATABLE, _SYMBOL_TABLE, _FUNCTION, _UNDEFINED, _LOCAL = 1, 2, 2, 0, 0


def read_symbols(code: bytes) -> tuple[set[str], set[str]]:
    """Return the functions that an ELF object defines for others, and the symbols it needs."""
    defined: set[str] = set()
    undefined: set[str] = set()
    try:
        ident, kind, *_, section_offset, _, _, _, _, entry_size, n_sections, _ = _FILE_HEADER.unpack_from(code)
        if ident[:6] != b"\x7fELF\x02\x01" or kind != _RELOCATABLE or entry_size != _SECTION.size:
            raise CompilerBug("compiled code is not a 64-bit little-endian ELF object")
        sections = [_SECTION.unpack_from(code, section_offset + i * entry_size) for i in range(n_sections)]
        for _, type_, _, _, offset, size, link, *_ in sections:
            if type_ != _SYMBOL_TABLE:
                continue
            names = code[sections[link][4] : sections[link][4] + sections[link][5]]
            # The first entry of every symbol table is empty.
            for at in range(offset + _SYMBOL.size, offset + size, _SYMBOL.size):
                name_at, info, _, section, _, _ = _SYMBOL.unpack_from(code, at)
                name = names[name_at : names.index(b"\0", name_at)].decode()
                # The linker makes the offset table itself.
                if section == _UNDEFINED and name != "_GLOBAL_OFFSET_TABLE_":
                    undefined.add(name)
                elif info & 15 == _FUNCTION and info >> 4 != _LOCAL:
                    defined.add(name)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError):
        raise CompilerBug("compiled code is a damaged ELF object") from None
    return defined, undefined


# ---------------------------------------------------------------------------------------------------------------------
# Fork

# A child forked while another thread is inside LLVM would inherit llvmlite's lock taken for ever, and would hang in
# its first compilation. Holding the locks across the fork means that nobody is inside at that moment.
LLVM_LOCK = llvm.ffi.lib._lock


def _before_fork() -> None:
    _linking.acquire()
    LLVM_LOCK.__enter__()


def _after_fork() -> None:
    LLVM_LOCK.__exit__()
    _linking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
