"""Tokens and answers of enrolment: what is not made so is refused with its reason."""

from __future__ import annotations

import json

import pytest

from edge_runtime.wire.enrolment import (
    LIMIT_BYTES,
    Certified,
    Token,
    proof_bytes,
    read_answer,
    read_certified,
    read_token,
)

TOKEN = Token("0" * 16, "s" * 43, "f" * 64)


def test_a_token_as_text_and_back_and_what_is_sent_of_it() -> None:
    assert read_token(f" {TOKEN.text()}\n") == TOKEN
    assert TOKEN.sent == f"{TOKEN.number}.{TOKEN.secret}"
    for wrong in ("", "gudgeon2" + TOKEN.text()[8:], TOKEN.text()[:-1], TOKEN.text() + "0", TOKEN.text().upper()):
        with pytest.raises(ValueError, match="not an enrolment token"):
            read_token(wrong)


def test_an_answer_is_read_strictly() -> None:
    given = Certified("a", "c", "", "r")
    assert read_certified(json.dumps(given.to_json()).encode()) == given
    for data, text in (
        (b"<html>", "not JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"challenge": 1}', "expected a JSON object with challenge"),
        (b'{"a": NaN}', "NaN"),
        (b" " * (LIMIT_BYTES + 1), "over the limit"),
    ):
        with pytest.raises(ValueError, match=text):
            read_answer(data, "answer", "challenge")


def test_a_proof_is_for_one_device_one_challenge_and_one_request() -> None:
    proofs = {proof_bytes(*one) for one in (("a", "c", "r"), ("b", "c", "r"), ("a", "d", "r"), ("a", "c", "s"))}
    assert len(proofs) == 4
    assert all(proof.startswith(b"gudgeon renewal\n") for proof in proofs)
