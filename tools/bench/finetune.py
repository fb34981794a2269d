"""Fine-tunes a shipped bundle's own network for `gudgeon bench delta`, in the training environment: the last layer, or all of it.

`python -m tools.bench.finetune --bundle B --data DIR --out DIR --what head|full|none`. The graph of the FP32 file is run as
PyTorch operations on its own weights, trained on labelled pictures, and written back into the same file; INT8 is quantised from
it again, as the pipeline does. `none` only quantises again, on these pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from edge_runtime.infer import bundle as bundles
from tools.pipeline import pack, quantise
from tools.pipeline.crossval import load

BATCH = 16
CALIBRATION_INPUTS = 100
Values = dict[str, torch.Tensor]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.finetune", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--what", choices=("head", "full", "none"), required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    bundle = bundles.load(args.bundle)
    data = load(args.data, "train")
    inputs = data.samples.inputs(bundle.manifest.input)
    labels = np.array([bundle.manifest.classes.index(data.classes[i]) for i in data.samples.labels])
    model = onnx.load(str(args.bundle / pack.FP32))
    losses = [] if args.what == "none" else tune(model, inputs, labels, args)
    onnx.save(model, str(args.out / pack.FP32))
    chosen = np.random.default_rng(args.seed).permutation(len(inputs))[:CALIBRATION_INPUTS]
    quantise.quantise_int8(args.out / pack.FP32, args.out / pack.INT8, inputs[chosen])
    print(json.dumps({"what": args.what, "pictures": len(inputs), "losses": losses}))
    return 0


def tune(model: Any, inputs: Any, labels: Any, args: argparse.Namespace) -> list[float]:
    """Train the weights of the graph; the mean loss of the first and of the last ten steps."""
    fixed = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    head = {name for node in model.graph.node if node.op_type == "Gemm" for name in node.input}
    weights = {
        name: value.requires_grad_()
        for name, value in fixed.items()
        if value.dtype == torch.float32 and value.numel() > 1 and (args.what == "full" or name in head)
    }
    optimiser = torch.optim.Adam(list(weights.values()), lr=args.rate)
    rng = np.random.default_rng(args.seed)
    losses = []
    for _ in range(args.steps):
        chosen = rng.permutation(len(inputs))[:BATCH]
        answers = [forward(model.graph, {**fixed, "input": torch.from_numpy(inputs[i][None])}) for i in chosen]
        loss = functional.cross_entropy(torch.cat(answers), torch.from_numpy(labels[chosen]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].detach().numpy(), tensor.name))
    return [float(np.mean(losses[:10])), float(np.mean(losses[-10:]))]


def forward(graph: Any, values: Values) -> torch.Tensor:
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        given = [values[name] for name in node.input]
        values[node.output[0]] = OPERATIONS[node.op_type](given, attributes)
    return values[graph.output[0].name]


def _slice(x: list[torch.Tensor], a: Mapping[str, Any]) -> torch.Tensor:
    data, starts, ends, axes, steps = x[0], *(t.tolist() for t in x[1:])
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = data.shape[axis]
        first = None if step < 0 and start == -1 else start
        last = None if abs(end) > size else end
        data = data.index_select(axis, torch.tensor(range(*slice(first, last, step).indices(size))))
    return data


def _conv(x: list[torch.Tensor], a: Mapping[str, Any]) -> torch.Tensor:
    top, left, bottom, right = a["pads"]
    padded = functional.pad(x[0], (left, right, top, bottom))
    return functional.conv2d(padded, x[1], x[2], stride=a["strides"], dilation=a["dilations"], groups=a["group"])


OPERATIONS: Mapping[str, Callable[[list[torch.Tensor], Mapping[str, Any]], torch.Tensor]] = {
    "Constant": lambda x, a: torch.from_numpy(numpy_helper.to_array(a["value"]).copy()),
    "Slice": _slice,
    "Conv": _conv,
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Clip": lambda x, a: x[0].clamp(float(x[1]), float(x[2])),
    "Relu": lambda x, a: x[0].relu(),
    "ReduceMax": lambda x, a: x[0].amax(a["axes"]),
    "ReduceMean": lambda x, a: x[0].mean(a["axes"]),
    "Gemm": lambda x, a: x[0] @ x[1].T + x[2],
    "Add": lambda x, a: x[0] + x[1],
    "Mul": lambda x, a: x[0] * x[1],
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
