"""Tags of devices, and filters over them. Pure.

A filter is a list of conditions that must all hold: ``line=7``, ``line=7|8`` (one of these), ``site!=lab``, ``gpu`` (has the
tag), ``!gpu``. `device` and `hardware` are there for every device, beside the tags that people give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
VALUE = re.compile(r"[A-Za-z0-9_.:/+-]{0,64}")
GIVEN = ("device", "hardware")
TAGS_LIMIT = 64
_CONDITION = re.compile(
    rf"(?P<absent>!)?(?P<name>{NAME.pattern})|(?P<key>{NAME.pattern})(?P<op>!?=)(?P<values>.{{0,4000}})"
)


def check_tags(tags: Mapping[str, str]) -> None:
    """ValueError unless these may be given to a device."""
    for name, value in tags.items():
        if not NAME.fullmatch(name) or name in GIVEN:
            raise ValueError(f"tag {name[:80]!r}: expected a name of a-z 0-9 _ . - that is not {' or '.join(GIVEN)}")
        if not VALUE.fullmatch(value):
            raise ValueError(
                f"tag {name}: value {value[:80]!r}: expected at most 64 characters of A-Z a-z 0-9 _ . : / + -"
            )


def check_filter(conditions: Iterable[str]) -> None:
    for condition in conditions:
        _parsed(condition)


def matches(conditions: Iterable[str], tags: Mapping[str, str]) -> bool:
    return all(_holds(condition, tags) for condition in conditions)


def _parsed(condition: str) -> re.Match[str]:
    found = _CONDITION.fullmatch(condition)
    if found is None or (found["key"] and not all(VALUE.fullmatch(v) for v in found["values"].split("|"))):
        raise ValueError(f"filter {condition[:80]!r}: expected NAME=VALUE|VALUE, NAME!=VALUE, NAME or !NAME")
    return found


def _holds(condition: str, tags: Mapping[str, str]) -> bool:
    found = _parsed(condition)
    if found["name"]:
        return (found["name"] in tags) is not bool(found["absent"])
    within = tags.get(found["key"]) in found["values"].split("|")
    return within is (found["op"] == "=")
