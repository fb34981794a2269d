"""Beyond this machine: with TLS, under configured names, and only with required identities."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud.access import operators
from cloud.access.admission import CSRF_HEADER, HOST_COOKIE
from cloud.access.roles import Role
from cloud.access.tests.made import PASSWORD, SHELL
from cloud.main import main, run
from cloud.settings import load_cloud
from cloud.store.opening import open_store

NAME = "cloud.example"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Self-signed, for `NAME` and 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "http.pem", folder / "http.key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*pem))
    return cert_file, key_file


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    cert_file, _ = certificate(tmp_path)
    config = tmp_path / "cloud.toml"
    config.write_text(
        f'[http]\nport = 0\nnames = ["{NAME}"]\ncert_file = "http.pem"\nkey_file = "http.key.pem"\n'
        "[access]\nrequired = true\n[broker]\nport = 0\n"
    )
    settings = load_cloud(config)
    engine = open_store(settings.store.address)
    operators.add(engine, SHELL, "ada", Role.OPERATOR, PASSWORD, 5)
    engine.dispose()
    ready, stop, ports = threading.Event(), threading.Event(), dict[str, int]()

    def on_ready(told: dict[str, int]) -> None:
        ports.update(told)
        ready.set()

    thread = threading.Thread(target=run, args=(settings, on_ready, stop))
    thread.start()
    assert ready.wait(60)
    context = ssl.create_default_context(cafile=str(cert_file))
    base = f"https://127.0.0.1:{ports['http_port']}"
    with httpx.Client(base_url=base, verify=context, trust_env=False, timeout=60) as made:
        yield made
    stop.set()
    thread.join(60)


def test_the_web_server_speaks_tls_under_its_names(client: httpx.Client) -> None:
    for host, status in ((NAME, 200), (NAME.upper() + ":443", 200), ("127.0.0.1", 200), ("other.example", 421)):
        answer = client.get("/api/v1/health", headers={"host": host})
        assert answer.status_code == status, host
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert client.get("/api/v1/devices").status_code == 401
    with pytest.raises(httpx.HTTPError):
        httpx.get(str(client.base_url).replace("https", "http"), trust_env=False)
    answer = client.post("/api/v1/login", json={"name": "ada", "password": PASSWORD}, headers={CSRF_HEADER: ""})
    assert answer.status_code == 200
    assert answer.headers["set-cookie"].startswith(HOST_COOKIE + "=")
    assert client.get("/api/v1/devices").status_code == 200


def test_a_certificate_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text(
        '[http]\nport = 0\ncert_file = "http.pem"\nkey_file = "http.key.pem"\n[broker]\nport = 0\n[store]\nkey_file = "k"\n'
    )
    assert main(["--config", str(config)]) == 3
    certificate(tmp_path)
    (tmp_path / "http.key.pem").write_text("rubbish")
    assert main(["--config", str(config)]) == 3
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gudgeon cloud: ")]
    assert len(told) == 2
    assert all("not usable for TLS" in line for line in told)
