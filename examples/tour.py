"""A tour of jitflow: one small graph, from what you write down to machine code, printed at every stage.

Run it with ``python examples/tour.py``. Each section prints what it shows; read the two side by side. The stages:

    graph  ->  fused  ->  loops  ->  (passes)  ->  llvm  ->  asm,      and beside them the plan that runs the kernels
"""

from __future__ import annotations

import numpy as np

import jitflow as jf


def section(number: int, title: str) -> None:
    print(f"\n{'=' * 100}\n{number}. {title}\n{'=' * 100}")


def head(text: str, lines: int) -> str:
    """Return the first `lines` lines of `text`, and how many follow."""
    rows = text.rstrip().splitlines()
    more = f"\n... {len(rows) - lines} more lines" if len(rows) > lines else ""
    return "\n".join(rows[:lines]) + more


def main() -> None:
    section(1, "A graph: symbols first, numbers later")
    # "batch" is a symbolic dim: one compiled program serves every batch size.
    x = jf.placeholder("x", jf.float32, ("batch", 4))
    start = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    w = jf.variable("w", start)
    b = jf.constant(np.array([0.5, 0.0, -0.5], np.float32))
    y = jf.softmax(x @ w + b, axis=-1)
    print("y is", y)
    print("its shape", y.shape, "equals ('batch', 3):", y.shape == ("batch", 3))
    print("the same expression is the same node:", (x @ w + b) is (x @ w + b))

    section(2, "Errors come at your line, before anything runs")
    try:
        jf.matmul(x, jf.constant(np.ones((5, 3), np.float32)))
    except jf.ShapeError as error:
        print("ShapeError:", error)

    section(3, "The graph as text, which parses back")
    text = jf.show_graph({"y": y})
    print(text)
    again = jf.parse_graph(text)
    print("read back:", again.fetches["y"])

    section(4, "The oracle: numpy, node by node")
    batch = np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32)
    print(jf.interpret(y, {x: batch}))

    section(5, "A session: everything is compiled when it is created")
    with jf.Session([y]) as sess:
        print(sess.run(y, {x: batch}))
        print("any batch size:", sess.run(y, {"x": np.ones((5, 4), np.float32)}).shape)
        print("any node can be fetched:", sess.run("matmul_0", {x: batch})[0])
        hidden = jf.matmul(x, w)
        print("and fed, which cuts the graph there:", sess.run(y, {hidden: np.zeros((1, 3), np.float32)}))

        section(6, "Stage fused: what becomes one kernel")
        # softmax is written with maximum, exp, sum and so on; they share one kernel, one pass over memory.
        print(sess.dump("fused"))

        section(7, "Stage loops: each kernel as a loop nest")
        print(head(sess.dump("loops"), 60))

        section(8, "Stage plan: what runs in which order, on which memory")
        print(sess.dump("plan"))

        section(9, "Stages llvm and asm: text for LLVM, machine code from it")
        kernels = [
            line.split("(")[0].split()[1] for line in sess.dump("loops").splitlines() if line.startswith("kernel")
        ]
        print(head(sess.dump("llvm", kernel=kernels[-1]), 25))
        print(head(sess.dump("asm", kernel=kernels[-1]), 25))

        section(10, "A bound function: positional arrays, out=, a tenth of a microsecond")
        predict = sess.function([x], [y])
        (fresh,) = predict(batch)
        out = [np.empty((2, 3), np.float32)]
        predict(batch, out=out)
        print("the same result:", np.array_equal(fresh, out[0]))

        section(11, "A report: kernels, memory, compile time")
        print(sess.report())

    section(12, "Compiled against interpreted, every node")
    report = jf.compare(y, {x: batch})
    print(report)
    assert report.ok

    section(13, "Derivatives are graphs again")
    loss = jf.sum(y * y)
    (dw,) = jf.gradients(loss, [w])
    print("dloss/dw is", dw)
    with jf.Session([loss, dw]) as sess:
        value, slope = sess.run([loss, dw], {x: batch})
    step = np.zeros((4, 3), np.float32)
    step[1, 2] = 1e-2
    moved = [jf.interpret(loss, {x: batch, w: start + s}) for s in (step, -step)]
    print(f"loss {value:.6f}; its slope along w[1, 2]: {slope[1, 2]:.5f}")
    print(f"by central differences:              {(moved[0] - moved[1]) / 2e-2:.5f}")


if __name__ == "__main__":
    main()
