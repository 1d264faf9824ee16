"""The configuration: reading the environment, overriding it, and what belongs in a cache key."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import pytest

from jitflow import config
from jitflow.config import Config, read_environment
from jitflow.errors import FormatError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_environment({}) == Config()


def test_every_variable_is_read() -> None:
    environ = {
        "JITFLOW_DUMP": "fused, loops,",
        "JITFLOW_DUMP_DIR": "out",
        "JITFLOW_VERIFY": "1",
        "JITFLOW_TIME": "0",
        "JITFLOW_TRACE": "cache",
        "JITFLOW_CACHE_DIR": "code",
        "JITFLOW_CACHE_LIMIT": "7",
        "JITFLOW_TARGET_CPU": "x86-64-v3",
        "JITFLOW_THREADS": "3",
        "JITFLOW_DEBUG_POISON": "1",
        "JITFLOW_DEBUG_GUARD": "1",
        "JITFLOW_FUSE": "0",
    }
    assert set(environ) == {f.metadata["env"] for f in fields(Config)} - {None}
    assert read_environment(environ) == Config(
        dump=("fused", "loops"),
        dump_dir="out",
        verify=True,
        trace=("cache",),
        cache_dir="code",
        cache_limit=7,
        target_cpu="x86-64-v3",
        threads=3,
        debug_poison=True,
        debug_guard=True,
        fuse=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("JITFLOW_THREADS", "0", "JITFLOW_THREADS='0': expected a positive number"),
        ("JITFLOW_THREADS", "-2", "JITFLOW_THREADS='-2': expected a positive number"),
        ("JITFLOW_THREADS", "two", "JITFLOW_THREADS='two': expected a positive number"),
        ("JITFLOW_VERIFY", "yes", "JITFLOW_VERIFY='yes': expected 0 or 1"),
        ("JITFLOW_CACHE_LIMIT", "-1", "JITFLOW_CACHE_LIMIT='-1': expected a number"),
        ("JITFLOW_TRACE", "cash", "JITFLOW_TRACE: 'cash' is nothing that can be traced; there is cache"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(name: str, value: str, expected: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_environment({name: value})
    assert str(caught.value) == expected


def test_the_cache_folder_is_where_the_system_wants_it() -> None:
    for environ, folder in (
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/jitflow"),
        ({"XDG_CACHE_HOME": "c", "HOME": "/h"}, "/h/.cache/jitflow"),  # the standard: a relative one is to be ignored
        ({"HOME": "/h"}, "/h/.cache/jitflow"),
        ({"HOME": ""}, None),
        ({"HOME": "/h", "JITFLOW_CACHE_DIR": "/mine"}, "/mine"),
        ({"HOME": "/h", "JITFLOW_CACHE_DIR": ""}, None),
        ({"HOME": "/h", "JITFLOW_CACHE_DIR": "off"}, None),
    ):
        assert read_environment(environ).cache_dir == folder


def test_override_changes_knobs_for_the_block_only() -> None:
    before = config.current()
    with config.override(verify=True, dump="all") as inside:
        assert config.current() is inside
        assert inside.verify
        assert inside.dumps("fused")
        with config.override(verify=False):
            assert not config.current().verify
            assert config.current().dumps("loops")
        assert config.current() is inside
    assert config.current() is before


def test_override_ends_when_the_block_raises() -> None:
    before = config.current()
    with pytest.raises(KeyError), config.override(time=True):
        raise KeyError
    assert config.current() is before


def test_override_is_seen_by_its_own_thread_only() -> None:
    seen: list[int | None] = []
    with config.override(threads=12_345):
        thread = threading.Thread(target=lambda: seen.append(config.current().threads))
        thread.start()
        thread.join()
    assert len(seen) == 1
    assert seen[0] != 12_345


def test_override_checks_names_and_values() -> None:
    with pytest.raises(TypeError, match="no knob is called 'verfy'; did you mean 'verify'"):
        config.override(verfy=True).__enter__()
    with pytest.raises(TypeError, match="knob 'verify' is True or False, got 'no'"), config.override(verify="no"):
        pass
    with pytest.raises(ValueError, match="knob 'threads' is a positive number or None, got 0"):
        config.override(threads=0).__enter__()
    with pytest.raises(TypeError, match="knob 'dump' takes names, got 3"), config.override(dump=3):
        pass
    with pytest.raises(TypeError, match="knob 'dump_dir' is text or None, got 3"), config.override(dump_dir=3):
        pass
    with config.override(dump_dir=Path("dumps")) as inside:
        assert inside.dump_dir == "dumps"


def test_keys_of_code_hold_the_knobs_that_change_code_and_no_other() -> None:
    changed = {
        "trace": ("cache",),
        "cache_dir": "/tmp/a",
        "cache_limit": 3,
        "dump": ("all",),
        "dump_dir": "a",
        "verify": True,
        "time": True,
        "target_cpu": "x86-64-v2",
        "threads": 7,
        "debug_poison": True,
        "debug_guard": True,
        "fuse": False,
        "fast_math": True,
    }
    assert set(changed) == {f.name for f in fields(Config)}
    base = Config().code()
    for name, value in changed.items():
        differs = Config(**{name: value}).code() != base
        assert differs == (name in ("target_cpu", "debug_poison", "debug_guard", "fuse", "fast_math")), name


def test_nothing_but_the_configuration_reads_the_environment() -> None:
    root = Path(__file__).resolve().parents[2]
    readers = [
        str(path.relative_to(root))
        for package in ("jitflow", "lowering", "runtime")
        for path in sorted((root / package).rglob("*.py"))
        if "os.environ" in path.read_text().replace("``os.environ``", "") or "getenv" in path.read_text()
    ]
    assert readers == [str(Path("jitflow") / "config.py")]


def test_the_environment_is_read_once() -> None:
    program = (
        "import os; from jitflow import config; a = config.current();"
        "os.environ['JITFLOW_THREADS'] = '5'; assert config.current() is a and a.threads is None"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JITFLOW_")}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, env=clean)
