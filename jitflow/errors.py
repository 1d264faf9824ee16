"""The errors jitflow raises: one root, each class also the builtin that a caller would catch.

A message says in its first line what is wrong in the user's terms and ends with the file and line where the user
made the node. :class:`CompilerBug` stands for faults of our own.
"""

from __future__ import annotations


class JitflowError(Exception):
    """Root of every error raised on purpose by jitflow."""


class ShapeError(JitflowError, ValueError):
    """Shapes that do not fit, an axis that is not there, a size that cannot be represented."""


class GraphError(JitflowError, ValueError):
    """A graph that cannot be built, named or compiled as asked."""


class FeedError(JitflowError, ValueError):
    """Arrays given to a run that do not fit what the graph declares."""


class FeedTypeError(FeedError, TypeError):
    """A feed that is no array and cannot be taken for one."""


class FeedIndexError(FeedError, IndexError):
    """Feeds of a size for which an index of the graph is out of range."""


class FormatError(JitflowError, ValueError):
    """Text or a file that is not what its format says."""


class LimitError(JitflowError, ValueError):
    """A documented limit is exceeded."""


class DTypeError(JitflowError, TypeError):
    """Element types that do not fit or are not supported."""


class OutOfBoundsError(DTypeError, OverflowError):
    """A Python integer that the dtype asked for cannot hold."""


class IndexRangeError(JitflowError, IndexError):
    """An index outside the axis it selects from, found when the graph is built or while it runs."""


class StaticIndexError(ShapeError, IndexError):
    """An index or axis that is out of range whatever the feeds are."""


class OutOfMemoryError(JitflowError, MemoryError):
    """Memory that could not be had; the message says how many bytes were wanted."""


class DataDependentShapeError(GraphError, NotImplementedError):
    """A result whose shape would depend on values, which a graph does not know."""


class CompileError(JitflowError, RuntimeError):
    """Machine code could not be produced."""


class DeviceError(JitflowError, RuntimeError):
    """A device that is missing or cannot do what was asked."""


class ForkError(JitflowError, RuntimeError):
    """Something that does not survive ``fork`` was used in a child process."""


class ClosedError(JitflowError, RuntimeError):
    """A session was used after ``close``."""


class CompilerBug(JitflowError, AssertionError):
    """A broken invariant inside jitflow: please report it with the text it names."""


def at_site(message: str, site: str | None) -> str:
    """Return `message`, ended by the place in the user's code where the node was made."""
    return f"{message}\n  at {site}" if site else message
