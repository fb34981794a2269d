"""`gudgeon bench swap`: a simulated line with a real device; models are swapped, good ones and bad ones, and the PLC counts.

- *Swaps*: quiet stretches and whole swaps (gate, exchange, trial, kept) take turns in the same run; unanswered parts and the
  latency that the PLC saw in either, and in the moments in which `control` loads the candidate.
- *Costs* to the loop itself (`tools.bench.swap_costs`).
- *Bad models*: each fault of `tools.bench.faulty`, once caught by the gate and once when it begins only after the model was
  promoted. A part is *bad* where it got no answer, `fault`, an answer after the deadline, or one by the model that goes wrong.
  `rollback_ms`: from the trigger of the first bad part to the first good answer after the last one; `detected_ms`: from there to
  when it was known, and `back_ms` from then to that answer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edge_runtime.decide.trial_settings import TrialSection
from tools.bench import swap_costs
from tools.bench.swapping import SETTLED_S, SwapLine, candidate_of, variant

FAULTS = ("crash", "segv", "hang", "nan", "slow", "disagree")
QUIET_S = 10.0
WARM_S = 3.0
DEADLINE_MS = 20.0
SLIPPED_S = 1.0
FAULT = 4
Say = Callable[[str], None]


def run(folder: Path, bundle: Path, swaps: int, parts_per_s: float, faults: Sequence[str], say: Say) -> dict[str, Any]:
    os.environ["GUDGEON_HOME"] = str(folder / "home")
    (folder / "costs").mkdir()
    costs = swap_costs.run(folder / "costs", bundle)
    line = SwapLine(folder, bundle, parts_per_s, TrialSection(), DEADLINE_MS)
    try:
        line.start()
        line.rest(WARM_S)
        installed = line.confirmed
        assert installed is not None
        result: dict[str, Any] = {"bench": "swap", "parts_per_s": parts_per_s, "deadline_ms": DEADLINE_MS}
        result["costs"] = costs
        if swaps:
            result["swaps"] = good_ones(line, bundle, folder, swaps, say)
            line.gate.revert(candidate_of(installed))
            line.confirmed = installed
        result["faults"] = [bad_one(line, bundle, folder, fault, say) for fault in faults]
        parts = line.parts()
        result |= {"parts": len(parts), "unanswered": sum(not part["answered"] for part in parts)}
        return result
    finally:
        line.stop()


# ── good models ─────────────────────────────────────────────────────────────────────────────────────────────────────


def good_ones(line: SwapLine, bundle: Path, folder: Path, swaps: int, say: Say) -> dict[str, Any]:
    begun_ns = time.time_ns()
    spans: dict[str, list[tuple[int, int]]] = {"swap": [], "load": []}
    for number in range(swaps):
        line.rest(QUIET_S)
        candidate = candidate_of(variant(bundle, folder / f"good-{number}", f"good-{number}"))
        check_ns = time.time_ns()
        verdict = line.check(candidate)
        load_ns = time.time_ns()
        if verdict.ok:
            line.gate.begin(candidate)
        loaded_ns = time.time_ns()
        if verdict.ok:
            verdict = line.trial(candidate)
        say(f"swap {number + 1} of {swaps}: {'kept' if verdict.ok else verdict.reason}")
        if verdict.ok:
            line.confirmed = candidate.path
        spans["swap"].append((check_ns, time.time_ns()))
        spans["load"].append((load_ns, loaded_ns))
    line.rest(QUIET_S + SETTLED_S)
    parts = [part for part in line.parts() if part["wall_ns_triggered"] >= begun_ns]
    inside = {name: [p for p in parts if within(p, found)] for name, found in spans.items()}
    quiet = figures([p for p in parts if not within(p, spans["swap"])])
    swap, load = figures(inside["swap"]), figures(inside["load"])
    kept = sum(e["kind"] == "model_kept" for e in line.events("health"))
    return {
        "swaps": swaps, "kept": kept, "quiet": quiet, "swap": swap, "load": load,
        "p99_ratio": round(swap["p99_ms"] / quiet["p99_ms"], 3), "unanswered": swap["unanswered"] + quiet["unanswered"],
    }  # fmt: skip


def within(part: dict[str, Any], spans: Sequence[tuple[int, int]]) -> bool:
    return any(begin <= part["wall_ns_triggered"] <= end for begin, end in spans)


def figures(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = [part["latency_ms"] for part in parts if part["answered"]]
    p50, p99, most = (float(np.percentile(times, q)) for q in (50, 99, 100)) if times else (0.0, 0.0, 0.0)
    late = sum(t > DEADLINE_MS for t in times)
    counts = {"parts": len(parts), "unanswered": len(parts) - len(times), "late": late}
    faults = sum(part["result"] == FAULT for part in parts)
    return {**counts, "faults": faults, "p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "max_ms": round(most, 3)}


# ── bad models ──────────────────────────────────────────────────────────────────────────────────────────────────────


def bad_one(line: SwapLine, bundle: Path, folder: Path, fault: str, say: Say) -> dict[str, Any]:
    found = {
        "fault": fault,
        "gate": at_the_gate(line, bundle, folder, fault),
        "slipped": slipped(line, bundle, folder, fault),
    }
    say(f"{fault}: {found}")
    return found


def at_the_gate(line: SwapLine, bundle: Path, folder: Path, fault: str) -> dict[str, Any]:
    live = fault not in ("slow",)
    folder = variant(bundle, folder / f"gate-{fault}", f"gate-{fault}", fault=fault, where="judge", live=live)
    begun_s, begun_ns = time.monotonic(), time.time_ns()
    verdict = line.check(candidate_of(folder))
    took_s = time.monotonic() - begun_s
    line.rest(SETTLED_S)
    parts = [p for p in line.parts() if p["wall_ns_triggered"] >= begun_ns]
    return {"caught": not verdict.ok, "reason": verdict.reason, "took_s": round(took_s, 2), **figures(parts)}


def slipped(line: SwapLine, bundle: Path, folder: Path, fault: str) -> dict[str, Any]:
    found = candidate_of(variant(bundle, folder / f"late-{fault}", f"late-{fault}", fault=fault, where="control"))
    verdict = line.check(found)
    if not verdict.ok:
        return {"caught": False, "reason": f"refused before it went wrong: {verdict.reason}"}
    line.gate.begin(found)
    line.rest(SLIPPED_S)
    begun_ns = time.time_ns()
    line.fault_file.touch()
    verdict = line.trial(found)
    line.rest(SLIPPED_S + SETTLED_S)
    line.fault_file.unlink()
    parts = [p for p in line.parts() if p["wall_ns_triggered"] >= begun_ns]
    decided = {
        e["body"]["part_seq"]: e["body"]["bundle_digest"] for e in line.events("decision") if e["wall_ns"] >= begun_ns
    }
    wrong = [p for p in parts if is_bad(p, decided.get(p["part_seq"], ""), found.digest)]
    return {"caught": not verdict.ok, "reason": verdict.reason, **way_back(parts, wrong, line.known_ns(begun_ns))}


def is_bad(part: dict[str, Any], digest: str, wrong_digest: str) -> bool:
    if not part["answered"] or part["result"] == FAULT or digest == wrong_digest:
        return True
    return bool(part["latency_ms"] > DEADLINE_MS)


def way_back(parts: Sequence[dict[str, Any]], wrong: Sequence[dict[str, Any]], known_ns: int | None) -> dict[str, Any]:
    counts = {"bad": len(wrong), "unanswered": sum(not p["answered"] for p in wrong)}
    if not wrong:
        return {**counts, "rollback_ms": 0.0, "detected_ms": 0.0, "back_ms": 0.0}
    first, last = wrong[0]["wall_ns_triggered"], wrong[-1]["wall_ns_triggered"]
    after = next(p for p in parts if p["wall_ns_triggered"] > last)
    good_ns = after["wall_ns_triggered"] + after["latency_ms"] * 1e6
    known_ns = known_ns if known_ns is not None else last
    spans = {"rollback_ms": good_ns - first, "detected_ms": known_ns - first, "back_ms": good_ns - known_ns}
    return {**counts, **{name: round(max(ns, 0) / 1e6, 1) for name, ns in spans.items()}}


# ── for people ──────────────────────────────────────────────────────────────────────────────────────────────────────


def show(result: dict[str, Any]) -> None:
    console = Console()
    costs = result["costs"]
    table = _table("costs to the loop, µs", "", "p50", "p90", "p99", "max")
    rows = {f"a frame of {name} handed over": us for name, us in costs["hand_over_us"].items()}
    rows |= {"watch around an engine": costs["watch_us"]}
    rows |= {f"another thread's delay beside: {name}": us for name, us in costs["gap_us"].items()}
    for name, us in rows.items():
        table.add_row(name, *(f"{us[key]:.1f}" for key in ("p50", "p90", "p99", "max")))
    console.print(table)
    if swaps := result.get("swaps"):
        title = f"{swaps['kept']} of {swaps['swaps']} swaps kept at {result['parts_per_s']:g} parts/s; what the PLC saw"
        table = _table(title, "", "parts", "unanswered", "late", "fault", "p50 ms", "p99 ms", "max ms")
        for name in ("quiet", "swap", "load"):
            keys = ("parts", "unanswered", "late", "faults", "p50_ms", "p99_ms", "max_ms")
            table.add_row(name, *(str(swaps[name][key]) for key in keys))
        console.print(table)
        ratio, unanswered = swaps["p99_ratio"], swaps["unanswered"]
        console.print(f"p99 {ratio:.3f} × that of the quiet stretches, {unanswered} parts unanswered")
    if not result["faults"]:
        return
    table = _table(
        "bad models that go wrong after promotion", "", "bad", "unanswered", "known ms", "back ms", "rollback ms"
    )
    for row in result["faults"]:
        numbers = ("bad", "unanswered", "detected_ms", "back_ms", "rollback_ms")
        table.add_row(row["fault"], *(str(row["slipped"].get(key, "")) for key in numbers))
    console.print(table)
    for row in result["faults"]:
        gate, late = row["gate"], row["slipped"]
        console.print(f"{row['fault']}: at the gate after {gate['took_s']:.1f} s: {gate['reason']}", highlight=False)
        console.print(f"{row['fault']}: after promotion: {late['reason']}", highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def main(folder: Path, bundle: Path, swaps: int, parts_per_s: float, faults: Sequence[str], as_json: bool) -> int:
    """1 where a part of a good swap got no answer or a bad model was not undone within a second."""
    progress = Console(stderr=True)
    result = run(folder, bundle, swaps, parts_per_s, faults, lambda text: progress.print(text, highlight=False))
    print(json.dumps(result)) if as_json else show(result)
    return 0 if holds(result) else 1


def holds(result: dict[str, Any]) -> bool:
    swaps = result.get("swaps")
    fine = swaps is None or (swaps["kept"] == swaps["swaps"] and not swaps["unanswered"])
    return fine and all(
        r["gate"]["caught"] and r["slipped"]["caught"] and r["slipped"]["rollback_ms"] <= 1000.0
        for r in result["faults"]
    )
