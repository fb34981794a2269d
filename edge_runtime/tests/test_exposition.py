"""The text is Prometheus's, and tells nothing that is not known."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from edge_runtime.exposition import Found, Histogram, Page, Row

TABLE = (
    Row("a_bytes", "gauge", "Bytes.", ("stream",)),
    Row("b_total", "counter", "Count."),
    Row("c_seconds", "histogram", "Times."),
)


def text(found: Found, accept: str = "") -> str:
    return Page(TABLE, lambda: found).answer(accept)[0].decode()


def test_values_with_their_labels() -> None:
    answer = text({"a_bytes": {("alarm",): 5, ('"\\\n',): 6}, "b_total": {(): 7}})
    assert 'a_bytes{stream="alarm"} 5.0\n' in answer
    assert "# TYPE b_total counter\nb_total 7.0\n" in answer
    samples = {(s.name, *s.labels.values()): s.value for f in parse_text(answer) for s in f.samples}
    assert samples == {("a_bytes", "alarm"): 5, ("a_bytes", '"\\\n'): 6, ("b_total",): 7}


def test_a_histogram_is_cumulative() -> None:
    answer = text({"c_seconds": {(): Histogram((0.001, 0.5), (3, 0, 2), 1.5)}})
    buckets = [line for line in answer.splitlines() if line.startswith("c_seconds")]
    assert buckets == [
        'c_seconds_bucket{le="0.001"} 3.0',
        'c_seconds_bucket{le="0.5"} 3.0',
        'c_seconds_bucket{le="+Inf"} 5.0',
        "c_seconds_count 5.0",
        "c_seconds_sum 1.5",
    ]


def test_what_is_not_known_is_left_out() -> None:
    assert text({}) == ""
    assert text({"a_bytes": {}}) == ""


def test_a_name_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="zz"):
        text({"zz": {(): 1}})


def test_openmetrics_where_it_is_asked_for() -> None:
    page = Page(TABLE, lambda: {"b_total": {(): 7}})
    body, content_type = page.answer("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    assert [f.name for f in families] == ["b"]
