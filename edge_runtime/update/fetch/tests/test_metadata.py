"""Metadata come by the fetcher, bounded in time, and a file that is not there is told as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import EndpointError
from edge_runtime.update.fetch.fetcher import Fetcher, FetchError
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.fetch.http import HttpFetcher
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.metadata import FetchedMetadata
from edge_runtime.update.fetch.tests.server import Answer, Server, proper
from edge_runtime.update.tuf.source import MissingError

FILES = {"metadata/timestamp.json": b"{}" * 50_000}


def whole(fetcher: Fetcher, name: str) -> bytes:
    return b"".join(FetchedMetadata(lambda: fetcher, FakeClock()).chunks(name))


def test_by_every_road(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "timestamp.json").write_bytes(FILES["metadata/timestamp.json"])
    with Server(lambda asked: proper(FILES, asked)) as server:
        for fetcher in (MemoryFetcher(FILES), FolderFetcher(tmp_path), HttpFetcher(server.url)):
            assert whole(fetcher, "timestamp.json") == FILES["metadata/timestamp.json"]
            with pytest.raises(MissingError):
                whole(fetcher, "2.root.json")
            with pytest.raises(FetchError, match="not a path"):
                whole(fetcher, "../secret")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_means_that_there_is_none(status: int) -> None:
    with Server(lambda asked: Answer(status)) as server, pytest.raises(MissingError):
        whole(HttpFetcher(server.url), "2.root.json")


def test_what_does_not() -> None:
    with Server(lambda asked: Answer(500)) as server, pytest.raises(EndpointError, match="HTTP 500"):
        whole(HttpFetcher(server.url), "2.root.json")
    with (
        Server(lambda asked: Answer(200, body=b"{}" * 100, cut=100)) as server,
        pytest.raises(FetchError, match="ended after 100 of 200"),
    ):
        whole(HttpFetcher(server.url), "2.root.json")
