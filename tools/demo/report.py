"""The demo's report: the PLC's own part log joined with the cloud's Decisions. Pure.

A part and its Event have the same `part_seq`. The number is 16 bits wide and starts anew when the PLC does, so the n-th part
that was answered under a number belongs to the n-th (epoch, number) that the cloud knows; the serial number, where the
Event has one, must agree.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAULT = 4


@dataclass(frozen=True)
class Joined:
    """`missing`: parts that the PLC saw answered and of which the cloud knows nothing. `strangers`: Events of parts that
    the PLC did not see answered. `duplicates`: parts with more than one Event. `disagreements`: part and Event differ
    in result or serial number."""

    events: int
    unrecorded: int
    duplicates: int
    missing: tuple[int, ...]
    strangers: int
    disagreements: int


def read_parts(path: Path) -> list[dict[str, Any]]:
    """The simulator's part log; a last line that is cut off is left out."""
    parts = []
    for line in path.read_text().splitlines():
        try:
            parts.append(json.loads(line))
        except ValueError:
            break
    return parts


def join(parts: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]]) -> Joined:
    answered: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for part in parts:
        if part["answered"]:
            answered[part["part_seq"]].append(part)
    by_part: dict[int, dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for decision in decisions:
        by_part[decision["part_seq"]][decision["part_epoch"]].append(decision)
    missing: list[int] = []
    duplicates = disagreements = strangers = 0
    for seq in answered.keys() | by_part.keys():
        epochs = [by_part[seq][epoch] for epoch in sorted(by_part[seq])]
        duplicates += sum(len(events) > 1 for events in epochs)
        known = answered.get(seq, [])
        missing += [p["part_index"] for p in known[len(epochs) :]]
        strangers += max(0, len(epochs) - len(known))
        for part, events in zip(known, epochs, strict=False):
            disagreements += not _agree(part, events[0])
    kinds = Counter(d["kind"] for d in decisions)
    return Joined(kinds["decision"], kinds["unrecorded"], duplicates, tuple(sorted(missing)), strangers, disagreements)


def _agree(part: Mapping[str, Any], decision: Mapping[str, Any]) -> bool:
    serial = decision.get("serial")
    return int(decision["result"]) == part["result"] and (serial is None or serial == part["serial"])


def recoveries(parts: Sequence[Mapping[str, Any]], kills_ns: Sequence[int]) -> list[float | None]:
    """Seconds from each kill (wall time in ns) to the first judged answer (no `fault`) that the PLC saw to a part
    triggered after it."""
    found: list[float | None] = []
    for kill_ns in kills_ns:
        later = (p for p in parts if p["answered"] and p["result"] != FAULT and p["wall_ns_triggered"] > kill_ns)
        first = next(later, None)
        seconds = None
        if first is not None:
            seconds = (first["wall_ns_triggered"] - kill_ns) / 1e9 + (first["latency_ms"] or 0.0) / 1e3
        found.append(seconds)
    return found


def build(
    plc: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    decisions: Sequence[Mapping[str, Any]],
    recorded: int,
    restarts: Mapping[str, int],
    kills: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The report. `plc`: the simulator's statistics; `recorded`: head of the device's decision stream."""
    joined = join(parts, decisions)
    engine = Counter((d["engine"], d["variant"], d["bundle_digest"]) for d in decisions if d.get("variant"))
    name, variant, digest = engine.most_common(1)[0][0] if engine else ("", "", "")
    control = [k for k in kills if k["process"] == "control"]
    seconds = recoveries(parts, [k["wall_ns"] for k in control])
    copied = (
        "parts", "answered", "unanswered", "faults", "reviews", "recall", "overkill", "escape", "recall_clean",
        "overkill_clean", "trigger_to_answer_ms",
    )  # fmt: skip
    return {
        **{key: plc.get(key) for key in copied},
        "engine": name,
        "variant": variant,
        "bundle_digest": digest,
        "events_recorded": recorded - joined.unrecorded,
        "events_in_cloud": joined.events,
        "unrecorded": joined.unrecorded,
        "duplicates_in_cloud": joined.duplicates,
        "answered_parts_missing_in_cloud": len(joined.missing),
        "events_without_answered_part": joined.strangers,
        "parts_that_differ_from_their_event": joined.disagreements,
        "restarts": sum(restarts.values()),
        "restarts_by_process": dict(restarts),
        "kills": len(kills),
        "control_recovery_s": {
            "max": max((round(s, 3) for s in seconds if s is not None), default=None),
            "each": [None if s is None else round(s, 3) for s in seconds],
        },
    }
