"""Many at once, and in any order: what must hold for every rollout, whatever is done to it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from cloud.rollout import polling, store
from cloud.rollout.tests.made import NEW, SLOT_SET, World, fleet
from cloud.store.opening import open_store
from edge_runtime.errors import UsageError

MOST = 3


def test_devices_that_ask_at_the_same_time_never_get_more_than_may_be_in_flight(engine: Engine) -> None:
    world = World(engine, fleet(24))
    world.poll()
    world.start(groups=[{"name": "all"}], max_in_flight=MOST)
    world.later(1)
    gate, failed = threading.Barrier(4), list[BaseException]()

    def ask(names: list[str]) -> None:
        gate.wait(60)
        for name in names:
            device = world.devices[name]
            status = device.status(world.now_ns)
            device.take(polling.answer(engine, [status], world.registry, world.now_ns)[name].assignment)

    def clock(count: int) -> None:
        gate.wait(60)
        for _ in range(count):
            world.show()
            for act in (store.pause, store.abort)[:1]:
                act(engine, "r1", "now and then", world.now_ns)
            store.resume(engine, "r1", world.now_ns)

    names = sorted(world.devices)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(ask, names[n::3]) for n in range(3)] + [pool.submit(clock, 5)]
        for job in jobs:
            if error := job.exception(40):
                failed.append(error)
    assert failed == []
    given_out = [n for n in names if SLOT_SET in world.devices[n].items]
    assert world.show()["in_flight"] <= MOST
    assert world.show()["exposed"] == len(given_out) <= MOST
    world.run(40)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 24)


Steps = st.lists(
    st.sampled_from(["poll", "some", "wait", "long", "pause", "resume", "abort", "approve", "start", "grow"]),
    min_size=4,
    max_size=16,
)


@given(
    Steps, st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.booleans(), st.sampled_from(["leave", "revert"])
)
@settings(
    max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_what_always_holds(steps: list[str], bad: set[int], silent: set[int], approval: bool, on_abort: str) -> None:
    with TemporaryDirectory() as folder:
        engine = open_store(f"sqlite:///{Path(folder) / 'cloud.db'}")
        try:
            _walk(engine, steps, bad, silent, {"approval": approval, "on_abort": on_abort})
        finally:
            engine.dispose()


def _walk(engine: Engine, steps: list[str], bad: set[int], silent: set[int], more: dict[str, Any]) -> None:
    world = World(engine, fleet(12, bad=bad, silent=silent - bad))
    world.poll()
    groups = [{"name": "canary", "count": 3, "soak_s": 30}, {"name": "all"}]
    world.start(groups=groups, max_in_flight=MOST, silent_after_s=120, abort={"executed": 4}, **more)
    ever_aborted = False
    first = _canary(world)
    for step in steps:
        before = world.show()
        _do(world, step)
        told = world.show()
        assert told["in_flight"] <= MOST
        first = first or _canary(world)
        assert _canary(world) == first, "a group that is open never grows"
        ever_aborted = ever_aborted or told["state"] in ("aborting", "aborted")
        assert not ever_aborted or told["state"] in ("aborting", "aborted")
        if before["state"] not in ("running", "finished"):
            assert told["exposed"] == before["exposed"], "nothing is begun"
        if told["groups"][1]["state"] == "waiting":
            assert told["exposed"] <= 3
        for device in world.devices.values():
            assert max(Counter(device.taken).values(), default=0) <= 1, "no device twice"
    counted = world.show()["groups"]
    assert sum(sum(g["counts"].values()) for g in counted) <= len(world.devices)
    has = {n for n, d in world.devices.items() if SLOT_SET in d.slots and d.slots[SLOT_SET].confirmed == NEW}
    world.poll()
    assert {d["device"] for d in _confirmed(world)} >= has - {
        n for n, d in world.devices.items() if d.gone
    } - _gone_back(world)


def _confirmed(world: World) -> list[dict[str, Any]]:
    from cloud.rollout.shown import devices

    return devices(world.engine, "r1", "confirmed", "", 100)


def _gone_back(world: World) -> set[str]:
    return {n for n, d in world.devices.items() if SLOT_SET not in d.slots or d.slots[SLOT_SET].confirmed != NEW}


def _canary(world: World) -> set[str]:
    from cloud.rollout.shown import devices

    return {d["device"] for d in devices(world.engine, "r1", None, "", 100) if d["number"] == 0}


def _do(world: World, step: str) -> None:
    """Actions are done twice, with the same end."""
    name, now_ns = "r1", world.now_ns
    acts: dict[str, Callable[[], dict[str, Any]]] = {
        "pause": lambda: store.pause(world.engine, name, "x", now_ns),
        "resume": lambda: store.resume(world.engine, name, now_ns),
        "abort": lambda: store.abort(world.engine, name, "x", now_ns),
        "approve": lambda: store.approve(world.engine, name, "berta", now_ns),
        "start": lambda: store.start(world.engine, name, "anna", now_ns),
    }
    if step in acts:
        try:
            assert acts[step]() == acts[step]()
        except UsageError:
            pass  # its state does not allow it
    elif step == "poll":
        world.poll()
    elif step == "some":
        world.poll(*[n for n in sorted(world.devices)[::3] if not world.devices[n].gone])
    elif step == "grow":
        new = fleet(len(world.devices) + 1)[-1]
        world.devices[new.name] = new
        world.poll(new.name)
    else:
        world.later(20 if step == "wait" else 200)
