"""The shipped bundle `models/surface`: `make model` renders parts, trains, packs, and signs with a key made for this once.

The key's private half is never written; its public half goes to `edge_runtime/update/keys/`, so that every device trusts
exactly the bundles that were shipped with it. The simulator is started as a process: the pipeline does not import it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import exit_code
from edge_runtime.identity import public_bytes
from edge_runtime.update import keyring
from edge_runtime.update.sign import sign_bundle
from tools.pipeline import launch

BUNDLE = launch.REPOSITORY / "models" / "surface"
KEY_FILE = launch.REPOSITORY / "edge_runtime" / "update" / "keys" / "models-surface.pub"
RECIPE = (
    "members=1",
    "height=320",  # as the simulated camera gives it: no defect is lost in resampling
    "width=280",
    "architecture.mirror=true",
    'architecture.backbone="plain"',
    "learning_rate=0.004",
    "label_smoothing=0.02",
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pipeline.default_model", description=__doc__)
    parser.add_argument("--n", type=int, default=1200, help="pictures to render (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=BUNDLE, metavar="BUNDLE_DIR")
    parser.add_argument("--key-file", type=Path, default=KEY_FILE, help="where the public key is written")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="gudgeon-model-") as folder:
        data = Path(folder) / "parts"
        render = ["-m", "firmware_sim.images_cli", "--out", str(data), "--n", str(args.n), "--seed", str(args.seed)]
        subprocess.run([sys.executable, *render], check=True, cwd=launch.REPOSITORY)
        os.environ["GUDGEON_HOME"] = str(Path(folder) / "home")  # the run's own signature is replaced below
        code = launch.train(_arguments(args, data))
        if code:
            return code
    key = Ed25519PrivateKey.generate()
    signer = sign_bundle(args.out, key)
    args.key_file.parent.mkdir(parents=True, exist_ok=True)
    keyring.write_public(args.key_file, public_bytes(key))
    print(f"signed {args.out} with key {signer}; its public half is {args.key_file}")
    return 0


def _arguments(args: argparse.Namespace, data: Path) -> list[str]:
    numbers = {"--epochs": args.epochs, "--seed": args.seed, "--threads": args.threads, "--max-folds": 1, "--golden": 7}
    options = [text for name, value in numbers.items() for text in (name, str(value))]
    settings = [text for setting in RECIPE for text in ("--set", setting)]
    return ["surface", "--data", str(data), "--out", str(args.out), *options, *settings]


if __name__ == "__main__":
    sys.exit(exit_code("default_model", lambda: main(sys.argv[1:])))
