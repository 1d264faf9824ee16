"""Loop IR to text and back: `show` and `parse_kernel`, and `difference`, which compares up to renaming.

A file (suffix ``.loop``) holds kernels::

    kernel scale_rows(a: f32[n, 8] read, s: f32[n] read, out: f32[n, 8] align 64, n: index):
      # scaled = mul(a, s) at model.py:12
      parallel i in n:
        let f: f32 = s[i]
        vectorized j in 8:
          out[i, j] = max(a[i, j] * f, 0.0)

Grammar. Bodies are indented; ``#`` starts a comment, and the comment lines right under a header are the kernel's
notes. A line goes on while a parenthesis is open. ``{x}`` is repetition, ``[x]`` an option, ``x,*`` a list::

    kernel    = "kernel" NAME "(" param,* ")" ":" {note} {statement} {kernel}     kernels in the body are its callees
    param     = NAME ":" dtype "[" expr,* "]" {"read" | space | "align" INT}      "read": never written
              | NAME ":" "index"                                                  a dim
    kind      = "serial" | "parallel" | "vectorized" | "unrolled" | "block" | "thread"
    space     = "global" | "stack" | "register" | "shared" | "scratch"
    statement = "let" NAME ":" type "=" expr
              | "alloc" NAME ":" dtype "[" expr,* "]" space ["align" INT]
              | ["stream"] access "=" expr
              | kind ["." ("x" | "y" | "z")] NAME "in" expr ["poll" expr] ":" body
              | "while" expr ":" body
              | "if" expr ":" body ["else" ":" body]
              | "barrier" | "pass"
              | "check_index" NAME "[" INT "]" expr "," expr ["if" expr]          ok, position, mask
              | "atomic" ("add" | "min" | "max") access "," expr
              | "prefetch" ["far"] access
              | "call" NAME "(" (NAME ["+" expr]),* [";" expr,*] ")"              buffers with offsets; arguments
    access    = NAME "[" expr,* ["if" expr] "]"                                   "if": the mask
    expr      = Python's operators and precedences, comparisons unchained
              | literal [":" type] | NAME | access | "(" expr ")"
              | ("min" | "max") "(" expr "," expr ")"
              | ("abs" | "sqrt" | "floor" | "ceil" | "trunc" | "round") "(" expr ")"
              | dtype "(" expr ")" | "bitcast" "(" expr "," dtype ")"             casts
              | "select" "(" expr "," expr "," expr ")" | "fma" "(" expr "," expr "," expr ")"
              | "splat" "(" expr "," INT ")"                                      value, lanes
              | "ramp" "(" expr "," INT "," INT ")"                               base, stride, lanes
              | "shuffle" "(" expr [";" expr] {"," INT} ")"
              | "reduce" "(" op (NAME "in" expr),* ";" expr [";" "lanes" INT] [";" "contract"] ")"
              | NAME "(" expr,* ")" [":" type]                                    a call; by default of the type of
    literal   = INT (index) | FLOAT (f32) | "true" | "false" | "nan" | "inf"           its first argument, or bool

``parse(show(x))`` equals `x` up to renaming, and ``show`` is a fixed point: names are kept as long as they are
identifiers and unique in the kernel; others get a number. Types are not checked here but by `lowering.verify`.
"""

from __future__ import annotations

from lowering.difference import difference, structurally_equal
from lowering.parser import parse_body, parse_fragment, parse_kernel, parse_kernels
from lowering.printer import show

__all__ = [
    "difference",
    "parse_body",
    "parse_fragment",
    "parse_kernel",
    "parse_kernels",
    "show",
    "structurally_equal",
]
