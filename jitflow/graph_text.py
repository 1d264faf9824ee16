"""Graphs to text and back: `show_graph` and `parse_graph`, and `same_graph`, which compares up to renaming.

A file (suffix ``.graph``) holds one graph, one node a line::

    graph 1:
      x: f32[batch, 64] = placeholder(name="x")  # model.py:3
      w: f32[64, 10] = variable(name="w", value=f32[64, 10]@5f0c6a1d3e2b4a7896c5d4e3f2a1b0c9)  # model.py:4
      matmul_0: f32[batch, 10] = matmul(x, w)  # model.py:5
      constant_0: f32[] = constant(value=f32[]{0.1})  # model.py:5
      add_0: f32[batch, 10] = add(matmul_0, constant_0)  # model.py:5
      softmax_0: f32[batch, 10] = softmax(add_0, axis=1)  # model.py:6
      return y=softmax_0

Grammar. ``#`` starts a comment. ``[x]`` is an option, ``x,*`` a list::

    graph  = "graph" "1" ":" {node} "return" (([label "="] label),* | outputs)
    outputs = "[" output,* "]" | "(" output,* ")" | "{" ((STRING | INT) ":" output),* "}"     a list, tuple or dict
    output = label | outputs                                                  a tuple of one output has a comma
    node   = label [":" type] "=" op "(" (label | attr "=" value),* ")"       in any order of lines
    type   = dtype "[" value,* "]"
    value  = INT | FLOAT | STRING | "true" | "false" | "none" | "inf" | "nan" | dtype
           | dim | "dim" "(" STRING ")"                      a symbolic dim, quoted if its name has a meaning here
           | value ("+" | "-" | "*" | "//" | "%") value | "-" value | ("min" | "max") "(" value "," value ")"
           | "(" value,* ")"                                 a tuple, or one value in parentheses
           | type ("{" value,* "}" | "@" DIGEST)             an array: its elements in order, or where to find it
    label  = NAME | STRING

An array of more than 16 elements is named by a digest: the first 32 hexadecimal digits of the SHA-256 of the text
``DTYPE SHAPE`` (without the blank, as in ``float32(64, 10)``, ``int8(20,)``) followed by the 32 bytes of the SHA-256 of
its elements in memory, row-major and little-endian. The attributes that an operator takes, and their kinds, are the
keyword parameters of its `infer` (`jitflow.graph_attrs`).

Two graphs are the same, and have the same text, if they differ only in the identity of their placeholders and
variables, in source lines, and in the numbers of fresh dims: these are called ``_0``, ``_1``, ... in order of
appearance. Parsing gives every source a fresh identity; all other nodes are interned as usual. A NaN counts as any
other NaN in short arrays; the arrays that are named by digest are found in the table given to `parse_graph`. Parsing
builds nodes by the operators' own inference and runs no other code. It reads up to 64 parentheses
within each other, 128 operators in one value, 200 terms in a dim, 4 MiB in a line, 2 million lines.
"""

from __future__ import annotations

from jitflow.graph_parser import parse_graph
from jitflow.graph_printer import Graph, array_digest, graph_arrays, same_graph, show_graph

__all__ = ["Graph", "array_digest", "graph_arrays", "parse_graph", "same_graph", "show_graph"]
