"""The reference says what the tables say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from edge_runtime.config import load_device
from edge_runtime.link.sparkplug.commands import PER_MINUTE
from edge_runtime.link.sparkplug.mapping import KEPT_TEXT_BYTES, NODE_METRICS, OWNERS, SHED_METRIC
from edge_runtime.link.sparkplug.node import REBIRTH_PERIOD_S
from edge_runtime.link.sparkplug.session import ACTIONS, TABLE
from edge_runtime.link.sparkplug.settings import SparkplugSection
from edge_runtime.link.sparkplug.topics import LINE_MESSAGES, NODE_MESSAGES
from edge_runtime.wire.envelope import STREAMS

DOCS = Path(__file__).parents[4] / "docs"
REFERENCE = (DOCS / "reference" / "sparkplug.md").read_text()


def test_the_session_table_is_the_one_of_the_code() -> None:
    rows = {(s, i): (n, ACTIONS.get((s, i))) for (s, i), n in TABLE.items()}
    rows |= {(s, i): (s, action) for (s, i), action in ACTIONS.items() if (s, i) not in TABLE}
    wanted = {f"| {s.value} | {i.value} | {n.value} | {a.value + ' ' if a else ''}|" for (s, i), (n, a) in rows.items()}
    found = {line for line in REFERENCE.split("## The session")[1].split("## ")[0].splitlines() if line.startswith("|")}
    assert wanted == {line for line in found if not line.startswith(("| state", "|---"))}


def test_every_stream_message_and_metric_is_named() -> None:
    for stream in STREAMS:
        owner, first = OWNERS[stream]
        assert f"| `{stream}` | {owner.value} | `{first}` |" in REFERENCE
    for message in (*NODE_MESSAGES, *LINE_MESSAGES):
        assert f"{message}/NODE" in REFERENCE
    shed = {SHED_METRIC.format(stream) for stream in STREAMS}
    for name in {*NODE_METRICS} - shed | {SHED_METRIC.format("<stream>")}:
        assert f"`{name}`" in REFERENCE
    assert f"at most every {REBIRTH_PERIOD_S:.0f} s" in REFERENCE
    assert f"at most {PER_MINUTE} a minute" in REFERENCE
    assert KEPT_TEXT_BYTES == 1024
    assert "more than 1 KiB" in REFERENCE


def test_the_configuration_of_the_how_to_is_one(tmp_path: Path) -> None:
    text = (DOCS / "how-to" / "sparkplug.md").read_text()
    toml = text.split("```toml\n")[1].split("```")[0]
    path = tmp_path / "device.toml"
    path.write_text('[device]\nid = "press-3"\nstate_dir = "state"\n' + toml)
    device = load_device(path)
    assert device.link.protocol == "sparkplug"
    assert device.sparkplug.names(device.place).topic("DDATA") in text


def test_every_key_and_its_default_is_in_the_reference_of_device_toml() -> None:
    text = (DOCS / "reference" / "device.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `sparkplug.")]
    for field in fields(SparkplugSection):
        (row,) = [r for r in rows if f"`{field.name}`" in r or f"`sparkplug.{field.name}`" in r]
        if not isinstance(field.default, str):
            assert f"{field.default:g}" in row.replace(".0 ", " ") or str(field.default) in row, field.name
