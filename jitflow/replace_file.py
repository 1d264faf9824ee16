"""Files whose contents change at once: written beside the old ones, complete and on the disk before they take over.

Whoever opens a path sees the old contents or the new, also after a crash. The new file has no name while it is written
(``O_TMPFILE``), so that a process that is killed leaves nothing behind; where the file system cannot do that, it has
the name ``.HEX.jitflow-tmp`` until it takes over.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: What the system says when a folder's file system has no files without a name.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextmanager
def replaced(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """Open a new file for each of `paths`. After the block they are what is found there; after an error, nothing is.

    All of them are on the disk before the first takes over, and they take over in order. A link at one of `paths` is
    itself replaced. Permissions are those of any new file (the umask).
    """
    with ExitStack() as stack:
        files = [stack.enter_context(_NewFile(path)) for path in paths]
        yield [new.file for new in files]
        for new in files:
            new.flush()
        for new in files:
            new.take_over()


class _NewFile:
    """A file beside `path` that disappears unless it takes over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.parent / f".{secrets.token_hex(8)}.jitflow-tmp"
        self.is_named = False
        self.file = open(self._open(), "wb")  # noqa: SIM115

    def _open(self) -> int:
        flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
        if hasattr(os, "O_TMPFILE"):
            try:
                fd = os.open(self.path.parent, flags | os.O_TMPFILE, 0o666)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            else:
                if os.path.exists(_name_of(fd)):
                    return fd
                os.close(fd)
        fd = os.open(self.temporary, flags | os.O_CREAT | os.O_EXCL, 0o666)
        self.is_named = True
        return fd

    def __enter__(self) -> _NewFile:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # what could not be written before, after an error, cannot be now
            self.file.close()
        if self.is_named:
            with suppress(FileNotFoundError):
                self.temporary.unlink()

    def flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def take_over(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            if not self.is_named:
                # With a folder given, Python follows the link to the file; without, it would link the link.
                self.is_named = True
                os.link(_name_of(self.file.fileno()), self.temporary, src_dir_fd=folder, follow_symlinks=True)
            os.replace(self.temporary, self.path)
            self.is_named = False
            os.fsync(folder)
        finally:
            os.close(folder)


def _name_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
