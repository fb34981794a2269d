"""Experiments in the database: their cohorts, what their devices decided, and every look at it.

- Decisions are read once, by the order of their arrival, from where the last look ended. One counts for a device's arm if it was
  made by the bundle of that arm; one by another arm's bundle is told apart (`crossed`), and any other is not looked at.
- `p` never rises: the least of all looks is kept, which is what makes looking at any time sound.
- A look is made whenever somebody asks, and by the clock of the rollouts.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, bindparam, func, select, text

from cloud.experiments.plan import METRICS, Experiment, experiment_of, tag_of
from cloud.experiments.sequential import SAMPLE_RATIO_ALARM, Unit, compare, rate, sample_ratio_p
from cloud.rollout.fleet import members, writing
from cloud.rollout.store import LATE_COMMITS_NS, Note, silent_note
from cloud.rollout.tags import matches
from cloud.store import tables as t
from cloud.store.database import is_postgresql, merge, newest, settled
from edge_runtime.errors import UsageError

Row = dict[str, Any]
PAGE = 20_000
OUTCOMES_LIMIT = 1_000_000
RUNNING, STOPPED = "running", "stopped"

ADD_TALLY = merge(
    t.experiment_tally,
    ("experiment", "device", "arm"),
    parts="experiment_tally.parts + excluded.parts",
    events="experiment_tally.events + excluded.events",
)
KEEP_P = merge(
    t.experiment_look,
    ("experiment", "arm"),
    p="CASE WHEN excluded.p < experiment_look.p THEN excluded.p ELSE experiment_look.p END",
    looks="experiment_look.looks + 1",
)
KEEP_TAG = merge(t.fleet_tag, ("device", "name"), **newest("value"))
KEEP_OUTCOME = text(
    """INSERT INTO experiment_outcome (experiment, device, part_epoch, part_seq, value, at_ns)
    VALUES (:experiment, :device, :part_epoch, :part_seq, :value, :at_ns) ON CONFLICT DO NOTHING"""
)


class Outcome(NamedTuple):
    """What a person, or another machine, found of a part: 1 counts as an event."""

    device: str
    part_epoch: int
    part_seq: int
    value: int


def create(engine: Engine, name: str, asked: Experiment, by: str, now_ns: int, note: Note = silent_note) -> Row:
    """Runs from here: devices get the tag of their arm, and Decisions that arrive from now on count."""
    with writing(engine).begin() as connection:
        before = _row(connection, name)
        if before is not None:
            if before["plan"] != asked.to_json():
                raise UsageError(f"experiment {name} is there already and is another one; choose another id")
            return report(engine, name)
        upto = _newest_decision(connection)
        row = {"id": name, "plan": asked.to_json(), "state": RUNNING, "reason": "", "created_by": by, "upto": upto}
        times = {"started_ns": now_ns, "stopped_ns": 0, "joined_ns": now_ns}
        connection.execute(t.experiment.insert().values(**row, **times))
        _join(connection, name, asked, 0, now_ns)
        note(connection, "experiment.create", name, json.loads(asked.to_json()))
    return report(engine, name)


def stop(engine: Engine, name: str, reason: str, now_ns: int, note: Note = silent_note) -> Row:
    """A last look, then none. May be repeated."""
    look(engine, name, now_ns)
    with writing(engine).begin() as connection:
        row = _held(connection, name)
        if row["state"] != STOPPED:
            changed = {"state": STOPPED, "reason": reason[:300], "stopped_ns": now_ns}
            connection.execute(t.experiment.update().where(t.experiment.c.id == name).values(**changed))
            note(connection, "experiment.stop", name, {"reason": reason})
    return report(engine, name)


def label(engine: Engine, name: str, outcomes: Sequence[Outcome], now_ns: int) -> int:
    """Keep what was found of parts; the first word on a part holds. How many are kept in all."""
    with writing(engine).begin() as connection:
        row = _held(connection, name)
        if experiment_of(row["plan"]).metric != "labelled" or row["state"] != RUNNING:
            raise UsageError(f"experiment {name}: outcomes are for one that runs and whose metric is labelled")
        count = select(func.count()).where(t.experiment_outcome.c.experiment == name)
        if connection.execute(count).scalar_one() + len(outcomes) > OUTCOMES_LIMIT:
            raise UsageError(f"experiment {name}: more than {OUTCOMES_LIMIT} outcomes")
        rows = [{**o._asdict(), "experiment": name, "at_ns": now_ns} for o in outcomes]
        if rows:
            connection.execute(KEEP_OUTCOME, rows)
        return int(connection.execute(count).scalar_one())


# ── a look ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def look(engine: Engine, name: str, now_ns: int) -> None:
    """Count what has arrived, and keep the least p."""
    with writing(engine).begin() as connection:
        row = _held(connection, name)
        if row["state"] != RUNNING:
            return
        asked = experiment_of(row["plan"])
        _join(connection, name, asked, max(1, row["joined_ns"] - LATE_COMMITS_NS), now_ns)
        if asked.metric == "labelled":
            _count_labelled(connection, name, asked)
        else:
            _count(connection, name, asked, row["upto"])
        arms = _arms(connection, name, asked)
        for number in range(1, len(asked.arms)):
            found = compare(rate(arms[0]), rate(arms[number]), asked.effect, _level(asked))
            values = {"experiment": name, "arm": number, "p": 1.0 if found.p is None else found.p, "looks": 1}
            connection.execute(KEEP_P, values)


def look_at_all(engine: Engine, now_ns: int) -> None:
    with engine.connect() as connection:
        names = connection.execute(select(t.experiment.c.id).where(t.experiment.c.state == RUNNING)).scalars().all()
    for name in names:
        look(engine, name, now_ns)


def _join(connection: Connection, name: str, asked: Experiment, since_ns: int, now_ns: int) -> None:
    tag = tag_of(name)
    new = [m for m in members(connection, since_ns) if matches(asked.where, m.tags) and tag not in m.tags]
    if new:
        rows = [{"device": m.device, "name": tag, "value": asked.arms[asked.arm_of(name, m.device)].name} for m in new]
        connection.execute(KEEP_TAG, rows)
        touched = t.fleet.update().where(t.fleet.c.device == bindparam("d")).values(changed_ns=now_ns)
        connection.execute(touched, [{"d": m.device} for m in new])
    connection.execute(t.experiment.update().where(t.experiment.c.id == name).values(joined_ns=now_ns))


def _count(connection: Connection, name: str, asked: Experiment, upto: int) -> None:
    """Page by page, in the order of arrival."""
    d, last = t.decision.c, _newest_decision(connection)
    digests = {arm.digest: number for number, arm in enumerate(asked.arms)}
    events = METRICS[asked.metric]
    counts: Counter[tuple[str, int]] = Counter()
    found: Counter[tuple[str, int]] = Counter()
    while upto < last:
        end = min(last, upto + PAGE)
        query = select(d.device, d.bundle_digest, d.result).where(d.id > upto, d.id <= end)
        for device, digest, result in connection.execute(query.where(d.bundle_digest.in_(digests))):
            key = (device, digests[digest])
            counts[key] += 1
            found[key] += result in events
        upto = end
    _add(connection, name, [(device, arm, n, found[device, arm]) for (device, arm), n in counts.items()])
    connection.execute(t.experiment.update().where(t.experiment.c.id == name).values(upto=upto))


def _count_labelled(connection: Connection, name: str, asked: Experiment) -> None:
    """All again: a label may come before its Decision."""
    o, d = t.experiment_outcome.c, t.decision.c
    same = (d.device == o.device) & (d.part_epoch == o.part_epoch) & (d.part_seq == o.part_seq)
    query = select(o.device, d.bundle_digest, func.count(), func.sum(o.value)).join(t.decision, same)
    query = query.where(o.experiment == name, d.bundle_digest.in_([arm.digest for arm in asked.arms]))
    digests = {arm.digest: number for number, arm in enumerate(asked.arms)}
    rows = connection.execute(query.group_by(o.device, d.bundle_digest)).all()
    tally = t.experiment_tally
    connection.execute(tally.delete().where(tally.c.experiment == name))
    _add(connection, name, [(device, digests[digest], int(n), int(k)) for device, digest, n, k in rows])


def _add(connection: Connection, name: str, rows: Sequence[tuple[str, int, int, int]]) -> None:
    names = ("device", "arm", "parts", "events")
    if rows:
        connection.execute(ADD_TALLY, [{"experiment": name, **dict(zip(names, row, strict=True))} for row in rows])


def _newest_decision(connection: Connection) -> int:
    """All up to it are committed."""
    there, upto = int(connection.execute(select(func.max(t.decision.c.id))).scalar() or 0), settled(connection)
    return there if upto is None else min(there, upto)


def _level(asked: Experiment) -> float:
    """Each comparison with the first arm has its part of alpha."""
    return asked.alpha / (len(asked.arms) - 1)


# ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────────


def report(engine: Engine, name: str) -> Row:
    """As of the last look. LookupError where there is none of this id."""
    with engine.connect() as connection:
        row = _row(connection, name)
        if row is None:
            raise LookupError(f"no experiment {name[:64]}; `gudgeon experiment list` tells those that there are")
        asked = experiment_of(row["plan"])
        arms = _arms(connection, name, asked)
        assigned = _assigned(connection, name, asked)
        crossed = _crossed(connection, name, asked)
        look_rows = select(t.experiment_look).where(t.experiment_look.c.experiment == name)
        looks = {r["arm"]: r for r in connection.execute(look_rows).mappings()}
    rates = [rate(units) for units in arms]
    ratio_p = sample_ratio_p([r.devices for r in rates], asked.shares)
    told = []
    for number, (arm, found) in enumerate(zip(asked.arms, rates, strict=True)):
        held: Row = {"name": arm.name, "digest": arm.digest, "assigned": assigned[number], "crossed": crossed[number]}
        held |= {"devices": found.devices, "parts": found.parts, "events": found.events, "share": found.share}
        if number:
            result, kept = compare(rates[0], found, asked.effect, _level(asked)), looks.get(number)
            held |= {"difference": result.difference, "low": result.low, "high": result.high}
            held |= {"p": kept["p"] if kept else 1.0, "looks": kept["looks"] if kept else 0}
        told.append(held)
    names = ("id", "state", "reason", "created_by", "started_ns", "stopped_ns")
    copied = {name: row[name] for name in names} | {"metric": asked.metric, "better": asked.better}
    limits = {"alpha": asked.alpha, "effect": asked.effect, "sample_ratio_p": ratio_p}
    return copied | limits | {"arms": told, **_said(asked, told, ratio_p)}


def _said(asked: Experiment, arms: Sequence[Mapping[str, Any]], ratio_p: float) -> Row:
    """`verdict`: sample_ratio (the comparison means nothing), different, or open. `best`: among arms that are told apart."""
    if ratio_p < SAMPLE_RATIO_ALARM:
        return {"verdict": "sample_ratio", "best": None}
    apart = [arm for arm in arms[1:] if arm["p"] <= _level(asked)]
    if not apart:
        return {"verdict": "open", "best": None}
    pick = min if asked.better == "low" else max
    return {"verdict": "different", "best": pick([arms[0], *apart], key=lambda arm: arm["share"])["name"]}


def listed(engine: Engine) -> list[Row]:
    """The newest first."""
    e = t.experiment.c
    with engine.connect() as connection:
        names = connection.execute(select(e.id).order_by(e.started_ns.desc(), e.id).limit(100)).scalars().all()
    return [report(engine, name) for name in names]


def _arms(connection: Connection, name: str, asked: Experiment) -> list[list[Unit]]:
    """The devices of each arm with what they decided by its bundle."""
    found: dict[int, list[Unit]] = defaultdict(list)
    for row in _tallies(connection, name):
        if row["arm"] == asked.arm_of(name, row["device"]):
            found[row["arm"]].append(Unit(row["parts"], row["events"]))
    return [found[number] for number in range(len(asked.arms))]


def _crossed(connection: Connection, name: str, asked: Experiment) -> Counter[int]:
    """Decisions of the devices of an arm by another arm's bundle, by the arm of the device."""
    found: Counter[int] = Counter()
    for row in _tallies(connection, name):
        own = asked.arm_of(name, row["device"])
        if row["arm"] != own:
            found[own] += row["parts"]
    return found


def _assigned(connection: Connection, name: str, asked: Experiment) -> Counter[int]:
    g = t.fleet_tag.c
    query = select(g.value, func.count()).where(g.name == tag_of(name)).group_by(g.value)
    by_name = {str(value): int(count) for value, count in connection.execute(query)}
    return Counter({number: by_name.get(arm.name, 0) for number, arm in enumerate(asked.arms)})


def _tallies(connection: Connection, name: str) -> list[Row]:
    query = select(t.experiment_tally).where(t.experiment_tally.c.experiment == name)
    cohort = select(t.fleet_tag.c.device).where(t.fleet_tag.c.name == tag_of(name))
    query = query.where(t.experiment_tally.c.device.in_(cohort))
    return [dict(row) for row in connection.execute(query).mappings()]


def _row(connection: Connection, name: str, lock: bool = False) -> Row | None:
    query = select(t.experiment).where(t.experiment.c.id == name)
    query = query.with_for_update() if lock and is_postgresql(connection) else query
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else dict(row)


def _held(connection: Connection, name: str) -> Row:
    row = _row(connection, name, lock=True)
    if row is None:
        raise LookupError(f"no experiment {name[:64]}; `gudgeon experiment list` tells those that there are")
    return row
