"""Where the device's TLS credentials lie, in its state folder. The names are stable: other programs may use them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("identity")
KEY, CERTIFICATE, ROOTS = FOLDER / "tls.key", FOLDER / "tls.pem", FOLDER / "ca.pem"
