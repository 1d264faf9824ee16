"""Compiled code kept on disk between processes: a key in, the bytes that were put under it out, or nothing.

One file per entry, in a folder of this user alone::

    magic      16 bytes   ``jitflow cache 1`` and a line feed
    key        32 bytes   SHA-256 of all that the contents depend on: the entry's identity, and part of its file's name
    length      8 bytes   of the parts
    length      8 bytes   of the body
    digest     32 bytes   SHA-256 of everything before and behind it
    parts                 JSON: what the key is made of besides the graph, to say why another one was not found
    body                  what was put

Every bit counts in the digest, so a damaged file is noticed before anybody looks at its contents: it is warned of, and
the next `put` replaces it. A file takes its place complete or not at all (`jitflow.replace_file`), whoever writes the
same entry at the same time. Nothing here fails: what cannot be read is not there, what cannot be written stays
unwritten, and one warning says why.

A folder or file is believed only if it belongs to this user and nobody else may write to it. Links are not followed.
The folders above are trusted, like everything else in a home.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
import struct
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jitflow.errors import FormatError
from jitflow.replace_file import replaced

MAGIC = b"jitflow cache 1\n"
#: An entry is at most so long; what is longer is compiled each time.
MAX_ENTRY = 1 << 26

_HEAD = struct.Struct("<16s32sQQ")
_DIGEST = 32
_ENTRY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{64}\.jitcode")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.jitflow-tmp")
#: A file without its final name that is this many seconds old has lost its writer.
_ORPHANED = 600
#: When the folder is too large, it is made smaller by this part: the next entry should not have to look again.
_SPARE = 4


@dataclass(frozen=True)
class Key:
    """What compiled code depends on: its `subject`, the graph, and `parts`, everything else by name."""

    subject: str
    parts: tuple[tuple[str, str], ...]

    @functools.cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps([self.subject, self.parts]).encode()).digest()

    @functools.cached_property
    def group(self) -> str:
        """What the names of all entries of one subject begin with."""
        return hashlib.sha256(self.subject.encode()).hexdigest()[:16]

    @property
    def file(self) -> str:
        return f"{self.group}-{self.digest.hex()}.jitcode"


class Cache:
    """The entries in `folder`, of `limit` bytes together at most. Instances and processes may share a folder."""

    def __init__(self, folder: str, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        #: Bytes in the folder when it was last looked through, and those put since.
        self._nbytes: int | None = None

    def get(self, key: Key) -> bytes | None:
        """Return what was put under `key`, or None."""
        path = os.path.join(self.folder, key.file)
        if not self._is_usable():
            return None
        try:
            body = _body_of(_read(path), key.digest)
        except FileNotFoundError:
            return None
        except (OSError, FormatError) as error:
            self.reject(key, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used go first
        return body

    def reject(self, key: Key, error: Exception) -> None:
        """Warn that the entry of `key` is of no use."""
        reason = (isinstance(error, OSError) and error.strerror) or error
        _warn(f"cached code is ignored and replaced: {os.path.join(self.folder, key.file)}: {reason}")

    def put(self, key: Key, body: bytes) -> None:
        """Keep `body` under `key`, if that is possible."""
        entry = _entry_of(key, body)
        if len(entry) > min(MAX_ENTRY, self.limit) or not self._is_usable(create=True):
            return
        path = Path(self.folder, key.file)
        try:
            with replaced([path]) as (file,):
                if hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), 0o600)  # whatever the umask: who may write here may run code
                file.write(entry)
            self._make_room(len(entry))
        except OSError as error:
            self._warn_once(f"compiled code cannot be cached in {self.folder}: {error.strerror or error}")

    def why_not(self, key: Key) -> str:
        """Say why there is nothing under `key`: what differs in the entry of the same subject that is most like it."""
        nearest: list[str] | None = None
        for path in self._files(_ENTRY):
            if os.path.basename(path) == key.file:
                return "its entry cannot be used"
            if os.path.basename(path).startswith(key.group):
                with contextlib.suppress(OSError, FormatError, ValueError, TypeError):
                    parts = dict(json.loads(_parts_of(_read(path))))
                    differ = [
                        f"{name} ({_difference(str(parts.get(name, '')), value)})"
                        for name, value in key.parts
                        if parts.get(name) != value
                    ]
                    if differ and (nearest is None or len(differ) < len(nearest)):
                        nearest = differ
        return "no entry for this graph" if nearest is None else "other " + "; other ".join(nearest)

    def _is_usable(self, *, create: bool = False) -> bool:
        """Tell whether the folder is there, or could be made, and is this user's alone."""
        try:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.makedirs(os.path.dirname(os.path.abspath(self.folder)), exist_ok=True)
                    os.mkdir(self.folder, 0o700)
            folder = os.open(self.folder, _flags("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))
        except FileNotFoundError:
            if not create:
                return False
            problem: str | None = "there is no such folder"
        except OSError as error:
            is_link = os.path.islink(self.folder)
            problem = "it is a link; name the folder itself" if is_link else error.strerror or str(error)
        else:
            try:
                problem = _distrust(os.fstat(folder))
            finally:
                os.close(folder)
        if problem is not None:
            self._warn_once(f"the cache folder {self.folder} is not used: {problem}")
        return problem is None

    def _make_room(self, added: int) -> None:
        """Remove the entries that were used least recently, and what killed writers have left, if it is time to."""
        if self._nbytes is not None and self._nbytes + added <= self.limit:
            self._nbytes += added
            return
        for path in self._files(_TEMPORARY):
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(path).st_mtime > _ORPHANED:
                    os.unlink(path)
        entries = []
        for path in self._files(_ENTRY):
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                entries.append((found.st_mtime_ns, found.st_size, path))
        self._nbytes = sum(size for _, size, _ in entries)
        if self._nbytes <= self.limit:
            return
        for _, size, path in sorted(entries):
            if self._nbytes <= self.limit - self.limit // _SPARE:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._nbytes -= size

    def _files(self, pattern: re.Pattern[str]) -> Iterator[str]:
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return
        for name in names:
            if pattern.fullmatch(name):
                yield os.path.join(self.folder, name)

    def _warn_once(self, message: str) -> None:
        if (self.folder, message) not in _warned:
            _warned.add((self.folder, message))
            _warn(message)


@functools.cache
def open_cache(folder: str, limit: int) -> Cache:
    """Return the cache in `folder`, the same object each time."""
    return Cache(folder, limit)


#: Folders and what was said about them already.
_warned: set[tuple[str, str]] = set()


def _difference(there: str, here: str) -> str:
    """Say how two values differ, of lists with commas by their items."""
    old, new = there.split(","), here.split(",")
    if len(new) > 1:
        there = ",".join(x for x in old if x not in new)
        here = ",".join(x for x in new if x not in old)
    return f"{_shortened(there)} there, {_shortened(here)} here"


def _shortened(text: str) -> str:
    return f"{text[:80].strip()} ..." if len(text) > 80 else text.strip() or "nothing"


def _warn(message: str) -> None:
    warnings.warn(f"jitflow: {message}", RuntimeWarning, stacklevel=2)


def _flags(*names: str) -> int:
    """Return flags to read with, of those `names` that this system has."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    for name in names:
        flags |= getattr(os, name, 0)
    return flags


def _distrust(status: os.stat_result) -> str | None:
    """Return why a file or folder must not be believed, or None."""
    if hasattr(os, "geteuid"):  # elsewhere, a user's cache folder is closed to others by other means
        if status.st_uid != os.geteuid():
            return f"it belongs to user {status.st_uid}, not to {os.geteuid()}"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _read(path: str) -> bytes:
    """Return the contents of the regular file `path`, which is this user's. Raises OSError or FormatError."""
    number = os.open(path, _flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
    try:
        status = os.fstat(number)
        problem = "it is no regular file" if not stat.S_ISREG(status.st_mode) else _distrust(status)
        if problem is None and status.st_size > MAX_ENTRY:
            problem = f"its {status.st_size} bytes are over the limit of {MAX_ENTRY}"
        if problem is not None:
            raise FormatError(problem)
        with os.fdopen(os.dup(number), "rb") as file:
            return file.read(status.st_size)
    finally:
        os.close(number)


def _entry_of(key: Key, body: bytes) -> bytes:
    parts = json.dumps(key.parts).encode()
    head = _HEAD.pack(MAGIC, key.digest, len(parts), len(body))
    digest = hashlib.sha256(head)
    digest.update(parts)
    digest.update(body)
    return b"".join((head, digest.digest(), parts, body))


def _check(entry: bytes, key: bytes | None) -> tuple[int, int]:
    """Return where the parts and the body of `entry` begin. Raises FormatError if any bit of it is not as it was."""
    if len(entry) < _HEAD.size + _DIGEST:
        raise FormatError(f"it ends at byte {len(entry)}, within the header")
    magic, found, n_parts, n_body = _HEAD.unpack_from(entry)
    if magic != MAGIC or (key is not None and found != key):
        raise FormatError("it has the header of something else")
    start = _HEAD.size + _DIGEST
    if n_parts + n_body != len(entry) - start:
        raise FormatError(f"it has {len(entry)} bytes, not {start + n_parts + n_body}")
    view = memoryview(entry)
    digest = hashlib.sha256(view[: _HEAD.size])
    digest.update(view[start:])
    if digest.digest() != entry[_HEAD.size : start]:
        raise FormatError("it is not what was written")
    return start, start + n_parts


def _body_of(entry: bytes, key: bytes) -> bytes:
    return entry[_check(entry, key)[1] :]


def _parts_of(entry: bytes) -> bytes:
    start, end = _check(entry, None)
    return entry[start:end]
