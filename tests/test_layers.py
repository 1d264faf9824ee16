"""The shape of the project: every module imports alone, the siblings are our own, the READMEs list the modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jitflow as jf

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jitflow", "lowering", "runtime")


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


#: Imports each module named on the command line in a fork of a process that has imported nothing of ours; those of
#: `jitflow` in one that has imported `jitflow`, since Python does that first anyway.
EACH_ALONE = """
import importlib, os, sys, traceback
import llvmlite.binding, numpy
failed = 0
for name in sorted(sys.argv[1:], key=lambda name: name.startswith("jitflow")):
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            print("importing", name, "first fails:")
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(1)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
    if name == "jitflow":
        import jitflow
    else:
        assert not any(m.split(".")[0] in ("lowering", "runtime") for m in sys.modules)
sys.exit(failed != 0)
"""


def run_python(program: str, *args: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, cwd=path, env=environment, check=False
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_module_can_be_the_first_one_imported() -> None:
    done = run_python(EACH_ALONE, *modules())
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_jitflow_does_not_import_the_compiler() -> None:
    program = (
        "import jitflow, sys; assert jitflow.__version__;"
        "late = [m for m in sys.modules if m.split('.')[0] in ('llvmlite', 'lowering', 'runtime')];"
        "assert not late, late; jitflow.Session; assert 'lowering' in sys.modules"
    )
    done = run_python(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stranger", ["lowering", "runtime"])
def test_a_stranger_by_the_name_of_a_sibling_is_refused_and_its_path_named(stranger: str, tmp_path: Path) -> None:
    (tmp_path / stranger).mkdir()
    (tmp_path / stranger / "__init__.py").write_text("")
    done = run_python("import jitflow", path=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"ImportError: jitflow needs its own package '{stranger}', in {ROOT}, but Python finds another"
    )
    assert str(tmp_path / stranger) in last


def test_public_names_exist_and_are_documented() -> None:
    assert len(set(jf.__all__)) == len(jf.__all__)
    assert dir(jf) == sorted(jf.__all__)
    for name in jf.__all__:
        value = getattr(jf, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="module 'jitflow' has no attribute 'sofmax'"):
        _ = jf.sofmax  # type: ignore[attr-defined]


def test_the_names_of_the_contract_are_public() -> None:
    wanted = """placeholder variable constant Session interpret compare gradients nn config float32 float64 int32 int64
    bool softmax log_softmax relu gelu sigmoid silu layer_norm erf pad take matmul where clip astype concat stack flip
    roll sum prod mean var max min any all argmax argmin full arange zeros ones reshape permute_dims broadcast_to
    expand_dims squeeze abs sign floor ceil round sqrt exp log tanh sin cos pow maximum minimum JitflowError ShapeError
    GraphError
    FeedError FormatError LimitError DTypeError CompileError DeviceError ForkError ClosedError CompilerBug Tensor"""
    assert set(wanted.split()) <= set(jf.__all__)
    for name in ("relu", "gelu", "softmax", "layer_norm", "log_softmax", "sigmoid", "silu"):
        assert getattr(jf.nn, name) is getattr(jf, name)


def test_a_new_operator_is_one_new_file(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "jitflow" / "ops" / "toy.py").write_text(
        "from jitflow.graph import define_op\n"
        "toy = define_op('toy', infer=lambda x: x, element=lambda at, x: x(*at) + x(*at), numpy=lambda x: x + x)\n"
    )
    program = (
        "import jitflow as jf; from jitflow.graph import OPS\n"
        "x = jf.parse_graph('graph 1:\\n  x: f32[2] = placeholder()\\n  y: f32[2] = toy(x)\\n  return y\\n')\n"
        "(y,) = x.fetches.values(); print(jf.Session(y).run(y, {x.nodes['x']: [1.0, 2.0]}), jf.__file__)"
    )
    done = run_python(program, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[2.", "4.]", str(tmp_path / "jitflow" / "__init__.py")]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_readme_of_a_package_lists_its_modules(package: str) -> None:
    text = (ROOT / package / "README.md").read_text()
    missing = []
    for path in sorted((ROOT / package).rglob("*.py")):
        inside = path.relative_to(ROOT / package)
        # A folder may be listed as a whole: "passes/".
        if path.name != "__init__.py" and f"{inside}" not in text and f"{inside.parts[0]}/" not in text:
            missing.append(str(inside))
    assert missing == []
