"""The command ``jitflow``, run as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jitflow as jf
from jitflow.cli import main

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JITFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "jitflow", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**clean, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = jf.placeholder("x", jf.float32, ("n", 3))
    path = tmp_path_factory.mktemp("graphs") / "model.graph"
    path.write_text(jf.show_graph({"p": jf.softmax(x * 2.0), "total": jf.sum(x)}))
    np.save(path.parent / "x.npy", np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], np.float32))
    return path


def test_the_demo_classifies_digits_and_shows_every_stage() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    assert "accuracy: 98.9 %\n" in done.stdout
    for word in ("numpy", "interpreter", "session", "all nodes agree", "00-graph.graph", "-asm.s"):
        assert word in done.stdout
    assert done.stderr == ""
    folder = Path(done.stdout.split("the IR of every stage is in ")[1].splitlines()[0].rstrip(":"))
    for path in (*folder.iterdir(), folder):
        path.rmdir() if path.is_dir() else path.unlink()


def test_doctor_checks_the_machine() -> None:
    done = run("doctor", JITFLOW_TIME="0", JITFLOW_VERIFY="1")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("versions", "target", "compiler", "entry", "a kernel compiles, runs and is right", "verify=True"):
        assert word in done.stdout
    assert "FAIL" not in done.stdout


def test_a_command_is_needed_and_known(capsys: pytest.CaptureFixture[str]) -> None:
    for args, status in (([], 2), (["nope"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as caught:
            main(args)
        assert caught.value.code == status
    captured = capsys.readouterr()
    assert "invalid choice: 'nope'" in captured.err
    for command in ("demo", "run", "dump", "compare", "bench", "doctor"):
        assert command in captured.out


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    status = main([str(a) for a in args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_run_prints_results(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "run", graph, "--feed", f"x={graph.parent / 'x.npy'}")
    assert (status, err) == (0, "")
    assert "p = [[0.3333" in out
    assert "total = 6." in out


def test_run_saves_results(graph: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = tmp_path / "out.npz"
    status, out, _ = call(capsys, "run", graph, "--feed", f"x={graph.parent / 'x.npy'}", "--save", saved)
    assert (status, out) == (0, "")
    with np.load(saved) as data:
        assert data["total"] == 6
        np.testing.assert_allclose(data["p"].sum(axis=1), 1, rtol=1e-6)


def test_run_makes_feeds_up(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = call(capsys, "run", graph, "--random", "3", "--dim", "n=2")
    assert first[0] == 0
    assert call(capsys, "run", graph, "--random", "3", "--dim", "n=2") == first
    assert call(capsys, "run", graph, "--random", "4", "--dim", "n=2") != first


@pytest.mark.parametrize("stage", ["graph", "fused", "loops", "plan", "llvm", "llvm-opt", "asm"])
def test_dump_prints_a_stage(graph: Path, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "dump", graph, "--stage", stage)
    assert (status, err) == (0, "")
    assert "softmax" in out or "k0_" in out


def test_dump_takes_targets_and_kernels(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "dump", graph, "--target", "nvptx:sm_90")
    assert status == 0
    assert ".target sm_90" in out
    status, out, _ = call(capsys, "dump", graph, "--target", "x86-64-v2", "--stage", "asm")
    assert status == 0
    assert "ymm" not in out
    _, loops, _ = call(capsys, "dump", graph)
    assert loops.startswith("kernel ")
    name = loops.splitlines()[0].split()[1].split("(")[0]
    status, out, _ = call(capsys, "dump", graph, "--kernel", name)
    assert status == 0
    assert out.count("kernel ") == 1


def test_large_arrays_come_from_a_file_of_their_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 64))
    y = jf.sum(x @ jf.variable("w", np.eye(64, dtype=np.float32)))
    (tmp_path / "m.graph").write_text(jf.show_graph({"y": y}))
    np.savez(tmp_path / "m.npz", **jf.graph_arrays(y))
    np.save(tmp_path / "x.npy", np.ones((2, 64), np.float32))
    args = ("run", tmp_path / "m.graph", "--feed", f"x={tmp_path / 'x.npy'}")
    status, out, _ = call(capsys, *args, "--arrays", tmp_path / "m.npz")
    assert (status, out) == (0, "y = 128.\n")
    status, _, err = call(capsys, *args)
    assert status == 2
    assert "not in the table of arrays" in err


def test_compare_prints_the_table(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "compare", graph, "--random", "0")
    assert status == 0
    assert "max ulp" in out
    assert "all nodes agree" in out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights, an input that they are multiplied with, and one more of the same size."""
    folder = tmp_path_factory.mktemp("models")
    x = jf.placeholder("x", jf.float32, ("n", 32))
    bias = jf.placeholder("bias", jf.float32, ("n", None))
    y = x @ jf.variable("w", np.eye(32, dtype=np.float32)) + bias
    jf.save(folder / "model.jitflow", {"y": y, "parts": [x, (y,)]})
    jf.save(folder / "pair.jitflow", y, weights="pair.safetensors")
    np.save(folder / "x.npy", np.ones((2, 32), np.float32))
    np.save(folder / "bias.npy", np.full((2, 32), 2, np.float32))
    return folder / "model.jitflow"


def test_run_dump_and_compare_read_files_with_weights(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.parent
    feeds = ("--feed", f"x={folder / 'x.npy'}", "--feed", f"bias={folder / 'bias.npy'}")
    status, out, err = call(capsys, "run", model, *feeds)
    assert (status, err) == (0, "")
    assert out.startswith("y = [[3. 3. 3. ")
    assert "parts[0] = [[1. 1. " in out
    assert "parts[1][0] = [[3. 3. " in out
    status, out, _ = call(capsys, "run", folder / "pair.jitflow", *feeds)
    assert status == 0
    assert out.startswith("add_0 = [[3. 3. ")
    status, out, _ = call(capsys, "compare", model, "--random", "1", "--dim", "_0=32")
    assert (status, "all nodes agree" in out) == (0, True)
    status, out, _ = call(capsys, "dump", model, "--stage", "graph")
    assert status == 0
    assert 'w: f32[32, 32] = variable(name="w"' in out


def test_files_come_from_standard_input_too(model: Path) -> None:
    command = [sys.executable, "-m", "jitflow", "dump", "-", "--stage", "graph"]
    done = subprocess.run(command, input=model.read_bytes(), capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.startswith(b"graph 1:")
    pair = model.with_name("pair.jitflow").read_bytes()
    done = subprocess.run(command, input=pair, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"jitflow: the graph: the weights are in 'pair.safetensors', which is beside a file")


def test_damaged_files_are_one_message(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.jitflow"
    path.write_bytes(model.read_bytes()[:-1])
    status, out, err = call(capsys, "run", path, "--random", "1")
    assert (status, out) == (2, "")
    assert err.startswith(f"jitflow: {path}: byte ")
    assert err.count("\n") == 1


def test_made_up_feeds_take_sizes_from_given_ones(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = f"x={model.parent / 'x.npy'}"
    status, out, _ = call(capsys, "run", model, "--feed", x, "--random", "1", "--dim", "_0=32")
    assert status == 0
    assert "parts[0] = [[1. 1. " in out


def test_feeds_and_dims_that_the_graph_has_not_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = f"x={model.parent / 'x.npy'}"
    several, text = tmp_path / "several.npz", tmp_path / "text.npy"
    np.savez(several, a=np.ones(3))
    text.write_text("no array")
    for args, message in (
        (("--random", "1", "--dim", "q=3"), "--dim 'q=3': the graph has no dim 'q'; its dims are 'n', '_0'"),
        (("--random", "1", "--dim", "n"), "--dim 'n': expected NAME=N"),
        (("--random", "1", "--dim", "n=x"), "--dim n=x: expected NAME=N"),
        (("--random", "1", "--dim", "n=²"), "--dim n=²: expected NAME=N"),
        (("--random", "1", "--dim", "n=1", "--dim", "n=2"), "--dim 'n=2': dim 'n' is given twice"),
        (("--feed", f"z={several}"), f"--feed 'z={several}': the graph has no input 'z'; its inputs are 'x', 'bias'"),
        (("--feed", x, "--feed", x), "input 'x' is given twice"),
        (("--feed", x), "input 'bias' is not fed: give --feed bias=FILE.npy, or --random SEED"),
        (("--feed", f"x={several}"), f"--feed x={several}: this holds several arrays; expected one, in a .npy file"),
        (("--feed", f"x={text}"), f"--feed x={text}: this is no .npy file: "),
    ):
        status, out, err = call(capsys, "run", model, *args)
        assert (status, out) == (2, "")
        assert message in err, err


def test_inputs_that_nothing_depends_on_need_no_feed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.graph"
    path.write_text(
        'graph 1:\n x: f32[2] = placeholder(name="x")\n unused: f32[3] = placeholder(name="u")\n return y=x\n'
    )
    status, out, err = call(capsys, "run", path, "--random", "1")
    assert (status, err) == (0, "")
    assert out.startswith("y = [")


def test_errors_are_one_message_and_status_2(graph: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.graph"
    bad.write_text("graph 1:\n  nonsense\n")
    for args in (
        ("run", tmp_path / "missing.graph"),
        ("run", bad),
        ("run", graph),
        ("run", graph, "--feed", "x"),
        ("run", graph, "--feed", f"y={graph.parent / 'x.npy'}", "--random", "0"),
        ("run", graph, "--feed", "x=missing.npy"),
        ("run", graph, "--random", "0", "--dim", "n=-1"),
        ("run", graph, "--random", "0", "--dim", "n=999999999999999"),
        ("run", graph, "--random", "0", "--arrays", graph),
        ("dump", graph, "--kernel", "nope"),
        ("dump", graph, "--target", "z80"),
        ("compare", graph),
    ):
        status, out, err = call(capsys, *args)
        assert status == 2, args
        assert err.startswith("jitflow: "), args
        assert "Traceback" not in err
        assert out == ""


def test_a_graph_comes_from_standard_input_too(graph: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jitflow", "dump", "-", "--stage", "graph"],
        input=graph.read_text(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.startswith("graph 1:")


def test_knobs_come_from_the_environment(graph: Path) -> None:
    done = run(
        "run", str(graph), "--random", "0", JITFLOW_DUMP="plan", JITFLOW_TIME="1", JITFLOW_TARGET_CPU="x86-64-v2"
    )
    assert done.returncode == 0, done.stderr
    assert "# jitflow: stage plan\nplan:" in done.stderr
    assert "jitflow: compile time" in done.stderr
    assert done.stdout.startswith("p = ")
    done = run("run", str(graph), "--random", "0", JITFLOW_THREADS="none")
    assert done.returncode == 2
    assert "JITFLOW_THREADS='none': expected a positive number" in done.stderr
    assert "Traceback" not in done.stderr


def test_dump_needs_no_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 16))
    path = tmp_path / "net.graph"
    path.write_text(jf.show_graph(x @ jf.variable("w", np.ones((16, 8), np.float32))))
    assert main(["dump", str(path)]) == 0
    assert "kernel k0_matmul(" in capsys.readouterr().out
    assert main(["dump", "--target", "nvptx:sm_90", str(path)]) == 0
    assert ".visible .entry k0_matmul" in capsys.readouterr().out
    assert main(["run", "--random", "1", str(path)]) == 2
    assert "not in the table of arrays" in capsys.readouterr().err


def test_a_file_that_is_no_text_is_refused_with_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones(3))
    assert main(["compare", str(path)]) == 2
    assert "byte 0 is no text" in capsys.readouterr().err


def test_bfloat16_comes_back_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = jf.placeholder("x", jf.bfloat16, (3,))
    large = jf.constant(np.arange(300).reshape(100, 3), jf.bfloat16)
    y = jf.sum(x * large, axis=0)
    (tmp_path / "g.graph").write_text(jf.show_graph({"y": y}))
    np.savez(tmp_path / "arrays.npz", **jf.graph_arrays(y))
    np.save(tmp_path / "x.npy", np.array([1, 0.5, -2], jf.bfloat16))
    given = ("--arrays", tmp_path / "arrays.npz", "--feed", f"x={tmp_path / 'x.npy'}", "--save", tmp_path / "y.npz")
    assert call(capsys, "run", tmp_path / "g.graph", *given)[0] == 0
    with np.load(tmp_path / "y.npz") as saved:
        value = saved["y"].view(jf.bfloat16)
    np.testing.assert_array_equal(value, jf.interpret(y, {x: [1, 0.5, -2]}))
