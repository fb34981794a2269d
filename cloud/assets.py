"""What the API tells of assets and alarms, read from what devices told. Pure: a field that is missing or of another type is null,
and nothing that a device sends makes an answer fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloud.messages import plain_text
from cloud.store.assets import SEVERITIES

Json = dict[str, Any]
LISTED = 16
TEXT_CHARS = 500
LARGEST = 1e100
MEANING = {"critical": "act now", "high": "act within 24 hours", "medium": "act within a week", "low": "watch"}


def number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and -LARGEST <= value <= LARGEST else None


def text(value: Any) -> str | None:
    return plain_text(value)[:TEXT_CHARS] if isinstance(value, str) else None


def table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def shares(value: Any) -> list[Json]:
    """[[tag, share], …]"""
    pairs = value if isinstance(value, Sequence) and not isinstance(value, str) else []
    good = [p for p in pairs[:LISTED] if isinstance(p, Sequence) and len(p) == 2 and isinstance(p[0], str)]
    return [{"tag": text(name), "share": number(share)} for name, share in good]


def anomaly(value: Any) -> Json | None:
    if not isinstance(value, Mapping):
        return None
    numbers = {name: number(value.get(name)) for name in ("score", "threshold")}
    texts = {name: text(value.get(name)) for name in ("quality", "reason", "severity", "bundle_digest", "view_sha256")}
    anomalous = value.get("anomalous") if isinstance(value.get("anomalous"), bool) else None
    return {**numbers, **texts, "anomalous": anomalous, "shares": shares(value.get("shares"))}


def remaining(value: Any) -> Json | None:
    if not isinstance(value, Mapping):
        return None
    numbers = {name: number(value.get(name)) for name in ("remaining", "lower", "upper", "smoothed")}
    names = ("unit", "quality", "reason", "bundle_digest", "view_sha256")
    return {**numbers, **{name: text(value.get(name)) for name in names}}


def drift(model: str, value: Any) -> Json:
    body = table(value)
    columns = body.get("columns")
    found = [table(c) for c in columns[:LISTED]] if isinstance(columns, list) else []
    listed = [{"column": text(c.get("column")), **{n: number(c.get(n)) for n in ("psi", "ks", "p")}} for c in found]
    count = body.get("count")
    return {
        "model": text(model),
        "drifting": body.get("drifting") is True,
        "count": count if type(count) is int and 0 <= count < 10**6 else 0,
        "columns": listed,
        "samples": number(body.get("samples")),
        "rate": number(body.get("rate")),
        "wall_ns": body.get("wall_ns", 0),
    }


def alarm(row: Mapping[str, Any]) -> Json:
    body = table(row["body"])
    copied = ("device", "alarm", "asset", "source", "state", "active", "severity", "kind", "raised_wall_ns", "wall_ns")
    return {
        **{name: row[name] for name in copied},
        "meaning": MEANING.get(row["severity"], ""),
        "value": number(body.get("value")),
        "limit": number(body.get("limit")),
        "reason": text(body.get("reason")),
        "by": text(body.get("by")),
        "operating_h": number(body.get("operating_h")),
        "bundle_digest": text(body.get("bundle_digest")),
        "shares": shares(body.get("shares")),
    }


def asset(row: Mapping[str, Any]) -> Json:
    state, found = table(row["state"]), [alarm(a) for a in row.get("alarms", [])]
    active = [a["severity"] for a in found if a["active"] and a["state"] not in ("shelved", "suppressed")]
    return {
        "device": row["device"],
        "asset": row["asset"],
        "wall_ns": row["wall_ns"],
        "severity": max(active, key=lambda name: SEVERITIES[name], default=""),
        "operating_h": number(state.get("operating_h")),
        "anomaly": anomaly(state.get("anomaly")),
        "remaining": remaining(state.get("remaining")),
        "drift": [drift(model, body) for model, body in sorted(row["drift"].items())],
        "alarms": found,
    }
