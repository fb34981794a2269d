"""`gudgeon operators`, on the store of a configuration."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cloud.access.cli import main
from cloud.audit.cli import main as audit
from edge_runtime.errors import UsageError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text("")
    return path


def test_the_life_of_an_operator(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    where = ["--config", str(config), "--json"]

    def told(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, *where]) == 0
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert told("add", "ada", "--role", "releaser", "--password-stdin")["password"] is True
    assert told("add", "robot", "--role", "operator", "--no-password")["password"] is False
    made = told(
        "token", "create", "robot", "--role", "viewer", "--days", "7", "--scope", "metrics", "--label", "scrape"
    )
    assert made["token"].startswith(f"gud_{made['id']}_")
    (kept,) = told("token", "list", "robot")
    assert (kept["id"], kept["role"], kept["scopes"], kept["label"]) == (made["id"], "viewer", "metrics", "scrape")
    assert "hash" not in kept
    assert told("token", "revoke", made["id"]) == {"id": made["id"], "revoked": True}
    assert told("change", "ada", "--role", "admin")["role"] == "admin"
    assert told("disable", "ada")["disabled"] is True
    assert told("enable", "ada")["disabled"] is False
    assert [row["name"] for row in told("list")] == ["ada", "robot"]
    assert main(["list", "--config", str(config)]) == 0
    assert "name ada  role admin  password" in capsys.readouterr().out
    assert audit(["list", "--config", str(config), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["action"] for row in reversed(rows)] == [
        "operator.add", "operator.add", "token.create", "token.revoke", *["operator.change"] * 3,
    ]  # fmt: skip
    assert {row["via"] for row in rows} == {"cli"}
    assert made["token"] not in str(rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "a b", "--role", "viewer", "--no-password"], "1 to 64 characters"),
        (["change", "nobody", "--role", "viewer"], "no operator 'nobody'"),
        (["change", "nobody"], "nothing to change"),
        (["change", "nobody", "--password"], "no terminal to ask for a password at; say --password-stdin"),
        (["token", "create", "nobody"], "no operator 'nobody' who may"),
        (["token", "revoke", "0"], "no token '0'"),
        (["token", "create", "nobody", "--days", "999"], "1 to 366 days"),
        (["token", "create", "nobody", "--scope", "A B"], "first word of an API path"),
    ],
)
def test_wrong_use_is_told(config: Path, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UsageError, match=says):
        main([*words, "--config", str(config)])


def test_a_name_is_never_used_again(config: Path) -> None:
    words = ["add", "ada", "--role", "viewer", "--no-password", "--config", str(config)]
    main(words)
    with pytest.raises(UsageError, match="never used again"):
        main(words)
