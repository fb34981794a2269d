"""The network as an INT8 `.tflite`, inside the converter environment (`make setup-convert`): litert-torch turns the PyTorch
module into a float model, ai-edge-quantizer makes it static INT8 with the same calibration inputs as the ONNX variant.

`gudgeon train` calls it where that environment is present, and leaves the variant out where it is not.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.pipeline.model import Architecture, Committee


def load_network(weights: Path, settings: dict[str, Any]) -> Committee:
    """The trained network from its weights (read as tensors only, never as code)."""
    architecture = Architecture(**{**settings["architecture"], "widths": tuple(settings["architecture"]["widths"])})
    net = Committee(settings["classes"], architecture, settings["members"])
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.eval()
    return net


def convert(net: Committee, inputs: NDArray[np.float32], out: Path) -> None:
    """`inputs`: (n, 1, h, w) float32 for calibration. The file takes and gives float32."""
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    example = (torch.from_numpy(inputs[:1]),)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / "fp32.tflite"
        litert_torch.convert(net, example).export(str(fp32))
        work = quantizer.Quantizer(str(fp32), recipe.static_wi8_ai8())
        name = signature_input(fp32)
        data = {"serving_default": [{name: x[None]} for x in inputs]}
        work.quantize(work.calibrate(data)).export_model(str(out), overwrite=True)


def signature_input(path: Path) -> str:
    """The name of the one input of the model's signature."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(model_path=str(path)).get_signature_list()
    return str(signatures["serving_default"]["inputs"][0])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pipeline.convert", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True, help="JSON: classes, members, architecture")
    parser.add_argument("--inputs", type=Path, required=True, help=".npy (n, 1, h, w) float32")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    net = load_network(args.weights, json.loads(args.settings.read_text()))
    convert(net, np.load(args.inputs, allow_pickle=False), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
