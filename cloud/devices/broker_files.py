"""The files of a Mosquitto that lets devices in by their certificates, kept up to date in one folder.

    mosquitto.conf      to be started with: mosquitto -c FOLDER/mosquitto.conf
    acl                 what each device may read and write: `%u` is the name in its certificate
    passwords           of the one other user, the cloud
    roots.pem crl.pem server.pem      whom it believes, whom no more, and what it shows

- Two listeners. Devices: TLS, a certificate is required, its name is user name and client id, so that no device can take the
  session of another. The cloud: this machine only, with a password; client ids are free.
- Mosquitto reads CRL and server certificate again at SIGHUP (its process id is in `mosquitto.pid`); new roots need a restart.
"""

from __future__ import annotations

import base64
import hashlib
import os
import signal
from contextlib import suppress
from pathlib import Path

from cloud.bearer import load_or_make
from cloud.devices.served import Served
from cloud.enrol.desk import Desk
from cloud.settings import CloudSettings
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ConfigError
from edge_runtime.who import user_name
from edge_runtime.wire.topics import NOW

CONF, ACL, PASSWORDS, CRL, ROOTS, PID = "mosquitto.conf", "acl", "passwords", "crl.pem", "roots.pem", "mosquitto.pid"
ITERATIONS = 101  # the password is a random number of 256 bits
#: what a device may do with its own leaves of `wire.topics`, and with its own node of Sparkplug
WRITES = ("events", "status", "reported", f"{NOW}/#")
READS = ("ack", "desired", "command")
SPARKPLUG_WRITES = ("NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA")
SPARKPLUG_READS = ("NCMD", "DCMD")


def acl(cloud_user: str) -> str:
    own = "v1/+/+/+/+/+/%u"
    lines = [f"pattern write {own}/{leaf}" for leaf in WRITES]
    lines += [f"pattern read {own}/{leaf}" for leaf in READS]
    for access, kinds in (("write", SPARKPLUG_WRITES), ("read", SPARKPLUG_READS)):
        lines += [
            f"pattern {access} spBv1.0/+/{kind}/%u{rest}" for kind in kinds for rest in ("", "/#")[kind[0] == "D" :]
        ]
    lines += ["pattern read spBv1.0/STATE/+"]
    return "\n".join([f"user {cloud_user}", "topic readwrite #", "", *lines]) + "\n"


class BrokerFiles:
    def __init__(self, settings: CloudSettings, desk: Desk) -> None:
        section, broker = settings.devices, settings.broker
        if section.broker_folder is None or broker.embedded or not broker.username or broker.password_file is None:
            raise ConfigError(
                "devices.broker_folder needs broker.embedded = false, broker.username and broker.password_file in cloud.toml"
            )
        self.folder, self._settings, self._desk = section.broker_folder, settings, desk
        self._user, self._password_file = broker.username, broker.password_file
        self._served = Served(self.folder, section.names, desk.authority, desk.now_ns)
        self._rotation = ""

    def write(self) -> None:
        """All of them."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        password = load_or_make(self._password_file)
        self._put(PASSWORDS, f"{self._user}:{_hashed(password)}\n".encode())
        self._put(ACL, acl(self._user).encode())
        self._put(CONF, self._conf().encode())
        self.refresh()

    @property
    def due(self) -> bool:
        """There is another issuer or root: without its CRL Mosquitto lets none of its certificates in."""
        return self._rotation != self._desk.authority.rotation()

    def refresh(self) -> None:
        """What ages, or changes with a revocation; then Mosquitto reads it, where it runs."""
        self._rotation = self._desk.authority.rotation()
        self._served.refresh()
        self._put(ROOTS, self._desk.authority.roots())
        self._put(CRL, self._desk.crl())
        self.reload()

    def reload(self) -> None:
        with suppress(OSError, ValueError):  # none runs, or it is somebody else's to tell
            pid = int((self.folder / PID).read_text())
            if b"mosquitto" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGHUP)

    def _put(self, name: str, data: bytes) -> None:
        replace_file(self.folder / name, data, mode=0o600)

    def _conf(self) -> str:
        at, section, broker = self.folder, self._settings.devices, self._settings.broker
        return "\n".join(
            (
                "# Made by gudgeon; changes are lost.",
                f"user {user_name()}",
                f"pid_file {at / PID}",
                "allow_anonymous false",
                f"password_file {at / PASSWORDS}",
                f"acl_file {at / ACL}",
                "set_tcp_nodelay true",
                "max_inflight_messages 200",
                "max_queued_messages 100000",
                "log_type error",
                "log_type warning",
                "log_type notice",
                f"listener {broker.port} {broker.host}",
                f"listener {section.broker_port} {section.host}",
                "tls_version tlsv1.2",
                f"cafile {at / ROOTS}",
                f"certfile {self._served.path}",
                f"keyfile {self._served.path}",
                f"crlfile {at / CRL}",
                "require_certificate true",
                "use_identity_as_username true",
                "use_username_as_clientid true",
                "",
            )
        )


def _hashed(password: str) -> str:
    """As Mosquitto keeps it (mosquitto_passwd(1)): PBKDF2 with SHA-512."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
