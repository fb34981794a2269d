"""A user that the system has no name for is a number, never a traceback."""

from __future__ import annotations

import getpass
import os

import pytest

from edge_runtime.who import user_name


def test_the_name_or_else_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert user_name() == "ada"

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert user_name() == str(os.getuid())
