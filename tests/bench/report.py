"""What a run found in, tables out: one line per workload, the ceilings above, what was left out below."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

#: A workload that comes this near to what the machine can do is met whatever the peers do.
NEAR = 0.9
#: What several threads must gain, as a part of what the calibration loop gains, where the work is arithmetic or in the
#: second-level cache, and one thread has this many seconds of it (waking another one takes some microseconds).
SCALING, WORTH_SHARING = 0.9, 20e-6
#: One thread that gets less of a CPU than this was disturbed by other programs.
UNDISTURBED = 0.9


class Verdict(NamedTuple):
    """What the raw times of a row come to; None where something was not measured."""

    jitflow: float | None
    peer: str | None
    peer_time: float | None
    ratio: float | None
    limit: str
    of_limit: float | None
    met: bool
    gain: float | None
    calibration: float | None
    scales: bool | None
    disturbed: bool


def _peers(row: dict[str, Any]) -> dict[str, float]:
    return {
        name: s["best"]
        for name, s in row["systems"].items()
        if "best" in s and not name.startswith(("jitflow", "ceiling", "calibration"))
    }


def _best(row: dict[str, Any], name: str) -> float | None:
    return row["systems"].get(name, {}).get("best")


def judge(row: dict[str, Any]) -> Verdict:
    """Return what a row says of jitflow."""
    ours = _best(row, "jitflow")
    peers = _peers(row)
    peer = min(peers, key=lambda name: peers[name]) if peers else None
    time = peers[peer] if peer else None
    ratio = time / ours if ours and time else None
    limit, of_limit = _limit(row, ours)
    alone, together = _best(row, "calibration, one thread"), _best(row, "calibration")
    one = _best(row, "jitflow, one thread")
    gain = one / ours if one and ours else None
    calibration = alone / together if alone and together else None
    shared = gain and calibration and (limit == "FMA" or row["resident"]) and (one or 0.0) >= WORTH_SHARING
    scales = gain / calibration >= SCALING if shared and gain and calibration else None
    met = (ratio is not None and ratio >= row["bar"]) or (of_limit is not None and of_limit >= NEAR)
    shares = [row["systems"].get(name, {}).get("cpus", 1.0) for name in ("jitflow", peer)]
    disturbed = row["threads"] == 1 and min(shares) < UNDISTURBED
    return Verdict(ours, peer, time, ratio, limit, of_limit, met, gain, calibration, scales, disturbed)


def shortfall(row: dict[str, Any]) -> float:
    """Return by what factor jitflow misses its bar, by ratio or by ceiling, whichever is nearer: at most 1 if met."""
    v = judge(row)
    if v.jitflow is None:
        return float("inf")
    by_ratio = float("inf") if v.ratio is None else row["bar"] / v.ratio
    by_limit = float("inf") if v.of_limit is None else NEAR / v.of_limit
    return min(by_ratio, by_limit)


def _limit(row: dict[str, Any], ours: float | None) -> tuple[str, float | None]:
    """Return which ceiling is the lower one, and which part of it jitflow reaches."""
    memory = [t for t in (_best(row, "ceiling: memory"), _best(row, "ceiling: memory past the caches")) if t]
    compute = _best(row, "ceiling: FMA")
    times = {"memory": min(memory, default=0.0), "FMA": compute or 0.0}
    limit = max(times, key=lambda name: times[name])
    return limit, times[limit] / ours if ours and times[limit] else None


_HEAD = (
    f"{'workload':<46} {'jitflow':>10} {'best peer':>10} {'':<13} {'ratio':>6} {'bar':>4} {'of ceiling':>11}   "
    f"{'first call':>10} {'peer':>10}"
)


def head(threads: int) -> str:
    """Return the line above the table."""
    return _HEAD + (f" {'gain':>5} {'of':>4}" if threads > 1 else "")


def line(row: dict[str, Any]) -> str:
    """Return the line of one workload."""
    v = judge(row)
    peer_first = row["systems"].get(v.peer or "", {}).get("first")
    first = row["systems"].get("jitflow", {}).get("first")
    mark = (" " if v.met else "<") + ("~" if v.disturbed else " ")
    text = (
        f"{row['name'] + ' *' * row['odd']:<46} {_time(v.jitflow):>10} {_time(v.peer_time):>10} {v.peer or '-':<13} "
        f"{_number(v.ratio):>6} {row['bar']:>4.1f} {_percent(v.of_limit, v.limit):>11} {mark}"
        f"{_time(first):>10} {_time(peer_first):>10}"
    )
    if row["threads"] > 1:
        text += f" {_number(v.gain):>5} {_number(v.calibration):>4}{' <' if v.scales is False else ''}"
    return text


_FAMILIES_HEAD = (
    f"{'family':<19} {'sizes':>5} {'met':>4} {'bar':>7}  {'ratio: worst':>12} {'median':>7} {'best':>7}  "
    f"{'of ceiling':>12}  fastest peers"
)


def families(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a table with one line per family of workloads."""
    yield _FAMILIES_HEAD
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["family"], []).append(row)
    for name, same in groups.items():
        verdicts = [judge(row) for row in same]
        bars = sorted({row["bar"] for row in same})
        ratios = [v.ratio or 0.0 for v in verdicts]
        limits = [v.of_limit or 0.0 for v in verdicts]
        fastest = Counter(v.peer for v in verdicts if v.peer)
        peers = sorted(fastest, key=lambda name: (-fastest[name], name))
        yield (
            f"{name:<19} {len(same):>5} {sum(v.met for v in verdicts):>4} {'-'.join(map(str, bars)):>7}  "
            f"{min(ratios):>12.2f} {statistics.median(ratios):>7.2f} {max(ratios):>7.2f}  "
            f"{f'{min(limits):.0%} - {max(limits):.0%}':>12}  {', '.join(peers)}"
        )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1.0:
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(part: float | None, limit: str) -> str:
    return "-" if part is None else f"{part * 100:.0f} % {'mem' if limit == 'memory' else limit}"


def call_line(row: dict[str, Any]) -> str:
    """Return the line of a measurement that is no workload."""
    mark = " " if row["met"] else "<"
    return f"{row['name']:<46} {_time(row['seconds']):>10}  bar {_time(row['bar'])} {mark} ({row['note']})"


def preface(start: dict[str, Any], machine: dict[str, str]) -> Iterator[str]:
    """Yield the lines that say what was measured, where."""
    threads = start["threads"]
    yield f"{threads} thread{'s' * (threads > 1)}; {machine['cpu']}, {machine['cpus']} CPUs; {machine['python']}"
    yield ", ".join(f"{name} {version}" for name, version in start["versions"].items())
    for name, why in start["absent"].items():
        yield f"left out: {name} ({why})"
    limits = start["ceilings"]
    yield "GB/s: " + ", ".join(f"{name} {value:.0f}" for name, value in limits.items() if not name.startswith("FMA"))
    yield "GFLOP/s: " + ", ".join(f"{name} {value:.0f}" for name, value in limits.items() if name.startswith("FMA"))


def troubles(row: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each system that was wrong or failed on a workload."""
    for name, s in row["systems"].items():
        for key in ("wrong", "failed"):
            if key in s:
                yield f"  {row['name']}: {name} {key}: {s[key]}"


def summary(rows: Iterable[dict[str, Any]], calls: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield how many bars are met, and what was left out."""
    rows, calls = list(rows), list(calls)
    met = sum(judge(r).met for r in rows) + sum(c["met"] for c in calls)
    yield f"{met} of {len(rows) + len(calls)} bars met; missed ones are marked <, sizes that nobody tunes for *"
    scaling = [v.scales for v in map(judge, rows) if v.scales is not None]
    if scaling:
        yield f"{sum(scaling)} of {len(scaling)} gain from threads what the calibration loop does, within 10 %"
    disturbed = sum(judge(r).disturbed for r in rows)
    if disturbed:
        yield f"{disturbed} rows marked ~: other programs took more than a tenth of the CPU meanwhile; measure again"
    for row in rows:
        yield from troubles(row)
