"""The surface network: a small plain convolutional net with defect maps that training supervises with masks.

Only Conv, Relu, means and maxima: it quantises to INT8 with little loss, and the NumPy reference can run it. The head sees
nothing but the maxima and means of two defect maps (strides 8 and 16, one channel per defect class). That is the point: with
a few hundred parts a head over general features learns the parts by heart, and one over maps has to find the defect.
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
    """Input float32 (n, 1, h, w); `forward` gives logits (n, classes), `with_maps` also the two maps
    (n, classes − 1, h/8, w/8) and (n, classes − 1, h/16, w/16), as logits of "this cell shows this defect"."""

    def __init__(self, classes: int, architecture: Architecture) -> None:
        super().__init__()
        c1, c2, c3, c4 = architecture.widths
        d2, d3, d4 = architecture.depths
        self.stem = _block(1, c1, 2)
        self.stage2 = _stage(c1, c2, d2)
        self.stage3 = _stage(c2, c3, d3)
        self.stage4 = _stage(c3, c4, d4)
        self.dropout = nn.Dropout2d(architecture.dropout)
        self.fine = nn.Conv2d(c3, classes - 1, 1)
        self.coarse = nn.Conv2d(c4, classes - 1, 1)
        self.head = nn.Linear(4 * (classes - 1), classes)

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        local = self.stage3(self.stage2(self.stem(x)))
        deep = self.stage4(local)
        fine, coarse = self.fine(self.dropout(local)), self.coarse(self.dropout(deep))
        pooled = [fine.amax((2, 3)), coarse.amax((2, 3)), fine.relu().mean((2, 3)), coarse.relu().mean((2, 3))]
        return self.head(torch.cat(pooled, 1)), fine, coarse

    def forward(self, x: Tensor) -> Tensor:
        return self.with_maps(x)[0]
