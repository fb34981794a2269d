"""The least that the time can be: what stands in for a clock that wakes up in 1970.

The floor is the newest of: the day of this release, and the cloud's time at the last contact, kept on the disk and moved
on by the monotonic clock. It only rises.

While the system's clock is behind the floor it is certainly wrong, and certificates are judged at the floor instead: the
chain to a known authority and the host's name are checked by OpenSSL as ever, without looking at the time; then every
certificate of that chain must be valid at the floor, or the handshake fails, before anything was sent. A clock that is
ahead is believed, so that a certificate that it calls expired is refused.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from edge_runtime import log
from edge_runtime.clock import Clock
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.link.clock_offset import SANE_NS

RELEASED_NS = 1_767_225_600 * 10**9  # 2026-01-01; to be raised with a release
SAVE_EVERY_NS = 3600 * 10**9
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of <openssl/x509_vfy.h>
FILE = "trusted_time.json"


class TimeFloor:
    """`path` holds the newest trusted time; written at most once an hour, and by `save`."""

    def __init__(self, path: Path, clock: Clock, released_ns: int = RELEASED_NS) -> None:
        self._path, self._clock = path, clock
        self._floor_ns, self._at_ns = max(released_ns, _read(path)), clock.monotonic_ns()
        self._saved_ns = self._floor_ns

    def now_ns(self) -> int:
        return self._floor_ns + max(0, self._clock.monotonic_ns() - self._at_ns)

    def seen(self, wall_ns: int) -> None:
        """The time was at least this, somebody trusted says."""
        if wall_ns in SANE_NS and wall_ns > self.now_ns():
            self._floor_ns, self._at_ns = wall_ns, self._clock.monotonic_ns()
        if self.now_ns() - self._saved_ns >= SAVE_EVERY_NS:
            self.save()

    def save(self) -> None:
        """A disk that refuses costs nothing but this: after a start the floor is older."""
        now_ns = self.now_ns()
        try:
            replace_file(self._path, json.dumps({"trusted_ns": now_ns}).encode())
        except ResourceError as error:
            log.say(logging.WARNING, "the newest trusted time could not be kept", reason=str(error))
        self._saved_ns = now_ns

    @property
    def clock_is_behind(self) -> bool:
        return self._clock.wall_ns() < self.now_ns()


def _read(path: Path) -> int:
    """The time in the file; 0 where there is none. A damaged file is told and counts as none."""
    with disk_errors(path):
        if not path.exists():
            return 0
        text = path.read_text(errors="replace")
    try:
        trusted_ns = json.loads(text)["trusted_ns"]
        if type(trusted_ns) is int and trusted_ns in SANE_NS:
            return trusted_ns
    except (ValueError, KeyError, TypeError):
        pass
    log.say(logging.WARNING, "the file of the newest trusted time is damaged; it is made anew", file=str(path))
    return 0


def judge_at(context: ssl.SSLContext, now_ns: Callable[[], int]) -> None:
    """From now on this context judges certificates at `now_ns` and not by the system's clock."""

    class FloorSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check_chain([x509.load_der_x509_certificate(der) for der in verified_chain(self)], now_ns())

    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    context.sslsocket_class = FloorSocket


def verified_chain(sock: ssl.SSLSocket) -> list[bytes]:
    """The chain that OpenSSL has verified, as DER: public since Python 3.13, under the same name inside before."""
    if hasattr(sock, "get_verified_chain"):
        return list(sock.get_verified_chain())
    inner: Any = sock._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner.get_verified_chain()]


def check_chain(chain: list[x509.Certificate], now_ns: int) -> None:
    """Every certificate must be valid at this time; SSLCertVerificationError names the one that is not."""
    at = datetime.fromtimestamp(now_ns // 10**9, UTC)
    if not chain:
        raise ssl.SSLCertVerificationError(1, "certificate verify failed: the broker showed no certificate")
    for certificate in chain:
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first <= at <= last:
            name = certificate.subject.rfc4514_string()
            raise ssl.SSLCertVerificationError(
                1,
                f"certificate verify failed: {name} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}; the device's clock is "
                f"wrong, and the least that the time can be is {at:%Y-%m-%d %H:%M}; set the clock",
            )
