"""Debian's own SWUpdate against the DDI routes: a signed image, cut in the middle of its download, resumed, installed, told."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, Request, Response

from cloud.ddi import store
from cloud.ddi.routes import router
from cloud.ddi.service import make_ddi
from cloud.rollout import fleet
from cloud.rollout import store as rollouts
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import read_plan
from cloud.rollout.registry import InMemory, MemoryRegistry
from cloud.rollout.shown import show
from cloud.rollout.ticker import Ticker
from cloud.settings import DdiSection
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store
from edge_runtime.wire.update_status import UpdateStatus
from hil_tests import swu
from hil_tests.bench import wait_for
from tools.chaos.proxy import ProxyControl

TARGET = "os/press/1.0.0.swu"
SIZE_BYTES = 6 << 20
SLOW_BYTES_PER_S = 1 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not shutil.which("swupdate") or not shutil.which("openssl"), reason="no swupdate: make setup-swupdate"
    ),
]


class Cloud:
    """The DDI routes on a socket, over a running rollout of the image. `ranges`: of each request for the file, what it asked."""

    def __init__(self, folder: Path, image: bytes) -> None:
        self.ranges = list[str]()
        self.sha256 = hashlib.sha256(image).hexdigest()
        file = folder / "repo/targets/os/press" / f"{self.sha256}.1.0.0.swu"
        file.parent.mkdir(parents=True)
        file.write_bytes(image)
        self.engine = open_store(f"sqlite:///{folder / 'cloud.db'}")
        self._registry = MemoryRegistry(Ed25519PrivateKey.generate().sign, {TARGET: InMemory(self.sha256)})
        ddi = make_ddi(self.engine, DdiSection(serve=True, poll_s=1), self._registry, folder, time.time_ns)
        with ddi.writing() as connection:
            self.token = store.make_token(connection, "press-1", 1)
        ddi.ask(UpdateStatus("press-1", "", "", time.time_ns()))  # the fleet knows it from its first question on
        plan = read_plan({"groups": [{"name": "all"}], "enough": "installed", "tries": 1})
        rollouts.create(
            self.engine, rollouts.Asked("r-1", "os", Artifact(TARGET, self.sha256), plan), "anna", time.time_ns()
        )
        rollouts.start(self.engine, "r-1", "anna", time.time_ns())
        self.app = FastAPI()
        self.app.state.ddi = ddi
        self.app.include_router(router)
        self.app.middleware("http")(self._look)

    def rollout(self) -> dict[str, Any]:
        return show(self.engine, "r-1", time.time_ns())

    def slot(self) -> dict[str, Any]:
        slots: dict[str, Any] = (fleet.device(self.engine, "press-1") or {})["slots"]
        return dict(slots.get("os", {}))

    async def _look(self, request: Request, go: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "GET" and request.url.path.endswith(".swu"):
            self.ranges.append(request.headers.get("range", ""))
        return await go(request)

    @contextmanager
    def serve(self) -> Iterator[int]:
        with listen("127.0.0.1", 0, "") as sock:
            server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
            ticker = Ticker(self.engine, self._registry)
            thread.start()
            ticker.start()
            try:
                yield port_of(sock)
            finally:
                ticker.stop()
                server.should_exit = True
                thread.join(10)
                self.engine.dispose()


@contextmanager
def proxy(folder: Path, to: int) -> Iterator[tuple[int, ProxyControl]]:
    with listen("127.0.0.1", 0, "") as sock:
        port = port_of(sock)
    control = folder / "proxy.sock"
    command = [sys.executable, "-m", "tools.chaos.proxy", "--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{to}"]
    process = subprocess.Popen([*command, "--control", control])
    try:
        yield port, ProxyControl(control)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def client(folder: Path, port: int, token: str, certificate: Path, *more: str) -> Iterator[Path]:
    """SWUpdate as the daemon of a device."""
    suricatta = f"-t DEFAULT -u http://127.0.0.1:{port} -i press-1 -k {token} -p 1 -r 20 -w 1 {' '.join(more)}"
    log = folder / f"swupdate{len(more)}.log"
    (folder / "tmp").mkdir(exist_ok=True)
    command = ["swupdate", "-k", str(certificate), "-H", "board:1.0", "-l", "4", "-M", "-m", "-u", suricatta]
    with log.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            yield log
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def test_a_signed_image_is_cut_resumed_installed_and_told(tmp_path: Path) -> None:
    image = random.Random(7).randbytes(SIZE_BYTES)
    place = tmp_path / "rootfs.bin"
    signer = swu.release_key(tmp_path)
    cloud = Cloud(tmp_path, swu.build(tmp_path, image, place, "1.0.0", signer))
    with cloud.serve() as port, proxy(tmp_path, port) as (through, control):
        control.set(bytes_per_s=SLOW_BYTES_PER_S)
        with client(tmp_path, through, cloud.token, signer[0]) as log:
            wait_for("a third of the file", lambda: control.counts().get("bytes_down", 0) > SIZE_BYTES // 3, 60)
            control.cut()
            wait_for("the cut", lambda: control.counts().get("cut", 0))
            control.set()
            wait_for("the end", lambda: b"SWUPDATE successful" in log.read_bytes(), 60)
        assert place.read_bytes() == image
        resumed = [r for r in cloud.ranges if r]
        assert resumed, cloud.ranges
        assert int(resumed[0].removeprefix("bytes=").split("-")[0]) > 0
        assert cloud.rollout()["confirmed"] == 0, "written and not yet booted: nothing is claimed"

        with client(tmp_path, through, cloud.token, signer[0], "-c", "2"):  # after its restart, as its boot script says
            wait_for("its success", lambda: cloud.rollout()["state"] == "finished")
    assert cloud.rollout()["failed"] == 0
    slot = cloud.slot()
    assert (slot["installed"], slot["running"], slot["confirmed"]) == (cloud.sha256, "", "")


def test_an_image_of_another_signer_is_refused_by_the_device_and_told(tmp_path: Path) -> None:
    signer = swu.release_key(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = swu.release_key(tmp_path / "other")
    place = tmp_path / "rootfs.bin"
    cloud = Cloud(tmp_path, swu.build(tmp_path, b"bad" * 1000, place, "1.0.0", stranger))
    with cloud.serve() as port, client(tmp_path, port, cloud.token, signer[0]):
        wait_for("the failure", lambda: cloud.rollout()["failed"] == 1, 60)
    assert not place.exists()
    assert cloud.slot()["state"] == "refused"
