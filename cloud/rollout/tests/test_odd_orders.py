"""What plants do to rollouts: clouds that are down or told another time, pauses over a weekend, boards that are replaced, two
clouds on one store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.rollout import clock, store, ticker
from cloud.rollout import fleet as stored_fleet
from cloud.rollout.shown import devices
from cloud.rollout.simulated import SimulatedDevice
from cloud.rollout.tests.made import NEW, SLOT_SET, World, fleet
from cloud.store import tables as t
from cloud.store.opening import open_store

CANARY = [{"name": "canary", "count": 2, "soak_s": 600}, {"name": "all"}]
ONE = [{"name": "all"}]
HOUR_S, DAY_S = 3600.0, 86_400.0


def under_way(engine: Engine, count: int = 4, **plan: Any) -> World:
    """A rollout that its devices were given, and are working on."""
    world = World(engine, fleet(count))
    world.poll()
    world.later(1)
    world.start(**({"groups": ONE} | plan))
    world.later(1)
    world.poll()
    world.later(20)
    assert world.show()["in_flight"] > 0
    return world


def soaking(engine: Engine) -> World:
    world = under_way(engine, groups=CANARY)
    world.run(3)
    world.later(1)
    assert world.show()["groups"][0]["state"] == "soaking"
    return world


@pytest.mark.parametrize("hours", [2.0, 72.0, -5.0])
def test_a_cloud_that_was_down_or_set_its_clock_blames_no_device(engine: Engine, hours: float) -> None:
    world = under_way(engine, silent_after_s=600)
    assert world.down(hours * HOUR_S) == {}
    assert (world.show()["state"], world.show()["failed"]) == ("running", 0)
    world.run(8)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 4)


@pytest.mark.parametrize("hours", [2.0, -5.0])
def test_afterwards_a_device_that_stays_silent_still_counts(engine: Engine, hours: float) -> None:
    world = under_way(engine, silent_after_s=600, abort={"failed": 1.0})
    world.down(hours * HOUR_S)
    world.later(500)
    assert world.show()["failed"] == 0
    world.later(200)
    assert world.show()["groups"][0]["counts"]["silent"] == 4


@pytest.mark.parametrize("hours", [24.0, -24.0])
def test_a_soak_time_is_neither_cut_short_nor_drawn_out_by_it(sqlite: Engine, hours: float) -> None:
    world = soaking(sqlite)
    world.later(300)
    world.down(hours * HOUR_S)
    assert world.show()["groups"][0]["state"] == "soaking"
    world.later(250)
    assert world.show()["groups"][0]["state"] == "soaking"
    world.later(60)
    assert world.show()["groups"][0]["state"] == "done"


def test_after_three_days_down_nobody_is_absent_until_they_had_their_time(sqlite: Engine) -> None:
    world = under_way(sqlite, count=12, groups=[{"name": "canary", "count": 6}, {"name": "all"}], max_in_flight=1)
    world.down(3 * DAY_S)
    assert [group["absent"] for group in world.show()["groups"]] == [0, 0]
    assert world.show()["groups"][1]["state"] == "waiting"
    world.later(2 * DAY_S)
    assert [group["absent"] for group in world.show()["groups"]] == [5, 6]


def test_a_cloud_that_starts_anew_in_the_middle_goes_on(tmp_path: Path) -> None:
    """Another process opens the same file; nothing was kept in memory."""
    address = f"sqlite:///{tmp_path / 'cloud.db'}"
    engine = open_store(address)
    world = soaking(engine)
    for _ in range(24):
        engine.dispose()
        engine = world.engine = open_store(address)
        world.run(1, seconds=50)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 4)
    assert all(len(d.taken) == 1 for d in world.devices.values()), "no device twice"
    engine.dispose()


def test_two_clouds_that_tick_the_same_rollout_do_everything_once(engine: Engine) -> None:
    world = under_way(engine, count=12, silent_after_s=100, abort={"failed": 1.0, "executed": 1000})
    world.pass_by(101)
    with ThreadPoolExecutor(4) as pool:
        ticks = [pool.submit(clock.advance, engine, world.now_ns, world.registry) for _ in range(12)]
        moved = [found for tick in ticks if (found := tick.result(60))]
    told = world.show()
    assert told["groups"][0]["counts"]["silent"] == 12
    assert sorted(found["r1"] for found in moved) == ["aborted", "aborting"], "one of them each"
    for name in world.devices:
        history = (stored_fleet.device(engine, name) or {})["history"]
        assert [row["state"] for row in history].count("silent") == 1


# ── pauses ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("here", [True, False])
def test_a_pause_over_days_counts_for_nobody(engine: Engine, here: bool) -> None:
    """While downloads are under way; devices go on asking, or the plant is switched off."""
    world = under_way(engine, stuck_after_s=DAY_S)
    store.pause(engine, "r1", "long weekend", world.now_ns)
    for _ in range(16):
        world.later(6 * HOUR_S)
        if here:
            world.poll()
    assert world.show()["failed"] == 0
    assert not world.confirmed(), "staged, and not started"
    for _ in range(2):
        assert store.resume(engine, "r1", world.now_ns)["state"] == "running"
    world.later(2)
    assert world.show()["failed"] == 0
    world.run(8)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 4)


def test_one_that_waits_for_its_second_try_through_a_pause_gets_it(sqlite: Engine) -> None:
    world = World(sqlite, fleet(2))
    world.devices["dev00000"].refusals = 1
    world.poll()
    world.start(groups=ONE, retry_s=100, silent_after_s=300)
    world.run(4, seconds=20)
    assert world.show()["groups"][0]["counts"]["retry"] == 1
    store.pause(sqlite, "r1", "night", world.now_ns)
    world.later(12 * HOUR_S)
    store.resume(sqlite, "r1", world.now_ns)
    world.later(2)
    assert world.show()["groups"][0]["counts"]["retry"] == 1
    world.run(8)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 2)


def test_pause_and_abort_while_it_is_paused_and_soak_times_across_a_pause(sqlite: Engine) -> None:
    world = soaking(sqlite)
    store.pause(sqlite, "r1", "", world.now_ns)
    world.later(HOUR_S)
    world.poll()
    store.resume(sqlite, "r1", world.now_ns)
    world.later(2)
    assert world.show()["groups"][0]["state"] == "soaking", "an hour of pause is no soak time"
    store.pause(sqlite, "r1", "", world.now_ns)
    store.abort(sqlite, "r1", "enough", world.now_ns)
    world.run(2)
    told = world.show()
    assert (told["state"], told["exposed"], told["confirmed"]) == ("aborted", 2, 2)


# ── boards that are replaced ────────────────────────────────────────────────────────────────────────────────────────


def replaced(world: World, name: str) -> SimulatedDevice:
    """Another board under the same name, as it comes from its maker: it has seen no assignment."""
    world.devices[name] = SimulatedDevice(name, "good")
    return world.devices[name]


def test_a_board_that_is_replaced_while_it_works_gets_it_on_the_new_one(engine: Engine) -> None:
    world = under_way(engine)
    board = replaced(world, "dev00000")
    world.run(8)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 4)
    assert board.slots[SLOT_SET].confirmed == NEW
    assert len(board.taken) == 1


def test_a_board_that_is_replaced_after_it_confirmed_gets_it_too_and_a_failure_of_it_counts(engine: Engine) -> None:
    world = under_way(engine)
    world.run(8)
    assert world.show()["state"] == "finished"
    board = replaced(world, "dev00001")
    world.run(4)
    assert board.slots[SLOT_SET].confirmed == NEW
    assert world.show()["confirmed"] == 4
    world.devices["dev00001"] = SimulatedDevice("dev00001", "bad")
    world.run(4)
    assert world.show()["failed"] == 1


def test_a_board_that_failed_and_was_replaced_is_counted_and_gets_it_by_a_rollout_of_its_own(sqlite: Engine) -> None:
    world = World(sqlite, fleet(30, bad=[3]))
    world.poll()
    world.start(groups=ONE)
    world.run(8)
    assert (world.show()["state"], world.show()["failed"]) == ("finished", 1)
    board = replaced(world, "dev00003")
    world.run(4)
    assert board.taken == []
    assert world.show()["failed"] == 1, "what failed, failed: a new board does not make the artifact better"
    world.start("again", groups=ONE, where=["device=dev00003"])
    world.run(6)
    assert board.slots[SLOT_SET].confirmed == NEW
    assert world.show("again")["state"] == "finished"
    assert [d["device"] for d in devices(sqlite, "r1", "failed", "", 10)] == ["dev00003"]


def test_a_rollout_that_cannot_be_read_keeps_no_other_from_moving(
    sqlite: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(sqlite, fleet(4))
    world.poll()
    world.start("sound", groups=ONE, where=["device=dev00000|dev00001"])
    world.start("broken", groups=ONE, where=["device=dev00002"])
    with stored_fleet.writing(sqlite).begin() as connection:
        connection.execute(
            t.rollout.update().where(t.rollout.c.id == "broken").values(plan='{"of": "another version"}')
        )
    for _ in range(6):
        world.later(30)
        world.poll("dev00000", "dev00001")
    world.later(1)
    assert world.show("sound")["state"] == "finished"
    assert "a rollout was not moved on" in caplog.text


def test_the_ticker_outlives_what_fails(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ticked, again = list[int](), threading.Event()

    def fails(*given: object) -> dict[str, str]:
        ticked.append(1)
        if len(ticked) > 2:
            again.set()
        raise KeyError("unforeseen")

    monkeypatch.setattr(ticker, "advance", fails)
    monkeypatch.setattr(ticker, "EVERY_S", 0.001)
    running = ticker.Ticker(sqlite, None)
    running.start()
    assert again.wait(60)
    running.stop()
