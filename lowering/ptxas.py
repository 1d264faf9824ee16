"""PTX text in, what NVIDIA's assembler says about each kernel out: registers, spills, shared memory.

The assembler (``ptxas``) is no dependency: the driver assembles PTX itself when a program is loaded. Where it is
installed, it shows without a GPU that a kernel is accepted and fits into registers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from jitflow.errors import CompileError, DeviceError
from jitflow.record import record


@record
class Report:
    """What one kernel uses, in registers per thread and in bytes. `stack` is memory that should have been registers."""

    kernel: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


def find_ptxas() -> str | None:
    """Return the path of the installed assembler, or None."""
    return shutil.which("ptxas")


_KERNEL = re.compile(r"Compiling entry function '([^']+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def assemble(ptx: str, chip: str = "sm_90") -> tuple[Report, ...]:
    """Return a report for each kernel of `ptx`, in the order of the text, assembled for `chip`.

    Raises DeviceError where no assembler is installed, CompileError with its message if it refuses the text.
    """
    path = find_ptxas()
    if path is None:
        raise DeviceError("ptxas is not installed, so PTX cannot be assembled here (a GPU's driver does it on loading)")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [path, "-v", f"--gpu-name={chip}", "-o", str(Path(folder) / "kernel.cubin"), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        raise CompileError(f"ptxas refuses the PTX for {chip}: {said.strip()}")
    return tuple(sorted(parse_report(said), key=lambda r: ptx.find(f".entry {r.kernel}(")))


def parse_report(text: str) -> tuple[Report, ...]:
    """Return the reports in what ``ptxas -v`` printed."""
    found = []
    parts = _KERNEL.split(text)
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        stack = _STACK.search(said)
        registers, shared = _REGISTERS.search(said), _SHARED.search(said)
        frame, stores, loads = map(int, stack.groups()) if stack else (0, 0, 0)
        used = int(registers.group(1)) if registers else 0
        found.append(Report(name, used, frame, stores, loads, int(shared.group(1)) if shared else 0))
    return tuple(found)
