"""The reference page says what the code does: the example is the defaults, every route and field is named."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import Engine

from cloud.api.models import Summary
from cloud.app import API, make_app
from cloud.export.parquet import COLUMNS, DECISION_COLUMNS
from cloud.settings import CloudSettings, load_cloud
from cloud.store.series import BUCKETS, EVENTS
from edge_runtime.wire.command import ENDS
from edge_runtime.wire.desired import KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cloud.md").read_text(encoding="utf-8")


def test_the_example_is_the_defaults(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example
    path = tmp_path / "cloud.toml"
    path.write_text(example.group(1))
    assert load_cloud(path).store.address.database == str(tmp_path / "cloud.db")
    for section, values in vars(CloudSettings()).items():
        assert f"[{section}]" in example.group(1)
        for name in vars(values):
            assert re.search(rf"^(# )?{name} = ", example.group(1), re.MULTILINE), name
            if section != "store":
                assert getattr(getattr(load_cloud(path), section), name) == getattr(values, name)


def test_every_route_and_every_summary_field_is_named(engine: Engine) -> None:
    routes = make_app(engine, CloudSettings(), lambda: True).openapi()["paths"]
    for route in routes:
        assert f"`{route.removeprefix(API)}`" in PAGE, route
    for field in Summary.model_fields:
        assert f"`{field}`" in PAGE, field


def test_every_column_of_an_export_is_named() -> None:
    section = PAGE.partition("**`/export.parquet`**")[2].partition("\n\n")[0]
    assert re.findall(r"`([a-z_]+)`", section) == [name for name, *_ in (*COLUMNS, *DECISION_COLUMNS)]
    for bound in (str(BUCKETS), f"{EVENTS:,}".replace(",", " ")):
        assert bound in PAGE


def test_every_key_of_desired_state_and_every_end_of_a_command_is_named() -> None:
    for name, key in KEYS.items():
        low, high = (f"{bound:.10g}" for bound in (key.low, key.high))
        span = "true, false" if key.type is bool else f"{'0 (none), or ' if key.or_zero else ''}{low} to {high}"
        assert f"| `{name}` | {span} | {key.meaning}" in PAGE, name
    for kind in ENDS:
        assert f"| `{kind}` | " in PAGE, kind
