"""Topics: what is built is parsed back; nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.wire import topics
from edge_runtime.wire.topics import LEAVES, Place

segments = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
places = st.builds(Place, *[segments] * 6)
HERE = Place("acme", "s", "a", "l", "c", "edge1")


@given(places, st.sampled_from(LEAVES))
def test_round_trip(place: Place, leaf: str) -> None:
    topic = place.topic(leaf)
    assert topics.parse(topic) == (place, leaf)
    pattern = topics.subscription(leaf).split("/")
    assert all(want in ("+", got) for want, got in zip(pattern, topic.split("/"), strict=True))


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        place, leaf = topics.parse(text)
    except ValueError:
        return
    assert place.topic(leaf) == text


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "+", "#", "é", "x" * 65, "a\n"])
@pytest.mark.parametrize("field", ["enterprise", "site", "area", "line", "cell", "device"])
def test_a_bad_segment_is_named(field: str, bad: str) -> None:
    with pytest.raises(ValueError, match=field):
        Place(**{**vars(HERE), field: bad})


@pytest.mark.parametrize(
    "topic", ["v1/a/s/a/l/c/d/other", "v2/a/s/a/l/c/d/events", "v1/a/events", "v1/a/s/a/l/c/d/events/x"]
)
def test_foreign_topics_are_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="is not v1/"):
        topics.parse(topic)


def test_an_unknown_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of events, ack, status"):
        HERE.topic("weather")


def test_the_newest_event_of_a_kind_has_a_topic_of_its_own() -> None:
    place = Place("acme", "site1", "area1", "line1", "cell1", "dev1")
    assert place.now("decision", "decision") == "v1/acme/site1/area1/line1/cell1/dev1/now/decision/decision"
    with pytest.raises(ValueError, match="kind"):
        place.now("decision", "a/b")
    with pytest.raises(ValueError, match="is not v1/"):
        topics.parse(place.now("decision", "decision"))
