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
    logger.filters = []
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


HOURS = 3


class Ticks:
    """A clock that is moved by hand, under the filter of the log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(log.Repeats.__init__, "__defaults__", (lambda: self.now_s,))


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    return Ticks(monkeypatch)


def test_a_broker_that_flaps_for_hours_fills_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, ticks: Ticks
) -> None:
    log.setup("link", tmp_path)
    for _ in range(HOURS * 60 * 6):  # every ten seconds, twice
        log.say(logging.INFO, "connected", broker="127.0.0.1:1883", protocol="5")
        for n in range(3):
            log.say(logging.WARNING, "no connection to the broker; trying again", reason=f"reason {n}")
        ticks.now_s += 10.0
    written = lines(capsys.readouterr().err)
    told = [line for line in written if line["msg"] == "the same line was left out"]
    assert len(written) < HOURS * 60 * (2 * log.SAME_LIMIT + 2)
    assert {line["line"] for line in told} == {"no connection to the broker; trying again"}
    assert {line["times"] for line in told} == {3 * 6 - log.SAME_LIMIT}
    assert {line["level"] for line in told} == {"warning"}


def test_each_line_is_counted_by_itself_and_again_after_a_minute(
    capsys: pytest.CaptureFixture[str], ticks: Ticks
) -> None:
    log.setup("link")
    for _ in range(log.SAME_LIMIT + 3):
        log.say(logging.WARNING, "a")
    log.say(logging.WARNING, "b")
    log.say(logging.ERROR, "a")
    ticks.now_s += log.SAME_WINDOW_S
    log.say(logging.INFO, "c")
    log.say(logging.WARNING, "a")
    found = [(line["level"], line["msg"], line.get("times")) for line in lines(capsys.readouterr().err)]
    same = log.SAME_LIMIT * [("warning", "a", None)]
    end = [("warning", "the same line was left out", 3), ("info", "c", None), ("warning", "a", None)]
    assert found == [*same, ("warning", "b", None), ("error", "a", None), *end]


def test_the_files_stay_within_their_bounds(tmp_path: Path, ticks: Ticks) -> None:
    log.setup("link", tmp_path)
    bound = log.FILE_LIMIT_BYTES * (1 + log.OLDER_KEPT)
    wrote = 0
    for n in range(12_000):
        log.say(logging.INFO, f"line {n}", text="x" * 300)
        wrote += 300
        if n % 500 == 0:
            assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= bound
    assert wrote > bound
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.log", "link.log.1", "link.log.2"]
    assert lines((tmp_path / "link.log").read_text())[-1]["msg"] == "line 11999"


def test_as_many_different_lines_as_wanted_take_no_memory(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    repeats = log.Repeats(lambda level, message, times: told.append(message))
    record = logging.makeLogRecord({"levelno": logging.INFO, "msg": "often"})
    passed = sum(repeats.filter(record) for _ in range(50))
    assert (passed, told) == (log.SAME_LIMIT, [])
    for n in range(5 * log.SAME_KEPT):
        assert repeats.filter(logging.makeLogRecord({"levelno": logging.INFO, "msg": f"line {n}"}))
        assert len(repeats._windows) <= log.SAME_KEPT
    assert told == ["often"]


@pytest.mark.parametrize("fields", [{"x": "y" * 100_000}, {"x": "\u2028" * 50_000}, {}])
def test_a_line_that_is_too_long_is_cut_and_says_so(capsys: pytest.CaptureFixture[str], fields: dict[str, str]) -> None:
    log.setup("link")
    log.say(logging.ERROR, "\u00e9" * (10 if fields else 100_000), **fields)
    text = capsys.readouterr().err
    assert len(text) <= log.LINE_LIMIT_BYTES
    (line,) = lines(text)
    assert int(str(line["bytes"])) > 100_000
    assert str(line["msg"]).startswith("\u00e9\u00e9")
