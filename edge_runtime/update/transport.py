"""What the updater's connections are made with: TLS by what enrolment has left in the state folder, or the files of [update]."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_runtime.clock import SystemClock
from edge_runtime.config import UpdateSection
from edge_runtime.errors import EndpointError
from edge_runtime.identity.judging import judge
from edge_runtime.link import time_floor
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.tls_files import CERTIFICATE, KEY, ROOTS


def tls_context(section: UpdateSection, state_dir: Path) -> ssl.SSLContext:
    """The cloud is checked, at the time floor where the clock is behind it; this device shows its certificate. EndpointError
    where there is none yet."""
    roots = section.ca or state_dir / ROOTS
    certificate, key = section.certificate or state_dir / CERTIFICATE, section.key or state_dir / KEY
    for path in (roots, certificate, key):
        if not path.is_file():
            raise EndpointError(f"{path}: no such file, so the cloud cannot be asked for updates; run: gudgeon enroll")
    try:
        context = ssl.create_default_context(cafile=str(roots))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        judge(TimeFloor(state_dir / time_floor.FILE, SystemClock()))(context)
    except OSError as error:
        raise EndpointError(f"{certificate}: cannot be used for TLS: {error}; enrol this device again") from error
    return context
