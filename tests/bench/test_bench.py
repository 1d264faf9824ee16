"""The benchmark itself: every workload is what it says, wrong results are not timed, verdicts follow from the times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from tests.bench import __main__ as bench
from tests.bench import measure, report
from tests.bench.ceilings import Ceilings
from tests.bench.environment import environment
from tests.bench.peers import PEERS, load
from tests.bench.peers.form import Data, Form, Unsupported
from tests.bench.peers.jitflow_peer import graph
from tests.bench.peers.numpy_peer import reference
from tests.bench.selection import CALLS, select
from tests.bench.worker import Bench
from tests.bench.workloads import FAMILIES, Family, Workload

ROOT = Path(__file__).resolve().parents[2]


def _data(w: Workload) -> Data:
    inputs, constants = w.inputs(), w.constants()
    return Data(inputs, constants, reference(w, inputs, constants))


# ---- workloads


def test_graph_of_every_family_computes_the_reference() -> None:
    graphs, works = [], []
    for family in FAMILIES:
        w = family.workload(family.small)
        data = _data(w)
        graphs.append(graph(w, data))
        works.append((w, data))
    for (inputs, output), (w, data) in zip(graphs, works, strict=True):
        with jf.Session([output]) as session:
            got = session.function(inputs, output)(*data.inputs)
        assert Bench.error(got, data.expected) <= w.tolerance, w.name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.make.__name__)
def test_numpy_peer_computes_the_reference(family: Family) -> None:
    w = family.workload(family.small)
    data = _data(w)
    for form in load("numpy", 1).forms(w, data):
        assert Bench.error(form.result(form.call()), data.expected) <= w.tolerance


def test_names_of_workloads_differ() -> None:
    names = [w.name for w in select([]).workloads]
    assert len(names) == len(set(names))
    assert len(names) > 200


def test_every_section_has_odd_sizes() -> None:
    sections = {f.section for f in FAMILIES}
    assert {w.section for w in select(["odd"]).workloads} == sections


def test_reference_of_softmax_by_hand() -> None:
    w = next(f for f in FAMILIES if f.make.__name__ == "softmax").workload((1, 2))
    x = np.array([[0.0, np.log(3.0)]], np.float32)
    np.testing.assert_allclose(reference(w, (x,), ()), [[0.25, 0.75]], rtol=1e-7)


def test_reference_of_convolution_by_hand() -> None:
    w = next(f for f in FAMILIES if f.make.__name__ == "conv_3x3").workload((1, 1, 1, 2, 2))
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2)
    # Every window of a 2x2 image with a border of zeros holds all four numbers, at four places.
    weight = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    y = reference(w, (x,), (weight, np.array([-40.0], np.float32)))
    by_hand = [4 + 2 * 5 + 3 * 7 + 4 * 8, 3 + 2 * 4 + 3 * 6 + 4 * 7, 1 + 2 * 2 + 3 * 4 + 4 * 5, 2 + 3 * 3 + 4 * 4]
    np.testing.assert_array_equal(y.ravel(), [max(v - 40, 0) for v in by_hand])


# ---- selection


def test_patterns() -> None:
    assert {w.family for w in select(["conv"]).workloads} == {
        "conv_1x1", "conv_3x3", "conv_7x7_stride_2", "conv_depthwise"
    }  # fmt: skip
    assert {w.family for w in select(["=matmul"]).workloads} == {"matmul"}
    assert [w.name for w in select(["matmul f64 ?12"]).workloads] == ["matmul f64 512"]
    assert select(["no such thing"]) == ([], [])
    assert select(["calls"]).calls == list(CALLS)
    assert select(["=calls"]).workloads == []


def test_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--peers", "numpy,cobol"])
    assert "no peer is called 'cobol'" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["0", "1,-2", "x"])
def test_threads_are_positive_numbers(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--threads", threads])
    assert "--threads" in capsys.readouterr().err


def test_environment_pins_every_library() -> None:
    env = environment(3)
    assert {env[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")} == {"3"}
    assert env["JITFLOW_THREADS"] == "3"
    assert "intra_op_parallelism_threads=3" in env["XLA_FLAGS"]


# ---- measuring


class _Fake:
    """A peer whose forms return given arrays."""

    def __init__(self, *results: Any) -> None:
        self._results = results

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        for k, result in enumerate(self._results):
            if isinstance(result, Exception):
                raise result
            yield Form(f"form {k}", lambda r=result: r)


def _measured(**fakes: _Fake) -> dict[str, Any]:
    w = next(f for f in FAMILIES if f.make.__name__ == "max").workload(((4, 3), 1))
    systems = {"jitflow": load("jitflow", 1), **fakes}
    return Bench(systems, Ceilings(1), 1, 0.005, lambda _: None).workload(w)


def test_only_right_results_are_timed() -> None:
    w = next(f for f in FAMILIES if f.make.__name__ == "max").workload(((4, 3), 1))
    right = _data(w).expected
    row = _measured(
        right=_Fake(right), wrong=_Fake(right + 1), shape=_Fake(right[:3]), nan=_Fake(right * np.nan),
        second=_Fake(right - 1, right), cannot=_Fake(Unsupported("no max")), broken=_Fake(RuntimeError("out of luck")),
    )  # fmt: skip
    systems = row["systems"]
    assert "best" in systems["jitflow"]
    assert "best" in systems["right"]
    assert "wrong" not in systems["right"]
    for name in ("wrong", "shape", "nan"):
        assert "best" not in systems[name]
        assert "form 0 error" in systems[name]["wrong"]
    assert systems["second"]["form"] == "form 1"
    assert systems["cannot"]["left out"] == "no max"
    assert systems["broken"]["failed"] == "RuntimeError: out of luck"
    assert list(report.troubles(row))[-1].endswith("broken failed: RuntimeError: out of luck")
    json.dumps(row)


def test_slow_turns_are_out_after_three_rounds() -> None:
    turns = {"fast": lambda: 1.0, "fair": lambda: 19.0, "slow": lambda: 21.0}
    times = measure.interleave(turns, seconds=0.0, rounds=5)
    assert [len(times[name].samples) for name in turns] == [5, 5, 3]
    assert (times["fair"].best, times["fair"].median) == (19.0, 19.0)


def test_ceilings_are_no_rivals() -> None:
    turns = {"ours": lambda: 30.0, "slow": lambda: 700.0, "ceiling": lambda: 1.0, "calibration": lambda: 900.0}
    times = measure.interleave(turns, seconds=0.0, rounds=5, beside=("ceiling", "calibration"))
    assert [len(times[name].samples) for name in turns] == [5, 3, 5, 5]


def test_first_in_turn_changes() -> None:
    order: list[str] = []

    def turn(name: str) -> measure.Turn:
        return lambda: order.append(name) or 1.0

    measure.interleave({"a": turn("a"), "b": turn("b")}, seconds=0.0, rounds=2)
    assert order == ["a", "b", "b", "a"]


@pytest.mark.parametrize(("read", "written"), [(1 << 16, 0), (0, 1 << 16), (3 << 14, 1 << 14), (100, 60_000)])
def test_ceiling_of_memory_grows_with_what_is_moved(read: int, written: int) -> None:
    ceilings = Ceilings(1)
    small, large = (ceilings.memory(k * read, k * written, past_cache=False) for k in (1, 64))
    assert 0 < min(small() for _ in range(3)) < min(large() for _ in range(3))


def test_ceiling_of_two_threads_is_that_of_all_the_work() -> None:
    one, two = Ceilings(1).compute(1e9, "float64"), Ceilings(2).compute(1e9, "float64")
    # Twice as fast on two free cores, as fast on one, never three times.
    assert min(one() for _ in range(5)) / min(two() for _ in range(5)) < 3


# ---- verdicts


def _row(bar: float, threads: int = 1, **best: float) -> dict[str, Any]:
    systems = {name.replace("_", " ").replace("ceiling ", "ceiling: "): {"best": t} for name, t in best.items()}
    return {
        "name": "w",
        "family": "f",
        "resident": False,
        "odd": False,
        "bar": bar,
        "threads": threads,
        "systems": systems,
    }


def test_bar_is_met_by_ratio_to_the_fastest_peer() -> None:
    row = _row(1.5, jitflow=2.0, numpy=9.0, torch=3.0, ceiling_memory=0.5)
    v = report.judge(row)
    assert (v.peer, v.ratio, v.limit, v.of_limit, v.met) == ("torch", 1.5, "memory", 0.25, True)
    assert report.shortfall(row) == 1.0
    assert not report.judge(row | {"bar": 1.51}).met


def test_bar_is_met_near_the_higher_of_the_ceilings() -> None:
    row = _row(1.5, jitflow=2.0, torch=2.0, ceiling_memory=0.9, ceiling_FMA=1.8)
    v = report.judge(row)
    assert (v.limit, v.of_limit, v.met) == ("FMA", 0.9, True)
    worse = _row(1.5, jitflow=2.0, torch=2.0, ceiling_memory=1.7)
    assert not report.judge(worse).met
    assert report.shortfall(worse) == pytest.approx(0.9 / 0.85)


def test_faster_of_the_two_ways_to_write_is_the_ceiling() -> None:
    row = _row(1.0, jitflow=2.0, ceiling_memory=1.5, **{"ceiling: memory past the caches": 1.0})
    assert report.judge(row).of_limit == 0.5


def test_row_without_a_right_result_is_not_met() -> None:
    v = report.judge(_row(1.0, numpy=1.0))
    assert (v.jitflow, v.met) == (None, False)
    assert report.line(_row(1.0, numpy=1.0)).split()[1] == "-"


def test_gain_of_two_threads_beside_that_of_the_calibration_loop() -> None:
    best = {"jitflow": 1.0, "jitflow, one thread": 1.8, "calibration": 2.0, "calibration, one thread": 3.0}
    v = report.judge(_row(1.0, threads=2, **best))
    assert (v.gain, v.calibration) == (1.8, 1.5)
    assert (v.peer, v.ratio) == (None, None)


@pytest.mark.parametrize(
    ("resident", "times", "scales"),
    [(True, (1.0, 1.8), True), (True, (1.0, 1.3), False), (False, (1.0, 1.8), None), (True, (1e-6, 1e-6), None)],
)
def test_threads_must_gain_what_the_calibration_loop_does(
    resident: bool, times: tuple[float, float], scales: bool | None
) -> None:
    best = {"jitflow": times[0], "jitflow, one thread": times[1], "calibration": 1.0, "calibration, one thread": 1.9}
    row = _row(1.0, threads=2, **best) | {"resident": resident}
    assert report.judge(row).scales is scales
    lines = list(report.summary([row], []))
    assert ("gain from threads" in " ".join(lines)) == (scales is not None)


def test_arithmetic_must_gain_from_threads_at_any_size() -> None:
    best = {"jitflow": 1.0, "jitflow, one thread": 1.0, "calibration": 1.0, "calibration, one thread": 2.0}
    assert report.judge(_row(1.0, threads=2, ceiling_FMA=0.5, **best)).scales is False


def test_line_of_a_family() -> None:
    rows = [_row(1.0, jitflow=1.0, numpy=2.0), _row(1.5, jitflow=1.0, torch=1.2, ceiling_memory=0.5)]
    head, line = report.families(rows)
    assert " ".join(line.split()) == "f 2 1 1.0-1.5 1.20 1.60 2.00 0% - 50% numpy, torch"
    assert head.split()[:4] == ["family", "sizes", "met", "bar"]


def test_summary_counts_and_names_what_was_disturbed() -> None:
    good, bad = _row(1.0, jitflow=1.0, numpy=2.0), _row(1.0, jitflow=2.0, numpy=1.0)
    good["systems"]["jitflow"]["cpus"] = 0.5
    lines = list(report.summary([good, bad], [{"met": True}]))
    assert lines[0].startswith("2 of 3 bars met")
    assert lines[1].startswith("1 rows marked ~")


# ---- the command


def test_command_prints_a_table_and_nothing_else_in_a_pipe(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "jitflow", "bench", "--only", "relu(a*b+c) 32K", "--peers", "numpy", "--quick",
            "--json", str(file),
        ],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    *_, head, row, last = done.stdout.splitlines()[:7]
    assert head == report.head(1)
    assert row.startswith("relu(a*b+c) 32K")
    assert "numpy" in row
    assert last.split()[1:5] == ["of", "1", "bars", "met;"]
    (run,) = json.loads(file.read_text())["runs"]
    assert set(run["start"]["versions"]) == {"jitflow", "numpy"}
    assert run["rows"][0]["systems"]["numpy"]["samples"]


_DYING_WORKER = """
import json, os, signal, sys
first = int(sys.argv[1])
start = {"threads": 1, "versions": {}, "absent": {}, "ceilings": {}}
print("a library talks", json.dumps({"start": start}), sep="\\n")
for k in range(first, 3):
    print(json.dumps({"doing": f"workload {k}"}), flush=True)
    if k == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    what = {"name": f"w{k}", "family": "f", "odd": False, "bar": 1.0, "threads": 1, "resident": False}
    print(json.dumps({"row": what | {"systems": {"jitflow": {"best": 1.0}, "numpy": {"best": 2.0}}}}), flush=True)
"""


def test_workload_that_kills_the_worker_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_worker", lambda threads, args, skip: [sys.executable, "-c", _DYING_WORKER, str(skip)])
    assert bench.main(["--only", "=matmul_symbolic", "=vector_matrix", "--peers", ""]) == 0
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines() if line.startswith("w")] == ["workload", "w0", "w2"]
    assert err == "the worker ended with status -9 at: workload 1\n"


def test_worker_that_cannot_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_worker", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(SystemExit, match="status 3"):
        bench.main(["--only", "=matmul", "--peers", ""])


def test_saved_results_are_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = {"threads": 1, "versions": {"jitflow": "1"}, "absent": {"jax": "no module"}, "ceilings": {"FMA float32": 9}}
    near, far = _row(1.0, jitflow=1.0, numpy=0.9), _row(1.0, jitflow=1.0, numpy=0.1)
    run = {"start": start, "rows": [near | {"name": "near"}, far | {"name": "far"}], "calls": []}
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"machine": {"cpu": "Z80", "cpus": "1", "python": "3"}, "runs": [run]}))
    assert bench.main(["--results", str(file), "--sort"]) == 0
    out = capsys.readouterr().out
    assert "left out: jax (no module)" in out
    assert out.index("\nfar ") < out.index("\nnear ")


def test_every_peer_that_is_installed_loads() -> None:
    for name in PEERS:
        if name in ("numpy", "numexpr"):  # the others take seconds to import
            try:
                assert load(name, 1).name == name
            except ImportError:
                assert name != "numpy"
