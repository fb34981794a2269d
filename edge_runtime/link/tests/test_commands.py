"""The desk of commands: what is admitted, what is refused, and that a crash carries nothing out twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.clock import FakeClock
from edge_runtime.decide.points import AlarmRequest, Commands, Point, WriteRequest
from edge_runtime.errors import ResourceError
from edge_runtime.link import journal
from edge_runtime.link.cloud_clock import TrustedTime
from edge_runtime.link.commands import GRACE_S, TIME_WAIT_S, WAITING_LIMIT, CommandDesk
from edge_runtime.wire.command import ENDS, Command
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.signed import seal

S = 1_000_000_000
CLOUD = Ed25519PrivateKey.generate()
POINTS = {"speed": Point(110, 0, 500), "lamp": Point(120, 0, 1, "bool", "coil"), "hidden": Point(130, 0, 1)}
ALLOW = ("speed", "lamp")


class KilledError(BaseException):
    """The process dies here."""


class Outbox:
    """What was recorded; each append can be the place of a crash."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.full = False

    def append(self, stream: str, kind: str, body: Any) -> None:
        if self.full:
            raise ResourceError("outbox.db: the disk is full; free some space")
        seq = len(self.events) + 1
        self.events.append(Event("dev1", "0" * 16, stream, seq, "boot", kind, 0, 0, None, body=dict(body)))

    def last(self, stream: str) -> Event | None:
        return next((e for e in reversed(self.events) if e.stream == stream), None)

    def ends(self) -> list[tuple[str, str]]:
        return [(e.body["id"], e.kind) for e in self.events if e.stream == "command" and ENDS[e.kind]]


class Device:
    """`taken` is what control has carried out; `obeys` False: control is there and never ends anything."""

    def __init__(self, folder: Path, settings: Commands | None = None, with_key: bool = True) -> None:
        self.folder, self.with_key = folder, with_key
        self.settings = settings or Commands(ALLOW, points=POINTS)
        self.clock, self.outbox = FakeClock(), Outbox()
        self.boot_id, self.time_known, self.uncertainty_ns = "boot", True, S // 100
        self.taken: list[WriteRequest] = []
        self.there = self.obeys = True
        self.counter = 0
        self.restart()

    def restart(self) -> None:
        self.desk = CommandDesk(
            self.folder / "commands.json", "dev1", self.boot_id, self.settings,
            CLOUD.public_key() if self.with_key else None, self.outbox, self.trusted, self.control, self.clock,
        )  # fmt: skip

    def trusted(self) -> TrustedTime | None:
        return TrustedTime(self.clock.wall_ns(), self.uncertainty_ns) if self.time_known else None

    def control(self, request: WriteRequest) -> bool:
        if self.there:
            self.taken.append(request)
            if self.obeys:
                self.outbox.append("command", "done", {**request.body(), "reason": ""})
        return self.there

    def command(self, name: str = "speed", value: Any = 100, **fields: Any) -> Command:
        self.counter += 1
        now_ns = self.clock.wall_ns()
        values = {"counter": self.counter, "issued_ns": now_ns, "expires_ns": now_ns + 30 * S, **fields}
        return Command(f"c{self.counter}", values.pop("device", "dev1"), name, args={"value": value}, **values)

    def send(self, command: Command, key: Ed25519PrivateKey = CLOUD) -> tuple[str, str]:
        """Deliver it; kind and reason of the newest Event."""
        self.desk.receive(seal("command", command.body(), key.sign))
        last = self.outbox.last("command")
        return (last.kind, last.body["reason"]) if last and last.body["id"] == command.id else ("", "")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_an_admitted_command_is_handed_over_once_and_ends(device: Device) -> None:
    command = device.command(value=250)
    device.send(command)
    device.desk.step()
    assert [(r.id, r.source, r.name, r.value) for r in device.taken] == [("c1", "cloud", "speed", 250)]
    assert [(e.kind, e.body["id"]) for e in device.outbox.events] == [("accepted", "c1"), ("done", "c1")]
    assert not device.desk.busy
    left_s = (device.taken[0].until_mono_ns - device.clock.monotonic_ns()) / 1e9
    assert left_s == pytest.approx(30 - 0.01)


def test_a_second_delivery_is_a_replay_also_after_a_restart(device: Device) -> None:
    first, second = device.command(), device.command()
    device.send(second)
    assert device.send(first)[0] == "replayed"
    device.restart()
    assert device.send(second)[0] == "replayed"
    assert len(device.taken) == 1


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({"name": "hidden"}, "refused", "not in this device's commands.allow"),
        ({"name": "reboot"}, "refused", "not in this device's commands.allow"),
        ({"value": 501}, "refused", "outside of 0 to 500"),
        ({"value": -1}, "refused", "outside of 0 to 500"),
        ({"value": True}, "refused", "whole number"),
        ({"value": 1.5}, "refused", "whole number"),
        ({"value": "1"}, "refused", "whole number"),
        ({"value": None}, "refused", "whole number"),
        ({"name": "lamp", "value": 1}, "refused", "true or false"),
        ({"device": "dev2"}, "refused", "for device dev2"),
        ({"issued_ns": 5, "expires_ns": 6}, "replayed", "older than this device's journal"),
        ({"issued_ns": 2**62, "expires_ns": 2**62 + S}, "refused", "in the future"),
    ],
)
def test_what_is_refused_says_why_and_reaches_nobody(
    device: Device, fields: dict[str, Any], kind: str, says: str
) -> None:
    command = device.command(**fields)
    found = device.send(command)
    assert found[0] == kind
    assert says in found[1]
    assert device.taken == []
    assert device.send(device.command())[0] == "done"


def test_only_the_pinned_cloud_commands_and_strangers_do_not_fill_the_disk(device: Device) -> None:
    stranger = Ed25519PrivateKey.generate()
    for _ in range(100):
        device.send(device.command(), stranger)
    device.desk.receive(b"rubbish")
    told = [e.body["count"] for e in device.outbox.events]
    assert told == [1, 2, 4, 8, 16, 32, 64]
    assert device.taken == []


def test_without_a_key_no_command_is_taken(tmp_path: Path) -> None:
    device = Device(tmp_path, with_key=False)
    device.send(device.command())
    assert "no key of a cloud" in device.outbox.events[0].body["reason"]
    assert device.taken == []


def test_the_clocks_uncertainty_counts_against_the_command(device: Device) -> None:
    device.uncertainty_ns = 31 * S
    assert device.send(device.command())[0] == "expired"
    device.uncertainty_ns = 29 * S
    assert device.send(device.command())[0] == "done"


def test_a_command_waits_a_moment_for_the_time_and_is_then_refused(device: Device) -> None:
    device.time_known = False
    device.send(device.command())
    assert device.outbox.events == []
    assert device.desk.busy
    device.time_known = True
    device.desk.step()
    assert len(device.taken) == 1
    device.time_known = False
    device.send(device.command())
    device.clock.advance(TIME_WAIT_S + 1)
    device.desk.step()
    assert device.outbox.ends()[-1] == ("c2", "refused")
    assert "does not know the time" in device.outbox.events[-1].body["reason"]


def test_one_after_the_other_and_not_without_end(device: Device) -> None:
    device.obeys = False
    for _ in range(WAITING_LIMIT + 3):
        device.send(device.command())
    assert [r.id for r in device.taken] == ["c1"]
    assert device.outbox.ends() == [(f"c{WAITING_LIMIT + 2}", "refused"), (f"c{WAITING_LIMIT + 3}", "refused")]
    device.obeys = True
    device.outbox.append("command", "done", {**device.taken[0].body(), "reason": ""})
    device.desk.step()
    assert len(device.taken) == WAITING_LIMIT + 1


def test_control_that_is_not_there_is_told(device: Device) -> None:
    device.there = False
    assert device.send(device.command()) == ("refused", "the process control is not there to take it")
    device.there = True
    assert device.send(device.command())[0] == "done"


def test_an_end_that_never_comes_is_told_as_unknown(device: Device) -> None:
    device.obeys = False
    device.send(device.command())
    device.clock.advance(30 + GRACE_S - 1)
    device.desk.step()
    assert device.outbox.ends() == []
    device.clock.advance(2)
    device.desk.step()
    assert device.outbox.ends() == [("c1", "unknown")]
    assert not device.desk.busy


@pytest.mark.parametrize("rebooted", [False, True])
def test_what_was_under_way_at_a_crash_is_told_at_the_start_and_not_done_again(device: Device, rebooted: bool) -> None:
    device.obeys = False
    command = device.command()
    device.send(command)
    device.boot_id = "next" if rebooted else "boot"
    device.restart()
    device.desk.step()
    assert device.outbox.ends() == ([("c1", "unknown")] if rebooted else [])  # control may still be at it
    device.clock.advance(60)
    device.desk.step()
    assert device.outbox.ends() == [("c1", "unknown")]
    assert device.send(command)[0] in ("replayed", "expired")
    assert len(device.taken) == 1


# ── crashes at every durable operation ──────────────────────────────────────────────────────────────────────────────


def crashes(device: Device, monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> bool:
    """Run one command with a crash before or after durable operation number `at`; False where there are not so many."""
    seen = 0

    def dying(work: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            here = seen == at
            if here and not after:
                raise KilledError
            done = work(*args, **kwargs)
            if here:
                raise KilledError
            return done

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(journal, "save", dying(journal.save))
        patch.setattr(device.outbox, "append", dying(device.outbox.append))
        patch.setattr(device, "control", dying(device.control))
        device.restart()
        try:
            device.send(device.command())
            device.desk.step()
        except KilledError:
            return True
    return False


def points() -> Iterator[tuple[int, bool]]:
    for at in range(1, 7):
        yield at, False
        yield at, True


@pytest.mark.parametrize(("at", "after"), list(points()))
def test_a_crash_anywhere_carries_out_at_most_once_and_ends_in_one_event(
    device: Device, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    crashed = crashes(device, monkeypatch, at, after)
    assert crashed == (at <= 5)  # journal, accepted, control, done, closed
    device.restart()
    device.desk.step()
    device.clock.advance(29)
    device.counter, now_ns = 0, device.clock.wall_ns()
    device.send(device.command(issued_ns=now_ns - 29 * S, expires_ns=now_ns + S))  # the cloud delivers it again
    device.clock.advance(100)
    device.desk.step()
    assert len(device.taken) <= 1
    ends = [kind for id_, kind in device.outbox.ends() if id_ == "c1"]
    assert len([kind for kind in ends if kind != "replayed"]) == 1
    assert ends[0] in ("done", "unknown") if device.taken else ends[0] == "unknown"
    assert not device.desk.busy


def test_a_disk_that_refuses_stops_the_command_before_anything_happens(tmp_path: Path) -> None:
    device = Device(tmp_path / "gone")
    assert device.send(device.command())[0] == "refused"
    assert device.taken == []


def test_an_outbox_that_is_full_stops_it_too(device: Device) -> None:
    device.outbox.full = True
    device.send(device.command())
    device.send(device.command(), Ed25519PrivateKey.generate())
    assert device.taken == []
    device.outbox.full = False
    assert not device.desk.busy
    assert device.send(device.command())[0] == "done"


@pytest.mark.parametrize("known", [True, False])
def test_what_was_issued_before_a_wipe_is_not_done_again(device: Device, known: bool) -> None:
    """The counter is gone with the state folder; also where the time becomes known after the start only."""
    done = device.command()
    assert device.send(done)[0] == "done"
    device.clock.advance(5)
    (device.folder / "commands.json").unlink()
    device.time_known = known
    device.restart()
    if not known:
        device.send(done)
        device.clock.advance(TIME_WAIT_S)
        device.desk.step()
        assert device.outbox.events[-1].kind == "refused"
        device.time_known = True
    assert device.send(done)[0] == "replayed"
    assert device.send(device.command())[0] == "done"
    device.restart()
    assert device.send(done)[0] == "replayed"
    assert len(device.taken) == 2


def test_a_journal_that_is_damaged_fails_closed(device: Device) -> None:
    old = device.command()
    (device.folder / "commands.json").write_text("{")
    device.restart()
    assert device.outbox.events[-1].kind == "command_journal_damaged"
    device.clock.advance(1)
    assert device.send(old)[0] == "replayed"
    assert device.send(device.command())[0] == "done"


# ── commands without a signature (Sparkplug) ────────────────────────────────────────────────────────────────────────


def test_unsigned_commands_need_an_explicit_setting(device: Device) -> None:
    device.desk.request("sparkplug", "speed", 100, device.clock.wall_ns())
    assert device.outbox.events[-1].kind == "refused"
    assert "allow_unsigned_sparkplug" in device.outbox.events[-1].body["reason"]
    assert device.taken == []


def test_unsigned_commands_pass_the_same_gates(tmp_path: Path) -> None:
    device = Device(tmp_path, Commands(ALLOW, True, 10.0, POINTS))
    now_ns = device.clock.wall_ns()

    def ask(name: str, value: object, issued_ns: int) -> str:
        device.desk.request("sparkplug", name, value, issued_ns)
        return device.outbox.events[-1].kind

    assert ask("speed", 100, now_ns) == "done"
    assert ask("lamp", True, now_ns) == "done"  # of the same message
    assert ask("speed", 100, now_ns) == "replayed"
    assert ask("speed", 100, now_ns - S) == "replayed"
    assert ask("speed", 9999, now_ns + 1) == "refused"
    assert ask("hidden", 1, now_ns) == "refused"
    device.restart()
    assert ask("speed", 100, now_ns + 1) == "replayed"
    device.clock.advance(20)
    assert ask("speed", 100, now_ns + 2) == "expired"
    assert ask("speed", 100, device.clock.wall_ns()) == "done"
    assert len(device.taken) == 3


# ── alarms ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class AlarmDevice(Device):
    """Its monitor ends every request at once."""

    def restart(self) -> None:
        self.asked: list[AlarmRequest] = []
        self.desk = CommandDesk(
            self.folder / "commands.json", "dev1", self.boot_id, self.settings, CLOUD.public_key(), self.outbox,
            self.trusted, self.control, self.clock, self.monitor,
        )  # fmt: skip

    def monitor(self, request: AlarmRequest) -> bool:
        if self.there:
            self.asked.append(request)
            self.outbox.append("command", "done", {**request.body(), "reason": ""})
        return self.there


def alarm_command(device: Device, name: str, **args: Any) -> None:
    device.counter += 1
    now = device.clock.wall_ns()
    command = Command(f"a{device.counter}", "dev1", name, device.counter, now, now + 60 * S, args)
    device.desk.receive(seal("command", command.body(), CLOUD.sign))


def test_a_signed_command_reaches_an_alarm_once(tmp_path: Path) -> None:
    device = AlarmDevice(tmp_path, Commands(alarms=True))
    alarm_command(device, "alarm.shelve", alarm="pump/hot", for_s=60)
    alarm_command(device, "alarm.ack", alarm="pump/hot")
    device.desk.step()
    assert [(r.name, r.alarm, r.for_s) for r in device.asked] == [
        ("alarm.shelve", "pump/hot", 60.0),
        ("alarm.ack", "pump/hot", 0.0),
    ]
    assert device.outbox.ends() == [("a1", "done"), ("a2", "done")]
    assert not device.taken


@pytest.mark.parametrize(
    ("settings", "name", "args", "says"),
    [
        (Commands(), "alarm.ack", {"alarm": "a/b"}, "commands.alarms"),
        (Commands(alarms=True), "alarm.ack", {"value": 1}, "expected args with alarm"),
        (Commands(alarms=True), "alarm.shelve", {"alarm": "a/b"}, "alarm and for_s"),
        (Commands(alarms=True), "alarm.shelve", {"alarm": "a/b", "for_s": -1}, "more than 0"),
        (Commands(alarms=True), "alarm.shelve", {"alarm": "a/b", "for_s": True}, "more than 0"),
        (Commands(alarms=True), "alarm.eat", {"alarm": "a/b"}, "commands.allow"),
    ],
)
def test_a_command_to_an_alarm_that_is_none_is_refused(
    tmp_path: Path, settings: Commands, name: str, args: dict[str, Any], says: str
) -> None:
    device = AlarmDevice(tmp_path, settings)
    alarm_command(device, name, **args)
    device.desk.step()
    assert device.outbox.ends() == [("a1", "refused")]
    assert says in device.outbox.events[-1].body["reason"]
    assert not device.asked


def test_without_a_monitor_it_is_refused(tmp_path: Path) -> None:
    device = AlarmDevice(tmp_path, Commands(alarms=True))
    device.there = False
    alarm_command(device, "alarm.ack", alarm="a/b")
    assert device.outbox.ends() == [("a1", "refused")]
    assert "monitor" in device.outbox.events[-1].body["reason"]
