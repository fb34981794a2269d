"""The surface network: a small plain convolutional net with a per-cell defect map that training supervises with masks.

Only Conv, Relu, means and maxima: it quantises to INT8 with little loss, and the NumPy reference can run it. The map
(stride 8, one channel per defect class) is pooled by its maximum and joins the global averages and maxima before the
linear head, so that one small hole in a large sound surface is enough to decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """`widths`: channels of the four stages (strides 2, 4, 8, 16); `depths`: further 3 × 3 blocks in stages 2 to 4."""

    widths: tuple[int, int, int, int] = (12, 24, 40, 96)
    depths: tuple[int, int, int] = (0, 1, 1)
    dropout: float = 0.2


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(_block(inputs, outputs, 2), *[_block(outputs, outputs, 1) for _ in range(depth)])


class SurfaceNet(nn.Module):
    """Input float32 (n, 1, h, w); `forward` gives logits (n, classes), `with_map` also the map (n, classes − 1, h/8, w/8)."""

    def __init__(self, classes: int, architecture: Architecture) -> None:
        super().__init__()
        c1, c2, c3, c4 = architecture.widths
        d2, d3, d4 = architecture.depths
        self.stem = _block(1, c1, 2)
        self.stage2 = _stage(c1, c2, d2)
        self.stage3 = _stage(c2, c3, d3)
        self.stage4 = _stage(c3, c4, d4)
        self.map = nn.Conv2d(c3, classes - 1, 1)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(2 * c4 + classes - 1, classes)

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        local = self.stage3(self.stage2(self.stem(x)))
        deep = self.stage4(local)
        cells = self.map(local)
        pooled = torch.cat([deep.mean((2, 3)), deep.amax((2, 3)), cells.amax((2, 3))], 1)
        return self.head(self.dropout(pooled)), cells

    def forward(self, x: Tensor) -> Tensor:
        return self.with_map(x)[0]
