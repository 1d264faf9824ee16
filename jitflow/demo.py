"""``jitflow demo``: handwritten digits, classified by their nearest neighbour in one compiled graph.

The graph holds the training images and takes a batch of any size. Distances are sums of squares of small integers, so
float32 computes them exactly, and numpy, the interpreter and the compiled session must agree to the last digit.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import jitflow as jf
from jitflow.comparison import compare
from jitflow.errors import GraphError
from jitflow.session import Session

DATA = Path(__file__).resolve().parent.parent / "examples" / "data" / "digits.npz"


def load_digits(path: Path = DATA) -> tuple[Any, Any, Any, Any]:
    """Return training images f32[1437, 64] and labels, then test images f32[360, 64] and labels, shuffled by seed 0."""
    if not path.exists():
        raise GraphError(f"{path} is missing: the demo needs a checkout of jitflow with its examples")
    with np.load(path) as data:
        images, labels = data["images"].astype(np.float32), data["labels"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    cut = int(0.8 * len(images))
    train, test = order[:cut], order[cut:]
    return images[train], labels[train], images[test], labels[test]


def build_classifier(images: Any, labels: Any) -> tuple[Any, Any]:
    """Return the placeholder f32[batch, 64] and the predicted labels i64[batch] of 1-nearest-neighbour."""
    x = jf.placeholder("x", jf.float32, ("batch", images.shape[1]))
    known = jf.constant(images)
    # |x - k|^2 without |x|^2, which is the same for every k.
    distance = jf.sum(known * known, axis=1) - 2.0 * (x @ known.T)
    return x, jf.take(jf.constant(labels), jf.argmin(distance, axis=1), axis=0).named("label")


def classify_by_numpy(images: Any, labels: Any, batch: Any) -> Any:
    """Return what the graph computes, written in numpy."""
    distance = (images * images).sum(axis=1) - np.float32(2.0) * (batch @ images.T)
    return labels[distance.argmin(axis=1)]


def best_time(run: Callable[[], Any], *, seconds: float = 0.2) -> float:
    """Return the shortest of many runs of `run`, in seconds."""
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def main() -> int:
    """Run the demo; return the exit status."""
    _progress("loading digits")
    images, labels, test, truth = load_digits()
    x, label = build_classifier(images, labels)
    _progress("compiling")
    start = time.perf_counter()
    session = Session([label])
    compiled_in = time.perf_counter() - start
    classify = session.function([x], label)
    _progress("running")
    predicted = classify(test)
    accuracy = 100.0 * float(np.mean(predicted == truth))
    print(f"1-nearest-neighbour on handwritten digits: {len(images)} to learn from, {len(test)} to classify")
    print(f"accuracy: {accuracy:.1f} %")
    print(f"compiled in {compiled_in * 1e3:.1f} ms\n")

    _progress("timing")
    rows = []
    for batch in (test, test[:1]):
        times = {
            "numpy": best_time(lambda b=batch: classify_by_numpy(images, labels, b)),  # type: ignore[misc]
            "interpreter": best_time(lambda b=batch: jf.interpret(label, {x: b})),  # type: ignore[misc]
            "session": best_time(lambda b=batch: classify(b)),  # type: ignore[misc]
        }
        rows.append((len(batch), times))
    print(f"{'batch':>6} {'numpy':>12} {'interpreter':>12} {'session':>12}   numpy / session")
    for size, times in rows:
        cells = " ".join(f"{t * 1e6:>9.1f} us" for t in times.values())
        print(f"{size:>6} {cells}   {times['numpy'] / times['session']:.1f} x")

    _progress("comparing")
    report = compare(label, {x: test})
    print(f"\nevery node, compiled against interpreted:\n{report}\n")
    folder = Path(tempfile.mkdtemp(prefix="jitflow-demo-"))
    files = session.dump_all(folder)
    print(f"the IR of every stage is in {folder}:")
    for path in files:
        print(f"  {path.name}")
    session.close()
    same = bool(np.array_equal(predicted, classify_by_numpy(images, labels, test)))
    return 0 if report.ok and same else 1


def _progress(what: str) -> None:
    """Say what is going on, to a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what} ...\r", end="", file=sys.stderr, flush=True)
