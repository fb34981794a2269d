"""Fit the surface network: balanced batches, defects pasted across parts, masks as a second teacher, averaged weights.

Selection never sees another split than the one handed in; a run is decided by (data, recipe, seed).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from edge_runtime.infer.pre import preprocess
from edge_runtime.wire.manifest import InputSpec
from tools.pipeline.augment import Augmentation, batch_geometry, batch_light, is_loose, paste_defect, transplant_defect
from tools.pipeline.model import STRIDES, Architecture, Committee

CANVAS_SCALE = 1.15  # the canvas that augmentation samples from, relative to the input
BATCH_SURPLUS = 1.5  # of a batch of which every member of a committee takes a share
DEFECT_CELL, SOUND_CELL = 0.3, 0.05  # share of a cell that a mask covers

#: (step, steps, loss)
Progress = Callable[[int, int, float], None]
#: inputs, labels, masks, which masks are known
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the data and the seed.

    `hard_cells`: how many of a map's worst sound cells (per 144) stand for all (0: none)
    in the map loss; `backbone_rate`: its share of the rate."""

    height: int = 192
    width: int = 192
    epochs: int = 45
    batch: int = 16
    learning_rate: float = 1e-3
    backbone_rate: float = 1.0
    weight_decay: float = 2e-2
    label_smoothing: float = 0.05
    map_weight: float = 1.0
    hard_cells: int = 2
    average_decay: float = 0.99
    members: int = 2
    architecture: Architecture = field(default_factory=Architecture)
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def input(self) -> InputSpec:
        return InputSpec(self.height, self.width, 1, "area", "per_image")


def quick(recipe: Recipe) -> Recipe:
    """The same way in seconds, for tests: a small plain network, few passes."""
    small = Architecture(backbone="plain", widths=(8, 12, 16, 32), fine_width=16)
    return replace(recipe, height=96, width=96, epochs=8, learning_rate=3e-3, members=1, architecture=small)


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
    """The training samples on one canvas a little larger than the input, and the batches drawn from them."""

    def __init__(self, samples: Samples, classes: int, recipe: Recipe, rng: np.random.Generator) -> None:
        self._size = (round(CANVAS_SCALE * recipe.width), round(CANVAS_SCALE * recipe.height))
        self._labels, self._classes, self._recipe, self._rng = samples.labels, classes, recipe, rng
        self._images = [self._fitted(frame) for frame in samples.frames]
        self._masks = [None if m is None or not m.any() else self._fitted_mask(m) for m in samples.masks]
        self._sources = [
            [i for i in np.nonzero(self._labels == label)[0].tolist() if self._is_source(i)]
            for label in range(1, classes)
        ]
        self._sources = [places for places in self._sources if places]
        counts = np.bincount(self._labels, minlength=classes).astype(float)
        weight = 0.5 / len(self._labels) + 0.5 / (classes * counts[self._labels])
        self._weight = weight / weight.sum()

    def _is_source(self, index: int) -> bool:
        mask = self._masks[index]
        return mask is not None and bool(mask.any())

    def _fitted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(frame).resize(self._size, Image.Resampling.BOX))

    def _fitted_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return self._fitted(mask.astype(np.uint8) * 255) > 64

    def batch(self) -> Batch:
        """Inputs (n, 1, h, w), labels (n,), masks (n, classes − 1, h, w), and which of these are known (n,).

        Samples are drawn half by class, half by frequency."""
        drawn = self._recipe.batch if self._recipe.members == 1 else round(BATCH_SURPLUS * self._recipe.batch)
        index = self._rng.choice(len(self._labels), drawn, p=self._weight)
        n, (width, height) = len(index), self._size
        images = np.empty((n, 1, height, width), np.float32)
        masks = np.zeros((n, 1, height, width), np.float32)
        labels = self._labels[index].copy()
        known = np.ones(n, bool)
        for row, i in enumerate(index):
            image, mask = self._images[i], self._masks[i]
            if labels[row] == 0 and self._sources and self._rng.random() < self._recipe.augmentation.paste_probability:
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
        """A sound image with a defect of another part, the classes in equal shares; (image, None, 0) where it fails."""
        places = self._sources[int(self._rng.integers(len(self._sources)))]
        source = places[int(self._rng.integers(len(places)))]
        mask = self._masks[source]
        assert mask is not None
        change = paste_defect if is_loose(mask) else transplant_defect
        pasted, where = change(image, self._images[source], mask, self._rng)
        return (pasted, where, int(self._labels[source])) if where.any() else (image, None, 0)


def fit(samples: Samples, classes: int, recipe: Recipe, seed: int, progress: Progress | None = None) -> Committee:
    """Train and return the weight-averaged committee in evaluation mode. `progress` is told every step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    canvas = _Canvas(samples, classes, recipe, rng)
    net = Committee(classes, recipe.architecture, recipe.members).to(memory_format=torch.channels_last)
    average: Committee = copy.deepcopy(net)
    steps = max(1, recipe.epochs * math.ceil(len(samples.labels) / recipe.batch))
    optimiser, schedule = _optimiser(net, recipe, steps)
    net.train()
    recent = 0.0
    for step in range(steps):
        loss = _loss(net, canvas.batch(), recipe, rng)
        optimiser.zero_grad()
        loss.backward()
        for member in net.members:
            torch.nn.utils.clip_grad_norm_(member.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        _average(average, net, min(recipe.average_decay, (1 + step) / (10 + step)))
        recent += (float(loss.detach()) / recipe.members - recent) * max(0.05, 1 / (1 + step))
        if progress:
            progress(step + 1, steps, recent)
    average.eval()
    return average


def _optimiser(
    net: Committee, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, one cycle; the fresh layers learn at twice the rate."""
    ready = {id(p) for member in net.members for p in member.backbone.parameters()}
    groups = [
        [p for p in net.parameters() if p.requires_grad and id(p) in ready],
        [p for p in net.parameters() if id(p) not in ready],
    ]
    rates = [recipe.learning_rate * recipe.backbone_rate, recipe.learning_rate * 2.0]
    optimiser = torch.optim.AdamW([{"params": g} for g in groups], rates[0], weight_decay=recipe.weight_decay)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps + 1, pct_start=0.15)


def _loss(net: Committee, batch: Batch, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """The sum of the members' losses, each on its own choice of `recipe.batch` samples out of a larger batch."""
    x, *targets = batch
    x = x.contiguous(memory_format=torch.channels_last)
    losses = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        shared = net.shared(x)
        for member in net.members:
            chosen = torch.from_numpy(rng.permutation(len(x))[: recipe.batch])
            losses.append(
                _member_loss(member.with_maps(shared[chosen], net.frozen), [t[chosen] for t in targets], recipe)
            )
    return torch.stack(losses).sum()


def _member_loss(answer: Sequence[Tensor], targets: Sequence[Tensor], recipe: Recipe) -> Tensor:
    logits, *maps = answer
    labels, masks, known = targets
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    for cells, stride in zip(maps, STRIDES, strict=True):
        covered = functional.max_pool2d(masks, stride, ceil_mode=True)
        loss = loss + recipe.map_weight * map_loss(cells.float(), covered, known, recipe.hard_cells)
    return loss


def map_loss(cells: Tensor, covered: Tensor, known: Tensor, hard_cells: int) -> Tensor:
    """Binary cross-entropy of maps (n, defects, h, w) against the share of each cell that a mask covers.

    Sound cells count twice: the hardest few of each map, since the head looks at maxima, and all of them by half.
    Defect cells count by half, averaged within each map that has some, however small the defect is."""
    cells, covered = cells[known], covered[known]
    if not len(cells):
        return cells.sum()
    defect = (covered > DEFECT_CELL).float()
    loss = functional.binary_cross_entropy_with_logits(cells, defect, reduction="none")
    sound = (loss * (covered < SOUND_CELL)).flatten(2)
    count = min(hard_cells * max(1, sound.shape[2] // 144), sound.shape[2])
    hardest = sound.topk(count, 2).values.mean() if count else sound.mean()
    found = defect.sum((2, 3))
    missed = ((loss * defect).sum((2, 3)) / found.clamp_min(1.0)).sum() / (found > 0).sum().clamp_min(1)
    return hardest + 0.5 * sound.mean() + 0.5 * missed


def _average(average: Committee, net: Committee, decay: float) -> None:
    """Move every floating-point value of `average` towards `net`'s by the share 1 − `decay`."""
    given = net.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(given[name], 1.0 - decay)


def logits_of(net: Committee, inputs: NDArray[np.float32], batch: int = 64) -> NDArray[np.float32]:
    """Logits (n, classes) of pre-processed inputs (n, 1, h, w)."""
    with torch.no_grad():
        parts = [net(torch.from_numpy(inputs[i : i + batch])).numpy() for i in range(0, len(inputs), batch)]
    return np.concatenate(parts)
