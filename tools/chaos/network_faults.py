"""Faults of the network and of the broker. Each begins, lasts, ends, and tells what really happened.

In namespaces the kernel makes them. Without the privilege the proxy does what can be done between two sockets: lost
packets become stalls and resets, a dead direction holds its bytes.
"""

from __future__ import annotations

import subprocess
import sys
import time

from edge_runtime.errors import GudgeonError
from tools.chaos.evidence import Evidence
from tools.chaos.namespaces import Namespaces
from tools.chaos.pair import Pair

LOSS_PERCENT = 30
DROPPED_S = 30.0  # TCP tries again ever more seldom: the fault lasts until something was dropped
LATENCY_S = 2.0
SLOW_BITS_PER_S = 9600
KICK_AFTER_S = 0.002
SETTLE_S = 0.5
BROKER_DOWN_S = 1.5
EXPIRES_S = 2.0
HELLO_S = 30.0

SIDES = ("device", "cloud")


def link_loss(pair: Pair, seconds: float) -> Evidence:
    """Nothing passes at all: the cable is out; or, by the proxy, the broker's side of the connection is gone without the
    device being told, and nobody else is let in."""
    if pair.namespaces and not pair.uses_proxy:
        pair.namespaces.cut(True)
        by = "the cable between the namespaces"
    else:
        pair.proxy.set(refuse=True, half_open=True)
        by = "the proxy: the open connection leads nowhere, new ones are reset"
    began_ns, produced = time.time_ns(), len(pair.produced()[0])
    pair.last(seconds, lambda: len(pair.produced()[0]) > produced)
    facts = {"rows_during": pair.arrived(began_ns), "produced_during": len(pair.produced()[0]) - produced}
    if pair.namespaces and not pair.uses_proxy:
        pair.namespaces.cut(False)
    else:
        pair.proxy.set()
    return Evidence(facts["rows_during"] == 0 and facts["produced_during"] > 0, by, facts)


def packet_loss(pair: Pair, seconds: float) -> Evidence:
    """30 % of all packets, in both directions."""
    before = pair.arrived()
    if pair.namespaces is None or pair.uses_proxy:
        pair.proxy.set(stall=LOSS_PERCENT / 100, reset=0.01)
        pair.wait(seconds)
        counts = pair.proxy.counts()
        pair.proxy.set()
        facts = {name: counts.get(name, 0) for name in ("stalled", "reset")}
        facts["rows_during"] = pair.arrived() - before
        return Evidence(facts["stalled"] > 0, "the proxy: stalls and resets instead of lost packets", facts)
    dropped = _drop(pair, pair.namespaces, seconds, LOSS_PERCENT, SIDES)
    facts = {**dropped, "rows_during": pair.arrived() - before}
    happened = all(dropped[f"{side}_packets_dropped"] > 0 for side in SIDES)
    return Evidence(happened, f"nftables: {LOSS_PERCENT} % dropped at random, both directions", facts)


def one_way_partition(pair: Pair, seconds: float) -> Evidence:
    """First nothing reaches the cloud, then nothing reaches the device; each for half of the time."""
    if pair.namespaces is None or pair.uses_proxy:
        for way in ("up", "down"):
            pair.proxy.set(hold=way)
            pair.last(seconds / 2, lambda way=way: pair.proxy.counts().get(f"held_{way}", 0) > 0)  # type: ignore[misc]
        counts = pair.proxy.counts()
        pair.proxy.set()
        facts = {name: counts.get(name, 0) for name in ("held_up", "held_down")}
        return Evidence(all(facts.values()), "the proxy: one direction held", facts)
    facts = {}
    for side in reversed(SIDES):
        facts |= _drop(pair, pair.namespaces, seconds / 2, 100, (side,))
    happened = all(facts[f"{side}_packets_dropped"] > 0 for side in SIDES)
    return Evidence(happened, "nftables: all packets to the cloud dropped, then all to the device", facts)


def _drop(pair: Pair, network: Namespaces, seconds: float, percent: int, sides: tuple[str, ...]) -> dict[str, int]:
    for side in sides:
        network.drop(side, percent)
    pair.wait(seconds)
    pair.wait(DROPPED_S, lambda: all(network.counts(side)["packets_dropped"] > 0 for side in sides))
    facts = {f"{side}_{name}": n for side in sides for name, n in network.counts(side).items()}
    for side in sides:
        network.pass_all(side)
    return facts


def latency(pair: Pair, seconds: float) -> Evidence:
    """Two seconds in each direction."""
    before = pair.arrived()
    by = f"the proxy: {LATENCY_S:g} s in each direction"
    pair.proxy.set(latency_s=LATENCY_S)
    pair.last(seconds, lambda: pair.arrived() > before)
    facts = {"delayed": pair.proxy.counts().get("delayed", 0), "rows_during": pair.arrived() - before}
    round_trip_s = round(_round_trip_s(pair), 3)
    pair.proxy.set()
    return Evidence(facts["delayed"] > 0 and round_trip_s >= 2 * LATENCY_S, by, {**facts, "round_trip_s": round_trip_s})


def _round_trip_s(pair: Pair) -> float:
    """A connection of our own to the broker, on the device's way: CONNECT to CONNACK."""
    command = [*pair.at("device"), sys.executable, "-m", "tools.chaos.hello", *pair.device_broker]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=HELLO_S).stdout)


def slow_link(pair: Pair, seconds: float) -> Evidence:
    """9.6 kbit/s in each direction."""
    before = pair.arrived()
    if pair.namespaces is None or pair.uses_proxy:
        pair.proxy.set(bytes_per_s=SLOW_BITS_PER_S // 8)
        pair.last(seconds, lambda: pair.arrived() > before)
        facts = {"paced": pair.proxy.counts().get("paced", 0), "rows_during": pair.arrived() - before}
        pair.proxy.set()
        return Evidence(facts["paced"] > 0, f"the proxy: {SLOW_BITS_PER_S} bit/s", facts)
    for side in SIDES:
        pair.namespaces.slow(side, SLOW_BITS_PER_S)
    pair.last(seconds, lambda: pair.arrived() > before)
    facts = {f"{side}_{k}": n for side in SIDES for k, n in pair.namespaces.unshape(side).items()}
    facts["rows_during"] = pair.arrived() - before
    return Evidence(facts["device_overlimits"] > 0, f"tc tbf: {SLOW_BITS_PER_S} bit/s", facts)


def broker_restart(pair: Pair, seconds: float) -> Evidence:
    """The broker ends in an orderly way, stays away, and starts again; as often as the time allows."""
    name = "cloud" if pair.embedded else "broker"
    times, left_s = 0, seconds
    while left_s > 0:
        pair.keeper[name].stop()
        pair.wait(BROKER_DOWN_S)
        pair.keeper[name].start()
        pair.wait(2 * BROKER_DOWN_S)
        times, left_s = times + 1, left_s - 3 * BROKER_DOWN_S
    by = "the embedded broker, with its cloud" if pair.embedded else "Mosquitto"
    return Evidence(pair.keeper[name].starts == times + 1, by, {"restarts": times})


def kick_loop(pair: Pair, seconds: float) -> Evidence:
    """A broker that accepts, and closes the connection at once after its CONNACK."""
    pair.proxy.set(kick_after_s=KICK_AFTER_S)
    pair.proxy.cut()
    pair.last(seconds, lambda: pair.proxy.counts().get("kicked", 0) > 1)
    counts = pair.proxy.counts()
    pair.proxy.set()
    facts = {"kicked": counts.get("kicked", 0), "connections": counts["connections"]}
    return Evidence(facts["kicked"] > 0, "the proxy: reset after CONNACK", facts)


def tls_expiry(pair: Pair, seconds: float) -> Evidence:
    """The server's certificate expires, every connection is made anew and must be refused; then it is renewed."""
    broker = pair.keeper["broker"]
    pair.issue(EXPIRES_S)
    _serve_again(pair)
    pair.wait(EXPIRES_S + SETTLE_S)
    _serve_again(pair)  # the connection that was made in time lives on: it has to be made anew
    began_ns, produced = time.time_ns(), len(pair.produced()[0])

    def refused() -> bool:
        return pair.keeper["link"].says("certificate has expired") or broker.says("certificate expired")

    pair.last(seconds, lambda: refused() and len(pair.produced()[0]) > produced)
    facts = {
        "rows_while_expired": pair.arrived(began_ns),
        "produced_while_expired": len(pair.produced()[0]) - produced,
    }
    if not refused():
        raise GudgeonError("the device did not refuse an expired certificate; see log/link.log and log/broker.log")
    pair.issue(3600.0)
    _serve_again(pair)
    happened = facts["rows_while_expired"] == 0 and facts["produced_while_expired"] > 0
    return Evidence(
        happened, "Mosquitto with a certificate that expired", {**facts, "refused_by_the_device": refused()}
    )


def _serve_again(pair: Pair) -> None:
    """Mosquitto reads its certificates when it starts."""
    pair.keeper["broker"].stop()
    pair.keeper["broker"].start()
