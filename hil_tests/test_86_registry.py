"""A release from the ceremony to a device over TLS: a real cloud with a registry, and a device that trusts its first root."""

from __future__ import annotations

import hashlib
import queue
import ssl
import threading
import urllib.request
from pathlib import Path

import pytest

from cloud.ca.local import LocalAuthority
from cloud.main import run
from cloud.registry import artifacts
from cloud.registry.assigner import Assigner
from cloud.registry.making import make_registry, release
from cloud.registry.publishing import renew, utc_now
from cloud.registry.rotating import rotate
from cloud.settings import load_cloud
from edge_runtime.clock import SystemClock
from edge_runtime.errors import BundleError
from edge_runtime.update.tuf.repository import TrustedRepository, own_hardware
from edge_runtime.update.tuf.source import HttpSource
from edge_runtime.wire.assignment import Item

NAME, PATH = "press-1", "models/surface/1.tar"
CLOUD = """
[http]
port = 0
[broker]
port = 0
[devices]
serve = true
port = 0
[registry]
folder = "registry"
"""


def test_a_release_reaches_a_device_and_a_later_one_mends_it(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "registry", tmp_path / "keys", utc_now())
    (tmp_path / "state" / "trust").mkdir(parents=True)
    (tmp_path / "state" / "trust" / "root.json").write_bytes(registry.root(1).data)
    (tmp_path / "cloud.toml").write_text(CLOUD)
    told: queue.Queue[dict[str, int]] = queue.Queue()
    stop, settings = threading.Event(), load_cloud(tmp_path / "cloud.toml")
    thread = threading.Thread(target=run, args=(settings, told.put, stop))
    thread.start()
    try:
        url = f"https://localhost:{told.get(timeout=60)['devices_port']}/repo"
        context = ssl.create_default_context(cadata=LocalAuthority(settings.ca_folder).roots().decode())
        clock = SystemClock()
        trusted = TrustedRepository.of(tmp_path / "state", HttpSource(f"{url}/metadata", context), clock)
        assigner = Assigner(registry.folder)

        for number in (1, 2):
            path = f"models/surface/{number}.tar"
            (tmp_path / "artifact").write_bytes(b"release %d" % number)
            added = artifacts.add(registry, tmp_path / "artifact", path, utc_now(), floor=number)
            rotate(registry, "timestamp", utc_now())
            rotate(registry, "assignment", utc_now())
            release(registry, tmp_path / "keys", utc_now())
            sealed = assigner.seal(NAME, number, {"default": Item(path, added.sha256)}, clock.wall_ns())
            taken = trusted.refresh().take(sealed, NAME, own_hardware())
            assert not taken.refused
            target = taken.targets["default"]
            with urllib.request.urlopen(f"{url}/targets/{target.file}", context=context, timeout=60) as answer:
                assert hashlib.sha256(answer.read()).hexdigest() == target.sha256
            trusted.confirmed(target)

        renew(registry, utc_now(), force=True)
        targets = trusted.refresh()
        assert trusted.floor.versions["root"] == 3
        with pytest.raises(BundleError, match="index 1, below this device's floor of 2"):
            targets.admitted(PATH, own_hardware())
    finally:
        stop.set()
        thread.join(60)
