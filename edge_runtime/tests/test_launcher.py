"""The launcher: which runtime it starts, what it writes down before and after, and that it shares its records with the updater.

The runtimes here are stand-ins that behave as they are told; real ones are in `hil_tests`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runtime import launched, launcher
from edge_runtime.launched import Seen
from edge_runtime.launcher import BASE, FAILURES, Launcher
from edge_runtime.tests.launch_place import SET, A, B, C, Place, confirmed, on_trial
from edge_runtime.update import given_up, records, states
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.wire.update_status import UpdateState

HERE = Path(launcher.__file__)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ── the records ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_both_read_and_write_the_same_records(place: Place) -> None:
    folder = records.folder_of(place.state_dir, SET)
    record = SlotRecord(
        UpdateState.TRIAL,
        Job(Release(C, "d" * 64, "runtime/gudgeon/1.tar", 5, 3), "ä", 9, 2, True, 10, "why", 11, {"p99_ms": 1.5}),
        Release(B),
        Release(A),
        {"e" * 64: 4},
    )
    place.write(record)
    place.write(record)
    for left in (1, 0):
        assert launcher.spend(folder) == ""
        assert record.job is not None
        assert place.record == replace(record, job=replace(record.job, tries_left=left))
    assert records.read(place.state_dir, SET).sequence == 4
    assert (launcher.RECORD_BYTES, launcher.FORMAT, launcher.NAMES) == (
        records.RECORD_BYTES,
        records.FORMAT,
        records.NAMES,
    )
    assert launcher.candidates(launcher.read(folder)[1]) == [(C, 0), (B, -1), (A, -1), (BASE, -1)]


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_record_leaves_the_other(torn: int, place: Place) -> None:
    place.write(confirmed(A))
    place.write(confirmed(B, A))
    folder = records.folder_of(place.state_dir, SET)
    newest = launcher.read(folder)[0]
    path = folder / records.NAMES[newest if torn else 1 - newest]
    path.write_bytes(path.read_bytes()[:700].ljust(records.RECORD_BYTES, b"\0"))
    path.write_bytes(b"0" + path.read_bytes()[1:])
    expected = [(A, -1), (BASE, -1)] if torn else [(B, -1), (A, -1), (BASE, -1)]
    assert launcher.candidates(launcher.read(folder)[1]) == expected


STRANGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda r: r.update(format=2),
    "no state": lambda r: r.pop("state"),
    "no job on trial": lambda r: r.update(job=[1], state="trial"),
    "a path for a hash": lambda r: r.update(confirmed={"sha256": "../../bin"}),
    "a number for a hash": lambda r: r.update(confirmed={"sha256": 5}),
    "tries that are none": lambda r: r.update(state="trial", job={"release": {"sha256": A}, "tries_left": "x"}),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_release_that_writes_nonsense_does_not_stop_the_launcher(strange: str, place: Place) -> None:
    place.write(confirmed(A))
    folder = records.folder_of(place.state_dir, SET)
    record = launcher.read(folder)[1]
    STRANGE[strange](record)
    body = json.dumps({**record, "sequence": record["sequence"] + 1}).encode()
    checksum = hashlib.sha256(body).hexdigest().encode()
    (folder / records.NAMES[1]).write_bytes((checksum + b"\n" + body + b"\n").ljust(records.RECORD_BYTES))
    assert launcher.candidates(launcher.read(folder)[1]) == [(A, -1), (BASE, -1)]
    for name in records.NAMES:
        (folder / name).write_bytes(b"\xff" * 100)
    assert launcher.candidates(launcher.read(folder)[1]) == [(BASE, -1)]


def test_what_it_gives_up_is_written_down_by_what_it_starts_instead(place: Place) -> None:
    trial = on_trial(C, 0, B, A)
    place.write(trial)
    given_up.write_down(place.state_dir, "", 5)
    assert place.record == trial
    given_up.write_down(place.state_dir, json.dumps({C: "it hangs", "f" * 64: "unknown"}), 5)
    assert place.record == states.roll_back(trial, "it hangs", None, 5)
    given_up.write_down(place.state_dir, json.dumps({C: "it hangs", B: "it dies", BASE: "it dies"}), 5)
    assert (place.record.confirmed, place.record.previous) == (Release(A), None)
    assert place.record.refused == {C: 7, B: 0}
    place.write(confirmed(B, A))
    given_up.write_down(place.state_dir, json.dumps({B: "it dies"}), 5)
    assert (place.record.state, place.record.confirmed) == (UpdateState.ROLLED_BACK, Release(A))
    assert place.record.refused == {B: 7}
    assert place.record.job is not None
    assert place.record.job.reason == "it dies"
    for name in records.NAMES:
        (records.folder_of(place.state_dir, SET) / name).write_bytes(b"torn")
    given_up.write_down(place.state_dir, json.dumps({A: "it dies"}), 5)  # told in the log, and no more


# ── which one: stand-ins for whole runs ─────────────────────────────────────────────────────────────────────────────────


class Script:
    """In the place of the Keeper: `ends[which]` are the ends of its runs, in turn; after the last one the launcher is stopped
    as soon as that one runs."""

    def __init__(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, **ends: Sequence[Seen | Callable[[], None]]
    ) -> None:
        self.place, self.ready = place, True
        self.started: list[str] = []
        self.tries: list[int] = []
        self._ends = {name: deque(found) for name, found in ends.items()}
        self._now_s = 0.0
        clock = SimpleNamespace(monotonic=lambda: self._now_s, time_ns=time.time_ns)
        monkeypatch.setattr(launcher, "time", clock)
        (place.state_dir / "run").mkdir(parents=True, exist_ok=True)
        self.launcher = Launcher(place.config, place.base, lambda run_dir: self)  # type: ignore[arg-type, return-value]

    def start(self, command: Sequence[str], settings: Mapping[str, str]) -> None:
        sha256 = settings["GUDGEON_RUNTIME"]
        if sha256 != BASE:  # as its supervisor begins
            given_up.write_down(self.place.state_dir, settings[given_up.VARIABLE], 1)
        assert command[0] == str(
            self.place.base if sha256 == BASE else self.place.state_dir / f"runtimes/{sha256}/bin/python"
        )
        self.started.append(sha256[:1] or "base")
        job = self.place.record.job if (self.place.state_dir / "slots").exists() else None
        self.tries.append(job.tries_left if job else -1)

    def look(self, trial: bool) -> Seen:
        left = self._ends.get(self.started[-1])
        if not left:
            self.launcher.stopping = True
            return Seen()
        end = left.popleft()
        if isinstance(end, Seen):
            return end
        end()
        return Seen()

    def end(self) -> None:
        pass

    def hear(self) -> bytes:
        self._now_s += 0.1
        if self._now_s > 1000:  # it would wait for ever
            self.launcher.stopping = True
        return b""


CRASH = Seen("it ended with exit code 1", 1, False)


def test_nothing_installed_starts_the_base(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(place, monkeypatch)
    assert script.launcher.run() == 0
    assert script.started == ["base"]


def test_a_trial_spends_its_tries_on_the_disk_before_each_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 3, A))
    script = Script(place, monkeypatch, b=[CRASH, Seen("it hangs", None), CRASH])
    script.launcher.run()
    assert script.started == ["b", "b", "b", "a"]
    assert script.tries == [2, 1, 0, 0]
    assert place.record.state is UpdateState.ROLLED_BACK
    assert place.record.confirmed == Release(A)
    assert place.record.refused == {B: 7}
    assert place.record.job is not None
    assert place.record.job.reason == CRASH.why


def test_one_that_was_confirmed_before_spends_its_tries_like_any_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 2, A, B))
    script = Script(place, monkeypatch, b=[CRASH, CRASH])
    script.launcher.run()
    assert (script.started, script.tries) == (["b", "b", "a"], [1, 0, 0])


def test_a_trial_that_is_confirmed_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 1, A))
    script = Script(place, monkeypatch, b=[lambda: place.write(states.confirm(place.record)), CRASH])
    script.launcher.run()
    assert script.started == ["b", "b"]
    assert place.record.confirmed == Release(B)


def test_after_a_power_cut_in_the_last_try_the_old_one_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 0, A))
    script = Script(place, monkeypatch)
    script.launcher.run()
    assert script.started == ["a"]
    assert place.record.job is not None
    assert place.record.job.reason == "its tries are used up"


def test_an_update_begins_and_is_taken_back_without_a_word_to_the_launcher(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.environment(A), place.environment(B)
    place.write(confirmed(A))
    begin: Callable[[], None] = lambda: place.write(on_trial(B, 3, A))  # noqa: E731
    back: Callable[[], None] = lambda: place.write(states.roll_back(place.record, "unhealthy"))  # noqa: E731
    script = Script(place, monkeypatch, a=[begin], b=[back])
    script.launcher.run()
    assert script.started == ["a", "b", "a"]
    assert place.record.job is not None
    assert place.record.job.reason == "unhealthy"


def test_one_that_confirms_itself_and_then_dies_counts_as_rolled_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 1, A))
    confirm: Callable[[], None] = lambda: place.write(states.confirm(place.record))  # noqa: E731
    script = Script(place, monkeypatch, b=[confirm, *[CRASH] * (FAILURES + 1)])
    script.launcher.run()
    assert script.started == ["b"] * (FAILURES + 1) + ["a"]
    assert place.record.state is UpdateState.ROLLED_BACK
    assert place.record.confirmed == Release(A)
    assert place.record.refused == {B: 7}


def test_a_damaged_environment_is_never_started(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.environment(B) / "bin/python").write_text("")
    place.environment(A)
    place.write(on_trial(B, 3, A))
    script = Script(place, monkeypatch)
    script.launcher.run()
    assert script.started == ["a"]
    assert place.record.job is not None
    assert place.record.job.reason.startswith("bin/python is damaged")


def test_all_bad_is_safe_mode_and_no_loop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.environment(A), place.environment(B)
    place.write(confirmed(B, A))
    script = Script(place, monkeypatch, a=[CRASH] * 99, b=[CRASH] * 99, base=[CRASH] * 99)
    script.launcher.run()
    assert script.started == ["b"] * FAILURES + ["a"] * FAILURES + ["base"] * FAILURES
    assert place.told["state"].startswith("safe mode")
    assert f"{FAILURES} times in a row: it ended with exit code 1" in place.told["detail"]
    assert set(place.told["given_up"]) == {A, BASE}
    assert place.record.refused == {B: 7}  # which A has written down, and the launcher has forgotten


def test_what_was_given_up_is_tried_again_when_it_is_assigned_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 1, A))
    again: Callable[[], None] = lambda: place.write(on_trial(B, 2, A))  # noqa: E731
    script = Script(place, monkeypatch, b=[CRASH], a=[lambda: None, again])
    script.launcher.run()
    assert script.started == ["b", "a", "b"]


@pytest.mark.parametrize("code", launcher.BLAMELESS)
def test_a_wrong_configuration_or_a_full_disk_blames_no_runtime(
    code: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.environment(A)
    place.write(confirmed(A))
    script = Script(place, monkeypatch, a=[Seen(f"it ended with exit code {code}", code)] * 20)
    script.launcher.run()
    assert script.started == ["a"] * 21
    assert place.record == confirmed(A)


def test_one_that_dies_now_and_then_is_only_started_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.environment(A)
    place.write(confirmed(A))
    script = Script(place, monkeypatch, a=[Seen("it ended with exit code -9", -9, settled=True)] * 20)
    script.launcher.run()
    assert script.started == ["a"] * 21


def test_a_try_that_cannot_be_written_down_is_not_made(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.environment(A), place.environment(B)
    place.write(on_trial(B, 3, A))

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    script = Script(place, monkeypatch)
    script.launcher.run()
    assert script.started == ["a"]
    assert "cannot be written down" in script.launcher.given_up[B]


# ── what it is ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_configuration_that_cannot_be_read_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.config.write_text("[device")
    assert launcher.main(["--config", str(place.config)]) == 3
    assert "expected a configuration file that names its state_dir" in capsys.readouterr().err


def test_it_imports_nothing_of_the_product_but_its_other_half() -> None:
    for path, others in ((HERE, {"edge_runtime.launched"}), (HERE.with_name("launched.py"), set())):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n for n in names if n.partition(".")[0] not in sys.stdlib_module_names} <= others


def test_the_docs_and_the_unit_say_what_there_is() -> None:
    reference = (HERE.parents[1] / "docs/reference/device.md").read_text()
    for name, seconds in launched.Limits()._asdict().items():
        assert f"| `--{name.replace('_', '-')}` | {seconds:g} |" in reference
    unit = (HERE.parent / "deploy/gudgeon.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert settings["ExecStart"].endswith("gudgeon-launch --config /etc/gudgeon/device.toml")
    assert (settings["Type"], settings["KillMode"], settings["Restart"]) == ("notify", "mixed", "always")
    assert float(settings["TimeoutStopSec"]) > 2 * launched.Limits().stop_s
    assert settings["TimeoutStartSec"] == "infinity"
