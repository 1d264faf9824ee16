"""Every knob as one frozen :class:`Config`, read once from the environment; nothing else reads ``os.environ``.

``current()`` is the configuration of this thread: what the environment said when it was first asked, with the
``override`` blocks around the caller. A session keeps the one it was created under.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import PurePath
from typing import Any

from jitflow.errors import FormatError


def _knob(default: Any, env: str | None, *, code: bool = False) -> Any:
    """Declare a knob: its default, its environment variable, and whether it changes the code that is generated."""
    return field(default=default, metadata={"env": env, "code": code})


#: What ``trace`` may name.
TRACES = ("cache",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All knobs. Tuples of names may be given as one string with commas.

    Attributes
    ----------
    dump : tuple of str
        Passes or stages whose IR is printed when it changed; ``all`` is every one of them.
    dump_dir : str or None
        Folder to write dumps to instead of printing them; all of them, if `dump` names none.
    verify : bool
        Check the IR after every pass (LLVM's own verifier always runs).
    time : bool
        Print a table of pass and compile times.
    trace : tuple of str
        What to print a line about whenever it happens: ``cache``, compiled code that was found on disk, or why not.
    cache_dir : str or None
        Folder that keeps compiled code between processes; None or ``off`` is none. Without ``JITFLOW_CACHE_DIR`` the
        environment gives ``$XDG_CACHE_HOME/jitflow`` or ``~/.cache/jitflow``. Not read while `verify`, `dump` or
        `dump_dir` ask to see the compiler at work.
    cache_limit : int
        Size of that folder in MiB; the code that was used least recently makes room.
    target_cpu : str or None
        CPU to compile for, such as ``x86-64-v3``; None is this machine's.
    threads : int or None
        The most threads that share a loop in sessions that do not say themselves, the caller's among them; None is the
        number of processors that the process may use. Results do not depend on it.
    debug_poison : bool
        Fill scratch memory with NaN before each run, so that reading what was not written shows.
    debug_guard : bool
        End every buffer that a session owns at an inaccessible page, and leave poisoned gaps between those inside an
        arena: an access out of bounds ends the process, or shows. Slow.
    fuse : bool
        Fuse nodes into common kernels. Off, every node is a kernel of its own, with the same bits.
    fast_math : bool
        Allow float identities that are not exact. Set by ``Session(fast_math=True)``, never by the environment.
    """

    dump: tuple[str, ...] = _knob((), "JITFLOW_DUMP")
    dump_dir: str | None = _knob(None, "JITFLOW_DUMP_DIR")
    verify: bool = _knob(False, "JITFLOW_VERIFY")
    time: bool = _knob(False, "JITFLOW_TIME")
    trace: tuple[str, ...] = _knob((), "JITFLOW_TRACE")
    cache_dir: str | None = _knob(None, "JITFLOW_CACHE_DIR")
    cache_limit: int = _knob(256, "JITFLOW_CACHE_LIMIT")
    target_cpu: str | None = _knob(None, "JITFLOW_TARGET_CPU", code=True)
    threads: int | None = _knob(None, "JITFLOW_THREADS")
    debug_poison: bool = _knob(False, "JITFLOW_DEBUG_POISON", code=True)
    debug_guard: bool = _knob(False, "JITFLOW_DEBUG_GUARD", code=True)
    fuse: bool = _knob(True, "JITFLOW_FUSE", code=True)
    fast_math: bool = _knob(False, None, code=True)

    def __post_init__(self) -> None:
        if self.cache_dir in ("", "off"):
            object.__setattr__(self, "cache_dir", None)
        unknown = [name for name in self.trace if name not in TRACES]
        if unknown:
            known = ", ".join(TRACES)
            raise FormatError(f"JITFLOW_TRACE: {unknown[0]!r} is nothing that can be traced; there is {known}")

    def dumps(self, stage: str) -> bool:
        """Tell whether the IR after pass or stage `stage` is to be dumped."""
        return "all" in self.dump or stage in self.dump

    def changed(self) -> dict[str, Any]:
        """Return the knobs that are not at their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def code(self) -> str:
        """Return the knobs that change generated code as text, for keys of what outlives a session."""
        return ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.metadata["code"])


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _parse_flag(text: str) -> bool:
    if text not in ("0", "1", ""):
        raise ValueError("0 or 1")
    return text == "1"


def _parse_threads(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("a positive number")
    return int(text)


def _parse_count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("a number")
    return int(text)


def _parse_text(text: str) -> str | None:
    return text or None


_PARSERS: dict[str, Callable[[str], Any]] = {
    "tuple[str, ...]": _parse_names,
    "bool": _parse_flag,
    "int": _parse_count,
    "int | None": _parse_threads,
    "str | None": _parse_text,
}


def _cache_folder(environ: Mapping[str, str]) -> str | None:
    """Return where users of this system keep what programs can make again, or None if nobody says."""
    base = environ.get("XDG_CACHE_HOME", "")
    if not PurePath(base).is_absolute():  # such a one is to be ignored
        home = environ.get("HOME", "")
        base = str(PurePath(home, ".cache")) if PurePath(home).is_absolute() else environ.get("LOCALAPPDATA", "")
    return str(PurePath(base, "jitflow")) if base else None


def read_environment(environ: Mapping[str, str]) -> Config:
    """Return the configuration that `environ` asks for; FormatError names a variable that cannot be read."""
    found: dict[str, Any] = {"cache_dir": _cache_folder(environ)}
    for f in fields(Config):
        env = f.metadata["env"]
        if env is None or env not in environ:
            continue
        try:
            found[f.name] = _PARSERS[str(f.type)](environ[env].strip())
        except ValueError as error:
            raise FormatError(f"{env}={environ[env]!r}: expected {error}") from None
    return Config(**found)


@cache
def _from_environment() -> Config:
    return read_environment(os.environ)


_override: ContextVar[Config | None] = ContextVar("jitflow_config", default=None)


def current() -> Config:
    """Return the configuration that holds here."""
    return _override.get() or _from_environment()


@contextmanager
def use(config: Config) -> Iterator[None]:
    """Make `config` hold in the block, in this thread only: for work that a session does later."""
    token = _override.set(config)
    try:
        yield
    finally:
        _override.reset(token)


@contextmanager
def override(**knobs: Any) -> Iterator[Config]:
    """Change knobs for the block, in this thread only.

    Examples
    --------
    >>> import jitflow as jf
    >>> with jf.config.override(verify=True, dump="fused") as config:
    ...     config.verify, config.dump
    (True, ('fused',))
    """
    known = {f.name: str(f.type) for f in fields(Config)}
    for name, value in knobs.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise TypeError(f"no knob is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        knobs[name] = _checked(name, value, known[name])
    config = replace(current(), **knobs)
    with use(config):
        yield config


def _checked(name: str, value: Any, kind: str) -> Any:
    """Return `value` as knob `name` of annotation `kind` holds it; TypeError or ValueError if it cannot."""
    match kind:
        case "tuple[str, ...]":
            if isinstance(value, str):
                return _parse_names(value)
            if isinstance(value, (tuple, list)) and all(isinstance(x, str) for x in value):
                return tuple(value)
            raise TypeError(f"knob {name!r} takes names, got {value!r}")
        case "bool":
            if value in (0, 1):
                return bool(value)
            raise TypeError(f"knob {name!r} is True or False, got {value!r}")
        case "int":
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
            raise ValueError(f"knob {name!r} is a number, got {value!r}")
        case "int | None":
            if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
                return value
            raise ValueError(f"knob {name!r} is a positive number or None, got {value!r}")
        case _:
            if value is None or isinstance(value, (str, os.PathLike)):
                return None if value is None else os.fspath(value)
            raise TypeError(f"knob {name!r} is text or None, got {value!r}")
