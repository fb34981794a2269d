"""The three commands against a real HTTP server, and what becomes of one that misbehaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock, SystemClock
from edge_runtime.errors import EndpointError
from edge_runtime.update.tuf.client import main
from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.update.tuf.source import FolderSource, HttpSource, MissingError
from edge_runtime.update.tuf.tests.served import Answer, served

PATH = "models/surface/1.tar"


class Client:
    def __init__(self, folder: Path) -> None:
        self.metadata, self.targets, self.root = folder / "metadata", folder / "targets", folder / "root.json"
        self.targets.mkdir()
        self.repository = MemoryRepository(SystemClock())
        self.root.write_bytes(self.repository.root_bytes)

    def run(self, command: str, url: str = "http://127.0.0.1:9", target: str = PATH) -> int:
        where = ["--metadata-dir", str(self.metadata)]
        if command == "init":
            return main([*where, "init", str(self.root)])
        more = ["--target-name", target, "--target-dir", str(self.targets), "--target-base-url", f"{url}/targets"]
        return main([*where, "--metadata-url", f"{url}/metadata", *(more if command == "download" else []), command])

    def version(self, role: str) -> int:
        return int(json.loads((self.metadata / f"{role}.json").read_bytes())["signed"]["version"])

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.iterdir())]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def test_init_refresh_download(client: Client) -> None:
    client.repository.add(PATH, b"weights")
    client.repository.publish()
    assert client.run("init") == 0
    assert client.version("root") == 1
    with served(client.repository) as url:
        assert client.run("refresh", url) == 0
        assert {role: client.version(role) for role in ("root", "timestamp", "snapshot", "targets")} == {
            "root": 1, "timestamp": 2, "snapshot": 2, "targets": 2
        }  # fmt: skip
        assert client.run("download", url) == 0
        assert client.downloaded() == [b"weights"]
        client.repository.artifacts[PATH] = b"changed"
        assert client.run("download", url) == 0, "what is there and fits is not fetched again"
        client.repository.rotate("timestamp")
        client.repository.new_root()
        client.repository.publish()
        assert client.run("refresh", url) == 0
        assert client.version("root") == 2


def test_what_is_refused_is_one_line_and_1(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.repository.add(PATH, b"weights")
    client.repository.publish()
    assert client.run("init") == 0
    assert client.run("init") == 1
    assert "trust has begun here already" in capsys.readouterr().err
    with served(client.repository) as url:
        assert client.run("download", url, "models/other/1.tar") == 1
        assert "not in the repository's signed targets" in capsys.readouterr().err
        for swapped in (b"weightz", b"weights and more"):
            client.repository.artifacts[PATH] = swapped
            assert client.run("download", url) == 1
            assert client.downloaded() == []
    assert client.run("refresh") == 1
    assert "check the address and the network" in capsys.readouterr().err.splitlines()[-1]


def test_the_anchor_is_the_anchor(client: Client) -> None:
    """A `root.json` that somebody put into the metadata folder starts nothing."""
    assert client.run("init") == 0
    other = MemoryRepository(FakeClock())
    other.rotate("root")
    other.new_root()
    (client.metadata / "root.json").write_bytes(other.root_bytes)
    with served(client.repository) as url:
        assert client.run("refresh", url) == 0
    assert client.version("root") == 1


@pytest.mark.parametrize(
    ("path", "state", "told"),
    [
        ("/metadata/timestamp.json", 500, "answered 500"),
        ("/metadata/timestamp.json", 429, "answered 429"),
        ("/metadata/timestamp.json", 302, "answered 302"),
        ("/metadata/timestamp.json", 404, "timestamp.json is not in the repository"),
        ("/metadata/2.root.json", 503, "answered 503"),
    ],
)
def test_a_server_that_misbehaves(
    client: Client, path: str, state: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client.run("init")
    answer: Answer = lambda asked: (state, b"<html>") if asked == path else None  # noqa: E731
    with served(client.repository, answer) as url:
        assert client.run("refresh", url) == 1
    assert told in capsys.readouterr().err


def test_a_captive_portal_is_no_repository(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.run("init")
    with served(client.repository, lambda asked: (200, b"<html>sign in here</html>")) as url:
        assert client.run("refresh", url) == 1
    assert "refused" in capsys.readouterr().err


def test_a_slow_server_is_given_up(client: Client) -> None:
    now = [0.0]

    def monotonic() -> float:
        now[0] += 70
        return now[0]

    with served(client.repository) as url, pytest.raises(EndpointError, match="not there after 60 s"):
        list(HttpSource(f"{url}/metadata", monotonic_s=monotonic).chunks("timestamp.json"))


def test_addresses_that_are_none() -> None:
    with pytest.raises(EndpointError, match="expected the address of a repository"):
        HttpSource("file:///etc")


def test_a_folder_is_a_source(client: Client, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "timestamp.json").write_bytes(b"x" * 200_000)
    source = FolderSource(tmp_path / "stick")
    assert sum(map(len, source.chunks("timestamp.json"))) == 200_000
    for name in ("1.root.json", "../root.json", "a/b"):
        with pytest.raises(MissingError):
            list(source.chunks(name))
    (tmp_path / "stick" / "folder").mkdir()
    with pytest.raises(EndpointError, match="is the medium still there"):
        list(source.chunks("folder"))


@pytest.mark.parametrize(
    "line", [[], ["refresh"], ["--metadata-dir", "x", "refresh"], ["--metadata-dir", "x", "download"]]
)
def test_wrong_use(line: list[str]) -> None:
    assert main(line) == 1


def test_a_root_that_is_too_large(client: Client) -> None:
    client.root.write_bytes(bytes(600_000))
    assert client.run("init") == 1


def test_nothing_is_downloaded_before_metadata_are_whole(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.repository.add(PATH, b"weights")
    client.repository.publish()
    del client.repository.files["2.models.json"]
    client.run("init")
    with served(client.repository) as url:
        assert client.run("download", url) == 1
    assert "2.models.json is not in the repository" in capsys.readouterr().err


def test_a_repository_of_the_past_at_its_own_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `faketime` has it; a device would take the day of its release for the least time that it can be."""
    then = FakeClock(wall_ns=1_739_100_000 * 10**9)  # 2025
    client.repository = MemoryRepository(then)
    client.root.write_bytes(client.repository.root_bytes)
    assert client.run("init") == 0
    with served(client.repository) as url:
        assert client.run("refresh", url) == 1
        monkeypatch.setattr("edge_runtime.update.tuf.client.SystemClock", lambda: then)
        assert client.run("refresh", url) == 0
    assert client.version("targets") == 1


def test_help_is_no_failure() -> None:
    assert main(["--metadata-dir", "d", "--help"]) == 0


def test_a_delegated_role_that_has_expired_gives_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as it was kept here, nor fetched again; its next version does."""
    repository, clock = client.repository, FakeClock(wall_ns=SystemClock().wall_ns())
    monkeypatch.setattr("edge_runtime.update.tuf.client.SystemClock", lambda: clock)
    for role in ("timestamp", "snapshot", "targets"):
        repository.roles[role].expires = repository.in_days(30)
    repository.roles["models"].expires = repository.in_days(7)
    for n in (1, 2):
        repository.add(f"models/line/{n}.tar", f"weights {n}".encode(), index=n)
    repository.publish("models")
    assert client.run("init") == 0
    with served(repository) as url:
        assert client.run("download", url, "models/line/1.tar") == 0
        clock.advance(18 * 86400.0)
        assert client.run("download", url, "models/line/2.tar") == 1
        assert client.downloaded() == [b"weights 1"]
        repository.roles["models"].expires = repository.in_days(21)
        repository.publish("models")
        assert client.run("download", url, "models/line/2.tar") == 0
