"""Ingest against Mosquitto, MQTT 5, killed and started again: the broker that is used beyond one machine."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from sqlalchemy import Engine

from cloud import worker
from cloud.ingest import PROTOCOLS, Ingest
from cloud.settings import METRICS_PORTS, BrokerSection, CloudSettings, IngestSection, StoreSection
from cloud.store import queries
from cloud.tests.databases import writer_of
from cloud.tests.made import WAIT_S, FakeDevice, decision, until
from edge_runtime.tests.mosquitto import MOSQUITTO
from edge_runtime.tests.waiting import answers, free_port

EVENTS = re.compile(r"gudgeon_ingest_events_total ")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    (folder / "m.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([str(MOSQUITTO), "-c", str(folder / "m.conf")], stderr=subprocess.DEVNULL)
    assert until(lambda: answers(port))
    return process


def test_mqtt_5_and_a_broker_that_is_killed_and_comes_back(engine: Engine, tmp_path: Path) -> None:
    port = free_port()
    broker = start(tmp_path, port)
    ingest = Ingest(writer_of(engine), "127.0.0.1", port)
    ingest.start()
    try:
        assert ingest.connected.wait(WAIT_S)
        assert PROTOCOLS[ingest._protocol] is MQTTProtocolVersion.MQTTv5
        device = FakeDevice(port)
        assert device.send([decision(1)]) == {"decision": 1}
        device.close()
        broker.kill()
        broker.wait()
        assert until(lambda: not ingest.connected.is_set())
        broker = start(tmp_path, port)
        assert ingest.connected.wait(WAIT_S)
        device = FakeDevice(port)
        assert device.send([decision(1), decision(2)]) == {"decision": 2}
        device.close()
        assert len(queries.events(engine, {})) == 2
    finally:
        ingest.stop()
        broker.kill()
        broker.wait()


def test_two_workers_each_serve_their_own_metrics(tmp_path: Path) -> None:
    port, metrics_port = free_port(), free_port()
    broker = start(tmp_path, port)
    settings = CloudSettings(
        broker=BrokerSection(embedded=False, port=port),
        store=StoreSection(f"sqlite:///{tmp_path / 'cloud.db'}"),
        ingest=IngestSection(here=False, metrics_port=min(metrics_port, 65000)),
    )
    told: queue.Queue[dict[str, int]] = queue.Queue()
    stop = threading.Event()
    workers = [threading.Thread(target=worker.run, args=(settings, told.put, stop)) for _ in range(2)]
    try:
        ports = []
        for thread in workers:
            thread.start()
            ports.append(told.get(timeout=WAIT_S)["metrics_port"])
        assert len(set(ports)) == 2
        assert all(settings.ingest.metrics_port <= p < settings.ingest.metrics_port + METRICS_PORTS for p in ports)
        device = FakeDevice(port)
        assert device.send([decision(1), decision(2)]) == {"decision": 2}
        device.close()
        texts = [httpx.get(f"http://127.0.0.1:{p}/metrics").text for p in ports]
        assert sum(float(line.split()[1]) for t in texts for line in t.splitlines() if EVENTS.match(line)) == 2
        assert all("gudgeon_ingest_connected 1.0" in t and "gudgeon_store" not in t for t in texts)
    finally:
        stop.set()
        for thread in workers:
            thread.join()
        broker.kill()
        broker.wait()
