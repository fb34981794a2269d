"""Small labelled folders for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(root: Path, good: int = 4, bad: int = 2, split_folders: bool = True, split: str = "test") -> Path:
    """Grey 16 × 12 pictures; each has a level of its own."""
    rows = ["split,class,file,defect"]
    for n in range(good + bad):
        name = "free" if n < good else "crack"
        folder = root / split / name if split_folders else root / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16), 10 + n, np.uint8)).save(folder / f"{n}.png")
        rows.append(f"{split},{name},{n}.png,{int(n >= good)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root
