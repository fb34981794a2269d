"""`gudgeon ingest`: one ingest worker. Start as many as the machine has cores for: each takes its share of the Events from the
broker (`$share`), and any may be killed at any instruction, because the broker gives what it had to the others."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import ExitStack
from functools import partial

from cloud.metrics import of_ingest, page
from cloud.serving import OnReady, few_collections, make_ingest, serve
from cloud.settings import METRICS_HOST, METRICS_PORTS, CloudSettings
from cloud.store.opening import open_store
from cloud.store.writer import open_writer
from edge_runtime import log
from edge_runtime.clock import SystemClock
from edge_runtime.errors import ConfigError
from edge_runtime.metrics_server import MetricsServer


def run(settings: CloudSettings, on_ready: OnReady, stop: threading.Event) -> None:
    """Store what comes until `stop`; `on_ready` is called at the first connection to the broker."""
    if settings.broker.embedded:
        raise ConfigError("ingest workers need a broker with shared subscriptions; set embedded = false in [broker]")
    with ExitStack() as stack:
        engine = open_store(settings.store.address)
        stack.callback(engine.dispose)
        writer = open_writer(engine)
        stack.callback(writer.close)
        ingest = make_ingest(settings, writer, settings.broker.port)
        ingest.start()
        stack.callback(ingest.stop)
        section = settings.ingest
        ports = range(section.metrics_port, section.metrics_port + METRICS_PORTS) if section.metrics_port else ()
        metrics = MetricsServer(METRICS_HOST, ports, page("ingest", partial(of_ingest, ingest)), SystemClock())
        if reason := metrics.try_start():
            log.say(logging.WARNING, "metrics are not served; set ingest.metrics_port to 0 or elsewhere", reason=reason)
        stack.callback(metrics.stop)
        while not ingest.connected.wait(0.2):
            if stop.is_set():
                return
        few_collections()
        on_ready({"pid": os.getpid(), "metrics_port": metrics.port})
        stop.wait()


def main(argv: list[str] | None = None) -> int:
    description = "One ingest worker: Events from the broker into the store. Run several for more."
    return serve("ingest", description, "JSON {pid, metrics_port}, written once connected to the broker", run, argv)


if __name__ == "__main__":
    sys.exit(main())
