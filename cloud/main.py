"""`gudgeon cloud`: broker, ingest and web server in one process, started in this order and stopped in the reverse.

Each has its own thread; this thread waits for SIGTERM or SIGINT. Sockets are opened first, so that a port in use is told
before anything runs. The ready file appears when all three serve.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from paho.mqtt.enums import MQTTProtocolVersion

from cloud.app import make_app
from cloud.broker import EmbeddedBroker
from cloud.ingest import PROTOCOLS, Ingest
from cloud.settings import CloudSettings, load_cloud
from cloud.simulator import Simulator
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store
from edge_runtime import log
from edge_runtime.errors import GudgeonError, ResourceError

READY_TIMEOUT_S = 10.0
STREAMS_END_S = 1
CHECK_S = 0.2


class WebServer:
    """uvicorn on a socket that already listens, in its own thread (where it leaves the signals alone)."""

    def __init__(self, app: FastAPI, sock: socket.socket) -> None:
        self._app, self._socket = app, sock
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STREAMS_END_S,
            lifespan="on",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()
        waited = threading.Event()
        for _ in range(round(READY_TIMEOUT_S / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.01)
        if not self._server.started:
            raise GudgeonError("the web server did not start")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._app.state.stop_streams()
        self._server.should_exit = True
        self._thread.join(2 * STREAMS_END_S)


def run(settings: CloudSettings, on_ready: Callable[[int, int], None], stop: threading.Event) -> None:
    """Serve until `stop`; `on_ready(http_port, broker_port)` is called once everything serves."""
    with ExitStack() as stack:
        http = listen(settings.http.host, settings.http.port, "http.port")
        stack.callback(http.close)
        broker_port = settings.broker.port
        broker = None
        if settings.broker.embedded:
            sock = listen(settings.broker.host, settings.broker.port, "broker.port")
            stack.callback(sock.close)
            broker_port, broker = port_of(sock), EmbeddedBroker(sock)
        engine = open_store(settings.store.url)
        stack.callback(engine.dispose)
        if broker:
            broker.start()
            stack.callback(broker.stop)
        protocols = (MQTTProtocolVersion.MQTTv311,) if broker else PROTOCOLS
        ingest = Ingest(engine, settings.broker.host, broker_port, protocols)
        ingest.start()
        stack.callback(ingest.stop)
        if broker and not ingest.connected.wait(READY_TIMEOUT_S):
            raise GudgeonError("ingest could not connect to the embedded broker")
        web = WebServer(make_app(engine, Simulator(settings.simulator.stats_url), ingest.connected.is_set), http)
        web.start()
        stack.callback(web.stop)
        gc.collect()
        gc.freeze()
        on_ready(port_of(http), broker_port)
        while not stop.wait(CHECK_S):
            if not web.alive:
                raise GudgeonError("the web server ended; see the log above")


def write_ready(path: Path, http_port: int, broker_port: int) -> None:
    """The whole file or none: written beside it and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps({"http_port": http_port, "broker_port": broker_port}))
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(f"{path}: the ready file cannot be written: {error.strerror}") from error


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon cloud", description="The cloud companion: broker, ingest, store, page."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="cloud.toml")
    parser.add_argument(
        "--ready-file", type=Path, metavar="F", help="JSON {http_port, broker_port}, written when all serve"
    )
    args = parser.parse_args(argv)
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        settings = load_cloud(args.config)
        log.setup("cloud")

        def ready(http_port: int, broker_port: int) -> None:
            address = f"http://{url_host(settings.http.host)}:{http_port}/"
            log.say(logging.INFO, "cloud serves", page=address, broker=f"{settings.broker.host}:{broker_port}")
            if args.ready_file:
                write_ready(args.ready_file, http_port, broker_port)

        run(settings, ready, stop)
    except GudgeonError as error:
        print(f"gudgeon cloud: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    sys.exit(main())
