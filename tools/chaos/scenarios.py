"""The scenarios, one table: what each does to the pair, how long, and what it needs of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tools.chaos import device_faults, disk, namespaces, network_faults, process_faults, shim
from tools.chaos.evidence import Evidence
from tools.chaos.pair import Pair, Wiring, mosquitto

Fault = Callable[[Pair, float], Evidence]


class Scenario(NamedTuple):
    """`needs` are rows of NEEDS; `seconds`: how long the fault lasts unless the user says otherwise."""

    text: str
    fault: Fault
    seconds: float
    needs: tuple[str, ...] = ()
    wiring: Wiring = Wiring()


#: need → (why it is not there, or nothing; what to do about it)
NEEDS: Mapping[str, tuple[Callable[[], str], str]] = {
    "mosquitto": (lambda: "" if mosquitto() else "not installed", "apt-get install mosquitto"),
    "compiler": (lambda: "" if shim.compiler() else "not installed", "apt-get install gcc libc6-dev"),
    "mount": (disk.why_not, "run as root, where file systems may be mounted"),
    "ext4": (disk.why_no_ext4, "apt-get install e2fsprogs; loop devices"),
}

SCENARIOS: Mapping[str, Scenario] = {
    "link-loss": Scenario("nothing passes between device and cloud", network_faults.link_loss, 5.0),
    "packet-loss": Scenario("30 % of the packets lost, both directions", network_faults.packet_loss, 8.0),
    "latency": Scenario("2 s in each direction", network_faults.latency, 12.0, (), Wiring(proxy=True)),
    "slow-link": Scenario(
        "9.6 kbit/s", network_faults.slow_link, 10.0, (), Wiring(per_s=2.0, bulk=1, padding_bytes=16)
    ),
    "one-way-partition": Scenario(
        "only one direction works; first the one, then the other", network_faults.one_way_partition, 8.0
    ),
    "broker-restart": Scenario("the broker goes and comes back", network_faults.broker_restart, 9.0),
    "kick-loop": Scenario(
        "a broker that accepts and then kicks", network_faults.kick_loop, 5.0, (), Wiring(proxy=True)
    ),
    "tls-expiry": Scenario(
        "the broker's certificate expires, and is renewed", network_faults.tls_expiry, 4.0, ("mosquitto",),
        Wiring(tls=True),
    ),
    "kill-process": Scenario(
        "kill -9 of producer, link, cloud and broker in turn", process_faults.kill_process, 6.0
    ),
    "disk-full": Scenario(
        "the device's disk is full", device_faults.disk_full, 4.0, ("mount",), Wiring(small_disk=True)
    ),
    "read-only": Scenario(
        "the device's file system turns read-only, and back", device_faults.read_only, 3.0, ("mount", "ext4"),
        Wiring(small_disk=True, per_s=3.0, bulk=20),
    ),
    "clock-jumps": Scenario(
        "1970, ± 1 year, an hour back", device_faults.clock_jumps, 6.0, ("compiler",), Wiring(shim=True)
    ),
    "tls-in-1970": Scenario(
        "the device wakes up in 1970 and connects over TLS", device_faults.tls_in_1970, 4.0, ("mosquitto", "compiler"),
        Wiring(tls=True, shim=True),
    ),
    "slow-disk": Scenario(
        "each flush of the device takes 0.25 s longer", device_faults.slow_disk, 5.0, ("compiler",), Wiring(shim=True)
    ),
}  # fmt: skip

#: what `gudgeon chaos quick` runs
QUICK = ("link-loss", "packet-loss", "kick-loop", "kill-process", "disk-full", "clock-jumps")


def missing(name: str) -> list[str]:
    """What this machine lacks for the scenario, each with what to do."""
    found = []
    for need in SCENARIOS[name].needs:
        why, remedy = NEEDS[need]
        if reason := why():
            found.append(f"{need} ({reason}; {remedy})")
    return found


def without_namespaces() -> str:
    """Why the proxy alone is used; empty where there are namespaces."""
    return namespaces.why_not()
