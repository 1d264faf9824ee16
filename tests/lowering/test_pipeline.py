"""The list of passes and the driver around it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lowering.pipeline
from jitflow.errors import CompilerBug
from jitflow.expr import Var, const_index
from lowering.loop_ir import For, Kernel, Store
from lowering.parser import parse_kernel
from lowering.pipeline import CPU, GPU, passes, run_pipeline
from lowering.target import Target, from_name
from lowering.text import show

V3, SM90 = from_name("x86-64-v3"), from_name("nvptx:sm_90")
TEXT = """
kernel k(a: f32[n, 8] read, o: f32[n, 8], n: index):
  parallel i in n:
    vectorized j in 8:
      o[i, j] = a[i, j] * 2.0
"""


def test_every_pass_is_told_to_the_observer_in_the_order_of_the_list() -> None:
    seen: list[str] = []
    kernel = parse_kernel(TEXT)
    steps = [kernel]

    def observe(name: str, before: Kernel, after: Kernel, seconds: float) -> None:
        seen.append(name)
        assert before is steps[-1]
        assert seconds >= 0
        steps.append(after)

    result = run_pipeline(kernel, V3, observer=observe)
    assert seen == [name for name, _ in CPU]
    assert result is steps[-1]
    assert [name for name, _ in passes(SM90)] == [name for name, _ in GPU]


def test_a_pass_is_called_as_its_function_and_its_file() -> None:
    folder = Path(lowering.pipeline.__file__).parent / "passes"
    for name, _ in (*CPU, *GPU):
        assert f"\ndef {name}(" in (folder / f"{name}.py").read_text()


def test_the_same_kernel_always_gives_the_same_text() -> None:
    assert show(run_pipeline(parse_kernel(TEXT), V3)) == show(run_pipeline(parse_kernel(TEXT), V3))


def test_microkernels_are_lowered_but_not_cut_for_workers() -> None:
    kernel = parse_kernel("""
kernel outer(a: f32[n] read, o: f32[n], n: index):
  call inner(a, o; n)
  kernel inner(a: f32[n] read, o: f32[n], n: index):
    vectorized i in n:
      o[i] = a[i]
""")
    (inner,) = run_pipeline(kernel, V3, check=True).callees
    assert "ramp(" in show(inner)
    assert "parallel" not in show(inner)


def test_a_pass_that_breaks_the_kernel_is_named_with_a_way_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unbind(kernel: Kernel, target: Target) -> Kernel:
        return kernel.with_body((For(Var("i"), Var("nowhere"), kernel.body),))

    monkeypatch.setattr(lowering.pipeline, "CPU", (("unbind", unbind),))
    with pytest.raises(CompilerBug, match="unbind failed: ") as caught:
        run_pipeline(parse_kernel(TEXT), V3, check=True)
    replay = re.search(
        r"to replay it: python -m lowering.opt --passes unbind --target x86-64-v3 (\S+)", str(caught.value)
    )
    assert replay is not None
    file = Path(replay[1])
    assert file.read_text() == show(parse_kernel(TEXT))
    file.unlink()


def test_an_exception_inside_a_pass_is_a_bug_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kernel: Kernel, target: Target) -> Kernel:
        store = kernel.body[5]
        assert isinstance(store, Store)
        return kernel.with_body((For(Var("i"), const_index(1), (store,)),))

    monkeypatch.setattr(lowering.pipeline, "CPU", (("fail", fail),))
    with pytest.raises(CompilerBug, match=r"fail failed: tuple index out of range\nto replay it: ") as caught:
        run_pipeline(parse_kernel(TEXT), V3)
    Path(str(caught.value).split("x86-64-v3 ")[1].split("\n")[0]).unlink()
