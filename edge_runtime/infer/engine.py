"""Engine: runs one variant of a Bundle. ONNX Runtime, LiteRT and the plain NumPy reference stand behind it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """`name` is ``onnxruntime``, ``litert`` or ``reference``; `variant` is the manifest's variant name."""

    name: str
    variant: str

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits, shape (classes,), for one pre-processed input of shape (1, channels, height, width).

        The returned array belongs to the caller. Raises `errors.BundleError` for a wrong shape."""

    def close(self) -> None: ...
