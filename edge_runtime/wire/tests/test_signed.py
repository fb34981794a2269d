"""Signed messages of the cloud: the vectors in `vectors/signed.json`, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.wire.command import ENDS, LONGEST_NS, Command, read_command
from edge_runtime.wire.desired import KEYS, Desired, Refusal, Reported, check_state, read_desired, read_reported
from edge_runtime.wire.signed import SIGNED_LIMIT_BYTES, seal, signed_bytes, unseal

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signed.json").read_text())
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
COMMAND = Command("c-1", "dev1", "belt_speed", 7, 10, 20, {"value": 120})


def test_the_vectors_hold_every_kind() -> None:
    assert [v["kind"] for v in VECTORS["messages"]] == ["desired", "command", "command"]
    public = base64.b64decode(VECTORS["public_key"])
    assert public == KEY.public_key().public_bytes_raw()
    for vector in VECTORS["messages"]:
        message = unseal(vector["payload"].encode(), vector["kind"])
        Ed25519PublicKey.from_public_bytes(public).verify(message.signature, signed_bytes(vector["kind"], message.body))
        reader: Any = read_desired if vector["kind"] == "desired" else read_command
        value = reader(message.body)
        assert vars(value) == vector["fields"]
        assert value.body() == message.body
        assert seal(vector["kind"], value.body(), KEY.sign) == vector["payload"].encode()


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    message = unseal(seal("desired", b"{}", KEY.sign), "desired")
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(message.signature, signed_bytes("command", message.body))


@pytest.mark.parametrize("payload", [b"", b"{}", b"{}\n!", b"x" * (SIGNED_LIMIT_BYTES + 1)])
def test_what_is_not_a_signed_message_is_told(payload: bytes) -> None:
    with pytest.raises(ValueError, match="command"):
        unseal(payload, "command")


def test_nothing_too_large_is_sealed() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        seal("command", b"x" * SIGNED_LIMIT_BYTES, KEY.sign)


def changed(**fields: Any) -> bytes:
    value = {**json.loads(COMMAND.body()), **fields}
    return json.dumps({k: v for k, v in value.items() if v is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (changed(v=2), "v = 1"),
        (changed(id="a b"), "id 'a b'"),
        (changed(id=7), "id must be str"),
        (changed(name=""), "must be 1 to 64"),
        (changed(counter=0), "counter must be 1"),
        (changed(counter=True), "counter must be int"),
        (changed(counter=2**63), "counter must be from 0"),
        (changed(issued_ns=-1), "issued_ns must be from 0"),
        (changed(expires_ns=10), "after issued_ns"),
        (changed(expires_ns=11 + LONGEST_NS), "at most a day"),
        (changed(args=[]), "args must be dict"),
        (changed(args=...), "missing field args"),
        (changed(more=1), "unknown field more"),
        (b"[]", "expected an object"),
        (b'{"v": NaN}', "not JSON"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_command_that_is_none_names_the_field(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_command(body)


GOOD = {
    "reconnect_spread_s": 60, "rate_bytes_per_s": 0, "backlog_share": 0.2, "metered": True, "metered_priority": 3,
}  # fmt: skip


def test_a_whole_state_and_its_types() -> None:
    assert set(GOOD) == set(KEYS)
    found = check_state(GOOD)
    assert found == GOOD
    assert {name: type(value) for name, value in found.items()} == {name: key.type for name, key in KEYS.items()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reconnect_spread_s", -1), ("reconnect_spread_s", 3601), ("reconnect_spread_s", True),
        ("reconnect_spread_s", float("nan")), ("rate_bytes_per_s", 127), ("rate_bytes_per_s", 1e3),
        ("rate_bytes_per_s", "9"), ("backlog_share", 0), ("backlog_share", 1), ("metered", 1), ("metered", None),
        ("metered_priority", 10), ("metered_priority", -1), ("reboot", True),
    ],
)  # fmt: skip
def test_a_key_that_is_unknown_or_out_of_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        check_state({**GOOD, key: value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["v", "version", "state", "refused", "reason", "x"]), json_values))
def test_whatever_comes_is_a_value_or_a_value_error(value: dict[str, Any]) -> None:
    payload = json.dumps({"v": 1, **value}).encode()
    for reader in (read_reported, read_desired, read_command):
        try:
            reader(payload)
        except ValueError:
            pass


@pytest.mark.parametrize(
    "reported", [Reported(0), Reported(4, GOOD, Refusal(5, "no")), Reported(4, {}, Refusal(0, ""))]
)
def test_reported_comes_back_as_it_was(reported: Reported) -> None:
    assert read_reported(reported.to_json()) == reported


def test_desired_needs_a_version() -> None:
    with pytest.raises(ValueError, match="version must be 1"):
        read_desired(Desired("d", 0, 5).body())


def test_exactly_one_kind_has_not_ended() -> None:
    assert [kind for kind, ended in ENDS.items() if not ended] == ["accepted"]
