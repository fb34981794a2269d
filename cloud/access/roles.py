"""Roles, each of which may do all that those below it may, and the one who acts.

viewer     sees everything
operator   asks devices for other states, commands them, acknowledges
releaser   publishes artifacts, makes and steers rollouts
admin      operators, tokens, enrolment, revocation
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Role(IntEnum):
    VIEWER = 1
    OPERATOR = 2
    RELEASER = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """ValueError names the roles there are."""
        for role in cls:
            if role.word == word:
                return role
        raise ValueError(f"no role {word!r}; expected one of {', '.join(r.word for r in cls)}")


class Actor(NamedTuple):
    """Who acts. `name` is one person or program: two approvals count as two only under two names. `via`: how they were known:
    file (the token file), token, session, oidc, cli (someone with a shell on the cloud's machine), device (with its token or
    certificate), open (reading on loopback, where no identity is asked for). `address`: where from."""

    name: str
    role: Role
    via: str
    address: str = ""


NOBODY = Actor("anonymous", Role.VIEWER, "open")
