"""``jitflow doctor``: what this machine offers to jitflow, and whether it works; one line a check."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable

import llvmlite
import llvmlite.binding as llvm
import numpy as np

import jitflow as jf
from jitflow.config import current
from jitflow.errors import JitflowError
from jitflow.session import Session
from lowering.target import host
from runtime.entry import probe


class _Absent(Exception):
    """What a check looked for is not there, and jitflow can do without."""


def _versions() -> str:
    version = ".".join(map(str, llvm.llvm_version_info))
    parts = [f"jitflow {jf.__version__}", f"Python {platform.python_version()}", f"numpy {np.__version__}"]
    return ", ".join([*parts, f"llvmlite {llvmlite.__version__} (LLVM {version})"])


def _target() -> str:
    target = host()
    return f"{target.triple}, {target.cpu}: {target.vector_bits}-bit vectors, {'FMA' if target.has_fma else 'no FMA'}"


def _compiles() -> str:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = jf.sum(jf.exp(x) * 2.0)
    feed = np.linspace(-1, 1, 1001, dtype=np.float32)
    with Session(y) as session:
        got = session.run(y, {x: feed})
    want = np.sum(np.exp(feed.astype(np.float64)) * 2.0)
    if not np.isclose(got, want, rtol=1e-5):
        raise JitflowError(f"a compiled sum is {got}, not {want}")
    return "a kernel compiles, runs and is right"


def _entry() -> str:
    reason = probe()
    return "compiled Python entry in use" if reason is None else f"portable entry in use: {reason}"


def _ptxas() -> str:
    found = shutil.which("ptxas")
    if not found:
        raise _Absent("not installed: PTX is generated, not assembled")
    return found


def _cuda() -> str:
    if importlib.util.find_spec("cuda") is None:
        raise _Absent("no driver bindings (extra 'cuda'); GPU code can only be dumped so far, not run")
    return "driver bindings are installed; GPU code can only be dumped so far, not run"


def _knobs() -> str:
    changed = [f"{k}={v!r}" for k, v in current().changed().items()]
    return ", ".join(changed) if changed else "all at their defaults"


#: Name, check, and whether jitflow needs it.
CHECKS: tuple[tuple[str, Callable[[], str], bool], ...] = (
    ("versions", _versions, True),
    ("target", _target, True),
    ("compiler", _compiles, True),
    ("entry", _entry, True),
    ("ptxas", _ptxas, False),
    ("cuda", _cuda, False),
    ("knobs", _knobs, False),
)


def main() -> int:
    """Run every check and print a line for each; return 0 if all that is needed works."""
    failed = False
    for name, check, needed in CHECKS:
        try:
            mark, text = "ok", check()
        except _Absent as absent:
            mark, text = "--", str(absent)
        except Exception as error:  # a doctor reports what is wrong, whatever it is
            mark, text = ("FAIL" if needed else "--"), f"{type(error).__name__}: {error}"
            failed = failed or needed
        print(f"{mark:>4}  {name:<9} {text}")
    if sys.platform != "linux":
        print("  --  platform  only Linux is tested so far")
    return int(failed)
