"""TCN and LSTM over the recent rows: small PyTorch networks on the short means of each sensor, the cycle beside them.

Both see `history_rows` rows up to the newest, never later ones. They learn the capped life divided by the cap, by squared
error, from the rows of whole units drawn anew in each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_runtime.wire.series import FeatureView

Floats = NDArray[np.float64]
STRIDE = 4  # rows between two training windows of a unit; where they start is drawn anew in each pass


@dataclass(frozen=True)
class NetRecipe:
    history_rows: int = 48
    width: int = 24
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 1e-3
    dropout: float = 0.1
    noise: float = 0.05


class Tcn(nn.Module):
    """Causal convolutions with dilations 1, 2, 4, 8; the newest row's answer."""

    def __init__(self, channels: int, recipe: NetRecipe) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, dilation in enumerate((1, 2, 4, 8)):
            before = channels if i == 0 else recipe.width
            layers += [
                nn.ConstantPad1d((2 * dilation, 0), 0.0),
                nn.Conv1d(before, recipe.width, 3, dilation=dilation),
                nn.ReLU(),
                nn.Dropout(recipe.dropout),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * recipe.width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, history, channels) → (n, 1)"""
        y = self.body(x.transpose(1, 2))
        return self.head(torch.cat([y[:, :, -1], y.mean(2)], 1))


class Lstm(nn.Module):
    def __init__(self, channels: int, recipe: NetRecipe) -> None:
        super().__init__()
        self.body = nn.LSTM(channels, recipe.width, batch_first=True)
        self.drop = nn.Dropout(recipe.dropout)
        self.head = nn.Linear(recipe.width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.body(x)
        return self.head(self.drop(y[:, -1]))


KINDS: dict[str, Callable[[int, NetRecipe], nn.Module]] = {"tcn": Tcn, "lstm": Lstm}


@dataclass(frozen=True, eq=False)
class Net:
    """`channels`: the columns of the view that the network looks at."""

    kind: str
    module: Any
    channels: tuple[int, ...]
    cap: float

    def predict(self, inputs: NDArray[np.float32]) -> Floats:
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(inputs[:, :, list(self.channels)]))
            return np.asarray(self.module(x)[:, 0].double().numpy() * self.cap)


def channels_of(view: FeatureView) -> tuple[int, ...]:
    """The cycle and the shortest mean of every signal."""
    shortest = {feature.tags: feature.rows for feature in reversed(view.features) if feature.kind == "mean"}
    wanted = {f"mean({name},{rows})" for tags, rows in shortest.items() for name in tags}
    return tuple(i for i, (name, _) in enumerate(view.columns()) if name in wanted or name.startswith("value("))


def fit_net(
    kind: str,
    inputs: Sequence[NDArray[np.float32]],
    truth: Sequence[Floats],
    view: FeatureView,
    recipe: NetRecipe,
    cap: float,
    seed: int,
    note: Callable[[str], None] | None = None,
) -> Net:
    """`inputs`, `truth`: a table a unit."""
    channels = channels_of(view)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(np.concatenate([part[:, :, list(channels)] for part in inputs]))
    y = torch.from_numpy(np.concatenate(truth) / cap).float()
    starts = np.cumsum([0, *map(len, truth)])
    module = KINDS[kind](len(channels), recipe)
    passes = recipe.epochs * (sum(len(t) // STRIDE + 1 for t in truth) // recipe.batch + 1)
    optimiser = torch.optim.AdamW(module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, passes + 1)
    step = 0
    for epoch in range(recipe.epochs):
        rows = [np.arange(a + rng.integers(STRIDE), b, STRIDE) for a, b in pairwise(starts.tolist())]
        order = torch.from_numpy(rng.permutation(np.concatenate(rows)))
        for chosen in order.split(recipe.batch):
            if step >= passes:
                break
            batch = x[chosen]
            loss = nn.functional.mse_loss(module(batch + recipe.noise * torch.randn_like(batch))[:, 0], y[chosen])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
        if note:
            note(f"{kind}: pass {epoch + 1} of {recipe.epochs}, loss {float(loss.detach()):.4f}")
    module.eval()
    return Net(kind, module, channels, cap)
