"""What a run of `gudgeon demo ota` comes to: by the PLC's records, the cloud's rollouts and fleet, the Decisions of the line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

Json = Mapping[str, Any]


def build(
    parts: Sequence[Json],
    decisions: Sequence[Json],
    digests: Mapping[str, str],
    good: Json,
    bad: Json,
    fleet: Sequence[Json],
) -> dict[str, Any]:
    """`digests`: manifest digest → name of the model."""
    slots = [device["slots"]["default"] for device in fleet]
    names = {good["sha256"]: "better", bad["sha256"]: "bad"}
    return {
        "line": line_by_model(parts, decisions, digests),
        "unanswered": sum(not part["answered"] for part in parts),
        "trigger_to_answer_ms": percentiles([part["latency_ms"] for part in parts if part["answered"]]),
        "rollouts": {"better": _short(good), "bad": _short(bad)},
        "running_after": dict(Counter(names.get(slot["confirmed"], "cautious") for slot in slots)),
        "bad_ended_as": dict(Counter(slot["state"] for slot in slots if slot["sha256"] == bad["sha256"])),
        "reasons": sorted({d["reason"] for d in bad["devices"] if d["reason"] and d["state"] == "failed"}),
    }


def _short(rollout: Mapping[str, Any]) -> dict[str, Any]:
    names = ("state", "reason", "exposed", "confirmed", "failed")
    return {name: rollout[name] for name in names} | {"took_s": (rollout["changed_ns"] - rollout["started_ns"]) / 1e9}


def line_by_model(
    parts: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]], digests: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What each model did on the line: parts, and the share of the defects that the PLC took out."""
    by_part = {d["part_seq"]: digests.get(d["bundle_digest"] or "", "") for d in decisions if d["part_seq"] is not None}
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        name = by_part.get(part["part_seq"], "")
        if name:
            row = found.setdefault(name, {"parts": 0, "defects": 0, "taken_out": 0})
            row["parts"] += 1
            row["defects"] += part["truth_defect"]
            row["taken_out"] += part["truth_defect"] and part["diverted"]
    for row in found.values():
        row["recall"] = row["taken_out"] / row["defects"] if row["defects"] else None
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(values, (50, 99, 100))
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "max"), found, strict=True)}


def show(result: Json, console: Console) -> None:
    table = Table(title="over the air", show_header=False)
    for name, r in result["rollouts"].items():
        told = f"{r['state']}: given to {r['exposed']}, confirmed {r['confirmed']}, failed {r['failed']}, {r['took_s']:.0f} s"
        table.add_row(f"rollout of the {name} model", told)
    for name, row in result["line"].items():
        recall = "-" if row["recall"] is None else f"{row['recall']:.2f}"
        told = f"{row['parts']} parts, {row['taken_out']} of {row['defects']} defects taken out ({recall})"
        table.add_row(f"on the line: {name} model", told)
    table.add_row("devices run after", _counted(result["running_after"]))
    table.add_row("the bad model ended as", _counted(result["bad_ended_as"]))
    for reason in result["reasons"]:
        table.add_row("because", reason)
    table.add_row("parts without an answer", str(result["unanswered"]))
    told = ", ".join(f"{name} {value:.2f} ms" for name, value in result["trigger_to_answer_ms"].items())
    table.add_row("trigger → answer at the PLC", told)
    console.print(table)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "–"
