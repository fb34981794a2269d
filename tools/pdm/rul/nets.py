"""TCN and LSTM over the recent rows: small PyTorch networks on the short means of each sensor, beside them every column of
the newest row through one hidden layer.

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
    """Causal convolutions with dilations 1, 2, 4, 8: (n, history, channels) → (n, 2 width), newest and mean."""

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x.transpose(1, 2))
        return torch.cat([y[:, :, -1], y.mean(2)], 1)


class Lstm(nn.Module):
    """(n, history, channels) → (n, 2 width): the state after the newest row."""

    def __init__(self, channels: int, recipe: NetRecipe) -> None:
        super().__init__()
        self.body = nn.LSTM(channels, 2 * recipe.width, batch_first=True)
        self.drop = nn.Dropout(recipe.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.body(x)
        return self.drop(y[:, -1])


class Both(nn.Module):
    """(n, history, columns) → (n, 1): what the body makes of `channels` over time, and all columns of the newest row."""

    def __init__(self, body: nn.Module, channels: tuple[int, ...], columns: int, recipe: NetRecipe) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("channels", torch.tensor(channels))
        self.wide = nn.Sequential(nn.Linear(columns, 2 * recipe.width), nn.ReLU(), nn.Dropout(recipe.dropout))
        self.head = nn.Sequential(nn.Linear(4 * recipe.width, recipe.width), nn.ReLU(), nn.Linear(recipe.width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        over_time = self.body(x.index_select(2, self.channels))
        return self.head(torch.cat([over_time, self.wide(x[:, -1])], 1))


KINDS: dict[str, Callable[[int, NetRecipe], nn.Module]] = {"tcn": Tcn, "lstm": Lstm}


@dataclass(frozen=True, eq=False)
class Net:
    kind: str
    module: Any
    cap: float

    def predict(self, inputs: NDArray[np.float32]) -> Floats:
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(inputs))
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
    columns = len(view.columns())
    tables = [np.concatenate([part[0, :-1], part[:, -1]]) for part in inputs]  # each row once; a history is a slice
    x = torch.from_numpy(np.concatenate(tables))
    first = np.concatenate([np.arange(len(t)) + at for t, at in zip(truth, _starts(tables), strict=True)])
    history = torch.arange(view.history_rows)
    y = torch.from_numpy(np.concatenate(truth) / cap).float()
    starts = np.cumsum([0, *map(len, truth)])
    module = Both(KINDS[kind](len(channels), recipe), channels, columns, recipe)
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
            batch = x[torch.from_numpy(first)[chosen][:, None] + history]
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
    return Net(kind, module, cap)


def _starts(tables: Sequence[NDArray[np.float32]]) -> list[int]:
    return [0, *np.cumsum([len(table) for table in tables]).tolist()][:-1]
