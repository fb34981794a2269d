"""The surface network: a backbone and two defect maps that training supervises with masks.

The head sees nothing but the maxima and means of the maps (strides 8 and 16, one channel per defect class). That is the
point: with a few hundred parts a head over general features learns the parts by heart, and one over maps has to find the
defect. Only convolutions, ReLU and ReLU6, maxima, means and one linear layer: it quantises to INT8 with little loss, and
the NumPy reference can run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tools.pipeline.backbone import Lite, Plain, conv

STRIDES = (8, 16)


@dataclass(frozen=True)
class Architecture:
    """`backbone`: ``lite`` (pretrained; the first `frozen` blocks stay as they are) or ``plain`` (with `widths`).
    `mirror`: the finished network looks at every part twice, the second time mirrored, and answers with the mean."""

    backbone: str = "lite"
    frozen: int = 5
    widths: tuple[int, int, int, int] = (12, 24, 40, 96)
    fine_width: int = 64
    dropout: float = 0.2
    mirror: bool = False


class SurfaceNet(nn.Module):
    """Input float32 (n, 1, h, w); `forward` gives logits (n, classes), `with_maps` also the two maps
    (n, classes − 1, h/8, w/8) and (n, classes − 1, h/16, w/16), as logits of "this cell shows this defect"."""

    def __init__(self, classes: int, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = Lite(architecture.frozen) if architecture.backbone == "lite" else Plain(architecture.widths)
        fine, coarse = self.backbone.channels
        self.refine = nn.Sequential(*conv(fine, architecture.fine_width, 3))
        self.dropout = nn.Dropout2d(architecture.dropout)
        self.fine = nn.Conv2d(architecture.fine_width, classes - 1, 1)
        self.coarse = nn.Conv2d(coarse, classes - 1, 1)
        self.head = nn.Linear(4 * (classes - 1), classes)
        for maps in (self.fine, self.coarse):
            nn.init.constant_(maps.bias, -2.0)

    def with_maps(self, x: Tensor, done: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """`done`: how many of the backbone's blocks `x` has been through already."""
        local, deep = self.backbone(x, done) if done else self.backbone(x)
        fine, coarse = self.fine(self.dropout(self.refine(local))), self.coarse(self.dropout(deep))
        pooled = [fine.amax((2, 3)), coarse.amax((2, 3)), fine.relu().mean((2, 3)), coarse.relu().mean((2, 3))]
        return self.head(torch.cat(pooled, 1)), fine, coarse

    def forward(self, x: Tensor) -> Tensor:
        return self.with_maps(x)[0]


class Committee(nn.Module):
    """Several networks as one: the mean of their logits. The frozen beginning, which they share, is computed once.

    With few parts one network's answer depends on the order in which it saw them; the mean of several does so less."""

    def __init__(self, classes: int, architecture: Architecture, members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(SurfaceNet(classes, architecture) for _ in range(members))
        self.mirror = architecture.mirror
        self.frozen = architecture.frozen if architecture.backbone == "lite" else 0

    def shared(self, x: Tensor) -> Tensor:
        first: Any = self.members[0]
        return first.backbone.beginning(x, self.frozen) if self.frozen else x

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of float32 (n, 1, h, w)."""
        parts = len(x)
        x = self.shared(torch.cat((x, x.flip(3))) if self.mirror else x)
        total: Tensor = sum(member.with_maps(x, self.frozen)[0] for member in self.members)
        looks = len(self.members)
        if self.mirror:
            total, looks = total[:parts] + total[parts:], 2 * looks
        return total * (1.0 / looks) if looks > 1 else total
