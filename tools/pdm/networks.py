"""The two autoencoders: trained with PyTorch, then plain arrays that write themselves into the graph.

Both learn to give back normal scaled inputs (limited to ± `INPUT_LIMIT`) from a noisy copy, through a narrow middle. Their
error is the root mean square of what they do not give back. Convolutions are two-dimensional with a height of one, and the
decoder doubles its length by sub-pixel reshapes, so that every engine here can run them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tools.pdm.graph import CONV, DENSE, Builder

if TYPE_CHECKING:
    from tools.pdm.members import Inputs, Recipe

INPUT_LIMIT = 6.0
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DenseAutoencoder:
    layers: tuple[tuple[Array, Array, bool], ...]
    """(weight (inputs, outputs), bias, followed by a ReLU) of each layer."""

    def write(self, b: Builder, x: str, newest: str) -> tuple[str, str]:
        hidden = newest
        for weight, bias, relu in self.layers:
            hidden = b.dense(hidden, weight, bias, DENSE)
            if relu:
                hidden = b.add("Relu", [hidden], DENSE)
        squares = b.square(b.add("Sub", [newest, hidden]))
        columns = self.layers[-1][1].shape[0]
        return b.root_of_mean(squares, columns), squares


@dataclass(frozen=True, eq=False)
class ConvAutoencoder:
    """`layers`: (weight (out, in, 1, kernel), bias, stride, doubles); ReLU after each but the last."""

    layers: tuple[tuple[Array, Array, int, bool], ...]
    history: int
    columns: int

    def write(self, b: Builder, x: str, newest: str) -> tuple[str, str]:
        length = self.history
        turned = b.add("Transpose", [x], perm=[0, 2, 1])
        hidden = b.reshape(turned, (-1, self.columns, 1, length))
        for i, (weight, bias, stride, doubles) in enumerate(self.layers):
            side = weight.shape[3] // 2
            hidden = b.add(
                "Conv", [hidden, b.constant(weight), b.constant(bias)], CONV,
                kernel_shape=[1, weight.shape[3]], pads=[0, side, 0, side], strides=[1, stride],
            )  # fmt: skip
            length = -(-length // stride)
            if i < len(self.layers) - 1:
                hidden = b.add("Relu", [hidden], CONV)
            if doubles:  # (2c, length) → (c, 2 length), neighbours from the two halves of the channels
                channels = weight.shape[0] // 2
                pairs = b.add("Transpose", [b.reshape(hidden, (-1, 2, channels, length))], perm=[0, 2, 3, 1])
                length *= 2
                hidden = b.reshape(pairs, (-1, channels, 1, length))
        back = b.reshape(hidden, (-1, self.columns, length))
        squares = b.square(b.add("Sub", [turned, back]))
        mean = b.constant(np.full((length, 1), 1.0 / length))
        by_column = b.reshape(b.add("MatMul", [squares, mean]), (-1, self.columns))
        return b.root_of_mean(by_column, self.columns), by_column


def limit_threads(count: int) -> None:
    torch.set_num_threads(count)


def fit_dense(inputs: Inputs, recipe: Recipe, seed: int) -> DenseAutoencoder:
    columns = inputs.shape[2]
    middle = recipe.bottleneck or max(2, columns // 3)
    middle = min(middle, max(1, columns - 1))
    wide = max(8, 2 * columns)
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(columns, wide), nn.ReLU(), nn.Linear(wide, middle), nn.Linear(middle, wide), nn.ReLU(),
        nn.Linear(wide, columns),
    )  # fmt: skip
    _train(network, torch.from_numpy(inputs[:, -1].copy()), recipe, seed)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    relu = (True, False, True, False)  # the narrow layer is linear
    return DenseAutoencoder(tuple((_array(m.weight).T, _array(m.bias), r) for m, r in zip(layers, relu, strict=True)))


def fit_conv(inputs: Inputs, recipe: Recipe, seed: int) -> ConvAutoencoder:
    _, history, columns = inputs.shape
    if history % 4:
        raise ValueError(f"a history of {history} rows, expected a multiple of 4")
    torch.manual_seed(seed)
    network = ConvNetwork(columns, recipe.channels)
    turned = np.ascontiguousarray(inputs.transpose(0, 2, 1)[:, :, None])
    _train(network, torch.from_numpy(turned), recipe, seed)
    layers = tuple(
        (_array(conv.weight), _array(conv.bias), stride, doubles)
        for conv, (stride, doubles) in zip(network.convs, ConvNetwork.SHAPES, strict=True)
    )
    return ConvAutoencoder(layers, history, columns)


class ConvNetwork(nn.Module):
    """Halve the length twice, pass a narrow middle, double it twice."""

    SHAPES = ((2, False), (2, False), (1, True), (1, True))

    def __init__(self, columns: int, channels: int) -> None:
        super().__init__()
        narrow = max(2, channels // 4)
        widths = ((columns, channels), (channels, narrow), (narrow, 2 * channels), (channels, 2 * columns))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, (1, 5), stride=(1, stride), padding=(0, 2))
            for (a, b), (stride, _) in zip(widths, self.SHAPES, strict=True)
        )

    def forward(self, x: Any) -> Any:
        for i, (conv, (_, doubles)) in enumerate(zip(self.convs, self.SHAPES, strict=True)):
            x = conv(x)
            if i < len(self.convs) - 1:
                x = torch.relu(x)
            if doubles:
                n, double, _, length = x.shape
                x = x.reshape(n, 2, double // 2, length).permute(0, 2, 3, 1).reshape(n, double // 2, 1, 2 * length)
        return x


def _train(network: Any, data: Any, recipe: Recipe, seed: int) -> None:
    """Adam with a one-cycle rate on noisy copies; everything random comes from `seed`."""
    data = data.clamp(-INPUT_LIMIT, INPUT_LIMIT)
    random = torch.Generator().manual_seed(seed)
    batch = min(recipe.batch, len(data))
    steps = max(1, len(data) // batch)
    epochs = max(1, min(recipe.epochs, recipe.steps_max // steps))
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=epochs * steps, pct_start=0.2
    )
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=random)
        for i in range(steps):
            clean = data[order[i * batch : (i + 1) * batch]]
            noisy = clean + recipe.noise * torch.randn(clean.shape, generator=random)
            loss = ((network(noisy) - clean) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()


def _array(parameter: Any) -> Array:
    return np.asarray(parameter.detach().numpy(), np.float32)
