"""The commands of the ceremony, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.cli import main


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(capsys: pytest.CaptureFixture[str], line: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*line.split(), "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if code == 0 else err


def test_the_whole_ceremony(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "secret").write_text("correct horse\n")
    (place / "secret").chmod(0o600)
    for holder in ("ann", "ben", "cem"):
        typed(capsys, f"keys make {holder} --name root --passphrase-file secret")
    typed(capsys, "keys make dee --name targets --no-passphrase")
    assert (place / "dee" / "targets.key").stat().st_mode & 0o777 == 0o600
    assert (place / "dee").stat().st_mode & 0o777 == 0o700
    assert [k["encrypted"] for k in typed(capsys, "keys list ann dee")] == [True, False]
    public = typed(capsys, "keys public ann/root.key --out ann.pub")
    assert (place / "ann.pub").read_text().strip() == public["public"]

    twice = "--root ann/root.pub --root ben/root.pub --root ann.pub --targets dee/targets.pub"
    assert "three different people" in typed(capsys, f"repo init r {twice}", 2)
    roots = "--root ann/root.pub --root ben/root.pub --root cem/root.pub"
    assert "root" in typed(capsys, f"repo init r {roots} --targets dee/targets.pub")["staged"]
    assert "root version 1 has 0 of 2 signatures" in typed(capsys, "repo publish r", 2)
    assert "nothing is published yet" in typed(capsys, "repo verify r", 2)
    assert "the public half" in typed(capsys, "sign r --key ann.pub", 2)
    with pytest.raises(SystemExit, match="2"):
        main(["sign", "r"])
    assert "expected --key KEY" in capsys.readouterr().err
    told = typed(capsys, "sign r/staged/root.json --key ann/root.key --passphrase-file secret")
    assert told["root"]["signatures"]["staged root"] == {"signed": 1, "threshold": 2, "missing": 1}
    assert any(change.startswith("+ keys of timestamp: 1 of ") for change in told["root"]["changes"])
    typed(capsys, "sign r --key cem/root.key --passphrase-file secret")
    assert set(typed(capsys, "sign r --key dee/targets.key")) == {"targets", "models", "runtime", "config", "os"}
    assert set(typed(capsys, "repo publish r")["published"].values()) == {1}

    (place / "a.tar").write_bytes(b"artifact")
    assert "no archive that a device takes" in typed(capsys, "repo add r a.tar models/surface/1.tar", 8)
    (place / "a.tar").write_bytes(bytes(1024))
    added = typed(capsys, "repo add r a.tar models/surface/1.tar --hardware x86_64 --floor 1")
    assert (added["index"], added["hardware"]) == (1, ["x86_64"])
    told = typed(capsys, "sign r/staged/models.json --key dee/targets.key")
    assert told["models"]["changes"][0].startswith("+ target models/surface/1.tar: 1024 bytes, SHA-256 ")
    assert typed(capsys, "repo publish r")["published"]["models"] == 2
    assert typed(capsys, "repo verify r") == {"roots": 1, "targets": 1, "valid": True}
    assert "not in the published targets" in typed(capsys, "repo deltas r models/surface/9.tar", 2)
    assert typed(capsys, "repo renew r") == {"renewed": []}
    assert typed(capsys, "repo renew r --force") == {"renewed": ["snapshot", "timestamp"]}
    status = typed(capsys, "repo status r")
    assert status["roles"]["timestamp"]["version"] == 3
    assert status["targets"]["models/surface/1.tar"]["published"]
    assert len(status["assignment_keys"]) == 1

    typed(capsys, "repo rotate r assignment")
    typed(capsys, "repo stage r os")
    typed(capsys, "repo remove r models/surface/1.tar")
    typed(capsys, "sign r --key dee/targets.key")
    typed(capsys, "repo publish r")
    keys = typed(capsys, "repo status r")["assignment_keys"]
    assert len(keys) == 2
    typed(capsys, f"repo rotate r assignment --remove {keys[0]}")
    assert typed(capsys, "repo status r")["staged"]["targets"]["signatures"]["published root"]["missing"] == 1
    assert main(["repo", "status", "r"]) == 0
    assert "signatures missing: 1 (published root: 1 needed)" in capsys.readouterr().out


def test_one_command_for_a_laptop(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "repo init r --make-keys keys")
    assert typed(capsys, "repo verify r")["valid"]
    assert sorted(p.name for p in (place / "keys").iterdir()) == ["root-1", "root-2", "root-3", "targets"]
    assert main(["repo", "status", "r"]) == 0
    out = capsys.readouterr().out
    assert "timestamp  version 1" in out
    assert "WARNING" not in out


@pytest.mark.parametrize(
    ("line", "told", "code"),
    [
        ("keys make x --name ../y --no-passphrase", "expected 1 to 63 characters", 2),
        ("keys make x --name y", "--passphrase-file F or --no-passphrase", 2),
        ("repo init r", "a registry needs public keys", 2),
        ("repo status nowhere", "not a registry", 2),
        ("repo init r --delegate other=x --root x --targets x", "expected ROLE=PUB", 2),
        ("sign nowhere.json --key x", "expected <registry>/staged/<role>.json", 2),
        ("keys list nowhere", "not a folder of keys", 2),
        ("keys public nowhere", "No such file", 6),
    ],
)
def test_wrong_use(line: str, told: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = typed(capsys, line, code)
    assert told in str(found)


def test_keys_that_cannot_be_used(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "repo init r --make-keys keys")
    typed(capsys, "repo stage r os")
    (place / "short").write_text("short\n")
    (place / "wrong").write_text("another one\n")
    (place / "right").write_text("correct horse\n")
    for name in ("short", "wrong", "right"):
        (place / name).chmod(0o600)
    assert "expected 8 or more" in typed(capsys, "keys make x --name y --passphrase-file short", 2)
    typed(capsys, "keys make x --name y --passphrase-file right")
    assert "no key is overwritten" in typed(capsys, "keys make x --name y --passphrase-file right", 2)
    assert "is not that of this key" in typed(capsys, "sign r --key x/y.key --passphrase-file wrong", 2)
    assert "is encrypted" in typed(capsys, "sign r --key x/y.key", 2)
    assert "nothing is staged that key" in typed(capsys, "sign r --key x/y.key --passphrase-file right", 2)
    (place / "x" / "y.key").chmod(0o644)
    assert "chmod 600" in typed(capsys, "sign r --key x/y.key --passphrase-file right", 6)
