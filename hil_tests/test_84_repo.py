"""The cloud's own routes and the device's own fetcher: a release whole, in parts and by delta; its metadata."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from cloud.registry import artifacts, deltas
from cloud.registry.folder import Registry
from cloud.registry.making import make_registry, release
from cloud.registry.publishing import utc_now
from cloud.registry.serving import router
from cloud.settings import CloudSettings, RegistrySection
from edge_runtime.clock import FakeClock, SystemClock
from edge_runtime.delta import making
from edge_runtime.delta.tests.artifacts import files, folder
from edge_runtime.update.fetch.artifact import fetch
from edge_runtime.update.fetch.fetcher import FetchError
from edge_runtime.update.fetch.http import HttpFetcher
from edge_runtime.update.fetch.metadata import FetchedMetadata
from edge_runtime.update.fetch.pace import Limits, Pace
from edge_runtime.update.fetch.partial import CHUNK_BYTES, Partial, Wanted
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.wire.target import Target

LIMITS = Limits(leave_free_bytes=0)


class Served:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.registry: Registry = make_registry(place / "r", place / "keys", utc_now())
        weights = random.Random(1).randbytes(3 * CHUNK_BYTES)
        self.bundles: dict[str, Path] = {}
        self.targets: dict[str, Target] = {}
        for version in ("1", "2"):
            content = files(moved=1e-3 * (version == "2"), version=version) | {"big.bin": weights + version.encode()}
            self.bundles[version] = folder(place / version, content)
            path = f"models/surface/{version}.tar"
            self.targets[version] = artifacts.add(self.registry, self.bundles[version], path, utc_now())
        release(self.registry, place / "keys", utc_now())
        app = FastAPI()
        app.state.settings = replace(CloudSettings(), registry=RegistrySection(self.registry.folder))
        app.include_router(router)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/repo"
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)

    @property
    def wanted(self) -> Wanted:
        target = self.targets["2"]
        return Wanted(f"targets/{target.file}", target.length, target.sha256)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"))
    yield made
    made.stop()


def right(path: Path, served: Served) -> bool:
    return path.read_bytes() == (served.registry.targets / served.targets["2"].file).read_bytes()


def test_whole_and_in_parts(served: Served, tmp_path: Path) -> None:
    data = (served.registry.targets / served.targets["2"].file).read_bytes()
    partial = Partial(tmp_path, served.wanted)
    partial.put(1, data[CHUNK_BYTES : 2 * CHUNK_BYTES])
    partial.close()
    found = fetch(HttpFetcher(served.url), served.wanted, tmp_path, FakeClock(), {}, LIMITS)
    assert (found.way, found.refused) == ("whole", ())
    assert right(found.path, served)


def test_by_delta(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "LEVEL", 3)
    assert any(made.source and made.chosen for made in deltas.build(served.registry))
    sources = {served.targets["1"].sha256: served.bundles["1"]}
    found = fetch(HttpFetcher(served.url), served.wanted, tmp_path, FakeClock(), sources, LIMITS)
    assert found.way in ("patch", "tensor")
    assert right(found.path, served)


def test_a_file_of_another_state_is_not_continued(served: Served) -> None:
    fetcher, path = HttpFetcher(served.url), served.wanted.path
    first = fetcher.open(path, Pace(SystemClock()), 10, 20)
    assert (first.start, first.total, first.version) == (10, served.wanted.length, f'"{served.wanted.sha256}"')
    again = fetcher.open(path, Pace(SystemClock()), 10, 20, '"another"')
    assert again.start == 0
    with pytest.raises(FetchError, match="416"):
        fetcher.open(path, Pace(SystemClock()), 1 << 40)
    first.close()
    again.close()


def test_metadata(served: Served, tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "root.json").write_bytes(served.registry.root(1).data)
    source = FetchedMetadata(lambda: HttpFetcher(served.url), SystemClock())
    targets = TrustedRepository.of(tmp_path, source, SystemClock()).refresh()
    assert targets.target("models/surface/2.tar") == served.targets["2"]
