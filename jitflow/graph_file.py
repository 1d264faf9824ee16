"""Graphs with their weights to files and back: `save` and `load`.

A graph file (suffix ``.jitflow``) begins with text that one can read with ``less``::

    jitflow graph 1
    weights: at byte 000000000448
    graph 1:
      x: f32[batch, 64] = placeholder(name="x")
      w: f32[64, 10] = variable(name="w", value=f32[64, 10]@5f0c6a1d3e2b4a7896c5d4e3f2a1b0c9)
      matmul_0: f32[batch, 10] = matmul(x, w)
      softmax_0: f32[batch, 10] = softmax(matmul_0, axis=1)
      return {"y": softmax_0}

Format, version 1:

- The text is UTF-8, its lines end with a line feed. Line 1 is ``jitflow graph VERSION``. Whoever does not know the
  version reads no further.
- Line 2 says where the arrays are that the text only names by digest:

  - ``weights: none``: it names none. The text reaches to the end of the file.
  - ``weights: at byte N``: in this file, from byte N, a multiple of 64, to its end. The text is filled up with line
    feeds until there. N is in decimal digits, with zeros in front at will.
  - ``weights: in "NAME"``: in file NAME of the same folder, a plain file name without a path. The file is a regular
    one with that single name: no symbolic link is followed, and no file with further hard links is read. The text
    reaches to the end of the graph file.

- From line 3 on stands a graph in the format that `jitflow.graph_text` describes. What it returns is a label for a
  single tensor, or else a list, tuple or dict of outputs in brackets. Comments are ignored.
- The arrays are in the layout of safetensors files (`jitflow.safetensors`): a separate file is one, which other tools
  can open. An array bears the name of its node there, but it is found by its content, which the digest in the text
  fixes: weights that do not belong to the text are noticed. There are no arrays but those of the text.

Saving one graph twice gives the same bytes. A reader checks everything before it relies on it, and whatever is wrong
is a FormatError that names the byte, or a LimitError. Nothing in a file is run, imported or decompressed, and no other
file is opened than the weights. Values of variables are where they start: sessions have a state of their own.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from jitflow.errors import DTypeError, FormatError, GraphError, JitflowError, LimitError, OutOfMemoryError
from jitflow.graph import ArrayData, located
from jitflow.graph_line import MAX_LINE, MAX_NESTING, Source
from jitflow.graph_parser import parse_text
from jitflow.graph_printer import Graph, array_digest, named_arrays, show_outputs
from jitflow.replace_file import replaced
from jitflow.safetensors import ALIGNMENT, lay_out, read_tensors, write_tensors

VERSION = 1
#: With what a graph file begins.
MAGIC = b"jitflow graph "
#: Bytes of text: enough for `jitflow.graph.MAX_NODES` short nodes.
MAX_TEXT = 1 << 28
#: Bytes of the first two lines, at most.
MAX_HEAD = 2048

_FIRST = re.compile(rb"jitflow graph ([0-9]{1,9})\n")
_WHERE = re.compile(rb'weights: (?:(?P<none>none)|at byte (?P<at>[0-9]{1,18})|in (?P<in>"[^"\\\n]*"))\n')


def save(path: str | os.PathLike[str], outputs: Any, *, weights: str | None = None) -> None:
    """Write the graph of `outputs`, with the values of its constants and variables, to the file `path`.

    The file takes the place of an older one only when it is complete and on the disk: a save that is interrupted,
    however that may be, leaves the old file as it was.

    Parameters
    ----------
    path : str or path
        The file, by convention ``NAME.jitflow``. Its head is text, large arrays follow in the same file.
    outputs : Tensor, or list, tuple or dict of outputs
        What `load` gives back, in the same structure. All they depend on is saved; keys are strings or integers.
    weights : str, optional
        The name of a second file in the same folder, by convention ``NAME.safetensors``, for the large arrays. Other
        tools can read it. The two files are replaced one right after the other, not at once; `load` notices a pair that
        does not belong together.

    Raises
    ------
    GraphError
        If two nodes have one name, `outputs` are structured in another way, or `weights` is no plain file name.
    LimitError
        If the graph is larger than a file may be.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile, numpy as np, jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n", 2))
    >>> y = jf.relu(x @ jf.variable("w", np.eye(2, dtype=np.float32)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jf.save(os.path.join(folder, "model.jitflow"), {"y": y})
    ...     loaded = jf.load(os.path.join(folder, "model.jitflow"))
    >>> loaded
    {'y': Tensor(relu, float32, (n, 2))}
    >>> jf.interpret(loaded["y"], {"x": np.array([[-1, 2]], np.float32)})
    array([[0., 2.]], dtype=float32)
    """
    path = Path(path)
    if weights is not None:
        problem = _name_problem(weights) or (weights == path.name and "is the graph's own file")
        if problem:
            raise located(GraphError(f"weights={weights!r} {problem}"))
    if isinstance(outputs, Graph):
        outputs = outputs.outputs
    arrays = named_arrays(outputs, exact=True)
    text = _checked(show_outputs(outputs, exact=True))
    layout = lay_out(arrays)
    if arrays and weights is not None:
        with replaced([path.parent / weights, path]) as (second, file):
            write_tensors(second, layout)
            file.write(_head(f"in {json.dumps(weights, ensure_ascii=False)}") + text)
    else:
        with replaced([path]) as (file,):
            if arrays:
                at = len(_head(_at(0))) + len(text)
                padding = -at % ALIGNMENT
                file.write(_head(_at(at + padding)) + text + b"\n" * padding)
                write_tensors(file, layout)
            else:
                file.write(_head("none") + text)


def load(path: str | os.PathLike[str]) -> Any:
    """Return the outputs of the graph in the file `path`, in the structure in which they were saved.

    Placeholders and variables are new ones, also if the file is loaded twice; the inputs are fed by their names:
    ``Session(y).run(y, {"x": images})``, ``session.function(["x"], y)``. Errors that name a node later end with its
    line in the file. Nothing in the file is run, and no other file is opened than the weights beside it, so that files
    may come from anybody.

    Parameters
    ----------
    path : str or path
        A file that `save` wrote; its weights, if they are in a second file, are in the same folder.

    Raises
    ------
    FormatError
        If it is no graph file, is damaged, of another version, or names weights that are not there or not its own; with
        the offset of the byte.
    LimitError
        If it is larger than a graph may be.
    DTypeError
        If it has arrays of bfloat16 and the package ml_dtypes is missing.
    OutOfMemoryError
        If there is no memory for its arrays.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import os, tempfile, jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jf.save(os.path.join(folder, "f.jitflow"), [x + 1.0, (x,)])
    ...     y, (z,) = jf.load(os.path.join(folder, "f.jitflow"))
    >>> jf.interpret([y, z], {"x": [1.0, 2.0]})
    [array([2., 3.], dtype=float32), array([1., 2.], dtype=float32)]
    """
    return load_graph(path).outputs


def load_graph(path: str | os.PathLike[str]) -> Graph:
    """Return the graph in the file `path` with its nodes by label. Arguments and errors as for `load`."""
    path = Path(path)
    with ExitStack() as stack:
        file = stack.enter_context(_open(os.fspath(path)))
        size = os.fstat(file.fileno()).st_size
        with _About(str(path)):
            return _read(file, size, str(path), lambda name: stack.enter_context(_open_beside(path, name)))


def read_graph(data: bytes) -> Graph:
    """Return the graph in the bytes of a file without a second one. Errors as for `load`."""

    def open_beside(name: str) -> NoReturn:
        raise FormatError(f"the weights are in {name!r}, which is beside a file only")

    with _About("the graph"):
        return _read(BytesIO(data), len(data), "the graph", open_beside)


# ---- writing


def _head(where: str) -> bytes:
    return MAGIC + f"{VERSION}\nweights: {where}\n".encode()


def _at(byte: int) -> str:
    return f"at byte {byte:012}"  # as long for every number


def _checked(text: str) -> bytes:
    """Return `text` as bytes if `load` would take it."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise located(GraphError(f"{text[error.start]!r} is half of a character; it cannot be in a name")) from None
    if len(data) > MAX_TEXT - ALIGNMENT:
        raise LimitError(f"the text of the graph has {len(data)} bytes, over the limit of {MAX_TEXT}")
    for row in text.split("\n"):
        if len(row) > MAX_LINE:
            raise LimitError(f"a node's line has {len(row)} characters, over the limit of {MAX_LINE}")
        if row.count("(") >= MAX_NESTING and _depth(row) >= MAX_NESTING:
            raise LimitError(f"a formula is nested deeper than {MAX_NESTING}: {row.strip()[:100]} ...")
    return data


def _depth(row: str) -> int:
    depth = deepest = 0
    for c in row:
        depth += (c == "(") - (c == ")")
        deepest = max(deepest, depth)
    return deepest


# ---- reading


class _Head(NamedTuple):
    """The first two lines: how long they are, where the text ends, and what they say of the weights."""

    length: int
    end: int
    weights: str | None


def _read(file: BinaryIO, size: int, path: str, open_beside: Callable[[str], BinaryIO]) -> Graph:
    head = _read_head(file.read(MAX_HEAD), size)
    if head.end - head.length > MAX_TEXT:
        raise LimitError(f"a text of {head.end - head.length} bytes is over the limit of {MAX_TEXT} bytes")
    file.seek(head.length)
    data = file.read(head.end - head.length)
    if len(data) < head.end - head.length:
        raise FormatError(f"byte {head.length + len(data)}: the file ends here; it was longer a moment ago")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {head.length + error.start}: this is no text") from None
    if not text.endswith("\n"):
        raise FormatError(f"byte {head.end}: the file ends within a line")
    found: dict[str, ArrayData] = {}
    if head.weights is not None:
        second = open_beside(head.weights)
        with _About(head.weights):
            found = read_tensors(second, 0, os.fstat(second.fileno()).st_size)
    elif head.end < size:
        found = read_tensors(file, head.end, size)
    return _build(text, head.length, path, found)


def _build(text: str, start: int, path: str, arrays: Mapping[str, ArrayData]) -> Graph:
    """Return the graph of `text`, which starts at byte `start` of `path` after two lines, with all of `arrays`."""

    def place(line: int, column: int | None) -> str:
        rows = text.split("\n")
        offset = start + len("".join(f"{row}\n" for row in rows[: line - 1]).encode())
        if column is None:
            return f"byte {offset}, line {line + 2}"
        return f"byte {offset + len(rows[line - 1][: column - 1].encode())}, line {line + 2}, column {column}"

    by_digest: dict[str, ArrayData] = {}
    names: dict[str, str] = {}
    for name, data in arrays.items():
        digest = array_digest(data)
        by_digest[digest], names[digest] = data, name
    named = set(re.findall("@([0-9a-f]{32})", text))
    for digest, name in names.items():
        if digest not in named:
            raise FormatError(f"array {name!r} of the weights is not one that the text names")
    return parse_text(text, Source(by_digest, False, place), lambda line: f"{path}:{line + 2}")


def _read_head(data: bytes, size: int) -> _Head:
    first = _FIRST.match(data)
    if first is None:
        wanted = MAGIC + b"%d\n" % VERSION
        same = next((k for k, (a, b) in enumerate(zip(data, wanted, strict=False)) if a != b), len(data))
        if same == len(data):
            raise FormatError(f"byte {same}: the file ends here; a graph file begins with {wanted.decode().strip()!r}")
        raise FormatError(f"byte {same}: this is no graph file, which begins with {wanted.decode().strip()!r}")
    version = int(first[1])
    if version != VERSION:
        raise FormatError(
            f"byte {len(MAGIC)}: version {version} of graph files is not known; this jitflow reads version {VERSION}"
        )
    second = _WHERE.match(data, first.end())
    if second is None:
        raise FormatError(
            f"byte {first.end()}: expected 'weights: none', 'weights: at byte N' or 'weights: in \"NAME\"' on line 2"
        )
    if second["none"]:
        return _Head(second.end(), size, None)
    if second["in"]:
        return _Head(second.end(), size, _checked_name(second["in"], second.start("in")))
    at = int(second["at"])
    where = f"byte {second.start('at')}"
    if at % ALIGNMENT or at <= second.end():
        raise FormatError(f"{where}: {at} is not where weights can begin: at a multiple of {ALIGNMENT} after the text")
    if at >= size:
        raise FormatError(f"{where}: the weights begin at byte {at}, but the file ends at byte {size}")
    return _Head(second.end(), at, None)


def _checked_name(quoted: bytes, at: int) -> str:
    try:
        name = quoted[1:-1].decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {at + 1 + error.start}: this is no text") from None
    problem = _name_problem(name)
    if problem:
        raise FormatError(f"byte {at}: weights in {name!r}: that {problem}")
    return name


def _name_problem(name: str) -> str | None:
    """Return what keeps `name` from naming a file of the same folder, or None."""
    if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > 255:
        return "is not the name of a file"
    if not name.isprintable() or set(name) & set('/\\:"') or name in (".", ".."):
        return "is no plain file name; weights are in the folder of the graph"
    return None


class _About:
    """Has errors in a file begin with its name, and be those that a reader may raise."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecursionError):
            error = FormatError("a formula is nested too deeply")
        if not isinstance(error, JitflowError):
            return
        raised: type[JitflowError] = FormatError
        # No fault of the file: a limit of ours, a package that is not there, memory that is not there.
        if isinstance(error, (LimitError, OutOfMemoryError)) or (
            isinstance(error, DTypeError) and "ml_dtypes" in str(error)
        ):
            raised = type(error)
        raise located(raised(f"{self.path}: {str(error).splitlines()[0]}")) from None


def _open(path: str, *, folder: int | None = None, flags: int = 0) -> FileIO:
    """Open a regular file, without waiting for one that is none to be ready."""
    flags |= os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise located(FormatError(f"{path}: byte 0: this is no regular file"))
    return FileIO(number, "rb")


def _open_beside(path: Path, name: str) -> FileIO:
    """Open file `name` in the folder of `path`, provided that it is in that folder and nowhere else."""
    folder = os.open(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        file = _open(name, folder=folder, flags=getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise FormatError(f"the weights are in {name!r}, which cannot be opened: {error.strerror}") from None
    finally:
        os.close(folder)
    if os.fstat(file.fileno()).st_nlink != 1:
        file.close()
        raise FormatError(f"the weights are in {name!r}, which has hard links elsewhere")
    return file
