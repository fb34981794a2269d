"""Augmentation for surface images: geometry, light, noise, and defects pasted from one part onto another.

All randomness comes from the generator that is handed in. Images are uint8 (side, side), masks bool of the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

LOOSE_SHARE = 0.008


@dataclass(frozen=True)
class Augmentation:
    """Ranges; angles in degrees, light as factors, noise in grey levels of a normalised image (standard deviation 1)."""

    paste_probability: float = 0.4
    rotate_deg: float = 6.0
    scale: tuple[float, float] = (0.85, 1.2)
    shift: float = 0.08
    gamma: tuple[float, float] = (0.7, 1.4)
    noise: float = 0.12
    gradient: float = 0.4
    plain_probability: float = 0.2


def paste_defect(
    target: NDArray[np.uint8], source: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Put the masked defect of `source` onto `target` at a random place and flip, as a change of brightness relative to
    its surroundings, with a feathered edge. Returns the new image and the mask where the defect now is."""
    rows, cols = np.nonzero(mask)
    margin = 4
    top, bottom = max(rows.min() - margin, 0), min(rows.max() + margin + 1, mask.shape[0])
    left, right = max(cols.min() - margin, 0), min(cols.max() + margin + 1, mask.shape[1])
    patch = source[top:bottom, left:right].astype(np.float32)
    inside = mask[top:bottom, left:right]
    if inside.all():
        return target, np.zeros(target.shape, bool)
    change = patch - np.median(patch[~inside])
    for axis in (0, 1):
        if rng.random() < 0.5:
            change, inside = np.flip(change, axis), np.flip(inside, axis)
    height, width = inside.shape
    y = int(rng.integers(0, target.shape[0] - height + 1))
    x = int(rng.integers(0, target.shape[1] - width + 1))
    soft = _feather(inside)
    strength = rng.uniform(0.7, 1.2)
    out = target.astype(np.float32)
    area = out[y : y + height, x : x + width]
    area += strength * soft * change * (area.std() + 20) / (patch[~inside].std() + 20)
    new_mask = np.zeros(target.shape, bool)
    new_mask[y : y + height, x : x + width] = inside
    return np.clip(out, 0, 255).astype(np.uint8), new_mask


def transplant_defect(
    target: NDArray[np.uint8], source: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Put the masked region of `source` onto `target` where it is (or mirrored), as bright against its new surroundings as
    against the old ones. For defects that belong to a place (an edge) or are a region. All arrays have one shape."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            source, mask = np.flip(source, axis), np.flip(mask, axis)
    if mask.all() or not mask.any():
        return target, np.zeros(target.shape, bool)
    gain = (np.median(target) + 10) / (np.median(source[~mask]) + 10) * rng.uniform(0.9, 1.1)
    soft = _feather(mask)
    out = target * (1.0 - soft) + source * (gain * soft)
    return np.clip(out, 0, 255).astype(np.uint8), np.ascontiguousarray(mask)


def is_loose(mask: NDArray[np.bool_]) -> bool:
    """Whether a defect could be anywhere: small, and away from the upper and lower edge."""
    return bool(0.0 < mask.mean() < LOOSE_SHARE and not mask[:3].any() and not mask[-3:].any())


def _feather(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    padded = torch.from_numpy(np.ascontiguousarray(inside, dtype=np.float32))[None, None]
    grown = functional.max_pool2d(padded, 3, 1, 1)
    soft = functional.avg_pool2d(grown, 3, 1, 1, count_include_pad=False)
    return np.asarray(soft[0, 0].numpy(), dtype=np.float32)


def batch_geometry(
    images: Tensor, masks: Tensor, side: tuple[int, int], settings: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Flip, rotate, scale and shift float (n, 1, S, S) images with masks (n, 1, S, S), sampled to `side`."""
    n = images.shape[0]
    angle = np.deg2rad(rng.uniform(-settings.rotate_deg, settings.rotate_deg, n))
    scale = rng.uniform(*settings.scale, n)
    plain = rng.random(n) < settings.plain_probability
    angle[plain], scale[plain] = 0.0, 1.0
    flip = rng.choice([-1.0, 1.0], (2, n))
    shift = rng.uniform(-settings.shift, settings.shift, (2, n)) * ~plain
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) / scale * flip[0], -np.sin(angle) / scale
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) / scale, np.cos(angle) / scale * flip[1]
    theta[:, :, 2] = shift.T
    grid = functional.affine_grid(torch.from_numpy(theta), [n, 1, *side], align_corners=False)
    warped = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    warped_masks = functional.grid_sample(masks, grid, padding_mode="zeros", align_corners=False)
    return warped, warped_masks


def batch_light(images: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """Gamma, a linear light gradient, blur and noise on float images 0–255; then each image to mean 0, deviation 1."""
    n, _, height, width = images.shape
    gamma = torch.from_numpy(rng.uniform(*settings.gamma, (n, 1, 1, 1)).astype(np.float32))
    images = 255.0 * (images.clamp(0, 255) / 255.0) ** gamma
    slope = torch.from_numpy(rng.uniform(-settings.gradient, settings.gradient, (2, n, 1, 1, 1)).astype(np.float32))
    ramp_y = torch.linspace(-0.5, 0.5, height).view(1, 1, -1, 1)
    ramp_x = torch.linspace(-0.5, 0.5, width).view(1, 1, 1, -1)
    images = images * (1.0 + slope[0] * ramp_y + slope[1] * ramp_x)
    blurred = torch.from_numpy(rng.random(n) < 0.2)
    if blurred.any():
        images[blurred] = functional.avg_pool2d(images[blurred], 3, 1, 1, count_include_pad=False)
    images = images - images.mean((2, 3), keepdim=True)
    images = images / images.std((2, 3), keepdim=True).clamp_min(4.0)
    noise = torch.from_numpy(rng.uniform(0, settings.noise, (n, 1, 1, 1)).astype(np.float32))
    return images + noise * torch.from_numpy(rng.standard_normal(images.shape, np.float32))
