"""The bundle that ships: trusted by its packaged key alone, whole, small, and equal on every engine that is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.post import judge
from edge_runtime.infer.select import check_golden, open_engine
from edge_runtime.update import install, keyring

SURFACE = Path(__file__).resolve().parents[1] / "models" / "surface"


def test_a_device_without_any_key_of_its_own_trusts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    install.verify_signature(SURFACE, keyring.trusted_keys(tmp_path))
    assert install.install(SURFACE, tmp_path).changed


def test_every_variant_reproduces_the_golden_vectors() -> None:
    bundle = bundles.load(SURFACE)
    inputs = bundle.golden_inputs()
    for variant in bundle.manifest.variants:
        engine = open_engine(bundle, variant)
        assert check_golden(bundle, variant, engine, inputs) is None
        results = {judge(engine.infer(x), bundle.manifest).result for x in inputs}
        assert len(results) > 1, f"{variant.name} gives every golden frame the same answer"


def test_it_is_small_and_says_what_it_is() -> None:
    manifest = bundles.load(SURFACE).manifest
    sizes = {v.precision: (SURFACE / v.file).stat().st_size for v in manifest.variants if v.file.endswith(".onnx")}
    assert sizes["int8"] <= 0.3 * sizes["fp32"]
    assert sum(p.stat().st_size for p in SURFACE.iterdir()) < 3_000_000
    assert {"data_digest", "seed", "n"} <= set(manifest.training)
    assert (SURFACE / "CARD.md").read_text().startswith(f"# {manifest.name}")
