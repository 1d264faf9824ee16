"""Compiled code on disk: what was put is found, what is damaged, foreign or too much is not, and nothing ever fails."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import resource
import signal
import stat
import struct
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import cache as cache_module
from runtime.cache import MAX_ENTRY, Cache, Key

KEY = Key("graph", (("CPU", "a"), ("options", "fuse=True")))
HEADER = 96


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "a" / "code"), 1 << 20)


def file_of(cache: Cache, key: Key = KEY) -> Path:
    return Path(cache.folder, key.file)


def keys(count: int) -> list[Key]:
    return [Key(f"graph {k}", ()) for k in range(count)]


def test_what_was_put_is_found_under_its_key_alone(cache: Cache) -> None:
    assert cache.get(KEY) is None
    for body in (b"code", b"", b"other code", bytes(100_000)):
        cache.put(KEY, body)
        assert cache.get(KEY) == body
    assert Cache(cache.folder, 1).get(KEY) == bytes(100_000)
    for other in (Key("graph2", KEY.parts), Key("graph", KEY.parts[:1]), Key("graph", (("CPU", "b"), KEY.parts[1]))):
        assert cache.get(other) is None
    assert [p.name for p in Path(cache.folder).iterdir()] == [KEY.file]


def test_the_header_is_as_documented(cache: Cache) -> None:
    cache.put(KEY, b"code")
    data = file_of(cache).read_bytes()
    parts = b'[["CPU", "a"], ["options", "fuse=True"]]'
    head = b"jitflow cache 1\n" + KEY.digest + struct.pack("<QQ", len(parts), 4)
    assert data == head + hashlib.sha256(head + parts + b"code").digest() + parts + b"code"
    assert len(data) == HEADER + len(parts) + 4


def test_folder_and_files_are_for_this_user_alone_whatever_the_umask(cache: Cache) -> None:
    old = os.umask(0)
    try:
        cache.put(KEY, b"code")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(cache.folder).st_mode) == 0o700
    assert stat.S_IMODE(file_of(cache).stat().st_mode) == 0o600
    assert cache.get(KEY) == b"code"


# ---- damage


def assert_damaged(cache: Cache, damaged: Iterable[bytes]) -> None:
    """Assert that each of `damaged` in place of the entry is warned of once."""
    count = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in damaged:
            file_of(cache).write_bytes(data)
            assert cache.get(KEY) is None
            count += 1
            assert len(caught) == count
    assert all(
        re.match(r"jitflow: cached code is ignored and replaced: .*\.jitcode: it", str(w.message)) for w in caught
    )


def test_f63_every_flipped_bit_is_noticed(cache: Cache) -> None:
    cache.put(KEY, b"object code")
    whole = file_of(cache).read_bytes()
    number = int.from_bytes(whole, "little")
    assert_damaged(cache, ((number ^ 1 << bit).to_bytes(len(whole), "little") for bit in range(8 * len(whole))))
    cache.put(KEY, b"object code")
    assert file_of(cache).read_bytes() == whole
    assert cache.get(KEY) == b"object code"


def test_f63_truncated_and_extended_entries_are_noticed(cache: Cache) -> None:
    cache.put(KEY, b"object code")
    whole = file_of(cache).read_bytes()
    assert_damaged(cache, (whole[:length] for length in range(len(whole))))
    assert_damaged(cache, (whole + b"\0", whole + whole, b"\0" + whole))


def test_f63_absurd_lengths_are_noticed_and_nothing_is_allocated_for_them(cache: Cache) -> None:
    cache.put(KEY, b"object code")
    whole = file_of(cache).read_bytes()
    absurd = ((2**64 - 1, 0), (0, 2**64 - 1), (2**63, 2**63), (2**64 - 1, 2), (0, 0), (11, 40))
    assert_damaged(cache, (whole[:48] + struct.pack("<QQ", *lengths) + whole[64:] for lengths in absurd))
    with file_of(cache).open("r+b") as file:
        file.truncate(MAX_ENTRY + 1)  # no byte of it is on the disk
    with pytest.warns(RuntimeWarning, match=f"over the limit of {MAX_ENTRY}"):
        assert cache.get(KEY) is None


def test_f63_an_entry_under_the_name_of_another_is_noticed(cache: Cache) -> None:
    other = Key("graph", (("CPU", "b"),))
    cache.put(other, b"code of another processor")
    assert_damaged(cache, [file_of(cache, other).read_bytes()])


def test_f63_links_folders_and_pipes_are_no_entries(cache: Cache, tmp_path: Path) -> None:
    cache.put(KEY, b"code")
    path = file_of(cache)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    for make in (lambda: path.symlink_to(elsewhere), path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.warns(RuntimeWarning, match="ignored and replaced"):
            assert cache.get(KEY) is None
        if not path.is_dir() or path.is_symlink():
            cache.put(KEY, b"new")
            assert cache.get(KEY) == b"new"
            path.unlink()
        else:
            path.rmdir()
    assert elsewhere.read_bytes().endswith(b"code")


# ---- what the system refuses


@contextlib.contextmanager
def one_warning(match: str) -> Iterator[None]:
    with pytest.warns(RuntimeWarning, match=match) as caught:
        yield
    assert len(caught) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_f64_what_cannot_be_written_is_warned_of_once(
    cache: Cache, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, b"before")

    @contextlib.contextmanager
    def refuse(paths: Any) -> Iterator[Any]:
        raise OSError(number, os.strerror(number))
        yield

    monkeypatch.setattr(cache_module, "replaced", refuse)
    with one_warning(f"compiled code cannot be cached in .*: {os.strerror(number)}"):
        for key in keys(3):
            cache.put(key, b"code")
    assert [cache.get(key) for key in keys(3)] == [None] * 3
    assert cache.get(KEY) == b"before"


def test_f64_a_full_disk_leaves_no_part_of_an_entry(cache: Cache) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with one_warning("cannot be cached"):
            cache.put(KEY, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert os.listdir(cache.folder) == []
    cache.put(KEY, bytes(100_000))
    assert cache.get(KEY) == bytes(100_000)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_f64_a_folder_that_cannot_be_made_is_warned_of_once(
    cache: Cache, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with one_warning(f"is not used: {os.strerror(number)}"):
        for key in keys(3):
            cache.put(key, b"code")
            assert cache.get(key) is None


def test_f64_a_file_in_place_of_the_folder_is_warned_of_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        cache = Cache(str(folder), 1 << 20)
        with one_warning("is not used: Not a directory"):
            for key in keys(3):
                cache.put(key, b"code")
                assert cache.get(key) is None
    assert (tmp_path / "file").read_text() == "mine"


# ---- whose folder it is


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_f65_a_folder_that_others_may_write_to_is_ignored(cache: Cache, mode: int) -> None:
    cache.put(KEY, b"code")
    os.chmod(cache.folder, mode)
    with one_warning(rf"is not used: others may write to it \(mode {mode:04o}\)"):
        for _ in range(3):
            assert cache.get(KEY) is None
            cache.put(keys(1)[0], b"code")
    assert os.listdir(cache.folder) == [KEY.file]
    os.chmod(cache.folder, 0o755)
    assert cache.get(KEY) == b"code"


def test_f65_a_folder_of_somebody_else_is_ignored(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, b"code")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with one_warning(f"is not used: it belongs to user {me}, not to {me + 1}"):
        for _ in range(3):
            assert cache.get(KEY) is None
            cache.put(keys(1)[0], b"code")
    assert os.listdir(cache.folder) == [KEY.file]


def test_f65_a_file_that_others_may_write_to_is_ignored(cache: Cache) -> None:
    cache.put(KEY, b"code")
    file_of(cache).chmod(0o620)
    with one_warning(r"others may write to it \(mode 0620\)"):
        assert cache.get(KEY) is None
    cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"


def test_f65_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    cache = Cache(str(tmp_path / "link"), 1 << 20)
    with one_warning("it is a link; name the folder itself"):
        cache.put(KEY, b"code")
        assert cache.get(KEY) is None
    assert os.listdir(tmp_path / "real") == []


# ---- how much


def test_the_entries_used_least_recently_make_room(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "code"), 10_000)
    some = keys(30)
    for age, key in enumerate(some[:8]):
        cache.put(key, bytes(1000))
        os.utime(file_of(cache, key), (1e9 + age, 1e9 + age))
    assert cache.get(some[0]) is not None  # used now
    (tmp_path / "code" / "notes.txt").write_text("x" * 5000)  # not ours: neither counted nor removed
    cache.put(some[8], bytes(1000))
    cache.put(some[9], bytes(1000))
    left = [k for k, key in enumerate(some) if file_of(cache, key).exists()]
    assert left == [0, 5, 6, 7, 8, 9]  # three quarters of the limit
    for key in some:
        cache.put(key, bytes(1000))
        assert sum(p.stat().st_size for p in (tmp_path / "code").glob("*.jitcode")) <= 10_000
    assert (tmp_path / "code" / "notes.txt").exists()


def test_an_entry_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "code"), 1000)
    cache.put(KEY, bytes(1000))
    assert not (tmp_path / "code").exists()


def test_what_killed_writers_have_left_is_removed_later(cache: Cache) -> None:
    cache.put(KEY, b"code")
    old, new, other = (Path(cache.folder, f".{name}.jitflow-tmp") for name in ("0" * 16, "1" * 16, "notes"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 3600,) * 2)
    Cache(cache.folder, cache.limit).put(keys(1)[0], b"code")
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


# ---- why not


def test_f66_a_miss_names_what_differs_in_the_nearest_entry(cache: Cache) -> None:
    wanted = Key("graph", (("LLVM", "22.1.0"), ("CPU", "zen4"), ("features", "+avx,+fma")))
    assert cache.why_not(wanted) == "no entry for this graph"
    cache.put(Key("another", wanted.parts), b"code")
    assert cache.why_not(wanted) == "no entry for this graph"
    cache.put(Key("graph", (("LLVM", "21.0.0"), ("CPU", "zen3"), ("features", "+avx"))), b"code")
    assert cache.why_not(wanted) == (
        "other LLVM (21.0.0 there, 22.1.0 here); other CPU (zen3 there, zen4 here); "
        "other features (nothing there, +fma here)"
    )
    cache.put(Key("graph", (("LLVM", "21.0.0"), *wanted.parts[1:])), b"code")
    assert cache.why_not(wanted) == "other LLVM (21.0.0 there, 22.1.0 here)"
    file_of(cache, wanted).write_bytes(b"nonsense")
    assert cache.why_not(wanted) == "its entry cannot be used"


# ---- several at once


def forked(run: Any) -> int:
    """Run `run` in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        warnings.simplefilter("error")
        run()
        status = 0
    finally:
        os._exit(status)


def body_of(key: Key, seed: int) -> bytes:
    """Return a body that tells whether it is whole: writers write different ones under one key."""
    data = random.Random(f"{key.file} {seed}").randbytes(20_000)
    return hashlib.sha256(data).digest() + data


def is_whole(body: bytes | None) -> bool:
    return body is not None and hashlib.sha256(body[32:]).digest() == body[:32]


def test_f63_eight_writers_at_once(tmp_path: Path) -> None:
    folder, some = str(tmp_path / "code"), keys(5)

    def write(seed: int) -> None:
        rng = random.Random(seed)
        mine = Cache(folder, 90_000)  # four entries: they remove each other's all the time
        for turn in range(25):
            key = rng.choice(some)
            mine.put(key, body_of(key, 100 * seed + turn))
            found = mine.get(rng.choice(some))
            if found is not None and not is_whole(found):
                raise AssertionError("half an entry")

    children = [forked(lambda seed=seed: write(seed)) for seed in range(8)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert not [name for name in os.listdir(folder) if name.endswith("-tmp")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [Cache(folder, 90_000).get(key) for key in some]
    assert all(body is None or is_whole(body) for body in found)
    assert any(found)


def kill_writers(folder: str, count: int) -> None:
    """Kill `count` writers at any moment; whatever they leave, every entry is whole or not there."""
    rng = random.Random(0)
    some = keys(3)

    def write() -> None:
        mine = Cache(folder, 1 << 30)
        turn = 0
        while True:
            for key in some:
                mine.put(key, body_of(key, turn))
            turn += 1

    written = 0
    for _ in range(count):
        child = forked(write)
        time.sleep(rng.uniform(0.0, 0.006))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = [Cache(folder, 1 << 30).get(key) for key in some]
        assert all(body is None or is_whole(body) for body in found)
        written += sum(body is not None for body in found)
        for key in some:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, key.file))
    assert written > 0  # some were killed after they had written something


def test_f63_killed_writers_leave_whole_entries(tmp_path: Path) -> None:
    kill_writers(str(tmp_path / "code"), 40)


@pytest.mark.slow
def test_f63_a_thousand_killed_writers_leave_whole_entries(tmp_path: Path) -> None:
    kill_writers(str(tmp_path / "code"), 1000)
