"""The API over a store, without a network."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select

from cloud.access.routes import ROLES
from cloud.app import make_app
from cloud.export.parquet import Wanted, pages
from cloud.messages import Item, Rejection, Status
from cloud.security import HEADERS, host_name
from cloud.settings import CloudSettings, StoreSection
from cloud.simulator import Simulator
from cloud.store import queries
from cloud.store import tables as t
from cloud.store.database import Added
from cloud.summary import summarise
from cloud.tests.databases import commit
from cloud.tests.made import CHAIN, PLACE, batch, decision, event

HOUR_NS = 3_600_000_000_000
STATS = {"recall": 0.97, "overkill": 0.02, "trigger_to_answer_ms": {"p50": 2.1}}


@pytest.fixture
def filled(engine: Engine) -> Engine:
    events = [decision(n) for n in range(1, 11)]
    events += [decision(11, result=2, score=0.93, reason="blowhole 0.93 > 0.50", latency_us=25_000, recipe=4)]
    events += [decision(12, 11, kind="unrecorded", result=2, latency_us=None, lot=8)]
    metric = event(1, "metric", "control", line_state=6, outbox_depth=4, health="nominal")
    loaded = event(1, "health", "model_loaded", engine="litert", variant="int8", bundle_digest="d1")
    items: list[Item] = [batch([*events, metric, loaded]), Status(PLACE, True, "b1"), Rejection("t", "odd", 3)]
    commit(engine, items, time.time_ns())
    return engine


def with_app(app: FastAPI, act: Callable[[httpx.AsyncClient], Awaitable[Any]], base: str = "http://127.0.0.1") -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await act(client)

    return asyncio.run(run())


def app_of(engine: Engine, simulator: Simulator | None = None) -> FastAPI:
    return make_app(engine, CloudSettings(), lambda: True, simulator)


def get(engine: Engine, path: str, **params: Any) -> httpx.Response:
    return with_app(app_of(engine), lambda client: client.get(path, params=params or None))  # type: ignore[no-any-return]


def test_health(engine: Engine) -> None:
    assert get(engine, "/api/v1/health").json() | {"version": ""} == {
        "status": "ok",
        "broker_connected": True,
        "version": "",
    }
    lost = make_app(engine, CloudSettings(), lambda: False)
    assert with_app(lost, lambda client: client.get("/api/v1/health")).json()["status"] == "degraded"


def test_devices(filled: Engine) -> None:
    (device,) = get(filled, "/api/v1/devices").json()
    shown = {"device": "dev1", "online": True, "boot_id": "b1", "line_state_name": "Execute", "outbox_depth": 4}
    shown |= {"committed": {"decision": 12, "metric": 1, "health": 1}, "health": "nominal", "engine": "litert"}
    assert {name: device[name] for name in shown} == shown
    assert device["place"] == "acme/site1/area1/line1/cell1"


def test_events_in_pages(filled: Engine) -> None:
    first = get(filled, "/api/v1/events", stream="decision", limit=7).json()
    assert [e["seq"] for e in first["items"]] == list(range(1, 8))
    second = get(filled, "/api/v1/events", stream="decision", limit=7, after=first["next_after"]).json()
    assert [e["seq"] for e in second["items"]] == list(range(8, 13))
    assert second["next_after"] is None
    assert first["items"][0]["body"]["steps_us"] == {"infer": 900}
    assert get(filled, "/api/v1/events", device="nobody").json() == {"items": [], "next_after": None}


@pytest.mark.parametrize(
    ("filters", "seqs"),
    [
        ({"result": 2}, [11, 12]),
        ({"kind": "unrecorded"}, [12]),
        ({"serial": 1003}, [3]),
        ({"lot": 8}, [12]),
        ({"part_epoch": 0, "part_seq": 11}, [11, 12]),
        ({"device": "dev1", "after": 10}, [11, 12]),
        ({"result": 4}, []),
    ],
)
def test_decisions_by_filter(filled: Engine, filters: dict[str, Any], seqs: list[int]) -> None:
    assert [d["seq"] for d in get(filled, "/api/v1/decisions", **filters).json()["items"]] == seqs


def test_a_decision_has_every_field(filled: Engine) -> None:
    found = get(filled, "/api/v1/decisions", after=10, limit=1).json()["items"][0]
    shown = {"seq": 11, "kind": "decision", "part_epoch": 0, "part_seq": 11, "serial": 1011, "lot": 7, "recipe": 4}
    shown |= {
        "result": 2,
        "result_name": "reject",
        "score": 0.93,
        "reason": "blowhole 0.93 > 0.50",
        "latency_us": 25000,
    }
    assert {name: found[name] for name in shown} == shown


def test_a_period_of_the_time_that_the_cloud_stamped(engine: Engine) -> None:
    known = [decision(n)._replace(wall_ns=n * HOUR_NS, wall_uncertainty_ns=1000) for n in range(1, 6)]
    unset = [event(n, "alarm", "hot")._replace(mono_ns=n) for n in range(1, 3)]  # its clock says 2023
    commit(engine, [batch([*known, *unset])], 100 * HOUR_NS)
    period = {"from": "1970-01-01T02:00:00Z", "to": "1970-01-01T04:00:00"}
    found = get(engine, "/api/v1/events", **period).json()["items"]
    assert [(e["seq"], e["time_ns"], e["time_source"]) for e in found] == [
        (2, 2 * HOUR_NS, "device"),
        (3, 3 * HOUR_NS, "device"),
    ]
    assert [d["seq"] for d in get(engine, "/api/v1/decisions", **period).json()["items"]] == [2, 3]
    (first, *_) = get(engine, "/api/v1/decisions", **{"from": "1970-01-01T05:00:00Z"}).json()["items"]
    assert (first["time_ns"], first["time_source"]) == (5 * HOUR_NS, "device")
    tied, _ = get(engine, "/api/v1/events", stream="alarm", to="1970-01-02").json()["items"]
    assert (tied["time_source"], tied["wall_ns"] > 365 * 24 * HOUR_NS) == ("boot", True)
    assert tied["time_ns"] < 6 * HOUR_NS
    for query in ("from=x", "to=0001-01-01", "from=2024-01-02&to=2024-01-01"):
        assert get(engine, f"/api/v1/decisions?{query}").status_code == 422


@pytest.mark.parametrize("common", [0.0, 2.0])
def test_a_page_is_the_same_whichever_way_it_was_found(
    engine: Engine, common: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "COMMON", common)
    other = replace(PLACE, device="dev2")
    mine = [decision(n) for n in range(1, 40)]
    commit(engine, [batch(mine), batch([e._replace(device="dev2") for e in mine], place=other)], 1)
    for path in ("events", "decisions"):
        seqs, after = [], 0
        while after is not None:
            page = get(engine, f"/api/v1/{path}", device="dev2", after=after, limit=7).json()
            assert {item["device"] for item in page["items"]} <= {"dev2"}
            seqs += [item["seq"] for item in page["items"]]
            after = page["next_after"]
        assert seqs == list(range(1, 40))


def test_sqlite_walks_along_the_ids_where_a_device_is_common(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(sqlite, [batch([decision(n) for n in range(1, 20)])], 1)
    with sqlite.connect() as connection:
        for common in (0.01, 1.0):
            monkeypatch.setattr(queries, "COMMON", common)
            where = queries._equal(connection, t.event, {"device": "dev1"}, queries.Page())
            query = select(t.event).where(t.event.c.id > 5, *where).order_by(t.event.c.id).limit(5)
            text = str(query.compile(sqlite, compile_kwargs={"literal_binds": True}))
            plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
            assert ("USING INTEGER PRIMARY KEY" in plan) == (common == 0.01), plan
            assert ("TEMP B-TREE" in plan) == (common == 1.0), plan
        gone = {"device": "dev1", "chain": CHAIN, "stream": "decision", "month": 1, "first": 1, "last": 18}
        connection.execute(t.pruned.insert().values(**gone, last_hash="", since_ns=1, until_ns=1))
        assert [queries._kept(connection, {"device": d}) for d in ("dev1", "dev2")] == [1, 0]


def test_what_commits_late_is_never_behind_a_reader(engine: Engine) -> None:
    """On PostgreSQL another writer may hold lower ids than those that are committed already."""
    if engine.dialect.name != "postgresql":
        pytest.skip("one writer")
    commit(engine, [batch([decision(1, result=2)])], 1)
    with engine.connect() as slow:
        held = Added(slow).ids(3)  # by a worker that has not committed yet
        commit(engine, [batch([decision(2, result=2)])], 1)
        assert [e["seq"] for e in get(engine, "/api/v1/events").json()["items"]] == [1]
        assert [d["seq"] for d in get(engine, "/api/v1/decisions").json()["items"]] == [1]
        rows, upto = queries.diverted_after(engine, 0, 10)
        assert [row["seq"] for row in rows] == [1]
        assert upto < min(held)
        assert [len(page) for page in pages(engine, Wanted())] == [1]
        slow.commit()
    after = get(engine, "/api/v1/events").json()["items"][0]["id"]
    assert [e["seq"] for e in get(engine, "/api/v1/events", after=after).json()["items"]] == [2]
    rows, upto = queries.diverted_after(engine, upto, 10)
    assert [row["seq"] for row in rows] == [2]
    assert upto > max(held)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=-1", "limit=x", f"after={2**63}", f"serial={2**64}"])
def test_bad_questions_are_refused(engine: Engine, query: str) -> None:
    assert get(engine, f"/api/v1/decisions?{query}").status_code == 422


def test_rejections(filled: Engine) -> None:
    (row,) = get(filled, "/api/v1/rejections").json()["items"]
    assert (row["topic"], row["reason"], row["size_bytes"]) == ("t", "odd", 3)


def test_summary(filled: Engine) -> None:
    found = get(filled, "/api/v1/summary").json()
    shown: dict[str, Any] = {
        "parts": 11,
        "events_in_cloud": 11,
        "unrecorded": 1,
        "duplicates_in_cloud": 1,
        "rejected_messages": 1,
    }
    shown |= {"results": {"pass": 10, "reject": 2, "review": 0, "fault": 0}, "outbox_depth": 4, "devices_online": 1}
    shown |= {"line_state": 6, "line_state_name": "Execute", "simulator": None, "rejected_messages": 1}
    assert {name: found[name] for name in shown} == shown
    assert {b["upto_ms"]: b["count"] for b in found["latency_ms"] if b["count"]} == {3: 10, 30: 1}
    assert found["parts_per_min"] > 0


def test_summary_of_an_empty_store(engine: Engine) -> None:
    found = get(engine, "/api/v1/summary").json()
    assert (found["parts"], found["parts_per_min"], found["line_state"], found["outbox_depth"]) == (0, 0.0, None, None)
    assert sum(b["count"] for b in found["latency_ms"]) == 0


def test_a_device_that_tells_odd_things_does_not_break_the_summary() -> None:
    latest = {"metric/control": {"wall_ns": 1, "body": {"line_state": "?", "outbox_depth": "many", "health": 3}}}
    device = {"device": "d", "place": "p", "online": True, "last_seen_ns": 1, "latest": latest}
    found = summarise({}, [device], 0.0, None)
    assert (found["line_state"], found["line_state_name"], found["outbox_depth"]) == ("?", None, None)


def test_the_simulator_is_asked_once_a_second_and_may_be_away(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.simulator.time", SimpleNamespace(monotonic=lambda: 1e6))
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=STATS)

    simulator = Simulator("http://127.0.0.1:9/stats", httpx.MockTransport(answer))

    async def twice(client: httpx.AsyncClient) -> Any:
        await client.get("/api/v1/summary")
        return (await client.get("/api/v1/summary")).json()["simulator"]

    assert with_app(app_of(engine, simulator), twice) == STATS
    assert asked == ["http://127.0.0.1:9/stats"]
    for odd in (httpx.Response(500), httpx.Response(200, text="?"), httpx.Response(200, json=[1])):
        away = Simulator("http://127.0.0.1:9/stats", httpx.MockTransport(lambda _, odd=odd: odd))
        assert asyncio.run(away.stats()) is None


def test_the_stream_tells_rejects_and_the_summary_and_ends_when_asked(filled: Engine) -> None:
    app = app_of(filled)

    async def listen(client: httpx.AsyncClient) -> str:
        summary = app.state.summaries.get

        async def last() -> Any:
            app.state.stop_streams()
            return await summary()

        app.state.summaries.get = last
        return (await client.get("/api/v1/stream")).text

    told = with_app(app, listen)
    blocks = [block.splitlines() for block in told.strip().split("\n\n")]
    found = [(b[0].removeprefix("event: "), json.loads(b[1].removeprefix("data: "))) for b in blocks if len(b) == 2]
    assert [name for name, _ in found] == ["reject", "reject", "summary"]
    assert found[0][1]["score"] == 0.93
    assert found[0][1]["reason"] == "blowhole 0.93 > 0.50"
    assert found[2][1]["parts"] == 11
    assert found[2][1]["broker_connected"] is True


def test_the_page_and_every_answer_carry_the_security_headers(engine: Engine) -> None:
    async def pages(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path) for path in ("/", "/app.css", "/app.js", "/icon.svg", "/api/v1/health", "/no")]

    answers = with_app(app_of(engine), pages)
    assert [a.status_code for a in answers] == [200] * 5 + [404]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    page = answers[0].text
    assert "http://" not in page
    assert "https://" not in page
    assert "style=" not in page
    assert "innerHTML" not in answers[2].text


def test_another_host_name_is_refused(engine: Engine) -> None:
    for base, code in (("http://evil.example", 421), ("http://localhost:8080", 200), ("http://[::1]:80", 200)):
        answer = with_app(app_of(engine), lambda client: client.get("/api/v1/health"), base)
        assert answer.status_code == code, base
    assert [host_name(h) for h in ("[::1]:80", "LOCALHOST:1", "127.0.0.1", "")] == [
        "[::1]",
        "localhost",
        "127.0.0.1",
        "",
    ]


def test_openapi_tells_the_role_the_body_and_the_errors_of_every_route(engine: Engine) -> None:
    document = get(engine, "/api/v1/openapi.json").json()
    told = {(m.upper(), path): said for path, methods in document["paths"].items() for m, said in methods.items()}
    for key, said in told.items():
        role = ROLES[key]
        assert said["x-role"] == (role.word if role else "public")
        assert bool(said["security"]) is bool(role)
        assert role is None or {"401", "403", "429"} <= set(said["responses"])
    reads_nothing = ("logout", "approve", "resume", "start")
    for (method, path), said in told.items():
        assert ("requestBody" in said) is (method == "POST" and not path.endswith(reads_nothing)), path
    body = told["POST", "/api/v1/rollouts"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert "target" in document["components"]["schemas"][body.rpartition("/")[2]]["properties"]
    wanted = set(re.findall(r"#/components/schemas/([\w-]+)", json.dumps(document)))
    assert wanted <= set(document["components"]["schemas"]), "no reference leads nowhere"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/v1/events?limit=x", 422, "limit: Input should be a valid integer"),
        ("/api/v1/nothing", 404, "Not Found"),
        ("/api/v1/rollouts/none", 404, "no rollout none"),
    ],
)
def test_an_error_is_one_line(engine: Engine, path: str, status: int, says: str) -> None:
    answer = get(engine, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}
    assert answer.json()["detail"].startswith(says)


def test_an_error_of_the_server_tells_nothing_of_it(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: object, **more: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("cloud.api.audit.listing", fails)
    client = TestClient(make_app(sqlite, CloudSettings()), "http://127.0.0.1", raise_server_exceptions=False)
    answer = client.get("/api/v1/audit")
    assert (answer.status_code, answer.json()) == (500, {"detail": "an error of the server; its log says more"})
    assert "a request failed" in caplog.text


def test_openapi_names_every_route(engine: Engine) -> None:
    found = get(engine, "/api/v1/openapi.json").json()["paths"]
    assert set(found) == {path for _, path in ROLES if path.startswith("/api/v1/")} - {"/api/v1/openapi.json"}


STRANGE = ("\0", "²", "9" * 30, "-1", "\U0010ffff")


@pytest.mark.parametrize("text", STRANGE, ids=["NUL", "superscript", "long", "negative", "last"])
def test_no_question_is_an_error_of_the_server(engine: Engine, tmp_path: Path, text: str) -> None:
    settings = CloudSettings(store=StoreSection(key_file=tmp_path / "cloud.key"))
    app = make_app(engine, settings, lambda: True)

    async def ask(client: httpx.AsyncClient) -> list[tuple[str, str, int]]:
        paths = (await client.get("/api/v1/openapi.json")).json()["paths"]
        told = []
        for path, found in paths.items():
            if "get" not in found or path.endswith("stream"):
                continue
            parameters = found["get"].get("parameters", [])
            url = path
            for name in [p["name"] for p in parameters if p["in"] == "path"]:
                url = url.replace(f"{{{name}}}", quote(text))
            for query in [p["name"] for p in parameters if p["in"] == "query"] or [""]:
                told.append((path, query, (await client.get(url, params={query: text})).status_code))
        return told

    told = with_app(app, ask)
    assert len(told) > 50
    assert [row for row in told if row[2] >= 500] == []
