"""Fit the surface network: balanced batches, defects pasted across parts, masks as a second teacher, averaged weights.

Selection never sees another split than the one handed in; a run is decided by (data, recipe, seed).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from edge_runtime.infer.pre import preprocess
from edge_runtime.wire.manifest import InputSpec
from tools.pipeline.augment import Augmentation, batch_geometry, batch_light, paste_defect
from tools.pipeline.model import Architecture, SurfaceNet

CANVAS = 256
MAP_STRIDES = (8, 16)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the data and the seed."""

    height: int = 192
    width: int = 192
    epochs: int = 120
    batch: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 5e-2
    label_smoothing: float = 0.05
    map_weight: float = 2.0
    average_decay: float = 0.99
    architecture: Architecture = field(default_factory=Architecture)
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def input(self) -> InputSpec:
        return InputSpec(self.height, self.width, 1, "area", "per_image")


@dataclass(frozen=True)
class Samples:
    """`frames`: uint8 grey images of any size; `masks`: bool of the same shape or None; `labels`: class numbers, 0 = sound."""

    frames: Sequence[NDArray[np.uint8]]
    masks: Sequence[NDArray[np.bool_] | None]
    labels: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> Samples:
        return Samples([self.frames[i] for i in index], [self.masks[i] for i in index], self.labels[index])

    def inputs(self, spec: InputSpec) -> NDArray[np.float32]:
        return np.concatenate([preprocess(frame, spec) for frame in self.frames])


class _Canvas:
    """The training samples on one square canvas, and the batches drawn from them."""

    def __init__(self, samples: Samples, classes: int, recipe: Recipe, rng: np.random.Generator) -> None:
        self._images = [_square(frame) for frame in samples.frames]
        self._masks = [None if mask is None else _square_mask(mask) for mask in samples.masks]
        self._labels, self._classes, self._recipe, self._rng = samples.labels, classes, recipe, rng
        self._local = [i for i, m in enumerate(self._masks) if m is not None and 0 < m.mean() < 0.25]

    def batches(self) -> list[NDArray[np.int64]]:
        """One epoch: as many draws as samples; half the weight by class, half by frequency."""
        counts = np.bincount(self._labels, minlength=self._classes).astype(float)
        weight = 0.5 / len(self._labels) + 0.5 / (self._classes * counts[self._labels])
        weight /= weight.sum()
        order = self._rng.choice(len(self._labels), len(self._labels), p=weight)
        return np.array_split(order, max(1, len(order) // self._recipe.batch))

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs (n, 1, h, w), labels (n,), masks (n, classes − 1, h, w), and which of these are known (n,)."""
        n = len(index)
        images = np.empty((n, 1, CANVAS, CANVAS), np.float32)
        masks = np.zeros((n, 1, CANVAS, CANVAS), np.float32)
        labels = self._labels[index].copy()
        known = np.ones(n, bool)
        for row, i in enumerate(index):
            image, mask = self._images[i], self._masks[i]
            if labels[row] == 0 and self._local and self._rng.random() < self._recipe.augmentation.paste_probability:
                image, mask, labels[row] = self._paste(image)
            images[row, 0] = image
            if labels[row] > 0:
                if mask is None:
                    known[row] = False
                else:
                    masks[row, 0] = mask
        side = (self._recipe.height, self._recipe.width)
        x, warped = batch_geometry(
            torch.from_numpy(images), torch.from_numpy(masks), side, self._recipe.augmentation, self._rng
        )
        x = batch_light(x, self._recipe.augmentation, self._rng)
        own = functional.one_hot(torch.from_numpy(labels), self._classes)[:, 1:, None, None]
        return x, torch.from_numpy(labels), warped * own, torch.from_numpy(known)

    def _paste(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, int]:
        source = int(self._rng.choice(self._local))
        mask = self._masks[source]
        assert mask is not None
        pasted, where = paste_defect(image, self._images[source], mask, self._rng)
        return (pasted, where, int(self._labels[source])) if where.any() else (image, None, 0)


def _square(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(frame).resize((CANVAS, CANVAS), Image.Resampling.BOX))


def _square_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((CANVAS, CANVAS), Image.Resampling.BOX)) > 64


def fit(
    samples: Samples, classes: int, recipe: Recipe, seed: int, progress: Callable[[int, float], None] | None = None
) -> SurfaceNet:
    """Train from scratch and return the weight-averaged network in evaluation mode. `progress(epoch, loss)` per epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = SurfaceNet(classes, recipe.architecture)
    average = copy.deepcopy(net)
    canvas = _Canvas(samples, classes, recipe, rng)
    steps = recipe.epochs * len(canvas.batches())
    optimiser = torch.optim.AdamW(net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, steps, pct_start=0.15)
    for epoch in range(recipe.epochs):
        net.train()
        losses = []
        for index in canvas.batches():
            x, labels, masks, known = canvas.batch(index)
            logits, *maps = net.with_maps(x)
            loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            for cells, stride in zip(maps, MAP_STRIDES, strict=True):
                target = functional.max_pool2d(masks, stride, ceil_mode=True)
                loss = loss + recipe.map_weight * _map_loss(cells, target, known)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            _average(average, net, recipe.average_decay if epoch > 5 else 0.5)
            losses.append(float(loss.detach()))
        if progress:
            progress(epoch, float(np.mean(losses)))
    return average.eval()


def _map_loss(cells: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy over cells, balanced within each class: its defect cells together weigh a quarter of its sound
    ones, however small the defect is. Averaged over the classes that are present, and the sound cells of all."""
    loss = functional.binary_cross_entropy_with_logits(cells, target, reduction="none")[known]
    positive = (target[known] > 0.3).float()
    found = positive.sum((0, 2, 3))
    defect = (loss * positive).sum((0, 2, 3)) / found.clamp_min(1.0)
    sound = (loss * (1.0 - positive)).sum((0, 2, 3)) / (1.0 - positive).sum((0, 2, 3)).clamp_min(1.0)
    return 0.25 * defect.sum() / (found > 0).sum().clamp_min(1) + sound.mean()


@torch.no_grad()
def _average(average: SurfaceNet, net: SurfaceNet, decay: float) -> None:
    for a, b in zip(average.parameters(), net.parameters(), strict=True):
        a.lerp_(b, 1.0 - decay)
    for a, b in zip(average.buffers(), net.buffers(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, 1.0 - decay)


@torch.no_grad()
def logits_of(net: SurfaceNet, inputs: NDArray[np.float32], batch: int = 64) -> NDArray[np.float32]:
    """Logits (n, classes) of pre-processed inputs (n, 1, h, w)."""
    parts = [net(torch.from_numpy(inputs[i : i + batch])).numpy() for i in range(0, len(inputs), batch)]
    return np.concatenate(parts)
