"""`Session.dump`, `dump_all` and `report`: text of every stage, in plan order, with the nodes and the user's lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import jitflow as jf
from jitflow import config
from lowering.text import parse_kernels, show

STAGES = ("graph", "fused", "loops", "loops-opt", "plan", "llvm", "llvm-opt", "asm")
KERNEL_STAGES = ("loops", "loops-opt", "llvm", "llvm-opt", "asm")


class Net:
    """Four kernels at least: a product, a softmax over it, a reduction over columns, a gather."""

    def __init__(self) -> None:
        self.x = jf.placeholder("x", jf.float32, ("batch", 16))
        self.w = jf.variable("w", np.ones((16, 4), np.float32))
        self.h = self.x @ self.w
        self.line = sys._getframe().f_lineno - 1
        self.y = jf.softmax(self.h + 1.0, axis=-1).named("y")
        self.columns = jf.sum(self.y, axis=0).named("columns")
        self.picked = jf.take(self.columns, jf.argmax(self.columns)).named("picked")
        self.session = jf.Session([self.y, self.picked])


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    n = Net()
    with n.session:
        yield n


def kernels_of(text: str) -> list[str]:
    """Return the names of the kernels that stage ``loops`` starts, in order."""
    return re.findall(r"^kernel (\w+)\(", text, re.MULTILINE)


def launches(net: Net) -> list[str]:
    return list(dict.fromkeys(re.findall(r"launch (\w+)\(", net.session.dump("plan"))))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_one_string(net: Net, stage: str) -> None:
    text = net.session.dump(stage)
    assert isinstance(text, str)
    assert text.strip()
    assert not re.search(r"\b0x7f[0-9a-f]{10}\b", text), "an address"


def test_in_loops_each_kernel_starts_with_its_name_in_plan_order(net: Net) -> None:
    text = net.session.dump("loops")
    assert text.startswith("kernel ")
    assert len(kernels_of(text)) >= 3
    assert kernels_of(text) == launches(net)


@pytest.mark.parametrize("stage", KERNEL_STAGES)
def test_kernels_come_in_plan_order_in_every_stage(net: Net, stage: str) -> None:
    text = net.session.dump(stage)
    heads = {
        "loops": r"^kernel (\w+)\(",
        "loops-opt": r"^kernel (\w+)\(",
        "llvm": r"^define (?:internal )?(?:void|i1) @(k\d\w*)\(",
        "llvm-opt": r"^define (?:internal )?(?:void|i1) @(k\d\w*)\(",
        "asm": r"^(k\d\w*):",
    }
    assert re.findall(heads[stage], text, re.MULTILINE) == launches(net)


@pytest.mark.parametrize("stage", KERNEL_STAGES)
def test_every_kernel_has_a_header_comment_with_nodes_and_source_lines(net: Net, stage: str) -> None:
    text = net.session.dump(stage)
    for name in launches(net):
        alone = net.session.dump(stage, kernel=name)
        comments = re.findall(r"^\s*[#;] *(\w+: .*# .*test_dump\.py:\d+)$", alone, re.MULTILINE)
        assert comments, f"{stage} of {name}"
        for comment in comments:
            assert comment in text
    # The line of the product is the user's.
    product = re.search(r"matmul_0: f32\[batch, 4\] = matmul\(x, w\) +# .*test_dump\.py:(\d+)", text)
    assert product
    assert int(product[1]) == net.line


def test_the_fused_stage_names_groups_nodes_and_lines(net: Net) -> None:
    text = net.session.dump("fused")
    assert text.startswith("group 0 ")
    for name in ("matmul_0", "y", "columns", "picked"):
        assert f"{name}: " in text
    assert f"test_dump.py:{net.line}" in text


def test_one_kernel_can_be_dumped_alone(net: Net) -> None:
    for stage in KERNEL_STAGES:
        for name in launches(net):
            text = net.session.dump(stage, kernel=name)
            assert name in text
            for other in launches(net):
                assert (re.search(rf"\b{other}\b", text) is not None) == (other == name), (stage, name, other)
    with pytest.raises(jf.GraphError, match="no kernel is called 'nope'; there are k0_"):
        net.session.dump("loops", kernel="nope")


def test_the_loops_of_a_dump_can_be_read_back(net: Net) -> None:
    text = net.session.dump("loops")
    assert "\n".join(show(k) for k in parse_kernels(text)) == text


def test_the_graph_of_a_dump_can_be_read_back(net: Net) -> None:
    text = net.session.dump("graph")
    graph = jf.parse_graph(text, jf.graph_arrays([net.y, net.picked]))
    assert list(graph.fetches) == ["y", "picked"]
    assert jf.show_graph(graph.fetches, sites=False) in re.sub(r"  # .*", "", text)


def test_another_fetch_set_can_be_dumped(net: Net) -> None:
    text = net.session.dump("loops", net.h)
    assert len(kernels_of(text)) == 1
    assert kernels_of(net.session.dump("loops", [net.h])) == kernels_of(text)
    assert "matmul_0" in net.session.dump("graph", "matmul_0")
    assert "softmax" not in net.session.dump("graph", net.h)
    # Nodes keep the names that the session has given them.
    assert "return add_0\n" in net.session.dump("graph", "add_0")
    last = net.session.name_of(jf.argmax(net.columns))
    assert f"return {last}\n" in net.session.dump("graph", last)
    with pytest.raises(jf.GraphError):
        net.session.dump("loops", "nope")
    with pytest.raises(jf.GraphError):
        net.session.dump("loops", net.y * 3.0)


def test_unknown_stages_are_refused_with_the_list(net: Net) -> None:
    for bad in ("loop", "", "LOOPS", None, 3):
        with pytest.raises(
            jf.GraphError, match="stages are graph, fused, loops, loops-opt, plan, llvm, llvm-opt, asm, ptx"
        ):
            net.session.dump(bad)  # type: ignore[arg-type]
    with pytest.raises(jf.DeviceError, match="ptx"):
        net.session.dump("ptx")


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_graph_gives_the_same_text(net: Net, stage: str) -> None:
    with jf.Session([net.y, net.picked]) as other:
        assert other.dump(stage) == net.session.dump(stage)
    assert net.session.dump(stage) == net.session.dump(stage)


def test_dumps_show_what_unfused_sessions_run(net: Net) -> None:
    with config.override(fuse=False), jf.Session([net.y, net.picked]) as plain:
        assert len(kernels_of(plain.dump("loops"))) > len(kernels_of(net.session.dump("loops")))


def test_large_constants_enter_no_text(net: Net) -> None:
    c = jf.constant(np.linspace(0.12345, 0.98765, 5000))
    x = jf.placeholder("x", jf.float64, (5000,))
    with jf.Session(x * c) as session:
        for stage in STAGES:
            assert len(session.dump(stage)) < 100_000
            assert "0.12345" not in session.dump(stage)


def test_a_session_that_is_not_loaded_can_be_dumped_and_not_run(net: Net) -> None:
    with jf.Session([net.y], load=False) as session:
        for stage in STAGES:
            assert session.dump(stage)
        with pytest.raises(jf.DeviceError, match="load=False"):
            session.run(net.y, {"x": np.ones((1, 16), np.float32)})
        with pytest.raises(jf.DeviceError, match="load=False"):
            session.function([net.x], net.y)


def test_ptx_needs_no_gpu(net: Net) -> None:
    with jf.Session([net.y], device="cuda:0", load=False) as session:
        text = session.dump("ptx")
        assert ".version" in text
        assert ".target sm_90" in text
        assert ".visible .entry" in text
        loops = kernels_of(session.dump("loops"))
        for name in loops:
            assert f".entry {name}(" in text
        assert "test_dump.py:" in session.dump("loops")
        for stage in ("graph", "fused", "plan", "llvm"):
            assert session.dump(stage)
        assert "peak memory" in session.report()


def test_dump_all_writes_every_stage(net: Net, tmp_path: Path) -> None:
    files = net.session.dump_all(tmp_path / "new" / "folder")
    assert [p.name for p in files] == [
        "00-graph.graph",
        "01-fused.txt",
        "02-loops.loop",
        "03-loops-opt.loop",
        "04-plan.txt",
        "05-llvm.ll",
        "06-llvm-opt.ll",
        "07-asm.s",
    ]
    for path, stage in zip(files, STAGES, strict=True):
        assert path.read_text() == net.session.dump(stage)
    assert [p.name for p in net.session.dump_all(str(tmp_path))] == [p.name for p in files]


def test_the_report_tells_kernels_work_buffers_memory_and_times(net: Net) -> None:
    text = net.session.report()
    for name in launches(net):
        assert name in text
    # The product takes 2 * batch * 4 * 16 operations; the sum, and subtract, exp and multiply of the softmax, one for
    # each element, its two reductions likewise, and one division a row. It reads x and w and writes y.
    line = next(line for line in text.splitlines() if f"batch*{128 + 4 * 6 + 1}" in line)
    assert "batch*80 + 256" in line
    assert "peak memory" in text
    assert "constant 256 bytes: w" in text
    for step in ("rewrite", "expand", "fuse", "build", "passes", "vectorize", "llvm", "total"):
        assert re.search(rf"^ +{step} +\d+\.\d+ ms$", text, re.MULTILINE), step


def test_the_report_tells_what_threads_share() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 1000))
    y = jf.softmax(x, axis=-1)
    for workers in (1, 3):
        with jf.Session(y, threads=workers) as session:
            text = session.report()
        shared = re.search(
            r"shared by at most 3 threads:\n  k0_softmax over .* in chunks of at most .*\nbuffers:", text
        )
        assert (shared is not None) == (workers == 3)
        assert ("shared by" in text) == (workers == 3)


def test_a_report_of_literal_sizes_has_numbers() -> None:
    x = jf.placeholder("x", jf.float32, (8, 4))
    with jf.Session(jf.sum(jf.exp(x))) as session:
        (line,) = [line for line in session.report().splitlines() if re.match(r"  k0", line)]
    # 32 exponentials and 32 additions; 128 bytes in, 4 out.
    assert line.split()[1:] == ["1", "2", "64", "132"] or line.split()[-2:] == ["64", "132"]


# ---- knobs


def test_jitflow_dump_prints_stages_and_passes(net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    with config.override(dump="loops,vectorize,expand"), jf.Session(net.y):
        pass
    text = capsys.readouterr().err
    assert "# jitflow: stage loops\nkernel k0_" in text
    assert re.search(r"^# jitflow: \w+ after vectorize\nkernel \w+\(", text, re.MULTILINE)
    assert "# jitflow: graph after expand\ngraph 1:" in text
    assert "stage llvm" not in text
    assert "after hoist" not in text
    with config.override(dump="all"), jf.Session(jf.exp(net.x)):
        pass
    text = capsys.readouterr().err
    for stage in STAGES:
        assert f"# jitflow: stage {stage}\n" in text
    with jf.Session(net.y):
        pass
    assert capsys.readouterr() == ("", "")


def test_only_passes_that_changed_something_are_dumped(net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    with config.override(dump="all"), jf.Session(net.x * 2.0):
        pass
    text = capsys.readouterr().err
    assert "graph after expand" not in text
    assert "graph after cancel_movement" not in text
    assert "after vectorize" in text


def test_jitflow_dump_dir_writes_files_instead(net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with config.override(dump_dir=tmp_path / "a"), jf.Session(net.y) as session:
        assert capsys.readouterr() == ("", "")
        names = sorted(p.name for p in (tmp_path / "a").iterdir())
        for stage in STAGES:
            (name,) = [n for n in names if re.fullmatch(rf"p\d+-\d-{stage}\.\w+", n)]
            assert (tmp_path / "a" / name).read_text() == session.dump(stage)
        assert any(n.endswith("-vectorize.loop") for n in names)
        assert any(n.endswith("-expand.graph") for n in names)
    with config.override(dump_dir=tmp_path / "b", dump="plan"), jf.Session(net.y):
        (name,) = [p.name for p in (tmp_path / "b").iterdir()]
        assert name.endswith("-4-plan.txt")


def test_a_dump_of_what_does_not_exist_is_refused(net: Net) -> None:
    with config.override(dump="lops"), pytest.raises(jf.FormatError, match="'lops'; did you mean 'loops'"):
        jf.Session(net.y)


def test_jitflow_time_prints_a_table(net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    with config.override(time=True), jf.Session(net.y):
        pass
    text = capsys.readouterr().err
    assert text.startswith("jitflow: compile time\n")
    assert re.search(r"^  llvm +\d+\.\d+ ms$", text, re.MULTILINE)
    assert re.search(r"^    vectorize +\d+\.\d+ ms$", text, re.MULTILINE)
