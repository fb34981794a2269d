"""Augmentation, map loss, committee and recipe entries. Needs PyTorch: skipped in the device's environment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from edge_runtime.errors import UsageError  # noqa: E402
from tools.pipeline import augment, train  # noqa: E402
from tools.pipeline.crossval import with_settings  # noqa: E402
from tools.pipeline.model import Architecture, Committee  # noqa: E402

SMALL = Architecture(backbone="plain", widths=(4, 4, 6, 8), fine_width=6, dropout=0.0)


def _spot(side: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    image = np.full((side, side), 120, np.uint8)
    mask = np.zeros((side, side), bool)
    mask[20:26, 30:36] = True
    image[mask] = 30
    return image, mask


def test_a_pasted_defect_is_where_its_mask_says() -> None:
    source, mask = _spot()
    target = np.full((64, 64), 160, np.uint8)
    out, where = augment.paste_defect(target, source, mask, np.random.default_rng(0))
    assert where.sum() == mask.sum()
    assert out[where].mean() < 110
    assert out[~augment._feather(where).astype(bool)].min() == 160


def test_a_transplanted_region_keeps_its_contrast() -> None:
    source, mask = np.full((64, 64), 100, np.uint8), np.zeros((64, 64), bool)
    mask[:20] = True
    source[mask] = 150
    out, where = augment.transplant_defect(np.full((64, 64), 50, np.uint8), source, mask, np.random.default_rng(1))
    assert where.sum() == mask.sum()
    assert 1.2 < out[where].mean() / out[~where].mean() < 1.8


def test_only_small_inner_defects_are_loose() -> None:
    small, edge, wide = np.zeros((3, 100, 100), bool)
    small[50:54, 50:54] = edge[0:4, 50:54] = wide[20:60, 20:60] = True
    assert [augment.is_loose(m) for m in (small, edge, wide, np.zeros((9, 9), bool))] == [True, False, False, False]


def test_map_loss_falls_when_the_defect_is_found_and_grows_with_a_false_alarm() -> None:
    covered = torch.zeros(1, 1, 12, 12)
    covered[0, 0, 5, 5] = 1.0
    known = torch.tensor([True])
    blind = torch.full((1, 1, 12, 12), -4.0)
    found, alarm = blind.clone(), blind.clone()
    found[0, 0, 5, 5] = 4.0
    alarm[0, 0, 0, 0] = 4.0
    losses = [float(train.map_loss(cells, covered, known, 2)) for cells in (found, blind, alarm)]
    assert losses == sorted(losses)
    assert float(train.map_loss(found, covered, torch.tensor([False]), 2)) == 0.0


def test_a_mirrored_committee_gives_a_part_and_its_mirror_image_the_same_answer() -> None:
    torch.manual_seed(0)
    net = Committee(3, replace(SMALL, mirror=True), 2).eval()
    x = torch.randn(4, 1, 32, 48)
    with torch.no_grad():
        assert torch.allclose(net(x), net(x.flip(3)), atol=1e-5)
        net.mirror = False
        looks = (net(x) + net(x.flip(3))) / 2
        net.mirror = True
        assert torch.allclose(net(x), looks, atol=1e-5)


def test_a_committee_answers_with_the_mean_of_its_members() -> None:
    net = Committee(3, SMALL, 2).eval()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        want = (net.members[0](x) + net.members[1](x)) / 2
        assert torch.allclose(net(x), want, atol=1e-6)


def test_settings_change_nested_entries_and_name_wrong_ones() -> None:
    recipe = with_settings(train.Recipe(), ["epochs=3", "augmentation.noise=0.5", 'architecture.backbone="plain"'])
    assert (recipe.epochs, recipe.augmentation.noise, recipe.architecture.backbone) == (3, 0.5, "plain")
    for wrong in ("speed=1", "augmentation.colour=1", "epochs=soon", "epochs"):
        with pytest.raises(UsageError, match="--set"):
            with_settings(train.Recipe(), [wrong])


def test_equal_seeds_train_equal_networks() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(80, 140, (40, 40)).astype(np.uint8) for _ in range(6)]
    samples = train.Samples(frames, [None] * 6, np.array([0, 1, 0, 1, 0, 1]))
    recipe = train.Recipe(height=32, width=32, epochs=1, batch=4, members=2, architecture=SMALL)
    first, second = (train.fit(samples, 2, recipe, 5) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
