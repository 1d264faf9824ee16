"""``python -m lowering.opt``: passes by name on a text, errors on standard error."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lowering.opt import PASSES, main

KERNEL = "kernel f(out: f32[8]):\n  unrolled i in 2:\n    out[i] = 1.0\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    return status, *capsys.readouterr()


def test_without_passes_the_text_is_printed_in_its_canonical_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.loop"
    file.write_text("# a dump\n" + KERNEL.replace("1.0", "(1.00)") + "kernel g():\n  pass\n")
    assert run(capsys, str(file)) == (0, KERNEL + "\nkernel g():\n  pass\n", "")


def test_passes_run_in_the_order_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.loop"
    file.write_text(KERNEL)
    status, out, _ = run(capsys, "--passes", "unroll,simplify", str(file))
    assert status == 0
    assert out == "kernel f(out: f32[8]):\n  out[0] = 1.0\n  out[1] = 1.0\n"


def test_all_is_the_pipeline_of_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.loop"
    file.write_text("kernel f(a: f32[16] read, out: f32[16]):\n  vectorized i in 16:\n    out[i] = a[i]\n")
    _, out, _ = run(capsys, "--passes", "all", "--target", "x86-64-v2", str(file))
    assert "ramp(0, 1, 4)" in out
    assert "vectorized" not in out


def test_statements_without_a_header_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("serial i in n:\n  out[i] = a[i]"))
    status, out, _ = run(capsys, "-")
    assert status == 0
    assert out.startswith("kernel fragment(out: f32[4096], a: f32[4096] read, n: index):\n  serial i in n:\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kernel f(\n", "line 1, column 10: expected a name"),
        ("kernel f(out: f32[1]):\n  out[0] = 1\n", "index is stored where f32 belongs\n  in kernel f: out[0] = 1\n"),
    ],
)
def test_a_bad_text_is_an_error_message_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = tmp_path / "f.loop"
    file.write_text(text)
    status, out, err = run(capsys, str(file))
    assert (status, out) == (1, "")
    assert err.startswith(message)


def test_a_missing_file_and_an_unknown_target_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, str(tmp_path / "none.loop"))
    assert status == 1
    assert "none.loop" in err
    file = tmp_path / "f.loop"
    file.write_text(KERNEL)
    status, _, err = run(capsys, "--target", "z80", str(file))
    assert status == 1
    assert "z80" in err


def test_an_unknown_pass_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["--passes", "vectorise", "f.loop"])
    assert e.value.code == 2
    err = capsys.readouterr().err
    assert "unknown pass 'vectorise'; there are" in err
    assert all(name in err for name in PASSES)
