"""Down-sampling on both databases, against counting by hand; what a device may put into a record never breaks it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.messages import Batch, read_message
from cloud.store import series as module
from cloud.store.series import BUCKETS, SECOND_NS, Asked, series
from cloud.tests.databases import commit
from cloud.tests.made import KEY, PLACE, batch, event
from cloud.tests.test_api import get
from edge_runtime.errors import UsageError
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import Checkpoint, encode_batch
from edge_runtime.wire.envelope import Event, record_line

BASE_NS = 1_700_000_000 * SECOND_NS
ISO = "2023-11-14T22:13:20Z"  # the same


def at(seq: int, seconds: float, stream: str = "metric", kind: str = "control", **body: Any) -> Event:
    """An Event of a device whose clock is right."""
    wall_ns = BASE_NS + round(seconds * SECOND_NS)
    return event(seq, stream, kind, **body)._replace(wall_ns=wall_ns, wall_uncertainty_ns=1000)


def ask(engine: Engine, seconds: float, step_s: float, **more: Any) -> list[dict[str, Any]]:
    asked = Asked("dev1", "metric", None, "body.x", BASE_NS, BASE_NS + round(seconds * SECOND_NS), SECOND_NS)
    return series(engine, asked._replace(step_ns=round(step_s * SECOND_NS), **more))


def counted(values: Sequence[tuple[float, float]], seconds: float, step_s: float) -> list[dict[str, Any]]:
    """The same by hand; `values` are (second, value)."""
    out = []
    for n in range(-(-round(seconds * 1000) // round(step_s * 1000))):
        inside = [v for s, v in sorted(values) if n * step_s <= s < min((n + 1) * step_s, seconds)]
        told: dict[str, Any] = {"from_ns": BASE_NS + round(n * step_s * SECOND_NS), "count": len(inside)}
        names = ("min", "max", "mean", "first", "last")
        found = (min(inside), max(inside), sum(inside) / len(inside), inside[0], inside[-1]) if inside else [None] * 5
        out.append(told | dict(zip(names, found, strict=True)))
    return out


def test_buckets_agree_with_counting(engine: Engine) -> None:
    rng = random.Random(3)
    seconds = rng.sample([s / 8 for s in range(240)], 150)
    values = [(s, rng.choice([rng.uniform(-5, 5), rng.randrange(100)])) for s in seconds if not 10 <= s < 14]
    commit(engine, [batch([at(n, s, x=v) for n, (s, v) in enumerate(values, 1)])], 1)
    for length, step_s in ((30.0, 1.0), (30.0, 7.0), (12.0, 0.5), (30.0, 100.0)):
        found, expected = ask(engine, length, step_s), counted(values, length, step_s)
        assert len(found) == len(expected)
        for told, wanted in zip(found, expected, strict=True):
            assert told == {n: v if v is None else pytest.approx(v) for n, v in wanted.items()}


def test_a_gap_is_empty_and_never_0(engine: Engine) -> None:
    commit(engine, [batch([at(1, 0, x=0), at(2, 2.5, x=7)])], 1)
    found = ask(engine, 3, 1)
    assert [(b["count"], b["mean"]) for b in found] == [(1, 0.0), (0, None), (1, 7.0)]
    assert [b["from_ns"] for b in found] == [BASE_NS, BASE_NS + SECOND_NS, BASE_NS + 2 * SECOND_NS]


ODD: tuple[tuple[str, str], ...] = (
    ("nul", '{"x":1,"s":"\\u0000","t":"\\\\u0000"}'),
    ("surrogate", '{"x":2,"s":"\\ud800","t":"\\uDFff"}'),
    ("emoji", '{"x":3,"s":"\\ud83d\\ude00"}'),
    ("huge", '{"x":1e999999}'),
    ("tiny", '{"x":1e-999999}'),
    ("tiny with a long tail", '{"x":0.%s1e-299}' % ("0" * 58)),
    ("long", '{"x":%s}' % ("9" * 4000)),
    ("too large for a float", '{"x":1e400,"y":1e400}'),
    ("text", '{"x":"5"}'),
    ("true", '{"x":true}'),
    ("null", '{"x":null}'),
    ("list", '{"x":[1]}'),
    ("object", '{"x":{"y":1}}'),
    ("missing", "{}"),
    ("negative", '{"x":-4.5e-3}'),
)


def test_whatever_a_record_holds_the_others_are_told(engine: Engine) -> None:
    lines = []
    for seq, (kind, body) in enumerate(ODD, 1):
        line = record_line(at(seq, 0, kind=kind)._replace(prev="0" * 64))
        lines.append(line.replace(b'"body":{}', b'"body":' + body.encode()))
        assert json.loads(lines[-1])["kind"] == kind
    header = Checkpoint("dev1", event(1).chain, "boot", 10**6, 1, 2, None, public_text(KEY), {})
    payload = encode_batch(header, lines, KEY.sign)
    item = read_message(PLACE.topic("events"), payload)
    assert isinstance(item, Batch), item
    commit(engine, [item], 1)
    (found,) = ask(engine, 1, 1)
    assert (found["count"], found["min"], found["max"]) == (6, -0.0045, 3.0)  # what is tiny is 0


def test_one_kind_one_device_one_stream_and_a_path(engine: Engine) -> None:
    events = [at(1, 0, x=1), at(2, 0.1, kind="other", x=2), at(3, 0.2)._replace(body={"steps-us": {"infer_2": 900}})]
    commit(engine, [batch([*events, at(1, 0, "telemetry", "t", x=50)])], 1)
    assert ask(engine, 1, 1)[0]["count"] == 2
    assert ask(engine, 1, 1, kind="other")[0]["mean"] == 2
    assert ask(engine, 1, 1, stream="telemetry")[0]["mean"] == 50
    assert ask(engine, 1, 1, device="dev2")[0]["count"] == 0
    assert ask(engine, 1, 1, field="body.steps-us.infer_2")[0]["mean"] == 900


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"field": "x"}, "field is 'x'; expected names joined by dots"),
        ({"field": 'body."x"'}, "expected names joined by dots"),
        ({"field": "body.x'); DROP TABLE event; --"}, "expected names joined by dots"),
        ({"step_ns": SECOND_NS // 1000}, f"10000 buckets are more than {BUCKETS}; ask for step_s of 0.005 or more"),
        ({"end_ns": BASE_NS}, "a period that is not empty"),
        ({"start_ns": BASE_NS - 2**63}, "longer than 292 years"),
    ],
)
def test_what_cannot_be_answered_is_refused(sqlite: Engine, more: dict[str, Any], told: str) -> None:
    asked = Asked("dev1", "metric", None, "body.x", BASE_NS, BASE_NS + 10 * SECOND_NS, SECOND_NS)
    with pytest.raises(UsageError, match=told.replace("(", r"\(").replace(")", r"\)")):
        series(sqlite, asked._replace(**more))


def test_more_events_than_may_be_looked_at_are_refused_not_cut(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS", 5)
    commit(engine, [batch([at(n, n / 10, x=n) for n in range(1, 7)])], 1)
    assert ask(engine, 0.55, 1)[0]["count"] == 5
    with pytest.raises(UsageError, match="more than 5 Events"):
        ask(engine, 1, 1)


def test_over_http(engine: Engine) -> None:
    commit(engine, [batch([at(n, n, x=n) for n in range(1, 5)])], 1)
    question = {"device": "dev1", "stream": "metric", "field": "body.x", "from": ISO, "to": "2023-11-14T22:13:30"}
    found = get(engine, "/api/v1/series", **question, step_s=5).json()
    assert (found["step_s"], found["from_ns"], found["to_ns"]) == (5.0, BASE_NS, BASE_NS + 10 * SECOND_NS)
    assert [b["last"] for b in found["buckets"]] == [4.0, None]
    assert len(get(engine, "/api/v1/series", **question).json()["buckets"]) == 120
    now = get(engine, "/api/v1/series", device="dev1", stream="metric", field="body.x").json()
    assert now["to_ns"] - now["from_ns"] == 3600 * SECOND_NS


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"from": "yesterday"}, "'yesterday' is no time"),
        ({"to": "9999-01-01"}, "is no time"),
        ({"from": ISO, "to": ISO}, "is empty"),
        ({"stream": "metrics"}, "no stream 'metrics'; expected one of alarm"),
        ({"field": "latency"}, "expected names joined by dots"),
        ({"step_s": 0}, "greater than 0"),
        ({"step_s": "nan"}, "finite"),
        ({"step_s": 0.001}, "buckets are more than"),
    ],
)
def test_a_wrong_question_is_422_with_a_reason(sqlite: Engine, more: dict[str, Any], told: str) -> None:
    answer = get(sqlite, "/api/v1/series", **{"device": "dev1", "stream": "metric", "field": "body.x"} | more)
    assert answer.status_code == 422
    assert told in answer.text
