"""What goes next, over a real outbox and a clock of our own; a cloud that commits all it gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.clock import FakeClock
from edge_runtime.link.rate import LineSettings
from edge_runtime.link.sender import METERED_HOLD_S, Sender
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.batch import ZSTD_MAGIC, decode_batch
from edge_runtime.wire.envelope import Event

KEY = Ed25519PrivateKey.generate()
TOPIC = "v1/acme/site1/area1/line1/cell1/dev1/events"


class Line:
    """Sender and cloud; `step(s)` lets time pass. With `acking`, what comes is committed at once."""

    def __init__(self, folder: Path, settings: LineSettings) -> None:
        self.clock = FakeClock()
        self.outbox = Outbox(folder / "outbox.db", "dev1", "boot", self.clock)
        self.sender = Sender(self.outbox, KEY, TOPIC, settings, self.clock.monotonic_ns())
        self.events: list[Event] = []
        self.sizes: list[int] = []
        self.batches: list[list[str]] = []
        self.acking = True
        self.upto: dict[str, int] = {}

    def fill(self, stream: str, count: int, size: int = 200) -> None:
        for _ in range(0, count, 100):
            self.outbox.append_many([(stream, "k", {"x": "y" * size})] * min(100, count))

    def begin(self) -> None:
        self.sender.begin()

    def publish(self, payload: bytes) -> int:
        self.sizes.append(len(payload))
        if payload.startswith(ZSTD_MAGIC):
            payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=1 << 22)
        found = decode_batch(payload).events
        self.events += found
        self.batches.append([e.stream for e in found])
        return len(self.sizes)

    def step(self, seconds: float = 0.02) -> None:
        self.clock.advance(seconds)
        now_ns = self.clock.monotonic_ns()
        self.sender.send(now_ns, self.publish)
        if self.acking:
            for e in self.events:
                if e.seq == self.upto.get(e.stream, 0) + 1:
                    self.upto[e.stream] = e.seq
            self.outbox.ack(self.upto)
            self.sender.acknowledged(self.upto, {}, now_ns)

    def run(self, seconds: float, every_s: float = 0.02) -> None:
        for _ in range(round(seconds / every_s)):
            self.step(every_s)

    def streams(self) -> list[str]:
        return [e.stream for e in self.events]


def test_the_rate_is_kept_with_everything_that_goes_on_the_wire(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings(rate_bytes_per_s=4000))
    line.fill("telemetry", 4000)
    line.begin()
    line.run(2, 0.1)
    before = line.sender.sent_bytes
    line.run(20, 0.1)
    assert (line.sender.sent_bytes - before) / 20 == pytest.approx(4000, rel=0.15)
    assert line.outbox.depth() > 0


def test_an_alarm_is_never_behind_the_bucket_nor_behind_the_window(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings(rate_bytes_per_s=1200))
    line.fill("telemetry", 2000)
    line.begin()
    line.acking = False
    line.run(3)
    line.fill("telemetry", 2000)
    line.run(3)
    assert line.sender.wait_s(line.clock.monotonic_ns(), 9.0) > 0
    line.outbox.append("alarm", "hot", {})
    line.outbox.append("fault", "broken", {})
    line.step(0.001)
    assert line.batches[-1] == ["alarm", "fault"]


def test_live_and_backlog_share_a_limited_line_by_weight(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings(rate_bytes_per_s=4000, backlog_share=0.25))
    line.fill("telemetry", 1500)
    line.begin()
    for _ in range(30):  # live records beyond what the line can carry
        line.fill("decision", 100)
        line.run(1, 0.1)
    lanes = [s[0] for s in line.batches if s]
    backlog_bytes = sum(z for z, s in zip(line.sizes, line.batches, strict=True) if s and s[0] == "telemetry")
    assert {"telemetry", "decision"} <= set(lanes)
    assert backlog_bytes / sum(line.sizes) == pytest.approx(0.25, abs=0.06)


def test_without_a_limit_live_goes_first_and_the_backlog_fills_the_rest(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings())
    line.fill("telemetry", 3000)
    line.begin()
    line.fill("decision", 100)
    line.step()
    assert line.batches[0][0] == "decision"
    line.run(1)
    assert line.outbox.depth() == 0
    assert [e.seq for e in line.events if e.stream == "telemetry"] == list(range(1, 3001))


def test_a_metered_line_carries_only_what_is_worth_it(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings(metered=True, metered_priority=2))
    line.fill("telemetry", 300)
    line.fill("decision", 100)
    line.fill("fault", 100)
    line.begin()
    line.run(5)
    assert set(line.streams()) == {"decision", "fault"}
    assert line.outbox.depth() == 300
    line.sender.set(LineSettings(), line.clock.monotonic_ns())
    line.run(2)
    assert line.outbox.depth() == 0


def test_on_a_metered_line_a_few_records_wait_for_more_but_alarms_do_not(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings(metered=True))
    line.begin()
    line.run(METERED_HOLD_S + 1, 0.5)
    for n in range(40):
        line.outbox.append("decision", "k", {"n": n})
        line.step(1.0)
    sizes = [len(b) for b in line.batches if b]
    assert sizes[0] == 1  # nothing was held back before it
    assert len(sizes) == 2
    assert sizes[1] >= METERED_HOLD_S - 1
    line.outbox.append("alarm", "hot", {})
    line.step(0.01)
    assert line.batches[-1] == ["alarm"]


def test_a_metered_line_takes_fewer_bytes_for_the_same_records(tmp_path: Path) -> None:
    totals = []
    for metered in (False, True):
        (tmp_path / str(metered)).mkdir()
        line = Line(tmp_path / str(metered), LineSettings(metered=metered))
        line.begin()
        for n in range(60):
            body = {"n": n, "label": "good", "score": n / 600}
            line.outbox.append_many([("decision", "decision", body)] * 10)
            line.step(1.0)
        line.run(METERED_HOLD_S + 1, 0.5)
        assert line.outbox.depth() == 0
        totals.append(line.sender.sent_bytes)
    assert totals[1] < 0.6 * totals[0]


def test_a_connection_begins_with_a_checkpoint_even_where_nothing_waits(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings())
    line.begin()
    line.run(1)
    assert line.batches == [[]]


def test_what_was_refused_is_sent_again_when_asked(tmp_path: Path) -> None:
    line = Line(tmp_path, LineSettings())
    line.fill("telemetry", 100)
    line.begin()
    line.acking = False
    line.step()
    batch = line.sender.refused(len(line.sizes))
    assert batch is not None
    assert batch.spans == {"telemetry": (1, 100)}
    assert line.sender.refused(99) is None
    line.sender.send_again()
    line.step()
    assert len(line.events) == 200
