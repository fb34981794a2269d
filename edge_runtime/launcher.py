"""`gudgeon-launch`: starts the runtime that the record of the slot set `runtime` names, and another one where it does not work.

With `launched`, the part of a device that no update replaces: standard library only, nothing of the product. What it shares with
every release, for good: `slots/runtime/record.{0,1}` of format 1, `runtimes/<sha256>/{bin/python,digests}`, the command
`python -m edge_runtime.cli run --config FILE` with $GUDGEON_RUNTIME and $GUDGEON_GIVEN_UP, and READY=1 and then WATCHDOG=1 on
$NOTIFY_SOCKET.

- It writes one thing into the record: a try, on the disk, before each start on trial. The release confirms itself, by its own
  update process. Where it ends, hangs or is not confirmed in time, the next try is spent; after the last one it is given up.
- A confirmed one that ends FAILURES times in a row, each time soon, is given up for the one before it, and that one for the
  base runtime. An exit that says that the configuration is wrong, or the disk full, blames no runtime.
- What is started is told what was given up, and why, and its supervisor writes that down. Until then it is remembered here.
- The base given up, too: safe mode. Nothing runs, and nothing is tried again until this program is started again.
- What a runtime has left running is ended before the next one starts, and two launchers never run at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.launched import Keeper, Limits, Seen, notify

Record = dict[str, Any]
RECORD_BYTES, FORMAT, NAMES, BASE = 16 * 1024, 1, ("record.0", "record.1"), ""
FAILURES = 5
BLAMELESS, BLAMELESS_PAUSE_S = (3, 6), 10.0  # the configuration is wrong; the disk or a socket cannot be used


class Launcher:
    """`base`: Python of the base runtime. `config` names the state folder, where everything lies. `keep`: makes the Keeper."""

    def __init__(self, config: Path, base: Path, keep: Callable[[Path], Keeper]) -> None:
        self._config, self._base, self.stopping = config.resolve(), base, False
        self._state_dir = self._config.parent / tomllib.loads(config.read_text())["device"]["state_dir"]
        self._slots, self._run_dir = self._state_dir / "slots/runtime", self._state_dir / "run"
        self._keeper = keep(self._run_dir)
        self.given_up: dict[str, str] = {}
        self._ended: dict[str, str] = {}

    def run(self) -> int:
        failures, before = 0, None
        while not self.stopping and (found := self.choose()):
            failures, before = failures if found == before else 0, found
            sha256, trial = found
            seen = self.attempt(sha256, trial)
            self._keeper.end()
            if not seen.why:
                continue  # it was to end
            self._ended[sha256] = seen.why
            failures = 0 if seen.settled or seen.code in BLAMELESS else failures + 1
            if failures >= FAILURES and not trial:
                self.give_up(sha256, f"{failures} times in a row: {seen.why}")
            else:
                self.tell("starts again", sha256, seen.why)
                self.wait(0 if trial else BLAMELESS_PAUSE_S if seen.code in BLAMELESS else min(5.0, 0.25 * 2**failures))
        if not self.stopping:
            self.tell("safe mode, nothing runs; gave up", BASE, "; ".join(self.given_up.values()))
            self.wait(float("inf"))
        return 0

    def choose(self) -> tuple[str, bool] | None:
        """The next to be started, sound, and whether on trial: a try is spent. None where all are given up."""
        for sha256, tries in self.candidates():
            if tries == 0:
                why = self._ended.get(sha256, "its tries are used up")
            elif not (why := problem(self._state_dir / "runtimes" / sha256) if sha256 else "") and tries > 0:
                why = spend(self._slots)
            if not why:
                return sha256, tries > 0
            self.give_up(sha256, why)
        return None

    def candidates(self) -> list[tuple[str, int]]:
        """Without those given up, each until the record does not name it any more: then that is written down there."""
        chain = candidates(read(self._slots)[1])
        self.given_up = {one: self.given_up[one] for one, _ in chain if one in self.given_up}
        return [one for one in chain if one[0] not in self.given_up]

    def give_up(self, sha256: str, why: str) -> None:
        self.given_up[sha256] = why
        self.tell("gives up", sha256, why)

    def attempt(self, sha256: str, trial: bool) -> Seen:
        """One start, to its end; no reason where it was to end."""
        python = self._state_dir / "runtimes" / sha256 / "bin/python" if sha256 else self._base
        self.tell("starts", sha256, "on trial" if trial else "")
        try:
            command = [str(python), "-m", "edge_runtime.cli", "run", "--config", str(self._config)]
            self._keeper.start(command, {"GUDGEON_RUNTIME": sha256, "GUDGEON_GIVEN_UP": json.dumps(self.given_up)})
        except OSError as error:
            return Seen(f"it cannot be started: {error}")
        told = None
        while not self.stopping:
            seen = self._keeper.look(trial)
            wanted, tries = next(iter(self.candidates()), (BASE, -1))
            if seen.why or wanted != sha256:
                return seen  # without a reason: an update begins, or is taken back
            trial = trial and tries >= 0  # until it has confirmed itself
            if self._keeper.ready and told != trial:
                told = trial
                self.tell("runs", sha256, "on trial" if trial else "", "READY=1\n")
        return Seen()

    def wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until_s:
            self._keeper.hear()

    def tell(self, what: str, sha256: str, detail: str, more: str = "") -> None:
        """To the log, to the system, and as `run/launcher.json`."""
        text = f"{what} {sha256[:12] or 'the base runtime'}{': ' if detail else ''}{detail}"
        print(f"gudgeon-launch: {text}", file=sys.stderr, flush=True)
        notify(f"{more}STATUS={text}")
        state = {"state": what, "runtime": sha256, "detail": detail, "given_up": self.given_up, "pid": os.getpid()}
        with contextlib.suppress(OSError):  # a full disk stops nothing
            (self._run_dir / "launcher.tmp").write_text(json.dumps(state))
            (self._run_dir / "launcher.tmp").replace(self._run_dir / "launcher.json")


def read(folder: Path) -> tuple[int, Record]:
    """Number of the file, and content, of the newest sound record; (1, {}) where there is none."""
    found = []
    for number, name in enumerate(NAMES):
        try:
            checksum, body, _ = (folder / name).read_bytes().split(b"\n", 2)
            record = json.loads(body)
            if hashlib.sha256(body).hexdigest().encode() == checksum and record["format"] == FORMAT:
                candidates(record)
                found.append((int(record["sequence"]), number, record))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # torn by a power cut, or not written by Gudgeon: the other one counts
    return max(found, key=lambda one: one[0])[1:] if found else (1, {})


def candidates(record: Record) -> list[tuple[str, int]]:
    """In order: which, and the tries that it has left, -1 for those that need none."""
    job = record["job"] if record and record["state"] == "trial" else None
    chain = [(job["release"]["sha256"], max(0, job["tries_left"]))] if job else []
    chain += [(record[name]["sha256"], -1) for name in ("confirmed", "previous") if record and record[name]]
    if wrong := [sha256 for sha256, _ in chain if not re.fullmatch("[0-9a-f]{64}", sha256)]:
        raise ValueError(f"not a SHA-256: {wrong[0]}")
    return [*chain, (BASE, -1)]


def spend(folder: Path) -> str:
    """One try less, in the place of the older file, on the disk when this returns; why not, where it cannot be written."""
    newest, record = read(folder)
    job = {**record["job"], "tries_left": record["job"]["tries_left"] - 1}
    body = json.dumps({**record, "job": job, "sequence": record["sequence"] + 1}, ensure_ascii=False).encode()
    data = (hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n").ljust(RECORD_BYTES)
    try:
        fd = os.open(folder / NAMES[1 - newest], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(fd, "r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)  # its name, where it is new
        os.close(fd)
    except OSError as error:
        return f"a try cannot be written down: {error}"
    return ""


def problem(environment: Path) -> str:
    """Why it cannot run; "" where its files are those that its list of digests names, and no others."""
    listing = environment / "digests"
    try:
        checksum, _, lines = listing.read_bytes().partition(b"\n")
        if hashlib.sha256(lines).hexdigest().encode() != checksum:
            return "digests is damaged"
        files = {p for p in environment.rglob("*") if p.is_symlink() or not p.is_dir()} - {listing}
        found = {f"{digest(path)} {path.relative_to(environment)}" for path in files}
    except (OSError, ValueError) as error:
        return str(error)
    wrong = found ^ set(lines.decode().splitlines())
    return f"{min(wrong).partition(' ')[2]} is damaged, missing, or should not be there" if wrong else ""


def digest(path: Path) -> str:
    if path.is_symlink():
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon-launch", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument("--base", type=Path, default=Path(sys.executable), help="Python of the base runtime")
    for name, seconds in Limits()._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=seconds, help="default %(default)s")
    args = parser.parse_args(argv)
    limits = Limits(*(getattr(args, name) for name in Limits._fields))
    try:
        launcher = Launcher(args.config, args.base, lambda run_dir: Keeper(run_dir, limits))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"gudgeon-launch: {error}; expected a configuration file that names its state_dir", file=sys.stderr)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(launcher, "stopping", True))
    return launcher.run()


if __name__ == "__main__":
    sys.exit(main())
