"""Graph text: what it looks like, that it reads back as the same graph, and errors for text that is no graph."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest

import jitflow as jf
from jitflow.graph import make_constant
from jitflow.graph_printer import MAX_INLINE
from jitflow.graph_text import (
    array_digest,
    graph_arrays,
    parse_graph,
    same_graph,
    show_graph,
)
from jitflow.tensor import as_tensor
from tests.support.random_graph import random_graph


def bits(array: np.ndarray) -> bytes:
    return array.tobytes()


def test_a_graph_is_printed_one_node_a_line_with_types_and_the_names_of_fetches() -> None:
    x = jf.placeholder("x", jf.float32, ("batch", 4))
    y = jf.softmax(x + 1.0, axis=-1)
    assert show_graph({"y": y, "input": x}, sites=False) == (
        "graph 1:\n"
        '  x: f32[batch, 4] = placeholder(name="x")\n'
        "  constant_0: f32[] = constant(value=f32[]{1.0})\n"
        "  add_0: f32[batch, 4] = add(x, constant_0)\n"
        "  softmax_0: f32[batch, 4] = softmax(add_0, axis=1)\n"
        "  return y=softmax_0, input=x\n"
    )


def test_lines_end_with_the_place_in_the_users_code() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = x * 2.0
    assert x.node.site is not None
    assert x.node.site.split(":")[0].endswith("test_text.py")
    lines = show_graph(y).splitlines()
    assert lines[1] == f'  x: f32[n] = placeholder(name="x")  # {x.node.site}'
    assert lines[3].endswith(f"# {y.node.site}")


@pytest.mark.parametrize("seed", range(150))
def test_random_graphs_read_back_as_the_same_graph(seed: int) -> None:
    graph = random_graph(seed)
    fetches = {f"out{k}": t for k, t in enumerate(graph.fetches)}
    text = show_graph(fetches)
    parsed = parse_graph(text, graph_arrays(fetches))
    assert same_graph(parsed, fetches), seed
    assert list(parsed.fetches) == list(fetches)
    for name, t in fetches.items():
        assert parsed.fetches[name].shape == t.shape or any("_" in str(d) for d in t.shape)
        assert parsed.fetches[name].dtype is t.dtype
    # The lines may come in any order.
    head, *body, end = text.splitlines()
    random.Random(seed).shuffle(body)
    assert same_graph(parse_graph("\n".join([head, *body, end]), graph_arrays(fetches)), fetches)


def test_sources_get_a_fresh_identity_and_all_else_is_interned() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    text = show_graph(jf.exp(x))
    a, b = parse_graph(text), parse_graph(text)
    assert a["x"] is not b["x"]
    assert a["exp_0"] is jf.exp(a["x"])
    assert a["exp_0"] is not b["exp_0"]
    c = jf.constant([1.5, 2.5])
    assert parse_graph(show_graph(c))["constant_0"] is c


def test_constants_keep_their_bits() -> None:
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(3)
        special = [0.0, -0.0, np.inf, -np.inf, 0.1, 1 / 3, np.finfo(dtype).max, np.finfo(dtype).tiny]
        arrays = [
            np.array([*special, np.finfo(dtype).smallest_subnormal], dtype),
            *rng.integers(0, 256, (200, 8 * np.dtype(dtype).itemsize), np.uint8).view(dtype),
        ]
        for array in arrays:
            parsed = parse_graph(show_graph(jf.constant(array)))["constant_0"].node.attr("value").array
            assert parsed.dtype == dtype
            nan = np.isnan(array)
            assert (np.isnan(parsed) == nan).all()
            assert bits(parsed[~nan]) == bits(array[~nan])
    for array in (np.array([], np.int32), np.array(True), np.array([[-(2**63), 2**63 - 1]]), np.zeros((0, 3))):
        assert parse_graph(show_graph(jf.constant(array)))["constant_0"] is jf.constant(array)


def test_a_nan_reads_back_as_a_nan_whatever_its_payload() -> None:
    odd = np.array([0x7FF8000000001234], np.uint64).view(np.float64)
    node = make_constant(odd)
    parsed = parse_graph(show_graph(as_tensor(node)))["constant_0"]
    assert np.isnan(parsed.node.attr("value").array).all()
    assert same_graph(parsed, as_tensor(node))


def test_large_arrays_are_named_by_a_digest_and_found_in_a_table() -> None:
    array = np.arange(MAX_INLINE + 1, dtype=np.float32)
    w = jf.variable("w", array)
    text = show_graph(w, sites=False)
    digest = array_digest(array)
    assert f'  w: f32[17] = variable(name="w", value=f32[17]@{digest})' in text
    table = graph_arrays(w)
    assert list(table) == [digest]
    read = parse_graph(text, table)["w"]
    assert read is not w
    assert bits(read.node.attr("value").array) == bits(array)
    with pytest.raises(jf.FormatError, match=f"line 2, column 48: array {digest} is not in the table of arrays"):
        parse_graph(text)
    with pytest.raises(jf.FormatError, match="is not the one that was written"):
        parse_graph(text, {digest: array + 1})


def test_fresh_dims_are_numbered_by_appearance_and_names_with_a_meaning_are_quoted() -> None:
    a = jf.placeholder("a", jf.float32, (None, "inf"))
    b = jf.placeholder("b", jf.float32, (None, "f32", "min"))
    text = show_graph([a, b], sites=False)
    assert '  a: f32[_0, dim("inf")] = placeholder(name="a")\n' in text
    assert '  b: f32[_1, dim("f32"), dim("min")] = placeholder(name="b")\n' in text
    parsed = parse_graph(text)
    assert parsed["a"].shape[1] == "inf"
    assert parsed["a"].shape[0] != parsed["b"].shape[0]
    assert parsed["a"].shape[0] != a.shape[0]
    assert same_graph(parsed, [a, b])


def test_the_same_fresh_dim_stays_the_same() -> None:
    a = jf.placeholder("a", jf.float32, (None,))
    b = jf.placeholder("b", jf.float32, (a.shape[0],))
    parsed = parse_graph(show_graph(a + b))
    assert parsed["a"].shape == parsed["b"].shape
    assert not parsed["add_0"].node.guards


def test_symbolic_dims_calculate() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "m"))
    y = jf.reshape(jf.concat([x, x[1:]], axis=0), (-1,))
    parsed = parse_graph(show_graph(y))
    assert next(iter(parsed.fetches.values())).shape == y.shape
    p = parse_graph("graph 1:\n x: f32[max(n - 1, 0), 2*n//3, -(1 - n)*m % 5] = placeholder()\n return x")
    n, m = jf.placeholder("p", jf.float32, ("n", "m")).shape
    assert p["x"].shape[2] == (n - 1) * m % 5
    assert p["x"].shape[1] == (2 * n) // 3


def test_names_that_are_no_identifiers_are_quoted() -> None:
    x = jf.placeholder('layer 1/"w"\\', jf.float32, ())
    y = jf.placeholder("return", jf.float32, ())
    text = show_graph({"": x + y, "graph": y})
    assert same_graph(parse_graph(text), {"": x + y, "graph": y})
    assert parse_graph(text)['layer 1/"w"\\'].name == x.name


def test_types_may_be_left_out_where_they_can_be_inferred() -> None:
    text = """
    graph 1:
      # lines in any order, comments, blank lines

      return y
      """
    text = text.replace("return y", 'y = negative(x)\n      x: f32[3] = placeholder(name="x")\n      return y')
    assert parse_graph(text)["y"].shape == (3,)


def test_an_empty_graph_reads_back() -> None:
    assert show_graph([]) == "graph 1:\n  return\n"
    assert dict(parse_graph(show_graph([])).fetches) == {}


def test_graphs_that_differ_are_not_the_same() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    assert same_graph(jf.exp(x), jf.exp(jf.placeholder("x", jf.float32, ("n",))))
    others = [
        jf.log(x),
        jf.exp(jf.exp(x)),
        jf.exp(jf.placeholder("z", jf.float32, ("n",))),
        jf.exp(jf.placeholder("x", jf.float64, ("n",))),
        jf.exp(jf.placeholder("x", jf.float32, ("m",))),
    ]
    assert not any(same_graph(jf.exp(x), other) for other in others)
    assert not same_graph(x * 0.0, x * -0.0)
    assert not same_graph({"a": x}, {"b": x})


def test_f7_a_long_chain_prints_and_reads_back() -> None:
    x = jf.placeholder("x", jf.float32, ())
    y = x
    for _ in range(2_000):
        y = jf.negative(jf.abs(y))
    text = show_graph(y, sites=False)
    assert text.count("\n") == 4_003
    assert same_graph(parse_graph(text), y)


def test_nested_structures_are_printed_and_read_back() -> None:
    x = jf.placeholder("x", jf.float32, ())
    y = jf.exp(x)
    text = show_graph({"a": [x, (y,)], 3: {"b": x}}, sites=False)
    assert text.endswith('  return {"a": [x, (exp_0,)], 3: {"b": x}}\n')
    parsed = parse_graph(text)
    assert parsed.outputs == {"a": [parsed["x"], (parsed["exp_0"],)], 3: {"b": parsed["x"]}}
    assert {name: t.node.op.name for name, t in parsed.fetches.items()} == {
        "a[0]": "placeholder",
        "a[1][0]": "exp",
        '[3]["b"]': "placeholder",
    }
    assert same_graph(parsed, {"a": [x, (y,)], 3: {"b": x}})
    assert not same_graph(parsed, {"a": [x, [y]], 3: {"b": x}})
    assert parse_graph(X + "  return x").outputs is not None
    assert list(parse_graph(X + "  return y=x").outputs) == ["y"]


def test_whole_numbers_of_bfloat16_have_a_point() -> None:
    pytest.importorskip("ml_dtypes")
    c = jf.constant(np.array([0.0, -0.0, 1.0, 0.1, 1e30, np.inf], jf.bfloat16.np))
    text = show_graph(c, sites=False)
    assert "bf16[6]{0.0, -0.0, 1.0, " in text
    assert parse_graph(text)["constant_0"] is c


X = 'graph 1:\n  x: f32[n] = placeholder(name="x")\n'


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", jf.FormatError, "line 1, column 1: expected 'graph 1:', found nothing"),
        ("graf 1:", jf.FormatError, "line 1, column 1: expected 'graph 1:', found 'graf'"),
        ("graph 2:", jf.FormatError, "line 1, column 7: version 2 of the format is not known, only 1"),
        (X, jf.FormatError, "line 3, column 1: the graph does not end with 'return'"),
        (X + "  return x\n  y = exp(x)", jf.FormatError, "line 4, column 3: nothing may follow 'return'"),
        (X + "  return x x", jf.FormatError, "line 3, column 12: expected ',', found 'x'"),
        (X + "  y = exp(x", jf.FormatError, "line 3, column 12: expected ',', found the end of the line"),
        (X + "  y = exp(x) $", jf.FormatError, "line 3, column 14: unexpected '$'"),
        (X + "  y = exp(x) x", jf.FormatError, "line 3, column 14: expected the end of the line, found 'x'"),
        (X + '  y = exp("\\q")', jf.FormatError, "line 3, column 11: this string has an escape that is not JSON's"),
        (X + "  y: q32[n] = exp(x)", jf.FormatError, "line 3, column 6: 'q32' is no dtype"),
        (X + "  y: f32[m] = exp(x)\n  return y", jf.FormatError, "line 3: 'y' is written f32[m] but is f32[n]"),
        (X + "  y: f32[-1] = exp(x)", jf.FormatError, "line 3, column 9: a dim cannot be negative, got -1"),
        (X + "  y: f32[1.5] = exp(x)", jf.FormatError, "line 3, column 9: 1.5 is no dim; use an int, a name, "),
        (X + "  y: f32[" + 21 * "9", jf.FormatError, "line 3, column 10: this number has too many digits"),
        (X + "  y: f32[" + 80 * "(", jf.FormatError, "line 3, column 74: nested deeper than 64"),
        (X + "  y: f32[" + 200 * "n%2+", jf.FormatError, "line 3, column 265: more than 128 operators in one value"),
        (X + '  y: f32["a"+1]', jf.FormatError, "line 3, column 13: only integers and dims can be calculated with"),
        (X + '  y: f32[dim("a b")]', jf.FormatError, "line 3, column 10: 'a b' cannot name a dim"),
        (X + "  y = softmax(x, axis=0, axis=0)", jf.FormatError, "line 3, column 26: attribute 'axis' is given twice"),
        (X + "  y = softmax(axis=0, x)", jf.FormatError, "line 3, column 23: inputs come before attributes"),
        (X + "  y = constant(value=f32[2]{1.0})", jf.FormatError, "line 3, column 22: 2 elements expected, found 1"),
        (
            X + "  y = constant(value=f32[1]{1})",
            jf.FormatError,
            "line 3, column 22: the elements of this array must be ",
        ),
        (X + "  y = constant(value=i32[1]{4294967296})", jf.FormatError, "line 3, column 22: an element does not fit "),
        (
            X + "  y = constant(value=f32[n]{1.0})",
            jf.FormatError,
            "line 3, column 22: an array has an element type and ",
        ),
        (
            X + '  y = softmax(x, axis="a")\n return y',
            jf.FormatError,
            "line 3: attribute 'axis' of softmax must be an i",
        ),
        (X + '  y = placeholder(name="y")\n return y', jf.GraphError, "line 3: placeholder needs attribute "),
        (
            "graph 1:\n y: f32[] = placeholder(name=3)\n return y",
            jf.FormatError,
            "line 2: attribute 'name' of placeholder must be a string",
        ),
        (X + "  y = softmx(x)", jf.GraphError, "line 3, column 7: unknown operator 'softmx'; did you mean 'softmax'?"),
        (
            X + "  y = softmax(x, axs=0)\n return y",
            jf.GraphError,
            "line 3: softmax has no attribute 'axs'; did you mean ",
        ),
        (X + "  y = softmax(x)\n return y", jf.GraphError, "line 3: softmax needs attribute 'axis'"),
        (X + "  y = exp(x, x)\n return y", jf.GraphError, "line 3: exp takes 1 inputs, got 2"),
        (X + "  x = exp(x)", jf.GraphError, "two nodes are called 'x': line 2 and line 3"),
        (
            X + "  y = exp(xx)\n return y",
            jf.GraphError,
            "line 3: 'y' reads 'xx', which is not defined; did you mean 'x'?",
        ),
        (X + "  return y", jf.GraphError, "line 3: 'return' reads 'y', which is not defined"),
        (X + "  y = exp(x)\n  return a=x, a=y", jf.GraphError, "line 4: two different nodes are returned as 'a'"),
        (X + "  y = exp(y)\n return y", jf.GraphError, "line 3: the graph has a cycle: y -> y"),
        (
            "graph 1:\n a = exp(b)\n b = add(c, c)\n c = log(a)\n return a",
            jf.GraphError,
            "line 4: the graph has a cycle: a -> b -> c -> a",
        ),
        (X + "  return (x)", jf.FormatError, "line 3, column 10: a tuple of one needs a comma"),
        (X + '  return {"a": x, "a": x}', jf.FormatError, "line 3, column 19: key 'a' is given twice"),
        (X + "  return {x: x}", jf.FormatError, "line 3, column 11: expected a string or an integer, found 'x'"),
        (X + "  return " + 200 * "[", jf.FormatError, "line 3, column 111: nested deeper than 100"),
        (X + "  return [x, y]", jf.GraphError, "line 3: 'return' reads 'y', which is not defined"),
        (X + "  y: f32[none] = exp(x)", jf.FormatError, "line 3, column 9: none is no dim; a fresh one is called _0"),
        (X + '  y: f32["n"] = exp(x)', jf.FormatError, "line 3, column 9: 'n' is no dim; a fresh one is called _0"),
        (X + "  y = constant(value=f64[]{1e999})", jf.FormatError, "line 3, column 28: this number does not fit flo"),
        (X + "  y = constant(value=f32[]{1e39})", jf.FormatError, "line 3, column 22: an element does not fit float32"),
        (X + "  y = constant(value=u8[]{-1})", jf.FormatError, "line 3, column 22: an element does not fit uint8"),
        (
            X + "  y = constant(value=f32[]{" + 50 * "1" + ".0})",
            jf.FormatError,
            "line 3, column 28: this number has to",
        ),
        (X + '  y = constant(value="\\ud800")', jf.FormatError, "line 3, column 22: this string has half of a charac"),
        (
            X + "  y: f32[" + "*".join(f"(n + a{k})" for k in range(40)) + "] = exp(x)",
            jf.LimitError,
            "line 3, column 54: this is a formula of over 400 terms",
        ),
        (
            X + "  y: f32[" + 9 * "9999999999*" + "n] = exp(x)",
            jf.FormatError,
            "line 3, column 20: this number does not fit 64 bits",
        ),
        (
            X + "  y = flip(x, axes=(9,))\n return y",
            jf.ShapeError,
            "line 3: flip: axes (9,) are not distinct axes of (n,)",
        ),
        (
            X + "  y = flip(x, axes=0)\n return y",
            jf.FormatError,
            "line 3: attribute 'axes' of flip must be a tuple, each item an integer of 64 bits",
        ),
        (
            X + "  y = roll(x, shifts=(99999999999999999999,), axes=(0,))\n return y",
            jf.FormatError,
            "line 3: attribute 'shifts' of roll must be a tuple, each item an integer of 64 bits",
        ),
        (X + "  y = reshape(x, shape=(2, -3))\n return y", jf.ShapeError, "line 3: "),
    ],
)
def test_f1_f2_f3_f4_f57_f58_text_that_is_no_graph_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        parse_graph(text)
    assert str(caught.value).startswith(message)


def test_f56_truncated_and_mutated_texts_never_crash() -> None:
    text = show_graph(random_graph(7, size=20).fetches, sites=False)
    arrays = graph_arrays(random_graph(7, size=20).fetches)
    rng = random.Random(0)
    for _ in range(400):
        chars = list(text)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(chars))
            chars[at : at + rng.randint(0, 3)] = rng.choice(["", "(", "]", "0", '"', "\\", "x", "-", "\x00", "é", "\n"])
        with contextlib.suppress(jf.JitflowError):
            parse_graph("".join(chars), arrays)
    for end in range(0, len(text), 7):
        with contextlib.suppress(jf.JitflowError):
            parse_graph(text[:end], arrays)
