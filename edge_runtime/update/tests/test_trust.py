"""Who is believed: signatures, key files, and the developer's key."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.identity import public_bytes
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.update import keyring, sign, trust
from edge_runtime.wire import manifest as wire

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = public_bytes(KEY)
KEYS = {trust.key_id(PUBLIC): PUBLIC}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@given(st.binary(max_size=100))
def test_a_signature_by_a_trusted_key_is_believed(data: bytes) -> None:
    signer = trust.key_id(PUBLIC)
    assert trust.verify(data, trust.encode_signature(signer, KEY.sign(data)), KEYS) == signer


@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_changed_bit_is_noticed(data: bytes, draw: st.DataObject) -> None:
    signature = bytearray(KEY.sign(data))
    changed = bytearray(data)
    at = draw.draw(st.integers(0, len(data) + 63))
    bit = 1 << draw.draw(st.integers(0, 7))
    if at < len(data):
        changed[at] ^= bit
    else:
        signature[at - len(data)] ^= bit
    with pytest.raises(BundleError, match="it was changed"):
        trust.verify(bytes(changed), trust.encode_signature(trust.key_id(PUBLIC), bytes(signature)), KEYS)


@given(st.binary(max_size=200))
def test_any_signature_file_is_refused_in_one_way(raw: bytes) -> None:
    with pytest.raises(BundleError):
        trust.verify(b"m", raw, KEYS)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 4000,
        b"{}",
        b"[]",
        b"null",
        b'{"key_id": 1, "signature": 2}',
        b'{"key_id": "a", "signature": "%"}',
        b" " * 5000,
    ],
)
def test_what_is_no_signature_file(raw: bytes) -> None:
    with pytest.raises(BundleError, match="is not a signature file; sign it with"):
        trust.verify(b"m", raw, KEYS)


def test_unsigned_and_unknown() -> None:
    with pytest.raises(BundleError, match="is not signed"):
        trust.verify(b"m", None, KEYS)
    with pytest.raises(BundleError, match="which this device does not trust"):
        trust.verify(b"m", trust.encode_signature(trust.key_id(PUBLIC), KEY.sign(b"m")), {})
    with pytest.raises(BundleError, match="it was changed"):
        trust.verify(b"m", trust.encode_signature(trust.key_id(PUBLIC), b"short"), KEYS)


def test_the_developer_key_is_made_once_and_private(home: Path) -> None:
    first, second = keyring.developer_key(), keyring.developer_key()
    assert public_bytes(first) == public_bytes(second)
    assert (home / "developer.key").stat().st_mode & 0o777 == 0o600
    assert base64.b64decode((home / "developer.pub").read_text()) == public_bytes(first)


def test_a_lost_public_half_is_made_again(home: Path) -> None:
    key = keyring.developer_key()
    (home / "developer.pub").unlink()
    keyring.developer_key()
    assert public_bytes(key) in keyring.trusted_keys(home).values()


def test_a_key_that_others_can_read_is_refused(home: Path) -> None:
    keyring.developer_key()
    (home / "developer.key").chmod(0o644)
    with pytest.raises(ResourceError, match="chmod 600"):
        keyring.developer_key()


def test_a_key_file_that_is_none(home: Path) -> None:
    home.mkdir()
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, told in (
        (b"", "not a private key"),
        (b"\xff\xfe", "not a private key"),
        (other, "not an Ed25519 key"),
    ):
        (home / "developer.key").write_bytes(content)
        (home / "developer.key").chmod(0o600)
        with pytest.raises(ResourceError, match=told):
            keyring.developer_key()


def test_what_a_device_trusts(tmp_path: Path, home: Path) -> None:
    state = tmp_path / "state"
    packaged = keyring.trusted_keys(state)
    assert len(packaged) == 2, "the keys of the bundles that ship, and no other"
    (state / "trust").mkdir(parents=True)
    keyring.write_public(state / "trust" / "factory.pub", PUBLIC)
    (state / "trust" / "note.txt").write_text("not a key")
    assert keyring.trusted_keys(state) == {**packaged, **KEYS}
    developer = public_bytes(keyring.developer_key())
    assert keyring.trusted_keys(state) == {**packaged, **KEYS, trust.key_id(developer): developer}


@pytest.mark.parametrize(
    ("content", "told"), [(b"!!", "one line of base64"), (b"YWJj", "32 bytes"), (b"\xff", "base64")]
)
def test_a_public_key_file_that_is_none_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "x.pub").write_bytes(content)
    with pytest.raises(ResourceError, match=told) as caught:
        keyring.trusted_keys(tmp_path)
    assert "x.pub" in str(caught.value)


def test_the_folder_of_packaged_keys_is_in_the_package() -> None:
    assert (Path(keyring.__file__).parent / "keys").is_dir()


def test_signing_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_bundle(tmp_path / "b", signed=False)
    assert sign.main([str(path)]) == 0
    signature = json.loads((path / wire.SIGNATURE).read_text())
    assert signature["key_id"] in capsys.readouterr().out
    assert trust.verify(
        (path / wire.MANIFEST).read_bytes(), (path / wire.SIGNATURE).read_bytes(), keyring.trusted_keys(tmp_path)
    ) == signature["key_id"]  # fmt: skip


def test_a_damaged_bundle_is_not_signed(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "b", signed=False, tampered="weights")
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx is corrupt"):
        sign.sign_bundle(path, KEY)
    assert not (path / wire.SIGNATURE).exists()


def test_the_home_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUDGEON_HOME")
    monkeypatch.setitem(os.environ, "HOME", "/h")
    assert keyring.home() == Path("/h/.config/gudgeon")
