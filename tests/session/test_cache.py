"""Sessions whose code comes from the cache: bits, texts and errors as if compiled; and a miss when it must be one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow import compilation, config
from lowering.target import host
from runtime import versions
from runtime.cache import open_cache
from tests.support.bits import same_bits

ROOT = Path(__file__).resolve().parents[2]
F32 = np.float32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    with config.override(verify=False, cache_dir=str(tmp_path / "code"), trace="cache"):
        yield tmp_path / "code"
    open_cache.cache_clear()


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Have every attempt to rewrite or lower a graph fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled, not found")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rewrite", "lower", "pack_program"):
            patch.setattr(compilation, name, refuse)
        yield


def mlp(scale: float = 1.0) -> tuple[Any, Any]:
    """Return a small network: packed weights, computed and folded constants, a variable, a symbolic dim."""
    rng = np.random.default_rng(0)
    w1, w2 = (jf.constant(rng.uniform(-0.1, 0.1, s).astype(F32)) for s in ((40, 48), (48, 9)))
    b = jf.variable("b", np.full(48, scale, F32))
    x = jf.placeholder("x", jf.float32, ("batch", 40))
    h = jf.gelu(jf.layer_norm(x) @ w1 + b * jf.exp(jf.constant(np.arange(48, dtype=F32) / 48)))
    return x, jf.softmax(h @ w2 * jf.astype(jf.constant(np.arange(9)), jf.float32))


def test_found_code_gives_the_same_bits_as_compiled_code() -> None:
    arrays = [np.random.default_rng(n).standard_normal((n, 40)).astype(F32) for n in (1, 7, 33)]

    def results(compilations: int, scale: float = 1.0) -> list[Any]:
        x, y = mlp(scale)  # new placeholders and variables each time
        with jf.Session([y]) as session:
            assert session.compilations == compilations
            return [session.run(y, {x: a}) for a in arrays]

    with config.override(cache_dir=None):
        uncached, other = results(1), results(1, scale=3.0)
    compiled = results(1)
    with nothing_compiled():
        found, other_found = results(0), results(0, scale=3.0)  # the value of a variable is data
    for a, b, c in zip(uncached, compiled, found, strict=True):
        assert same_bits(a, b)
        assert same_bits(b, c)
    assert all(same_bits(a, b) for a, b in zip(other, other_found, strict=True))
    assert not same_bits(other[0], uncached[0])


def test_functions_cuts_and_several_fetches_are_found_too() -> None:
    feed = np.linspace(-1, 1, 6, dtype=F32).reshape(2, 3)

    def results() -> list[Any]:
        x = jf.placeholder("x", jf.float32, ("n", 3))
        h = jf.exp(x).named("h")
        y, z = h + 1.0, jf.flip(jf.sum(h, axis=0))
        with jf.Session({"y": y, "z": z}) as session:
            by_name = session.run({"y": y, "z": [z, y]}, {x: feed})
            from_h = session.run([z, h], {h: feed})
            call = session.function([x], (z, y, x))
            return [by_name["y"], *by_name["z"], *from_h, *call(feed)]

    want = results()
    with nothing_compiled():
        got = results()
    assert all(same_bits(a, b) for a, b in zip(want, got, strict=True))


def line_of(error: Exception) -> str:
    return str(error).rpartition("\n  at ")[2]


def test_errors_of_found_code_speak_of_the_graph_at_hand() -> None:
    def errors(graph: Any) -> list[Exception]:
        x, y, i, z = graph()
        feeds = ({x: np.zeros((2, 3), F32), y: np.zeros((4, 3), F32), i: [0]}, {x: np.zeros(2, F32), y: [], i: [0]},
                 {x: np.zeros((2, 3), F32), y: np.zeros((2, 3), F32), i: [5]})  # fmt: skip
        found = []
        with jf.Session(z) as session:
            for feed in feeds:
                with pytest.raises(jf.JitflowError) as caught:
                    session.run(z, feed)
                found.append(caught.value)
        return found

    def first() -> Any:
        x = jf.placeholder("x", jf.float32, ("n", None))
        y = jf.placeholder("y", jf.float32, ("m", None))
        i = jf.placeholder("i", jf.int64, ("k",))
        return x, y, i, jf.take(x + y, i, axis=0)

    def second() -> Any:
        jf.placeholder("unused", jf.float32, (None,))
        x = jf.placeholder("x", jf.float32, ("n", None))

        y = jf.placeholder("y", jf.float32, ("m", None))

        i = jf.placeholder("i", jf.int64, ("k",))

        return x, y, i, jf.take(x + y, i, axis=0)

    assert all(str(first.__code__.co_firstlineno + 4) in line_of(e) for e in errors(first)[2:])
    with nothing_compiled():
        found = errors(second)
    with config.override(cache_dir=None):
        want = errors(second)
    assert [type(e) for e in found] == [type(e) for e in want]
    for got, expected in zip(found, want, strict=True):
        assert line_of(got) == line_of(expected)
        # Fresh dims are called what they are called there: each graph has other ones.
        assert _without_numbers(str(got)) == _without_numbers(str(expected))


def _without_numbers(text: str) -> str:
    return "".join(c for c in text if not c.isdigit())


def test_texts_never_come_from_the_cache() -> None:
    _, y = mlp()
    with jf.Session([y]) as session:
        want = session.dump("loops"), session.dump("asm")
        groups = session.group_of(y)
    with jf.Session([y]) as session:
        assert session.compilations == 0
        assert (session.dump("loops"), session.dump("asm")) == want
        assert session.group_of(y) == groups
        assert "programs compiled: 0" in session.report()


def test_who_looks_at_the_ir_has_it_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = jf.placeholder("x", jf.float32, (3,))
    jf.Session(jf.exp(x))
    for knobs in ({"verify": True}, {"dump": "loops"}, {"dump_dir": tmp_path / "dumps"}):
        with config.override(**knobs), jf.Session(jf.exp(x)) as session:
            assert session.compilations == 1
    assert "kernel k0_exp(" in capsys.readouterr().err
    with nothing_compiled(), config.override(time=True):
        jf.Session(jf.exp(x))
    assert "  cache  " in capsys.readouterr().err


def misses(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return why code was not found since this was asked last; hits are empty."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("jitflow: cache: ")]
    return [line.partition(": miss for ")[2].partition(": ")[2] for line in lines]


def test_f66_other_graphs_options_processors_and_versions_miss_and_say_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    for fetch in (x * 2.0, x * 3.0, x * 2.0, x + 2.0):
        jf.Session(fetch)
    new = "no entry for this graph"
    assert misses(capsys) == [new, new, "", new]
    with config.override(fuse=False):
        jf.Session(x * 2.0)
    assert misses(capsys) == ["other options (fuse=True there, fuse=False here)"]
    if host().vector_bits > 128:
        with config.override(target_cpu="x86-64-v2"):
            jf.Session(x * 2.0)
        (why,) = misses(capsys)
        assert "other CPU (" in why
        assert "x86-64-v2 here)" in why
    made_by = compilation.versions(open_cache("unused", 1))
    assert made_by is not None
    for number, (name, _) in enumerate(made_by):
        other = (*made_by[:number], (name, "9.9"), *made_by[number + 1 :])
        monkeypatch.setattr(compilation, "versions", lambda cache, other=other: other)
        jf.Session(x * 2.0)
        (why,) = misses(capsys)
        assert re.fullmatch(rf"other {name} \(\S+ there, 9\.9 here\)", why)
    monkeypatch.undo()
    jf.Session(x * 2.0)
    assert misses(capsys) == [""]


def test_f66_the_sources_of_jitflow_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("jitflow", "lowering", "runtime"):
        (tmp_path / name / "ops").mkdir(parents=True)
        (tmp_path / name / "ops" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(versions, "_HOME", str(tmp_path))
    cache = open_cache(str(tmp_path / "code"), 1 << 20)
    first = versions._sources_digest(cache)
    assert versions._sources_digest(cache) == first
    changed = tmp_path / "lowering" / "ops" / "a.py"
    times = changed.stat().st_mtime_ns
    changed.write_text("x = 2\n")
    os.utime(changed, ns=(times, times))  # of the same size and age
    assert versions._sources_digest(cache) != first
    changed.write_text("x = 1\n")
    assert versions._sources_digest(cache) == first
    changed.rename(changed.with_name("b.py"))
    assert versions._sources_digest(cache) != first
    for path in tmp_path.rglob("*.py"):
        path.unlink()
    assert versions._sources_digest(cache) is None


def test_f63_a_damaged_entry_is_compiled_again_and_replaced(folder: Path) -> None:
    x, y = mlp()
    feed = {x: np.ones((2, 40), F32)}
    want = jf.Session(y).run(y, feed)
    entry = max(folder.iterdir(), key=lambda p: p.stat().st_size)
    whole = entry.read_bytes()
    foreign = open_cache(str(folder), 256 << 20)
    for damage in (whole[:1000], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], b""):
        entry.write_bytes(damage)
        with pytest.warns(RuntimeWarning, match="cached code is ignored and replaced") as caught:
            session = jf.Session(y)
        assert len(caught) == 1
        assert session.compilations == 1
        assert same_bits(session.run(y, feed), want)
        assert entry.read_bytes() == whole
    # An entry that is whole but says something else: of another writer, or of another graph.
    key = next(k for k in _keys_of(y) if k.file == entry.name)
    for body in (b"", b"nonsense", b"\2\0\0\0{}"):
        foreign.put(key, body)
        with pytest.warns(RuntimeWarning, match="cached code is ignored and replaced"):
            assert same_bits(jf.Session(y).run(y, feed), want)
        assert entry.read_bytes() == whole


def _keys_of(y: Any) -> list[Any]:
    """Return the keys that a session of `y` asks for."""
    asked = []
    get = compilation.Cache.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation.Cache, "get", lambda self, key: asked.append(key) or get(self, key))
        jf.Session(y)
    return asked


def test_f64_f65_without_a_usable_folder_sessions_compile(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    x = jf.placeholder("x", jf.float32, (3,))
    with config.override(cache_dir=str(tmp_path / "file")):
        with pytest.warns(RuntimeWarning, match="is not used: Not a directory") as caught:
            session = jf.Session(jf.exp(x))
        assert len(caught) == 1
        jf.Session(jf.exp(x))  # warned of once, and warnings are errors here
        assert session.compilations == 1
        assert session.run(jf.exp(x), {x: [0, 0, 0]}).tolist() == [1, 1, 1]


def test_constants_count_by_their_bits() -> None:
    x = jf.placeholder("x", jf.float64, (20,))
    values = [np.zeros(20), -np.zeros(20), np.full(20, 5e-324)]
    nan = np.full(20, np.nan)
    nan.view(np.int64)[:] += 1
    for value in (*values, np.full(20, np.nan), nan):
        with jf.Session(x + jf.constant(value)) as session:
            assert session.compilations == 1


def test_the_same_graph_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    program = (
        "import numpy as np, jitflow as jf\n"
        "x = jf.placeholder('x', jf.float32, ('n', None))\n"
        "w = jf.constant(np.arange(1536, dtype=np.float32).reshape(32, 48))\n"
        "jf.Session([jf.softmax(jf.reshape(x, (-1, 32)) @ w), jf.sum(x, axis=0)])\n"
    )
    (tmp_path / "program.py").write_text(program)
    contents = []
    for seed in ("1", "2"):
        place = tmp_path / seed
        environ = {**os.environ, "PYTHONHASHSEED": seed, "JITFLOW_CACHE_DIR": str(place), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, tmp_path / "program.py"], env=environ, check=True)
        contents.append({p.name: p.read_bytes() for p in place.iterdir()})
    assert len(contents[0]) == 3  # the program, the worker pool, and the digest of the sources
    assert contents[0] == contents[1]


def test_fifty_batch_sizes_are_one_compilation() -> None:
    x, y = mlp()
    with config.override(cache_dir=None), jf.Session([y]) as session:
        for n in range(1, 51):
            assert session.run(y, {x: np.zeros((n, 40), F32)}).shape == (n, 9)
        assert session.compilations == 1
