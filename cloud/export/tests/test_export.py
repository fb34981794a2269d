"""Parquet files: every row once, typed, in bounded row groups, whole or not at all; from the store and over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from cloud.api import exports
from cloud.app import make_app
from cloud.export import parquet
from cloud.export.cli import main
from cloud.export.parquet import COLUMNS, DECISION_COLUMNS, TIME, Wanted, columns, ids, parquet_bytes
from cloud.main import WebServer
from cloud.period import Period
from cloud.settings import CloudSettings
from cloud.sockets import listen, port_of
from cloud.tests.databases import KINDS, commit, empty_store
from cloud.tests.made import batch, decision, event
from edge_runtime.cli import run
from edge_runtime.errors import ResourceError

BASE_NS = 1_700_000_000_000_000_000
DECISIONS = [
    decision(n, latency_us=2500 + n)._replace(wall_ns=BASE_NS + n * 1_000_000_123, wall_uncertainty_ns=1000)
    for n in range(1, 31)
]


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with empty_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Engine]:
    with empty_store("sqlite", tmp_path) as opened:
        fill(opened)
        yield opened


@pytest.fixture
def url(store: Engine) -> Iterator[str]:
    sock = listen("127.0.0.1", 0, "http.port")
    web = WebServer(make_app(store, CloudSettings()), sock)
    web.start()
    yield f"http://127.0.0.1:{port_of(sock)}"
    web.stop()
    sock.close()


def fill(engine: Engine) -> None:
    alarms = [event(n, "alarm", "hot", c=90 + n, s="\0\ud800")._replace(boot_id="other") for n in range(1, 4)]
    commit(engine, [batch([*DECISIONS, *alarms])], BASE_NS)


def table(engine: Engine, wanted: Wanted, path: Path) -> pa.Table:
    path.write_bytes(b"".join(parquet_bytes(engine, wanted)))
    return pq.read_table(path)


def test_decisions_with_their_columns(engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    found = table(engine, Wanted("dev1", "decision"), tmp_path / "f")
    assert found.schema.names == [name for name, *_ in (*COLUMNS, *DECISION_COLUMNS)]
    assert found.schema.field("time").type == found.schema.field("received").type == TIME
    assert found.column("seq").to_pylist() == list(range(1, 31))
    assert found.column("time").cast(pa.int64()).to_pylist() == [e.wall_ns for e in DECISIONS]  # to the nanosecond
    assert set(found.column("time_source").to_pylist()) == {"device"}
    row = found.drop_columns(["time", "wall", "received"]).slice(4, 1).to_pylist()[0]
    assert (row["latency_us"], row["label"], row["score"], row["result"], row["recipe"]) == (2505, "ok", 0.25, 1, None)
    assert (row["device"], row["chain"], row["boot_id"]) == ("dev1", DECISIONS[0].chain, "boot")
    assert json.loads(row["body"]) == DECISIONS[4].body
    assert (row["mono_ns"], row["wall_uncertainty_ns"]) == (5, 1000)


def test_all_streams_have_the_common_columns(engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    found = table(engine, Wanted(), tmp_path / "f")
    assert found.schema.names == [name for name, *_ in COLUMNS]
    assert sorted(found.column("stream").to_pylist()) == ["alarm"] * 3 + ["decision"] * 30
    alarm = next(
        row for row in found.select(["stream", "body", "wall_uncertainty_ns"]).to_pylist() if row["stream"] == "alarm"
    )
    assert json.loads(alarm["body"])["c"] == 91
    assert alarm["wall_uncertainty_ns"] is None


def test_a_period(engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    period = Period(DECISIONS[4].wall_ns, DECISIONS[9].wall_ns)
    assert table(engine, Wanted("dev1", "decision", period), tmp_path / "f").column("seq").to_pylist() == [
        5,
        6,
        7,
        8,
        9,
    ]


def test_row_groups_are_bounded_and_every_row_comes_once(
    store: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PAGE_ROWS", 4)
    for name, limit in (("GROUP_ROWS", 10), ("GROUP_BYTES", 2000)):
        with monkeypatch.context() as patched:
            patched.setattr(parquet, name, limit)
            found = table(store, Wanted(), tmp_path / name)
            assert sorted(zip(*(found.column(c).to_pylist() for c in ("stream", "seq")), strict=True)) == sorted(
                [*(("alarm", n) for n in range(1, 4)), *(("decision", n) for n in range(1, 31))]
            )
            meta = pq.read_metadata(tmp_path / name)
            assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [8, 8, 8, 8, 1]


def test_ids_range_after_range(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "IDS_SQLITE", 7)
    monkeypatch.setattr(parquet, "IDS_POSTGRESQL", 7)
    assert list(ids(engine, Wanted())) == []
    fill(engine)
    found = [list(some) for some in ids(engine, Wanted(stream="decision"))]
    assert len(found) >= 4
    together = [i for some in found for i in some]
    assert together == sorted(set(together))
    assert len(together) == 30


def test_nothing_in_the_period_is_a_file_without_rows(store: Engine, tmp_path: Path) -> None:
    found = table(store, Wanted("dev1", "fault"), tmp_path / "f")
    assert (found.num_rows, found.schema.names) == (0, [name for name, *_ in columns(Wanted(stream="fault"))])


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main([*more, "--out", str(tmp_path / "out.parquet"), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert sorted(p.name for p in tmp_path.iterdir() if "out.parquet" in p.name) == ["out.parquet"]
    assert told["size_bytes"] == (tmp_path / "out.parquet").stat().st_size
    assert told["rows"] == pq.read_metadata(tmp_path / "out.parquet").num_rows
    return told


def test_from_the_store_and_from_the_running_cloud(
    store: Engine, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text("")
    start = datetime.fromtimestamp(BASE_NS / 1e9 + 20, UTC).isoformat()
    for source in (["--config", str(config)], ["--cloud", url]):
        assert command(tmp_path, capsys, "--all", *source)["rows"] == 33
        assert command(tmp_path, capsys, "dev1", *source, "--stream", "decision")["rows"] == 30
        assert command(tmp_path, capsys, "dev1", *source, "--stream", "decision", "--from", start)["rows"] == 11
        assert "label" in pq.read_schema(tmp_path / "out.parquet").names


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["nobody", "--cloud", "URL"], 2, "no device 'nobody' ever sent anything"),
        (["nobody", "--config", "CONFIG"], 2, "no device 'nobody' ever sent anything"),
        (["--all", "--cloud", "URL", "--from", "noon"], 2, "'noon' is no time"),
        (["--all", "--cloud", "http://127.0.0.1:1"], 5, "check the address and that `gudgeon cloud` runs"),
        (["--all", "--cloud", "nonsense"], 2, "no address of a cloud"),
        (["--all", "--config", "no.toml"], 3, "no such file"),
        (["--all", "--config", "CONFIG", "--out", "/proc/none/f"], 6, "/proc/none/f"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, told: str
) -> None:
    (tmp_path / "cloud.toml").write_text("")
    given = [{"URL": url, "CONFIG": str(tmp_path / "cloud.toml")}.get(word, word) for word in more]
    given = given if "--out" in given else [*given, "--out", str(tmp_path / "f.parquet")]
    assert run("export", given) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not [p for p in tmp_path.iterdir() if "f.parquet" in p.name]


def test_a_file_that_breaks_off_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cloud ends in the middle of its answer."""
    server = listen("127.0.0.1", 0, "")
    server.setblocking(True)

    def half() -> None:
        client, _ = server.accept()
        client.recv(4096)
        client.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nPAR1\r\n")
        client.close()

    thread = threading.Thread(target=half)
    thread.start()
    (tmp_path / "f.parquet").write_text("what was there before")
    address = f"http://127.0.0.1:{port_of(server)}"
    assert run("export", ["--all", "--cloud", address, "--out", str(tmp_path / "f.parquet")]) == 5
    thread.join()
    server.close()
    assert [p.name for p in tmp_path.iterdir()] == ["f.parquet"]
    assert (tmp_path / "f.parquet").read_text() == "what was there before"


def test_a_full_disk_leaves_nothing(tmp_path: Path, store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Iterator[bytes]:
        yield b"x"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "parquet_bytes", full)
    (tmp_path / "cloud.toml").write_text("")
    with pytest.raises(ResourceError, match="the disk is full"):
        main(["--all", "--config", str(tmp_path / "cloud.toml"), "--out", str(tmp_path / "f.parquet")])
    assert not [p for p in tmp_path.iterdir() if "f.parquet" in p.name]


@pytest.mark.parametrize("more", [["--config", "c"], ["dev1"], ["dev1", "--all", "--config", "c"], []])
def test_the_command_line(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*more, "--out", "f"])
    assert caught.value.code == 2
    assert "expected DEVICE or --all, and one of --cloud URL or --config" in capsys.readouterr().err


def test_no_more_exports_at_once_than_the_memory_is_for(url: str) -> None:
    asked = f"{url}/api/v1/export.parquet"
    server_side = [httpx.get(asked).status_code for _ in range(2 * exports.AT_ONCE)]
    assert set(server_side) == {200}  # each gave its place back
    assert httpx.get(asked, params={"stream": "alarms"}).status_code == 422
    assert httpx.get(asked, params={"device": "nobody"}).status_code == 404


def test_a_third_export_at_once_is_told_to_come_again(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloud.tests.test_api import with_app

    app = make_app(store, CloudSettings())
    for _ in range(exports.AT_ONCE):
        assert app.state.exports.acquire(blocking=False)
    answer = with_app(app, lambda client: client.get("/api/v1/export.parquet"))
    assert (answer.status_code, "exports are under way" in answer.text) == (429, True)
    app.state.exports.release()
    answer = with_app(app, lambda client: client.get("/api/v1/export.parquet"))
    assert (answer.status_code, answer.content[:4], answer.content[-4:]) == (200, b"PAR1", b"PAR1")
    assert app.state.exports.acquire(blocking=False)
