"""Assets and alarms in the cloud: the newest Event holds, on both databases; what a device sends cannot break an answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from cloud.app import make_app
from cloud.settings import CloudSettings
from cloud.store import assets
from cloud.tests.databases import commit
from cloud.tests.made import batch, event
from edge_runtime.wire.envelope import Event

STATE = {
    "asset": "pump",
    "operating_h": 12.5,
    "anomaly": {
        "quality": "good", "reason": "", "score": 2.5, "threshold": 1.5, "anomalous": True, "severity": "high",
        "shares": [["vibration", 0.8], ["temperature", 0.2]], "bundle_digest": "b1", "view_sha256": "v1",
    },
    "remaining": {
        "quality": "good", "reason": "", "remaining": 30.0, "lower": 20.0, "upper": 45.0, "smoothed": 31.0, "unit": "h",
    },
}  # fmt: skip


def state(seq: int, **more: Any) -> Event:
    return event(seq, "telemetry", "asset.pump", **{**STATE, **more})


def alarm(seq: int, kind: str = "raised", name: str = "pump/anomaly", **more: Any) -> Event:
    asset, _, source = name.partition("/")
    body = {"change": seq, "alarm": name, "asset": asset, "source": source, "state": "unacknowledged", "active": True}
    body |= {"severity": "high", "raised_wall_ns": 7, "value": 2.5, "limit": 1.5, "shares": [["vibration", 0.8]]}
    return event(seq, "alarm", kind, **{**body, **more})


async def ask(engine: Engine, path: str) -> Any:
    app = make_app(engine, CloudSettings(), lambda: True)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()


def get(engine: Engine, path: str) -> Any:
    import asyncio

    return asyncio.run(ask(engine, path))


def test_an_asset_with_its_alarms_and_drift(engine: Engine) -> None:
    drift = event(
        1, "health", "drift", asset="pump", model="anomaly", drifting=True, count=2, samples=200, rate=0.01,
        columns=[{"column": "mean(vibration)", "psi": 0.4, "ks": 0.2, "p": 1e-6}],
    )  # fmt: skip
    commit(
        engine,
        [
            batch(
                [
                    state(1),
                    state(2, operating_h=13.0),
                    drift,
                    alarm(1),
                    alarm(2, "acknowledged", state="acknowledged", by="ann"),
                ]
            )
        ],
        1,
    )
    (found,) = get(engine, "/assets")
    assert (found["device"], found["asset"], found["severity"], found["operating_h"]) == ("dev1", "pump", "high", 13.0)
    assert found["anomaly"]["score"] == 2.5
    assert found["anomaly"]["shares"][0] == {"tag": "vibration", "share": 0.8}
    assert found["remaining"]["smoothed"] == 31.0
    assert found["drift"][0]["columns"][0]["column"] == "mean(vibration)"
    assert found["drift"][0]["drifting"] is True
    (told,) = found["alarms"]
    assert (told["state"], told["by"], told["meaning"]) == ("acknowledged", "ann", "act within 24 hours")
    assert get(engine, "/alarms") == [told]
    assert get(engine, "/alarms?device=other") == []


def test_an_older_event_that_comes_later_changes_nothing(engine: Engine) -> None:
    commit(engine, [batch([alarm(3, "returned", state="normal", active=False), state(9)])], 1)
    commit(engine, [batch([alarm(1), alarm(2), state(4, operating_h=1.0)])], 2)
    (found,) = get(engine, "/assets")
    assert (found["severity"], found["alarms"], found["operating_h"]) == ("", [], 12.5)
    (normal,) = get(engine, "/alarms?all=true")
    assert (normal["state"], normal["kind"]) == ("normal", "returned")


def test_shelved_alarms_are_listed_and_not_counted(engine: Engine) -> None:
    commit(engine, [batch([alarm(1, "shelved", state="shelved"), alarm(2, name="pump/hot", severity="low")])], 1)
    (found,) = get(engine, "/assets")
    assert found["severity"] == "low"
    assert [a["alarm"] for a in get(engine, "/alarms")] == ["pump/anomaly", "pump/hot"]  # the worst first
    assert [a["alarm"] for a in get(engine, "/alarms?state=shelved")] == ["pump/anomaly"]


def test_a_removed_alarm_is_gone(engine: Engine) -> None:
    commit(engine, [batch([alarm(1), alarm(2, "removed")])], 1)
    assert get(engine, "/alarms") == []


HOSTILE: list[dict[str, Any]] = [
    {"anomaly": 7, "remaining": [], "operating_h": "x"},
    {"anomaly": {"score": "high", "threshold": True, "shares": "abc", "severity": 5}},
    {"anomaly": {"score": 1e300, "shares": [["a"], [1, 2], ["t", "x"], None]}},
    {"anomaly": {"shares": {"a": 1}, "reason": "x" * 10_000}, "remaining": {"unit": {}, "lower": None}},
    {"asset": "\x00pu\ud800mp"},
]


@pytest.mark.parametrize("body", HOSTILE)
def test_a_device_with_other_ideas_breaks_no_answer(engine: Engine, body: dict[str, Any]) -> None:
    odd = [alarm(1, shares=5, value="x", reason=3), alarm(2, name="pump/b", raised_wall_ns="x", severity=[1])]
    odd += [event(3, "alarm", "raised"), event(4, "alarm", "raised", alarm=5, asset="a", source="s", state="s")]
    drifts = [event(1, "health", "drift", asset="pump", columns=[1, {"column": 2}], count=-1, model=3)]
    commit(engine, [batch([state(1, **body), *odd, *drifts, event(2, "telemetry", "asset.pump")])], 1)
    (found, *_) = get(engine, "/assets")
    assert found["device"] == "dev1"
    assert len(get(engine, "/alarms")) == 2


def test_every_event_of_a_commit_is_one_statement_a_table(engine: Engine) -> None:
    many = [event(n, "telemetry", f"asset.p{n}", asset=f"p{n}") for n in range(1, 301)]
    commit(engine, [batch(many)], 1)
    assert len(assets.assets(engine)) == 300
