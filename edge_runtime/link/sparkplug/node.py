"""Node: the device as an edge node of Sparkplug B 3.0. The primary host is the receiver, and what reaches it leaves the outbox.

- Everything comes from the outbox. Live goes first; the backlog is flushed beside it, paced, each value historical with its
  own time, each stream in order.
- Data flow only while the primary host is online. What is not confirmed (`delivery`) is sent again, as historical, on the next
  connection: nothing is lost, a value may come twice.
- bdSeq is on the disk before its CONNECT; the will, the NBIRTH and every rebirth of that connection have the same.
- A metric that no birth told yet is told by a rebirth before its first value.
- A broker whose access list forbids a QoS 0 message drops it without a word. So nothing is acknowledged on a connection before
  the broker has given us our own NBIRTH back.
- Paho's callbacks only put into `_inbox`; `turn` acts.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as mqtt

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock
from edge_runtime.link.connection import Connection
from edge_runtime.link.queue import Waiting
from edge_runtime.link.sparkplug import payload
from edge_runtime.link.sparkplug.commands import AtMost, Commands
from edge_runtime.link.sparkplug.delivery import Delivery
from edge_runtime.link.sparkplug.line import STREAMS_OF_INTEREST, LineWatch
from edge_runtime.link.sparkplug.mapping import DEPTH_METRIC, OWNERS, REBIRTH, SHED_METRIC, Owner, Registry
from edge_runtime.link.sparkplug.messages import Messages
from edge_runtime.link.sparkplug.pace import Pace
from edge_runtime.link.sparkplug.saved import FILE, Saved
from edge_runtime.link.sparkplug.session import (
    Action,
    Input,
    LineAction,
    LineInput,
    LineState,
    PrimaryHost,
    State,
    advance,
    advance_line,
)
from edge_runtime.link.sparkplug.settings import SparkplugSection
from edge_runtime.link.sparkplug.topics import state_topic
from edge_runtime.mqtt_access import Access
from edge_runtime.mqtt_client import no_delay
from edge_runtime.wire.envelope import STREAMS, Event, Record, read_record
from edge_runtime.wire.topics import Place

REBIRTH_PERIOD_S = 2.0  # a host may ask as often as it likes; it gets a birth this often
LINE_LOOK_S = 0.5
OUTBOX_LOOK_S = 10.0
BARRIER_TIMEOUT_S = 30.0
ECHO_TIMEOUT_S = 10.0
LEAVE_S = 0.5
INBOX_LIMIT = 1000
STREAMS_OF: Mapping[Owner, list[str]] = {
    owner: sorted((s for s in STREAMS if OWNERS[s][0] is owner), key=lambda s: STREAMS[s][0]) for owner in Owner
}


class Queue(Waiting, Protocol):
    """What the node needs of the outbox."""

    def last(self, stream: str) -> Event | None: ...
    def depth(self) -> int: ...
    def shed_totals(self) -> Mapping[tuple[str, str], int]: ...


class Node(Connection):
    """`turn` does what is to be done and waits a moment for the broker or for `wake`, as `link.uplink.Uplink` does.

    `writable`: what `commands` may allow, by name; told in the DBIRTH, because hosts write only to what a birth named."""

    def __init__(
        self,
        section: SparkplugSection,
        place: Place,
        boot_id: str,
        host: str,
        port: int,
        outbox: Queue,
        commands: Commands,
        state_dir: Path,
        wake: socket.socket | None = None,
        keepalive_s: int = 30,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        access: Access | None = None,
        reconnect_spread_s: float = 0.0,
        writable: Mapping[str, payload.DataType] | None = None,
    ) -> None:
        payload.generated()  # said now where protobuf is missing
        self._names = section.names(place)
        super().__init__(place.device, host, port, wake, keepalive_s, clock, backoff, access, reconnect_spread_s)
        self._section, self._outbox, self._commands = section, outbox, AtMost(commands, self._clock)
        self._saved = Saved(state_dir / FILE)
        self._registry = Registry(self._saved.metrics, section.max_metrics)
        for name, datatype in (writable or {}).items():
            self._registry.declare(Owner.LINE, name, datatype, always=True)
        self._messages = Messages(self._names, boot_id, self._registry, self._saved, self._publish, self._clock)
        self._pace = Pace(section.backlog_records_per_s, section.backlog_bytes_per_s, self._clock.monotonic_ns())
        self._watch = LineWatch(boot_id, round(section.line_timeout_s * 1e9))
        self._primary = PrimaryHost()
        self._host_topic = state_topic(section.primary_host) if section.primary_host else ""
        self._hold_ns = round(section.confirm_after_s * 1e9) if section.primary_host else 0
        self._inbox: deque[Callable[[], None]] = deque(maxlen=INBOX_LIMIT)
        self._subscribing: set[int] = set()
        self._delivery = Delivery({})
        self._chain = ""
        self._born_ns = self._line_due_ns = self._outbox_due_ns = 0
        self._wait: float | None = None
        self._rebirth_wanted = False
        self._birth_seen = self._echo_said = False
        self.state, self.line = State.OFFLINE, LineState.DEAD

    # ── one turn ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _due(self, now_ns: int) -> None:
        self._wait = self._work(now_ns) if self.state is State.BORN else None

    def _wait_s(self, most_s: float) -> float:
        return most_s if self._wait is None else min(most_s, self._wait)

    def drain(self, timeout_s: float) -> bool:
        """Send what may be sent, until the broker has answered for it or the time is up; True if all was. What is too new to
        be confirmed stays in the outbox."""
        deadline_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        while self._clock.monotonic_ns() < deadline_ns and not (self._client is None and self._backoff.tries > 1):
            if self.state is State.WAITING:
                return False
            if self.state is State.BORN and not self._unsent() and not self._delivery.under_way:
                self._acknowledge(self._clock.monotonic_ns())
                return True
            self.turn()
        return False

    def close(self) -> None:
        """Leave as the specification asks: NDEATH, then DISCONNECT."""
        if self._client is not None and self.connected:
            self._leave(born=self.state is State.BORN)
        self._client, self.connected = None, False
        self._step(Input.LOST)

    def _unsent(self) -> bool:
        streams = self._streams()
        live = self._outbox.pending(1, after=self._delivery.live_after, streams=streams)
        return bool(live or self._delivery.backlog_streams(streams))

    def _work(self, now_ns: int) -> float | None:
        """What is due while born; how long may be waited for the next thing, None: as long as usual."""
        if self._outbox.chain != self._chain:
            self._begin_session()  # the outbox was damaged and began a new chain
            self._birth()
        if self._rebirth_wanted:
            if now_ns - self._born_ns < REBIRTH_PERIOD_S * 1e9:
                return REBIRTH_PERIOD_S / 10  # no data between a request and its birth
            self._step(Input.REBIRTH)
        self._look_at_line(now_ns)
        self._look_at_outbox(now_ns)
        more = self._send_live()
        more |= self._send_backlog(now_ns)
        self._barrier(now_ns)
        self._acknowledge(now_ns)
        if self.wants_write:
            return None  # until it can be written to
        if more:
            return 0.0
        return min(0.2, self._pace.wait_s(now_ns)) if self._delivery.backlog_streams(self._streams()) else None

    # ── the session ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, event: Input) -> None:
        self.state, action = advance(self.state, event)
        if self.state is not State.BORN:
            self.line, _ = advance_line(self.line, LineInput.NODE_GONE)
        if action is Action.SUBSCRIBE:
            self._subscribe()
        elif action is Action.BIRTH:
            if event is Input.HOST_ONLINE:
                self._begin_session()
            self._birth()
        elif action is Action.LEAVE:
            self._leave(born=True)
            self._lost("the primary host is offline")

    def _prepare(self, client: mqtt.Client) -> None:
        """The will gets its bdSeq when the socket is open: an attempt that sends no CONNECT uses none up."""

        def open_socket(client: mqtt.Client, data: Any, sock: Any) -> None:
            no_delay(client, data, sock)
            self._saved.next_bd_seq()
            client.will_set(self._names.topic("NDEATH"), self._messages.death(), qos=1, retain=False)
            self._step(Input.CONNECT)

        client.on_socket_open = open_socket
        client.on_message = lambda c, d, message: self._inbox.append(lambda: self._on_message(message))
        client.on_subscribe = lambda c, d, mid, codes, p: self._inbox.append(lambda: self._on_subscribed(mid, codes))
        client.on_unsubscribe = lambda c, d, mid, codes, p: self._inbox.append(lambda: self._on_barrier(mid))

    def _came_up(self, client: mqtt.Client) -> None:
        self._primary.forget()
        self._inbox.append(lambda: self._step(Input.ACCEPTED))

    def _went_down(self) -> None:
        self._inbox.clear()
        self._subscribing.clear()
        self._rebirth_wanted = self._birth_seen = False
        self._step(Input.LOST)

    def _after_exchange(self) -> None:
        self._take_inbox()

    def _take_inbox(self) -> None:
        while self._inbox and self._client is not None:
            self._inbox.popleft()()

    def _subscribe(self) -> None:
        assert self._client is not None
        topics = [self._names.topic(message) for message in ("NCMD", "DCMD", "NBIRTH")]
        topics += [self._host_topic] if self._host_topic else []
        _, mid = self._client.subscribe([(topic, 1) for topic in topics])
        self._subscribing = {mid} if mid is not None else set()

    def _on_subscribed(self, mid: int, codes: Sequence[Any]) -> None:
        if mid not in self._subscribing:
            return
        if any(getattr(code, "is_failure", False) for code in codes):
            self._lost(f"the broker refuses our subscriptions: {', '.join(map(str, codes))}; check its access list")
            return
        self._step(Input.SUBSCRIBED)
        if not self._host_topic or self._primary.online:
            self._step(Input.HOST_ONLINE)
        else:
            log.say(logging.INFO, "waiting for the primary host", host=self._section.primary_host)

    def _leave(self, born: bool) -> None:
        """NDEATH where there was an NBIRTH, then DISCONNECT. In between the broker's answer is read: a socket that is closed with
        something unread in it resets the connection, and the broker would tell the will as well."""
        assert self._client is not None
        if born:
            info = self._client.publish(self._names.topic("NDEATH"), self._messages.death(), qos=1)
            if info.rc == mqtt.MQTT_ERR_SUCCESS:
                self._await(info.is_published, LEAVE_S)
        self._client.disconnect()

    # ── birth ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_session(self) -> None:
        """From here on, what is appended is live."""
        self._chain = self._outbox.chain
        self._delivery = Delivery({stream: self._outbox.head(stream) for stream in STREAMS})
        self.line = LineState.DEAD
        self._remember(list(STREAMS))

    def _remember(self, streams: Sequence[str]) -> None:
        """What the newest Events say is what a birth says."""
        for stream in streams:
            event = self._outbox.last(stream)
            if event is not None:
                self._registry.learn([event])
                self._registry.remember(event)

    def _birth(self) -> None:
        self._rebirth_wanted = False
        self._born_ns, self._line_due_ns = self._clock.monotonic_ns(), 0
        self._messages.birth(self._chain, self._outbox_values(), self.line is LineState.BORN)

    def _look_at_line(self, now_ns: int) -> None:
        if now_ns < self._line_due_ns:
            return
        self._line_due_ns = now_ns + round(LINE_LOOK_S * 1e9)
        for stream in STREAMS_OF_INTEREST:
            self._watch.see(self._outbox.last(stream))
        self.line, action = advance_line(self.line, self._watch.verdict(now_ns))
        if action is LineAction.BIRTH:
            self._delivery.born_again({s: self._outbox.head(s) for s in STREAMS_OF[Owner.LINE]})
            self._remember(STREAMS_OF[Owner.LINE])
            self._messages.line_birth()
        elif action is LineAction.DEATH:
            self._messages.line_death()

    def _outbox_values(self) -> dict[str, int]:
        shed = dict.fromkeys(STREAMS, 0)
        for (stream, _), count in self._outbox.shed_totals().items():
            shed[stream] = shed.get(stream, 0) + count
        return {DEPTH_METRIC: self._outbox.depth(), **{SHED_METRIC.format(s): n for s, n in shed.items()}}

    def _look_at_outbox(self, now_ns: int) -> None:
        if now_ns < self._outbox_due_ns:
            return
        self._outbox_due_ns = now_ns + round(OUTBOX_LOOK_S * 1e9)
        self._messages.values(self._outbox_values())

    # ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _streams(self) -> list[str]:
        """Whose data may go now: the line's only while it is born."""
        return STREAMS_OF[Owner.NODE] + (STREAMS_OF[Owner.LINE] if self.line is LineState.BORN else [])

    def _send_live(self) -> bool:
        """True where there may be more."""
        most = self._section.batch_records
        if self.wants_write:
            return False
        records = self._outbox.pending(most, after=self._delivery.live_after, streams=self._streams())
        if records:
            self._send(records, live=True)
        return len(records) == most

    def _send_backlog(self, now_ns: int) -> bool:
        streams = self._delivery.backlog_streams(self._streams())
        most = self._pace.records(now_ns, self._section.batch_records)
        if not streams or not most or self.wants_write:
            return False
        delivery = self._delivery
        records = self._outbox.pending(most, after=delivery.backlog_after, streams=streams, upto=delivery.backlog_upto)
        if not records:
            delivery.no_backlog(streams)
            return False
        self._pace.spend(len(records), self._send(records, live=False), now_ns)
        return self._pace.wait_s(now_ns) == 0

    def _send(self, records: Sequence[Record], live: bool) -> int:
        """The bytes that went out."""
        self._outbox.checkpoint()  # what the host gets to see is on the disk before: a power cut takes no number back
        events = [event for r in records if (event := self._read(r)) is not None]
        if live:
            events.sort(key=lambda e: e.mono_ns)
            for event in events:
                self._watch.see(event)
        if self._registry.learn(events):
            self._birth()
        size_bytes = self._messages.events(events, live)
        self.counts.update(batches=1, records=len(records), bytes=size_bytes)
        self._delivery.sent(records, live)
        return size_bytes

    def _read(self, record: Record) -> Event | None:
        """A record that is none holds nothing up: it is told as a fault, and the rest goes on."""
        try:
            return read_record(record.line)
        except ValueError as error:
            body = {"stream": record.stream, "seq": record.seq, "reason": str(error)[:200]}
            self._outbox.append("fault", "record_unreadable", body)
            return None

    def _publish(self, topic: str, data: bytes) -> None:
        if self._client is not None:
            self._client.publish(topic, data, qos=0)

    # ── what the broker has read ────────────────────────────────────────────────────────────────────────────────────

    def _barrier(self, now_ns: int) -> None:
        """An UNSUBSCRIBE from what was never subscribed: the broker must answer it, in order, and nobody else hears of it."""
        if self._client is None:
            return
        if self._delivery.wants_barrier(now_ns, self._hold_ns):
            _, mid = self._client.unsubscribe(f"{self._names.topic('NCMD')}/barrier")
            if mid is not None:
                self._delivery.barrier(mid, now_ns)
        if self._delivery.unanswered_ns(now_ns) > BARRIER_TIMEOUT_S * 1e9:
            self._lost("the broker does not answer")

    def _on_barrier(self, mid: int) -> None:
        self._delivery.answered(mid, self._clock.monotonic_ns())

    def _acknowledge(self, now_ns: int) -> None:
        if not self._birth_seen:
            self._miss_echo(now_ns)
        elif self.state is State.BORN and self._outbox.chain == self._chain:
            committed = self._delivery.confirmed(self._hold_ns)
            if committed:
                self.counts["acknowledged"] += self._outbox.ack(committed)

    def _miss_echo(self, now_ns: int) -> None:
        if self.state is State.BORN and not self._echo_said and now_ns - self._born_ns > ECHO_TIMEOUT_S * 1e9:
            self._echo_said = True
            reason = (
                f"the broker does not pass {self._names.topic('NBIRTH')} on to us; it must let us write and read it"
            )
            self._outbox.append("fault", "birth_not_passed_on", {"reason": reason})
            log.say(logging.WARNING, "nothing is acknowledged", reason=reason)

    # ── what the host says ──────────────────────────────────────────────────────────────────────────────────────────

    def _on_message(self, message: mqtt.MQTTMessage) -> None:
        try:
            if message.topic == self._host_topic:
                self._on_host(bytes(message.payload))
            elif message.topic == self._names.topic("NBIRTH"):
                self._birth_seen |= bytes(message.payload) == self._messages.last_birth
            elif message.retain:
                raise ValueError("a retained command is none")
            elif message.topic in (self._names.topic("NCMD"), self._names.topic("DCMD")):
                source = "NCMD" if message.topic == self._names.topic("NCMD") else "DCMD"
                self._on_command(source, payload.decode(bytes(message.payload)))
        except ValueError as error:
            log.say(logging.WARNING, "a Sparkplug message was not understood", topic=message.topic, reason=str(error))

    def _on_host(self, data: bytes) -> None:
        if self._primary.see(data):
            self._step(Input.HOST_ONLINE if self._primary.online else Input.HOST_OFFLINE)

    def _on_command(self, source: str, read: payload.Payload) -> None:
        for metric in read.metrics:
            found = self._registry.find(metric.name, metric.alias)
            name, datatype = found or (metric.name or f"alias {metric.alias}", 0)
            if source == "NCMD" and name == REBIRTH:
                self._rebirth_wanted |= metric.value is True
            else:
                value = metric.value if metric.datatype else payload.as_signed(metric.value, datatype)
                self._commands.request(source, name, value, metric.timestamp_ms * 1_000_000)
