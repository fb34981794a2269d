"""Runtime releases on a device that answers parts: bad ones give way, older and later ones share the queue, nothing kills it.

`tools.crash runtime` has the power cuts; here are real processes and real environments."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import launcher
from edge_runtime.errors import GudgeonError
from edge_runtime.outbox.tests.test_expansion import LATER
from edge_runtime.update import environment
from edge_runtime.wire import archive
from edge_runtime.wire.update_status import UpdateState
from hil_tests.bench import wait_for
from hil_tests.line import Line, line_with_device
from hil_tests.runtimes import (
    Change,
    Launched,
    confirm,
    first,
    install,
    instead,
    launched,
    record,
    told,
    try_out,
    wait_until_runs,
)
from tools.release import main as pack

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]
QUICK = ("--ready-s", "20", "--silent-s", "6", "--stop-s", "3", "--trial-s")


class Device:
    def __init__(self, line: Line, launched: Launched) -> None:
        self.line, self.launched, self.state_dir = line, launched, line.folder / "state"

    def answered(self) -> int:
        return int(self.line.stats()["answered"])

    def wait_for_answers(self, count: int = 3) -> None:
        """So many parts more are answered."""
        goal = self.answered() + count
        wait_for(f"{count} parts answered", lambda: self.answered() >= goal, 60)

    def pid(self) -> int:
        """Of the supervisor."""
        return int(Path(f"/proc/{self.line.pid('control')}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def device(folder: Path, *args: str, parts: int = 100_000, parts_per_s: float = 10.0) -> Iterator[Device]:
    held: list[Launched] = []

    @contextmanager
    def started(config: Path) -> Iterator[None]:
        with launched(config, *args) as one:
            held.append(one)
            yield

    with line_with_device(folder, parts, parts_per_s, started_by=started) as line:
        yield Device(line, held[0])


ALIVE = "            self._tell_alive(time.monotonic())\n"
BAD: dict[str, tuple[Change, str]] = {
    "crashes at import": ({"supervisor.py": first("raise ImportError('a broken release')")}, "exit code"),
    "exits at once": (
        {"cli.py": instead("    args = sys.argv[1:]", "    return 1\n    args = sys.argv[1:]")},
        "exit code 1",
    ),
    "never ready": (
        {
            "supervisor.py": instead(
                "    code = install_configured", "    time.sleep(999)\n    code = install_configured"
            )
        },
        "not ready",
    ),
    "hangs": ({"supervisor.py": instead(ALIVE, f"{ALIVE}            time.sleep(999)\n")}, "nothing was heard"),
    "its loop never runs": ({"control_process.py": first("raise SystemExit(1)")}, "not confirmed"),
}


REPORT = "def report_models(recorder: Recorder, models: Models) -> None:\n"


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_runtime_gives_way_and_parts_are_answered_again(bad: str, tmp_path: Path) -> None:
    change, expected = BAD[bad]
    state_dir = tmp_path / "state"
    trial_s = "8" if bad == "its loop never runs" else "60"
    good, wrong = install(tmp_path, state_dir, "1"), install(tmp_path, state_dir, "2", change)
    confirm(state_dir, good)
    with device(tmp_path, *QUICK, trial_s, *(("--ready-s", "8") if bad == "never ready" else ())) as one:
        wait_until_runs(state_dir, good)
        one.wait_for_answers()
        began = time.monotonic()
        try_out(state_dir, wrong, tries=1)
        wait_for("the trial to end", lambda: record(state_dir).state is UpdateState.ROLLED_BACK, 60)
        wait_until_runs(state_dir, good)
        one.wait_for_answers(1)
        print(f"\n{bad}: the old runtime answers {time.monotonic() - began:.1f} s after the bad one was put on trial")
        one.wait_for_answers()
    after = record(state_dir)
    assert after.job is not None
    assert expected in after.job.reason
    assert after.confirmed is not None
    assert after.confirmed.sha256 == good
    assert after.refused == {wrong: 1}


def test_a_runtime_that_confirms_itself_and_then_dies_is_rolled_back(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    text = """
    from edge_runtime.update import records, states
    held = records.read(state_dir, "runtime").record
    if held.job and held.job.tries_left < 2 and held.state.value == "trial":
        records.write(state_dir, "runtime", states.confirm(held))
    raise SystemExit(1)
"""
    liar: Change = {"supervisor.py": instead("    log.setup(", text + "    log.setup(")}
    good, wrong = install(tmp_path, state_dir, "1"), install(tmp_path, state_dir, "2", liar)
    confirm(state_dir, good)
    with device(tmp_path, *QUICK, "60") as one:
        wait_until_runs(state_dir, good)
        try_out(state_dir, wrong)
        wait_for("its end", lambda: wrong in record(state_dir).refused, 60)
        wait_until_runs(state_dir, good)
        one.wait_for_answers()
    after = record(state_dir)
    assert after.state is UpdateState.ROLLED_BACK
    assert after.confirmed is not None
    assert after.confirmed.sha256 == good


def test_all_bad_is_safe_mode(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    broken: Change = {"cli.py": first("raise ImportError('broken')")}
    bad = [install(tmp_path, state_dir, version, broken) for version in ("1", "2")]
    confirm(state_dir, bad[1], bad[0])
    with device(tmp_path, "--base", str(tmp_path / "none")) as one:
        wait_for("safe mode", lambda: told(state_dir).get("state", "").startswith("safe mode"), 90)
        assert set(told(state_dir)["given_up"]) == {*bad, ""}
        assert one.answered() == 0
        assert one.launched.process.poll() is None
        children = Path(f"/proc/{one.launched.process.pid}/task/{one.launched.process.pid}/children")
        assert not children.exists() or children.read_text() == ""


def test_older_and_later_runtimes_take_turns_on_one_queue(tmp_path: Path) -> None:
    """The later one has more tables, columns, a stream and kinds of records that this one does not know."""
    later: Change = {
        "outbox/schema.py": instead("EXPANSIONS: tuple[str, ...] = ()", f"EXPANSIONS: tuple[str, ...] = {LATER!r}"),
        "control_process.py": instead(
            REPORT, f"{REPORT}    recorder.record(('health', 'of_the_future', {{'a': [1, 2]}}))\n"
        ),
        "update/records.py": instead(
            '        "format": FORMAT,\n', '        "format": FORMAT,\n        "later": {"x": 1},\n'
        ),
    }
    state_dir = tmp_path / "state"
    old, new = install(tmp_path, state_dir, "1"), install(tmp_path, state_dir, "2", later)
    confirm(state_dir, old)
    with device(tmp_path) as one:
        for sha256 in (old, new, old, new, old):
            confirm(state_dir, sha256)
            wait_until_runs(state_dir, sha256)
            one.wait_for_answers()
        wait_for("every Event stored", lambda: len(one.line.events("decision")) >= one.answered() > 10)
    decisions = one.line.events("decision")
    assert [d["seq"] for d in decisions] == list(range(1, len(decisions) + 1))
    places = [(d["body"]["part_epoch"], d["body"]["part_seq"]) for d in decisions]
    assert len(set(places)) == len(places)
    kinds = [h["kind"] for h in one.line.events("health")]
    assert kinds.count("of_the_future") == 2
    assert not list(state_dir.glob("outbox.db.*damaged*"))
    wrong = [f for f in one.line.events("fault") if f["kind"].startswith("outbox")]
    assert wrong == []


def test_nothing_is_lost_when_launcher_and_supervisor_are_killed(tmp_path: Path) -> None:
    """kill -9 at random moments, an update on its way: the device answers again, with the one or the other."""
    state_dir, dice = tmp_path / "state", random.Random(5)
    old, new = install(tmp_path, state_dir, "1"), install(tmp_path, state_dir, "2")
    confirm(state_dir, old)
    with device(tmp_path, *QUICK, "600") as one:
        wait_until_runs(state_dir, old)
        try_out(state_dir, new, tries=3)
        for _ in range(12):
            wait_until(time.monotonic() + dice.uniform(0.0, 2.0))
            kill(one, dice.choice(("launcher", "supervisor")))
        wait_for("a runtime", lambda: told(state_dir).get("state") == "runs", 60)
        one.wait_for_answers()
        assert told(state_dir)["runtime"] in (old, new)
        assert launcher.problem(state_dir / "runtimes" / told(state_dir)["runtime"]) == ""
    decisions = one.line.events("decision")
    assert [d["seq"] for d in decisions] == list(range(1, len(decisions) + 1))
    places = [(d["body"]["part_epoch"], d["body"]["part_seq"]) for d in decisions]
    assert len(set(places)) == len(places)


def wait_until(moment_s: float) -> None:
    wait_for("a random moment", lambda: time.monotonic() > moment_s)


def kill(one: Device, which: str) -> None:
    if which == "launcher":
        one.launched.process.kill()
        one.launched.process.wait()
        one.launched.start()
        return
    try:
        os.kill(one.pid(), signal.SIGKILL)
    except (OSError, ValueError, KeyError):
        pass  # it does not run at this moment


def test_a_whole_release_is_packed_installed_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every wheel of the device, in an environment that has nothing else."""
    out = tmp_path / "gudgeon.tar"
    try:
        pack.main(["runtime", "--out", str(out), "--json"])
    except GudgeonError as error:
        pytest.skip(str(error))
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    archive.unpack(out, tmp_path / "release", made["size_bytes"])
    state_dir = tmp_path / "state"
    began = time.monotonic()
    environment.make(tmp_path / "release", state_dir / environment.FOLDER, made["sha256"])
    with capsys.disabled():
        print(f"\na runtime release: {made['size_bytes'] / 1e6:.1f} MB, installed in {time.monotonic() - began:.1f} s")
    confirm(state_dir, made["sha256"])
    with device(tmp_path) as one:
        wait_until_runs(state_dir, made["sha256"], 60)
        one.wait_for_answers()
        status = Path(f"/proc/{one.launched.process.pid}/status").read_text()
        resident_kib = int(status.split("VmRSS:")[1].split()[0])
        with capsys.disabled():
            print(f"the launcher: {resident_kib / 1024:.1f} MiB")
        assert resident_kib < 40 * 1024
        maps = Path(f"/proc/{one.line.pid('control')}/maps").read_text()
        assert str(state_dir / "runtimes") in maps
        assert not [line for line in maps.splitlines() if "site-packages" in line and str(state_dir) not in line]
