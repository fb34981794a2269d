"""`make update-kills`: kill -9 of the process `update` at random moments, release after release, against a real cloud on
loopback: listener with mutual TLS, signed repository, rollouts. Every fourth release is bad and must be rolled back.

After each kill the device is looked at as its next start would: what boots has the hash that is its name and is a release that
was confirmed or may be by now, at most one record file is torn, the floor has not fallen, no try has come back.

Exit code 0: nothing of this was ever wrong, and every release came to its end.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import tomli_w
from rich.console import Console

from cloud.devices.side import DeviceSide
from cloud.registry import artifacts
from cloud.registry.assigner import Assigner
from cloud.registry.making import make_registry, release
from cloud.rollout import store as rollouts
from cloud.rollout.clock import advance
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import Group, Plan
from cloud.rollout.shown import show as show_rollout
from cloud.settings import CloudSettings, DevicesSection, RegistrySection, StoreSection
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store
from edge_runtime.errors import GudgeonError, exit_code
from edge_runtime.identity.credentials import CredentialStore
from edge_runtime.update import records, slots
from edge_runtime.update.process import STATUS_FILE
from edge_runtime.update.simulated import tiny_release
from edge_runtime.update.store import Store
from edge_runtime.update.tuf.floor import FloorFiles
from edge_runtime.update.wake import SOCKET_PATH, wake
from edge_runtime.wire.update_status import UpdateState
from tools.kills import arguments
from tools.kills.rig import Victim
from tools.kills.updating import LINE

KILLS = 200
EVERY_S = 0.6
RELEASE_BYTES = 2_500_000
BAD_EVERY = 4
DEVICE = "kills-01"
HARDWARE = "kills:1"
HOST = "127.0.0.1"
END_S = 60.0
LOOK_S = 0.1


@dataclass
class Result:
    """`wrong`: what was found wrong after a kill. `ends`: exit codes that the updater came to by itself."""

    seed: int
    kills: int = 0
    states: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    rolled_back: int = 0
    unfinished: int = 0
    wrong: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    took_s: float = 0.0

    def count(self, ended: UpdateState | None, bad: bool) -> None:
        """A good release may be rolled back, too, where every try of it was killed."""
        self.confirmed += ended is UpdateState.CONFIRMED
        self.rolled_back += ended is UpdateState.ROLLED_BACK
        self.unfinished += ended not in (UpdateState.CONFIRMED, UpdateState.ROLLED_BACK)
        if bad and ended is UpdateState.CONFIRMED:
            self.wrong.append("a bad release was confirmed")

    @property
    def passed(self) -> bool:
        return not self.wrong and not self.ends and not self.unfinished and self.confirmed > 0

    def as_json(self) -> dict[str, Any]:
        return {"proof": "update-kills", "passed": self.passed, **vars(self), "states": dict(self.states)}


class CloudHere:
    """Authority, repository and rollouts in one folder, served on this machine."""

    def __init__(self, folder: Path) -> None:
        self.keys, now = folder / "keys", datetime.now(UTC)
        self.registry = make_registry(folder / "registry", self.keys, now)
        settings = CloudSettings(
            store=StoreSection(url=f"sqlite:///{folder}/cloud.db", key_file=folder / "cloud.key"),
            devices=DevicesSection(serve=True, port=0),
            registry=RegistrySection(folder=folder / "registry"),
        )
        self.engine = open_store(settings.store.address)
        sock = listen(HOST, 0, "devices.port")
        self.port = port_of(sock)
        self.assigner = Assigner(folder / "registry")
        self.side = DeviceSide(self.engine, settings, sock, registry=self.assigner)
        self.side.start()

    def stop(self) -> None:
        self.side.stop()
        self.engine.dispose()

    def enrol(self, state_dir: Path, device: str = DEVICE) -> None:
        store = CredentialStore(state_dir, device)
        token = self.side.desk.make_token(device, HARDWARE, timedelta(hours=1))
        given = self.side.desk.enrol(token.sent, HARDWARE, store.key().request(device))
        store.adopt(given, store.key(), False, time.time_ns(), lambda _: None)
        root = state_dir / "trust" / "root.json"
        root.parent.mkdir(parents=True)
        shutil.copyfile(self.registry.metadata / "1.root.json", root)

    def publish(self, number: int, content: str) -> str:
        """Sign a release with this text and start its rollout; its hash."""
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(tiny_release(content))
            file.flush()
            return self.publish_file(number, Path(file.name))

    def publish_file(self, number: int, source: Path) -> str:
        """The same with an artifact, or a bundle folder."""
        path, now = f"models/line/{number}.tar", datetime.now(UTC)
        target = artifacts.add(self.registry, source, path, now, floor=max(0, number - 2))
        release(self.registry, self.keys, now)
        artifact = Artifact(path, target.sha256, target.index, tuple(target.hardware))
        asked = rollouts.Asked(f"r{number}", "default", artifact, Plan(groups=(Group("all"),)))
        rollouts.create(self.engine, asked, "kills", time.time_ns())
        rollouts.start(self.engine, asked.id, "kills", time.time_ns())
        advance(self.engine, time.time_ns(), self.assigner)
        return target.sha256

    def is_over(self, number: int) -> bool:
        """Finished, or, where its device has failed, aborted."""
        advance(self.engine, time.time_ns(), self.assigner)
        return show_rollout(self.engine, f"r{number}", time.time_ns())["state"] in ("finished", "aborted")

    def abort(self, number: int) -> None:
        rollouts.abort(self.engine, f"r{number}", "its device has rolled back", time.time_ns())


class Look:
    """What a start would find, each time; it must only ever go one way."""

    def __init__(self, state_dir: Path, result: Result) -> None:
        self.state_dir, self._result = state_dir, result
        self._floor: dict[str, int] = {}
        self._tries: dict[int, int] = {}

    def __call__(self, confirmed: str, candidate: str, bad: bool) -> records.SlotRecord | None:
        try:
            read = records.read(self.state_dir, "default")
            found = next(slots.bootable(self.state_dir), None)
        except GudgeonError as error:
            self._wrong(str(error))
            return None
        boots = found.release.sha256 if found else ""
        if boots not in ({confirmed} if bad else {confirmed, candidate}):
            self._wrong(f"{boots[:12] or 'nothing'} boots, expected {confirmed[:12]} or {candidate[:12]}")
        if found and found.fallback:
            self._wrong(f"the one before boots: {found.fallback}")
        job = read.record.job
        if job and job.tries_left > self._tries.setdefault(job.counter, job.tries_left):
            self._wrong(f"{job.tries_left} tries are left, there were {self._tries[job.counter]}")
        if job:
            self._tries[job.counter] = job.tries_left
        trust = self.state_dir / "trust"
        floor = FloorFiles(trust, trust / "metadata").floor.versions
        for name, version in floor.items():
            if version < self._floor.get(name, 0):
                self._wrong(f"the floor of {name} fell from {self._floor[name]} to {version}")
        self._floor = floor
        return read.record

    def _wrong(self, what: str) -> None:
        self._result.wrong.append(f"after kill {self._result.kills}: {what}")


def run(folder: Path, kills: int, every_s: float, seed: int, told: Callable[[str], None] = lambda text: None) -> Result:
    began_s, dice, result = time.monotonic(), Random(seed), Result(seed)
    folder.mkdir(parents=True, exist_ok=True)
    cloud, state_dir, config = CloudHere(folder / "cloud"), folder / "state", folder / "device.toml"
    update = {"url": f"https://localhost:{cloud.port}", "poll_s": 5.0}
    config.write_text(tomli_w.dumps({"device": {"id": DEVICE, "state_dir": str(state_dir)}, "update": update}))
    cloud.enrol(state_dir)
    victim = Victim("update", ["--config", str(config)], folder / "update.log")
    look = Look(state_dir, result)
    confirmed, number = "", 0
    try:
        if not _until(
            (state_dir / STATUS_FILE).exists
        ):  # heard of by the cloud: rollouts are for devices that it knows
            raise GudgeonError(f"the updater has not asked within {END_S:.0f} s; see {folder / 'update.log'}")
        while result.kills < kills or number == 0:
            number += 1
            bad = number % BAD_EVERY == 0
            content = ("bad" if bad else "good") + dice.randbytes(RELEASE_BYTES // 2).hex()
            candidate = cloud.publish(number, content)
            ended = _one(victim, look, result, dice, every_s, (confirmed, candidate, bad), kills if confirmed else 0)
            told(f"{result.kills} kills, release {number}: {ended.value if ended else 'not at an end'}")
            result.count(ended, bad)
            confirmed = candidate if ended is UpdateState.CONFIRMED else confirmed
            if not _until(partial(_runs, state_dir, confirmed)):
                result.wrong.append(f"release {number}: at its end the line runs another than {confirmed[:12]}")
            if ended is not UpdateState.CONFIRMED:
                cloud.abort(number)
            wake(state_dir / SOCKET_PATH)
            if not _until(partial(cloud.is_over, number)):
                raise GudgeonError(f"rollout r{number} is not over after {END_S:.0f} s; see {folder}")
    finally:
        victim.stop()
        cloud.stop()
    result.ends = victim.ends
    names = Store(state_dir).names()
    if set(names) != set(slots.named(state_dir) or ()):
        result.wrong.append(f"left over in the store: {names}")
    result.took_s = round(time.monotonic() - began_s, 1)
    return result


def _runs(state_dir: Path, sha256: str) -> bool:
    with suppress(OSError, ValueError):
        return bool(json.loads((state_dir / LINE).read_text())["runs"] == sha256)
    return False


def _until(true: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        if true():
            return True
        time.sleep(LOOK_S)
    return False


ENDS = (UpdateState.CONFIRMED, UpdateState.ROLLED_BACK, UpdateState.REFUSED)


def _one(
    victim: Victim, look: Look, result: Result, dice: Random, every_s: float, which: tuple[str, str, bool], kills: int
) -> UpdateState | None:
    """One release, killed again and again, to its end; the state then."""
    confirmed, candidate, bad = which
    state_dir = look.state_dir
    wake(state_dir / SOCKET_PATH)
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        if result.kills < kills:
            time.sleep(dice.uniform(0, 2 * every_s))
            victim.end()
            result.kills += 1
            record = look(confirmed, candidate, bad)
            if record is not None:
                result.states[record.state.value] += 1
            victim.start()
        else:
            time.sleep(LOOK_S)
            record = None
            with suppress(GudgeonError):
                record = records.read(state_dir, "default").record
        if record and record.job and record.job.release.sha256 == candidate and record.state in ENDS:
            return record.state
    return None


def show(r: Result, console: Console) -> None:
    colour = "green" if r.passed else "red"
    states = ", ".join(f"{n} in {name}" for name, n in sorted(r.states.items()))
    console.print(
        f"{r.kills} kills in {r.took_s:.0f} s ({states}); {r.confirmed} releases confirmed, {r.rolled_back} rolled back, "
        f"{r.unfinished} without their end; {len(r.wrong)} wrong",
        style=colour,
    )
    for line in r.wrong[:20]:
        console.print(line, style="red", highlight=False)


def main(argv: list[str]) -> int:
    args = arguments.read(argv, "python -m tools.kills.update", __doc__, 0, KILLS, EVERY_S)
    console = Console(stderr=args.json)
    with tempfile.TemporaryDirectory(prefix="gudgeon-update-kills-") as temporary:
        result = run(args.keep or Path(temporary) / "run", args.kills, args.every_s, args.seed, console.print)
    show(result, console)
    if args.json:
        print(json.dumps(result.as_json()))
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(exit_code("update-kills", lambda: main(sys.argv[1:])))
