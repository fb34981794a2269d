"""Signatures counted against thresholds: who must sign a version, who has, who is missing. Pure.

A new root needs its own threshold and that of the root before. Where a staged root or staged targets give a role new keys, the
role is signed by the old ones as well: then it can be published first, and no reader meets a key that it does not know yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securesystemslib.signer import Key
from tuf.api.metadata import Root, Targets

from cloud.registry.folder import Document
from cloud.registry.roles import DELEGATED


@dataclass(frozen=True)
class Count:
    """Of one role under one delegator. `by`: which, in words."""

    by: str
    threshold: int
    keys: Mapping[str, Key]
    signed: frozenset[str]

    @property
    def missing(self) -> int:
        return max(0, self.threshold - len(self.signed))


def counts(
    role: str, document: Document, published: Mapping[str, Document], staged: Mapping[str, Document]
) -> list[Count]:
    """One for each delegator whose threshold this version must reach."""
    above = "targets" if role in DELEGATED else "root"
    delegators = {"published": published.get(above), "staged": document if role == "root" else staged.get(above)}
    return [count(f"{where} {above}", role, document, found.signed) for where, found in delegators.items() if found]


def count(by: str, role: str, document: Document, delegator: Root | Targets) -> Count:
    result = delegator.get_verification_result(role, document.metadata.signed_bytes, document.metadata.signatures)
    keys = {**result.signed, **result.unsigned}
    return Count(by, result.threshold, keys, frozenset(result.signed))


def may_sign(found: list[Count]) -> dict[str, Key]:
    return {keyid: key for counted in found for keyid, key in counted.keys.items()}
