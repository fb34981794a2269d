"""`gudgeon sim images`: a labelled folder of rendered parts, in the layout that `gudgeon train` reads.

labels.csv has `split,class,file,defect`; pictures are at `<split>/<class>/<file>.png` with `<file>_mask.png` beside the
defective ones. Picture number i depends on (seed, i) only, so a larger folder begins with a smaller one's pictures.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from firmware_sim.render import CLASSES, render

EXIT_DATA = 8
FREE_SHARE = 0.4


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon sim images", description="Render a labelled folder of parts.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--n", type=int, default=400, help="how many pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--split-test", type=float, default=0.25, metavar="SHARE", help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.n < 1 or args.seed < 0 or not 0.0 <= args.split_test < 1.0:
        parser.error("expected --n of at least 1, --seed of at least 0 and --split-test from 0 to below 1")
    problem = _not_empty(args.out)
    if problem:
        print(f"gudgeon sim images: {problem}", file=sys.stderr)
        return EXIT_DATA
    try:
        write_folder(args.out, args.n, args.seed, args.split_test)
    except OSError as error:
        print(f"gudgeon sim images: cannot write {args.out}: {error.strerror or error}", file=sys.stderr)
        return EXIT_DATA
    print(f"{args.n} pictures in {args.out} ({', '.join(CLASSES)})")
    return 0


def _not_empty(out: Path) -> str | None:
    if out.exists() and not out.is_dir():
        return f"{out} is a file, expected a new or empty folder; choose another --out"
    if out.is_dir() and any(out.iterdir()):
        return f"{out} is not empty, expected a new or empty folder; choose another --out or remove it"
    return None


def write_folder(out: Path, n: int, seed: int, split_test: float) -> None:
    """Render `n` pictures into `out`; about `FREE_SHARE` of them sound, the rest spread evenly over the defects."""
    weights = [FREE_SHARE, *[(1.0 - FREE_SHARE) / (len(CLASSES) - 1)] * (len(CLASSES) - 1)]
    rows = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        split = "test" if rng.random() < split_test else "train"
        label = CLASSES[int(rng.choice(len(CLASSES), p=weights))]
        pixels, mask = render(rng, label, light=float(rng.uniform(-0.8, 0.8)))
        folder = out / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"part_{i:05d}.png")
        if mask is not None:
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"part_{i:05d}_mask.png")
        rows.append((split, label, f"part_{i:05d}.png", int(mask is not None)))
        _progress(i + 1, n)
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("split", "class", "file", "defect"))
        writer.writerows(sorted(rows))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 20 == 0 or done == total):
        bar = "█" * (30 * done // total)
        print(f"\rrendering {bar:<30} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
