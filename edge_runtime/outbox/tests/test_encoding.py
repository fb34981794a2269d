"""Bodies as JSON: whichever encoder wrote it, a record means the same, and what is no JSON is refused."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.outbox.encoding import BODY_LIMIT_BYTES, encode
from edge_runtime.wire.envelope import strict_json

STRICT = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12
)


@given(st.dictionaries(st.text(), VALUES, max_size=6))
def test_it_means_what_the_standard_library_would_write(body: dict[str, Any]) -> None:
    text = encode("decision", body)
    assert text.isascii()
    assert strict_json(text.encode(), "body") == json.loads(STRICT(body))


@given(st.dictionaries(st.text(), VALUES, max_size=3), st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_no_nan_and_no_infinity_wherever_it_hides(body: dict[str, Any], bad: float, deep: bool) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode("metric", body | {"x": [{"y": bad}] if deep else bad})


@pytest.mark.parametrize(
    "body",
    [
        {"lot": None},
        {"said": "null"},
        {"ü": "☃"},
        {"half": "\ud800"},
        {1: "a", None: "b", False: "c", 1.5: "d"},
        {"n": 2**64, "m": -(2**70)},
        OrderedDict(a=1),
        {"pair": (1, 2)},
    ],
)
def test_what_orjson_does_not_write_the_same_is_written_as_before(body: dict[Any, Any]) -> None:
    assert encode("fault", body) == STRICT(body)


@dataclasses.dataclass
class Thing:
    a: int = 1


@pytest.mark.parametrize("value", [{1, 2}, b"x", Thing(), datetime.datetime(2026, 1, 1), object()])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        encode("decision", {"x": value})


@pytest.mark.parametrize("key", [(1, 2), b"x"])
def test_a_key_that_is_no_json_is_refused(key: object) -> None:
    with pytest.raises(TypeError, match="keys must be"):
        encode("decision", {key: 1})  # type: ignore[dict-item]


def test_a_body_that_contains_itself_is_refused() -> None:
    body: dict[str, Any] = {}
    body["again"] = body
    with pytest.raises(ValueError, match="Circular"):
        encode("decision", body)


def test_the_limit_counts_bytes_as_they_are_stored() -> None:
    frame = len('{"x":""}')
    assert len(encode("decision", {"x": "y" * (BODY_LIMIT_BYTES - frame)})) == BODY_LIMIT_BYTES
    with pytest.raises(ValueError, match="over the limit of 65536"):
        encode("decision", {"x": "y" * (BODY_LIMIT_BYTES - frame + 1)})
    with pytest.raises(ValueError, match="event body of"):
        encode("decision", {"x": "é" * (BODY_LIMIT_BYTES // 6 + 1)})
