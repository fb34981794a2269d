"""Every line of the log is one JSON object, whatever happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime import log


@pytest.fixture(autouse=True)
def _quiet_after() -> Iterator[None]:
    yield
    logger = logging.getLogger("gudgeon")
    for handler in logger.handlers:
        handler.close()
    logger.handlers = []
    logger.propagate = True


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_has_time_level_process_message_and_fields(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log.setup("control", tmp_path / "logs")
    log.say(logging.WARNING, "late", latency_us=21_000, path=Path("/x"))
    (line,) = lines(capsys.readouterr().err)
    assert line.pop("ts")
    assert line == {"level": "warning", "process": "control", "msg": "late", "latency_us": 21000, "path": "/x"}
    assert lines((tmp_path / "logs" / "control.log").read_text())[0]["msg"] == "late"


def test_an_exception_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logger = log.setup("link")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("broke")
    (line,) = lines(capsys.readouterr().err)
    assert "two\nlines" in str(line["error"])


def test_a_folder_that_cannot_be_made_is_told_and_no_reason_to_stop(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    log.setup("link", tmp_path / "file" / "logs")
    log.say(logging.INFO, "goes on")
    first, second = lines(capsys.readouterr().err)
    assert "no log file" in str(first["msg"])
    assert second["msg"] == "goes on"


def test_setup_twice_writes_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log.setup("link", tmp_path)
    log.setup("link", tmp_path)
    log.say(logging.INFO, "once")
    assert len(lines(capsys.readouterr().err)) == 1
    assert len(lines((tmp_path / "link.log").read_text())) == 1
