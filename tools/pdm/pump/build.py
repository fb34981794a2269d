"""`python -m tools.pdm.pump.build` (`make pump-model`): the bundles `models/pump/anomaly` and `models/pump/rul`, from generated
lives of the simulated pump, signed with a key made for this once. Runs in the training environment.

anomaly   principal components (T² and Q) over means of the newest rows, fitted to pumps that wear out in no way;
          threshold by `fit` from held-out blocks at the stated rate of normal rows
rul       a small network over the newest means gives the median; the band around it is `tools.pdm.rul.band`'s, learned
          from lives that it was not trained on (conformal, a whole life counts as one, all its rows alike)

The key's private half is never written; its public half goes to `edge_runtime/update/keys/`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime import __version__
from edge_runtime.errors import exit_code
from edge_runtime.identity import public_bytes
from edge_runtime.infer import features
from edge_runtime.update import keyring
from edge_runtime.wire.series import Feature, FeatureView, Interval, Scaler, SeriesManifest, TagView
from tools.pdm import fit, pack
from tools.pdm.graph import Builder
from tools.pdm.pump import data
from tools.pdm.pump.data import GRID_S, TAGS, Life
from tools.pdm.rul.band import Band, Scored, fit_band, misses
from tools.pipeline import launch

Floats = NDArray[np.float64]
MODEL = "model.fp32.onnx"
BUNDLES = launch.REPOSITORY / "models" / "pump"
KEY_FILE = launch.REPOSITORY / "edge_runtime" / "update" / "keys" / "models-pump.pub"
RATE, LEVELS = 1e-3, (1e-3, 1e-4, 1e-5)  # low, medium, high; remaining life alone is critical
SMOOTH_ROWS = 3
CAP_H, COVERAGE = 168.0, 0.9
HIDDEN, EPOCHS, BATCH = 48, 60, 256
HOLD_S = 8 * GRID_S


def view(name: str, window_rows: int, *means: int) -> FeatureView:
    tags = tuple(TagView(tag, resample="mean", hold_s=HOLD_S) for tag in TAGS)
    return FeatureView(name, "1", tags, tuple(Feature("mean", rows=n) for n in means), GRID_S, window_rows)


def build_anomaly(out: Path, seeds: Sequence[int], key: Ed25519PrivateKey) -> SeriesManifest:
    started = time.perf_counter()
    chosen = view("pump anomaly", 4, 4)
    runs = [data.rows(data.life(seed, "none"), chosen) for seed in seeds]
    settings = fit.Settings(
        members=("pca",), drift=0.0, rate=RATE, smoothing="mean", smooth_rows=SMOOTH_ROWS, levels=LEVELS
    )
    fitted = fit.fit(runs, chosen, settings)
    training = {
        "lives": len(runs), "rows": sum(map(len, runs)), "seeds": f"{seeds[0]} to {seeds[-1]}",
        "duration_s": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    draft = _draft("anomaly", fitted.view, fitted.scaler, training, calibration=fitted.calibration, members=("pca",))
    windows = pack.golden_windows(runs, fitted.view.rows, 12, np.random.default_rng(0))
    reference = pack.quantiles(fitted.inputs, np.concatenate(fitted.held_out))
    return pack.pack(out, draft, [pack.Model(MODEL, "fp32", fitted.onnx)], windows, reference, key)


def build_rul(out: Path, train: Sequence[int], held: Sequence[int], key: Ed25519PrivateKey) -> SeriesManifest:
    started = time.perf_counter()
    chosen = view("pump remaining life", 12, 3, 12)
    lives = [data.life(seed) for seed in train]
    tables = [features.columns(data.rows(life, chosen), chosen) for life in lives]
    everything = np.concatenate(tables)
    scaler = Scaler(tuple(np.median(everything, 0).tolist()), tuple(np.maximum(everything.std(0), 1e-6).tolist()), 8.0)
    targets = np.concatenate([_targets(life, chosen) for life in lives])
    network = _trained(features.scale(everything, scaler), targets)
    columns = len(chosen.columns())
    scored = [_scored(seed, chosen, scaler, _graph(network, columns)) for seed in held]
    band = fit_band(scored, COVERAGE, CAP_H)
    graph = _graph(network, columns, band)
    training = {
        "lives": len(lives), "rows": len(everything), "seeds": f"{train[0]} to {train[-1]}",
        "calibration_seeds": f"{held[0]} to {held[-1]}", "duration_s": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    interval = Interval("h", CAP_H, COVERAGE, band.offset, band.offset)
    metrics = _metrics(scored, band)
    draft = _draft("rul", chosen, scaler, training, interval=interval, contributions="none", metrics=metrics)
    runs = [data.rows(life, chosen) for life in lives[:12]]
    windows = pack.golden_windows(runs, chosen.rows, 12, np.random.default_rng(0))
    inputs = features.scale(everything, scaler)[:, None, :]
    reference = pack.quantiles(inputs, np.empty(0))
    return pack.pack(out, draft, [pack.Model(MODEL, "fp32", graph)], windows, reference, key)


def _draft(kind: str, of: FeatureView, scaler: Scaler, training: dict[str, Any], **more: Any) -> SeriesManifest:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    name = f"pump-{kind}"
    return SeriesManifest(
        kind, name, __version__, created, of, of.digest(), scaler, (), {}, training=training, **more
    )  # fmt: skip


def _scored(seed: int, of: FeatureView, scaler: Scaler, graph: bytes) -> Scored:
    life = data.life(seed)
    x = features.scale(features.columns(data.rows(life, of), of), scaler)
    return Scored(fit.run(graph, x[:, None, :])[:, 0], _targets(life, of), np.full(len(x), 1 / len(x)))


def _targets(life: Life, of: FeatureView) -> Floats:
    return data.remaining_h(life, of, CAP_H)[of.window_rows - 1 :]


def _trained(x: NDArray[np.float32], y: Floats) -> torch.nn.Module:
    """The median of the remaining life in units of the cap."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, 1),
    )  # fmt: skip
    inputs, targets = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy((y / CAP_H).astype(np.float32))
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            loss = (targets[batch] - network(inputs[batch])[:, 0]).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return network.eval()


def _graph(network: torch.nn.Module, columns: int, band: Band | None = None) -> bytes:
    """The median, and with a `band` its two curves beside it."""
    b = Builder()
    found = b.last_row("x", 1, columns)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    for i, layer in enumerate(layers):
        weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        last = i == len(layers) - 1
        found = b.dense(found, weight * (CAP_H if last else 1), bias * (CAP_H if last else 1))
        found = found if last else b.add("Relu", [found])
    point = b.add("Clip", [found, b.constant(0.0), b.constant(CAP_H)])
    if band is None:
        return b.model(1, columns, point, 1)
    start, knots, bends = band.bends()
    over = b.add("Relu", [b.add("Sub", [point, b.constant(knots)])])
    return b.model(1, columns, b.add("Concat", [point, b.dense(over, bends, start)], axis=1), 3)


def _metrics(scored: Sequence[Scored], band: Band) -> dict[str, Any]:
    """Of the lives that the band was calibrated on, none of which was trained on; the coverage counts each life once."""
    error = np.concatenate([unit.predicted - unit.truth for unit in scored])
    near = np.concatenate([unit.truth < CAP_H for unit in scored])
    inside = [float(np.mean(misses(unit, band) <= band.offset)) for unit in scored]
    return {
        "rmse_h": round(float(np.sqrt((error**2).mean())), 2),
        "rmse_h_below_cap": round(float(np.sqrt((error[near] ** 2).mean())), 2),
        "coverage": round(float(np.mean(inside)), 4),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pdm.pump.build", description=__doc__)
    parser.add_argument(
        "--lives", type=int, default=300, help="lives to train on, and to calibrate on (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=BUNDLES, metavar="DIR")
    parser.add_argument("--key-file", type=Path, default=KEY_FILE, help="where the public key is written")
    args = parser.parse_args(argv)
    if args.lives < 20:
        parser.error(f"--lives is {args.lives}, expected at least 20")
    torch.set_num_threads(1)
    key = Ed25519PrivateKey.generate()
    args.out.mkdir(parents=True, exist_ok=True)
    anomaly = build_anomaly(args.out / "anomaly", range(10_000, 10_000 + args.lives), key)
    print(f"anomaly: {anomaly.calibration}")
    held = range(30_000, 30_000 + args.lives)
    rul = build_rul(args.out / "rul", range(20_000, 20_000 + args.lives), held, key)
    print(f"rul: {dict(rul.metrics)}, {rul.interval}")
    args.key_file.parent.mkdir(parents=True, exist_ok=True)
    keyring.write_public(args.key_file, public_bytes(key))
    print(f"signed {args.out}; the public half of the key is {args.key_file}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("pump", lambda: main(sys.argv[1:])))
