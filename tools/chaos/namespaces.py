"""Two network namespaces with one cable: the device in one, broker and cloud in the other.

- Faults are made by the kernel: nftables drops packets (a share of them, or one direction), `tc` shapes them (`tbf` for the
  rate; `netem` for delay where this kernel has it). The kernel's own counters say what really happened.
- The names carry the process id of the run, so that `sweep` knows what a killed run has left behind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from edge_runtime.errors import GudgeonError

PREFIX = "gudgeon-chaos"
NAME = re.compile(rf"{PREFIX}-(\d+)-(device|cloud)")
DEVICE_IP, CLOUD_IP = "10.77.0.1", "10.77.0.2"
LINK_NAME = "wire"
TABLE = "gudgeon_chaos"


def command(*args: str, text: str | None = None) -> str:
    """Run to its end; GudgeonError with its own words if it fails."""
    try:
        done = subprocess.run(args, input=text, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise GudgeonError(f"{args[0]} is not installed; see gudgeon chaos --list") from error
    if done.returncode:
        raise GudgeonError(f"{' '.join(args)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def why_not() -> str:
    """Why no namespaces can be made here; empty if they can."""
    if os.geteuid():
        return "not root"
    if lacking := [name for name in ("ip", "nft", "tc", "nsenter", "unshare") if shutil.which(name) is None]:
        return f"no command {', '.join(lacking)}"
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    return "namespaces are not permitted here (a container without the privilege)" if probe.returncode else ""


class Namespaces:
    def __init__(self) -> None:
        self._names = {side: f"{PREFIX}-{os.getpid()}-{side}" for side in ("device", "cloud")}

    def create(self) -> None:
        for name in self._names.values():
            command("ip", "netns", "add", name)
            command("ip", "-n", name, "link", "set", "lo", "up")
        device, cloud = self._names.values()
        peer = ("peer", "name", LINK_NAME, "netns", cloud)
        command("ip", "link", "add", LINK_NAME, "netns", device, "type", "veth", *peer)
        for name, address in ((device, DEVICE_IP), (cloud, CLOUD_IP)):
            command("ip", "-n", name, "addr", "add", f"{address}/24", "dev", LINK_NAME)
            command("ip", "-n", name, "link", "set", LINK_NAME, "up")

    def inside(self, side: str) -> list[str]:
        """What to put before a command so that it runs in the namespace; its mounts stay those of everybody."""
        return ["nsenter", f"--net=/run/netns/{self._names[side]}", "--"]

    def drop(self, side: str, percent: int) -> None:
        """`side` loses this share of the packets that come to it."""
        chance = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
        rules = f"""
            table inet {TABLE} {{
              chain inward {{
                type filter hook input priority 0
                iifname "{LINK_NAME}" counter
                iifname "{LINK_NAME}" {chance}counter drop
              }}
            }}"""
        command(*self.inside(side), "nft", "-f", "-", text=rules)

    def pass_all(self, side: str) -> None:
        command(*self.inside(side), "nft", "delete", "table", "inet", TABLE)

    def counts(self, side: str) -> dict[str, int]:
        """Packets seen and dropped since `drop`."""
        listed = json.loads(command(*self.inside(side), "nft", "-j", "list", "table", "inet", TABLE))
        rules = [r["rule"]["expr"] for r in listed["nftables"] if "rule" in r]
        seen, dropped = ([e["counter"]["packets"] for e in rule if "counter" in e][0] for rule in rules)  # noqa: RUF015
        return {"packets_seen": int(seen), "packets_dropped": int(dropped)}

    def slow(self, side: str, bits_per_s: int) -> None:
        """A line of this rate, with a buffer that holds two seconds of it."""
        shape = ("tbf", "rate", f"{bits_per_s}bit", "burst", "1600", "latency", "2s")
        command(*self.inside(side), "tc", "qdisc", "add", "dev", LINK_NAME, "root", *shape)

    def delay(self, side: str, delay_s: float) -> None:
        """`netem`; GudgeonError where the kernel has none."""
        shape = ("netem", "delay", f"{delay_s:g}s", "limit", "10000")
        command(*self.inside(side), "tc", "qdisc", "add", "dev", LINK_NAME, "root", *shape)

    def unshape(self, side: str) -> dict[str, int]:
        """Take the shape away; what it did."""
        inside = self.inside(side)
        listed: list[dict[str, Any]] = json.loads(command(*inside, "tc", "-s", "-j", "qdisc", "show", "dev", LINK_NAME))
        command(*inside, "tc", "qdisc", "del", "dev", LINK_NAME, "root")
        first = listed[0]
        return {name: int(first.get(name, 0)) for name in ("packets", "overlimits", "drops", "bytes")}

    def cut(self, down: bool) -> None:
        """Pull the cable, or put it back."""
        command("ip", "-n", self._names["cloud"], "link", "set", LINK_NAME, "down" if down else "up")

    def remove(self) -> None:
        for name in self._names.values():
            remove_namespace(name)


def remove_namespace(name: str) -> None:
    if Path(f"/run/netns/{name}").exists():
        command("ip", "netns", "del", name)  # its end of the cable goes with it, and so the other


def left_behind() -> list[str]:
    """Namespaces of runs that are gone."""
    folder = Path("/run/netns")
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return [n for n in names if (m := NAME.fullmatch(n)) and not Path(f"/proc/{m[1]}").exists()]
