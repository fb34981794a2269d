"""The reference page says what the code does."""

from __future__ import annotations

from pathlib import Path

from cloud.registry import repo_cli
from cloud.registry.roles import DELEGATED, ROLES
from edge_runtime.wire.target import ASSIGNMENT_KEYS_LIMIT, FIELDS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "repository.md").read_text(encoding="utf-8")


def test_every_action_is_there() -> None:
    for name in repo_cli.ACTIONS:
        assert f"\ngudgeon repo {name} " in PAGE, name


def test_roles_and_how_long_they_are_valid() -> None:
    offline = f"| `targets`, {', '.join(f'`{name}`' for name in DELEGATED)} | {ROLES['targets'].days} days |"
    assert offline in PAGE
    assert len({ROLES[name].days for name in ("targets", *DELEGATED)}) == 1
    for name in ("root", "snapshot", "timestamp"):
        assert f"| `{name}` | {ROLES[name].days} days |" in PAGE


def test_fields_and_limits() -> None:
    for name in FIELDS:
        assert f"| `{name}` | " in PAGE
    assert f"At most {ASSIGNMENT_KEYS_LIMIT}." in PAGE


def test_the_pages_lead_somewhere() -> None:
    for page in ("explain/update-trust.md", "how-to/release-ceremony.md", "adr/0015-tuf-with-a-version-floor.md"):
        assert (DOCS / page).is_file()
