"""Run loop passes on a text: ``python -m lowering.opt --passes simplify,vectorize file.loop`` prints the result.

The file (``-`` is the standard input) holds kernels, or statements without a header; see `lowering.text`. Passes have
the names of `lowering.pipeline`; ``all`` is the pipeline of the target. This is how a dumped kernel is replayed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jitflow.errors import JitflowError
from lowering.loop_ir import Kernel
from lowering.pipeline import CPU, GPU, Pass, run_pipeline
from lowering.target import Target, from_name
from lowering.text import parse_fragment, parse_kernels, show
from lowering.verify import verify

PASSES: dict[str, Pass] = dict((*GPU, *CPU))


def run_passes(kernel: Kernel, names: Sequence[str], target: Target) -> Kernel:
    """Return `kernel` after the named passes, verified before the first and after each."""
    verify(kernel)
    for name in names:
        if name == "all":
            kernel = run_pipeline(kernel, target, check=True)
        else:
            kernel = PASSES[name](kernel, target)
            verify(kernel)
    return kernel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lowering.opt", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", help="a .loop file, or - for the standard input")
    parser.add_argument(
        "--passes", default="", metavar="A,B", help=f"of {', '.join(sorted(PASSES))}, all (default: none)"
    )
    parser.add_argument("--target", default="host", help="such as x86-64-v3 or nvptx:sm_90 (default: this machine)")
    options = parser.parse_args(arguments)
    names = [name for name in options.passes.split(",") if name]
    unknown = [name for name in names if name not in PASSES and name != "all"]
    if unknown:
        parser.error(f"unknown pass {unknown[0]!r}; there are {', '.join(sorted(PASSES))} and all")
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
        target = from_name(options.target)
        print("\n".join(show(run_passes(k, names, target)) for k in _kernels(text)), end="")
    except (JitflowError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _kernels(text: str) -> tuple[Kernel, ...]:
    has_header = any(line.startswith("kernel ") for line in text.split("\n"))
    return parse_kernels(text) if has_header else (parse_fragment(text),)


if __name__ == "__main__":
    sys.exit(main())
