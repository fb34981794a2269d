"""`make reconnects`: forced reconnects against independent servers, and whether any loss went without a record.

Each drop cuts every connection (RTU: the server falls silent) and waits until every tag has a good value again. Checked over all
that was told: two good values of a tag that lie further apart than `LIMIT_S` have a Gap between them; with a history there is no
Gap and nothing is missing. Exit code 0 if that held, within the time that was asked for.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_runtime.errors import exit_code
from edge_runtime.field.opcua_trust import TrustList
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.source import ReportQueue, Source
from edge_runtime.field.sources import make_sources
from edge_runtime.field.tag import Gap, Quality, Report, Sample
from firmware_sim.pump.modbus import NullModem
from tools.arguments import MANY, check_bounds
from tools.peers import launch

LIMIT_S = 1.0  # the counter moves every 50 ms
BACK_LIMIT_S = 60.0
STEP_LIMIT = 20  # of the logged counter between two values: one sampling of a loaded server apart
PASSWORD = "s3cret"


@dataclass
class Bench:
    """A running server, how to reach it, and how to cut and restore the way."""

    endpoint: EndpointSection
    tags: list[TagSection]
    cut: Callable[[], None]
    restore: Callable[[], None]
    state_dir: Path


@dataclass
class Ledger:
    """What was told of one tag, checked as it comes: only the newest good value is kept."""

    last: Sample | None = None
    gap_since: bool = False
    gaps: int = 0
    good: int = 0
    unrecorded: list[str] = field(default_factory=list)

    def add(self, report: Report, history: bool) -> None:
        if isinstance(report, Gap):
            self.gap_since, self.gaps = True, self.gaps + 1
        elif isinstance(report, Sample) and report.quality is Quality.GOOD:
            if self.last is not None and not self.gap_since:
                apart_s = (report.mono_ns - self.last.mono_ns) / 1e9
                step = float(report.value or 0) - float(self.last.value or 0)
                if apart_s > LIMIT_S or apart_s < 0:
                    self.unrecorded.append(f"{report.tag}: {apart_s:.2f} s without a value and without a gap")
                if history and not 0 <= step <= STEP_LIMIT:
                    self.unrecorded.append(f"{report.tag}: from {self.last.value} to {report.value} without a gap")
            self.last, self.gap_since, self.good = report, False, self.good + 1


@dataclass
class Result:
    peer: str
    drops: int = 0
    seconds: float = 0.0
    connects: int = 0
    gaps: int = 0
    values: int = 0
    back_p50_s: float = 0.0
    back_p99_s: float = 0.0
    back_max_s: float = 0.0
    rss_growth_mib: float = 0.0
    threads: int = 0
    unrecorded: int = 0
    examples: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make reconnects", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", choices=[*BENCHES, "all"], default="all")
    parser.add_argument("--drops", type=int, default=500, metavar="N", help="of each server, default 500")
    parser.add_argument("--minutes", type=float, default=30.0, help="time for each server; longer is a failure")
    parser.add_argument("--hours", type=float, default=0.0, help="a soak: go on for so long, a drop about every 10 s")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, {"drops": (1, MANY), "minutes": (0.1, MANY), "hours": (0, MANY)})
    logging.getLogger("gudgeon").setLevel(logging.ERROR)  # each drop would be told
    ok, out = True, []
    for name in BENCHES if args.peer == "all" else [args.peer]:
        reason = MISSING[name]()
        if reason:
            print(f"{name}: skipped: {reason}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder, BENCHES[name](Path(folder)) as bench:
            found = reconnect(name, bench, args.drops, args.hours * 3600)
        out.append(found)
        ok &= found.unrecorded == 0 and (args.hours > 0 or found.seconds <= args.minutes * 60)
        if not args.json:
            print(text(found))
    if args.json:
        print(json.dumps([asdict(r) for r in out], indent=2))
    return 0 if ok and out else 1


def reconnect(name: str, bench: Bench, drops: int, soak_s: float = 0.0) -> Result:
    queue = ReportQueue()
    (source,) = make_sources([bench.endpoint], bench.tags, queue.put, bench.state_dir, "proof")
    ledgers = {t.name: Ledger() for t in bench.tags}
    result, back_s = Result(name), list[float]()
    source.start()
    try:
        _until_good(source, queue, ledgers, time.monotonic_ns())
        before_mib, begin_s = _rss_mib(), time.monotonic()
        while result.drops < drops if not soak_s else time.monotonic() - begin_s < soak_s:
            time.sleep(10.0 if soak_s else 0.05)
            failures = source.health()[0].failures
            cut_ns = time.monotonic_ns()
            bench.cut()
            while source.health()[0].failures == failures:
                _take(queue, ledgers)
                if time.monotonic_ns() - cut_ns > BACK_LIMIT_S * 1e9:
                    raise TimeoutError(f"{name}: a cut was not noticed within {BACK_LIMIT_S:.0f} s")
            bench.restore()
            back_s.append(_until_good(source, queue, ledgers, time.monotonic_ns()))
            result.drops += 1
        result.seconds = round(time.monotonic() - begin_s, 1)
        result.rss_growth_mib = round(_rss_mib() - before_mib, 1)
        result.threads = threading.active_count()
    finally:
        source.stop()
    _take(queue, ledgers)
    result.connects = source.health()[0].connects
    result.gaps, result.values = sum(x.gaps for x in ledgers.values()), sum(x.good for x in ledgers.values())
    problems = [p for ledger in ledgers.values() for p in ledger.unrecorded]
    result.unrecorded, result.examples = len(problems), problems[:5]
    if len(back_s) > 1:
        cuts = statistics.quantiles(back_s, n=100)
        result.back_p50_s, result.back_p99_s = round(cuts[49], 3), round(cuts[98], 3)
        result.back_max_s = round(max(back_s), 3)
    return result


def text(r: Result) -> str:
    lines = [
        f"{r.peer}: {r.drops} forced reconnects in {r.seconds} s; back after p50 {r.back_p50_s} s, p99 {r.back_p99_s} s, "
        f"max {r.back_max_s} s",
        f"  {r.values} good values, {r.gaps} gaps, {r.unrecorded} losses without a record; "
        f"RSS grew by {r.rss_growth_mib} MiB, {r.threads} threads",
        *(f"  {example}" for example in r.examples),
    ]
    return "\n".join(lines)


def _until_good(source: Source, queue: ReportQueue, ledgers: dict[str, Ledger], since_ns: int) -> float:
    """Wait until every tag has a good value that is newer; the seconds that took."""
    while not all(x.last is not None and x.last.mono_ns > since_ns for x in ledgers.values()):
        _take(queue, ledgers)
        if time.monotonic_ns() - since_ns > BACK_LIMIT_S * 1e9:
            raise TimeoutError(f"not back within {BACK_LIMIT_S:.0f} s: {source.health()}")
    return (time.monotonic_ns() - since_ns) / 1e9


def _take(queue: ReportQueue, ledgers: dict[str, Ledger]) -> None:
    for report in queue.take(0.02):
        ledgers[report.tag].add(report, history=report.tag == "logged")


def _rss_mib() -> float:
    """Now, not the peak."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _nothing() -> None:
    pass


MODBUS_TAGS = [TagSection("counter", "peer", "uint32", address=0, period_s=0.1, report_every_s=0.2)]


@contextmanager
def _modbus_tcp(folder: Path) -> Iterator[Bench]:
    peer = launch.modbus_tcp(folder)
    try:
        endpoint = EndpointSection(name="peer", port=peer.port, timeout_ms=500)
        yield Bench(endpoint, MODBUS_TAGS, lambda: peer.tell("drop"), _nothing, folder)
    finally:
        peer.close()


@contextmanager
def _modbus_rtu(folder: Path) -> Iterator[Bench]:
    wire = NullModem(None)
    peer = launch.modbus_rtu(folder, wire.inner)
    try:
        endpoint = EndpointSection(
            name="peer", protocol="modbus-rtu", serial=wire.outer, baudrate=115200, parity="N", timeout_ms=300
        )
        yield Bench(endpoint, MODBUS_TAGS, lambda: peer.tell("mute 1"), lambda: peer.tell("mute 0"), folder)
    finally:
        peer.close()
        wire.close()


@contextmanager
def _opcua(folder: Path, secure: bool = False) -> Iterator[Bench]:
    peer = launch.opcua(folder)
    try:
        more = {}
        if secure:
            trust = TrustList(folder / "opcua", "proof")
            trust.prepare()
            (trust.folder / "trusted" / "peer.pem").write_bytes(Path(peer.ready[1]).read_bytes())
            secret = folder / "password"
            secret.write_text(PASSWORD)
            secret.chmod(0o600)
            more = {"security": "Basic256Sha256", "username": "gauge", "password_file": secret}
        endpoint = EndpointSection(name="peer", protocol="opcua", port=peer.port, publishing_ms=100, **more)  # type: ignore[arg-type]
        tags = [
            TagSection(name, "peer", "uint32", node=f"ns=1;s={name}", period_s=0.05, report_every_s=0.2)
            for name in ("counter", "logged")
        ]
        yield Bench(endpoint, tags, lambda: peer.tell("drop"), _nothing, folder)
    finally:
        peer.close()


BENCHES: dict[str, Callable[[Path], AbstractContextManager[Bench]]] = {
    "modbus-tcp": _modbus_tcp,
    "modbus-rtu": _modbus_rtu,
    "opcua": _opcua,
    "opcua-secure": lambda folder: _opcua(folder, secure=True),
}
MISSING = {
    "modbus-tcp": launch.missing_modbus,
    "modbus-rtu": launch.missing_modbus,
    "opcua": launch.missing_opcua,
    "opcua-secure": launch.missing_opcua,
}

if __name__ == "__main__":
    sys.exit(exit_code("reconnects", main))
