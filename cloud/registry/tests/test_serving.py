"""Serving the registry: ranges, tags, and nothing but what the registry writes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cloud.registry.serving import router
from cloud.settings import CloudSettings, RegistrySection

SHA = "a" * 64
TARGET = f"/repo/targets/models/surface/{SHA}.1.tar"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    for name, data in (
        ("metadata/timestamp.json", b"{}"),
        ("metadata/1.root.json", b"[]"),
        (f"targets/models/surface/{SHA}.1.tar", bytes(range(100))),
        (f"deltas/{SHA}/{SHA}.json", b"{}"),
        ("metadata/secret.key", b"secret"),
    ):
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "timestamp.key").write_bytes(b"secret")
    (tmp_path / "repo" / "metadata" / "2.root.json").symlink_to(tmp_path / "online" / "timestamp.key")
    (tmp_path / "repo" / "targets" / "models" / "linked").symlink_to(tmp_path / "online")
    (tmp_path / "online" / f"{SHA}.1.tar").write_bytes(b"secret")
    app = FastAPI()
    app.state.settings = replace(CloudSettings(), registry=RegistrySection(tmp_path))
    app.include_router(router)
    return TestClient(app)


def test_whole_files_and_their_tags(client: TestClient) -> None:
    answer = client.get(TARGET)
    assert (answer.status_code, answer.content) == (200, bytes(range(100)))
    assert answer.headers["etag"] == f'"{SHA}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert client.get(TARGET, headers={"if-none-match": f'"{SHA}"'}).status_code == 304
    answer = client.get("/repo/metadata/timestamp.json")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["etag"] == f'"{hashlib.sha256(b"{}").hexdigest()}"'
    again = client.get("/repo/metadata/timestamp.json", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(TARGET).headers["content-length"] == "100"
    hint = client.get(f"/repo/deltas/{SHA}/{SHA}.json")
    assert hint.status_code == 200
    assert SHA not in hint.headers["etag"]  # the hash in its name is another file's


def test_ranges(client: TestClient) -> None:
    part = client.get(TARGET, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    tail = client.get(TARGET, headers={"range": "bytes=90-", "if-range": f'"{SHA}"'})
    assert (tail.status_code, tail.content) == (206, bytes(range(90, 100)))
    changed = client.get(TARGET, headers={"range": "bytes=90-", "if-range": '"another"'})
    assert (changed.status_code, len(changed.content)) == (200, 100)
    assert client.get(TARGET, headers={"range": "bytes=100-"}).status_code == 416
    assert client.get(TARGET, headers={"range": "bytes=0-1,4-5"}).status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "/repo/metadata/secret.key",
        "/repo/metadata/2.root.json",
        "/repo/metadata/3.root.json",
        "/repo/metadata/01.root.json",
        "/repo/metadata/..%2f..%2fonline%2ftimestamp.key",
        "/repo/metadata/%2e%2e/%2e%2e/online/timestamp.key",
        f"/repo/targets/models/linked/{SHA}.1.tar",
        f"/repo/targets/models/../../../online/{SHA}.1.tar",
        f"/repo/targets//models/surface/{SHA}.1.tar",
        "/repo/targets/models/surface",
        "/repo/targets/models/surface/1.tar",
        "/repo/online/timestamp.key",
        f"/repo/targets/models/surface/{SHA}.1.tar%00",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert b"secret" not in answer.content


def test_a_cloud_without_a_registry() -> None:
    app = FastAPI()
    app.state.settings = CloudSettings()
    app.include_router(router)
    assert TestClient(app).get("/repo/metadata/timestamp.json").status_code == 404
