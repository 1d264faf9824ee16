"""What compiled code depends on besides its graph and its target: this jitflow's sources, LLVM, Python, numpy."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from jitflow.dtypes import bfloat16
from runtime.cache import Cache, Key

#: The folder that holds the three packages.
_HOME = str(Path(__file__).resolve().parent.parent)
_PACKAGES = ("jitflow", "lowering", "runtime")


@functools.cache
def versions(cache: Cache) -> tuple[tuple[str, str], ...] | None:
    """Return names and versions of all that takes part in generating code and calling it.

    None if the sources of jitflow are no files here, so that nobody can tell when they change. `cache` remembers what
    files that have not been touched contain.
    """
    digest = _sources_digest(cache)
    if digest is None:
        return None
    return (
        ("jitflow", digest),
        ("llvmlite", llvmlite.__version__),
        ("LLVM", ".".join(map(str, llvm.llvm_version_info))),
        ("Python", sys.implementation.cache_tag or sys.version),
        ("numpy", np.__version__),
        ("bfloat16", "no" if bfloat16.np is None else "yes"),
    )


def _sources_digest(cache: Cache) -> str | None:
    """Return the SHA-256 of all source files.

    Reading them takes 4 ms, asking when they were last touched a tenth of that: content is looked up by the latter.
    """
    files = [found for name in _PACKAGES for found in _sources(os.path.join(_HOME, name))]
    if not files:
        return None
    listing = []
    for path in files:
        s = os.stat(path)
        listing.append(f"{path} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}")
    key = Key("\n".join(listing), ())
    known = cache.get(key)
    if known is not None and len(known) == hashlib.sha256().digest_size:
        return known.hex()
    digest = hashlib.sha256()
    for path in files:
        content = Path(path).read_bytes()
        digest.update(f"{os.path.relpath(path, _HOME)} {len(content)}\n".encode())
        digest.update(content)
    cache.put(key, digest.digest())
    return digest.hexdigest()


def _sources(folder: str) -> Iterator[str]:
    """Yield the Python files below `folder`, in a fixed order."""
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if entry.name.endswith(".py"):
            yield entry.path
        elif entry.is_dir() and not entry.name.startswith(("_", ".")):
            yield from _sources(entry.path)
