"""What is done with a part after its answer and its record, between parts: the shadow model, and frames kept for labelling."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.decide.decision import Result
from edge_runtime.decide.models import Seen
from edge_runtime.errors import GudgeonError
from edge_runtime.infer.model import Model
from edge_runtime.outbox.recorder import Item

SHARED_SIDE = 256
SHARED_LIMIT_BYTES = 40_000


class Shadow:
    """Runs a second bundle on the same frame and tells where it disagrees; it never answers."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, seen: Seen) -> list[Item]:
        decision = seen.decision
        body: dict[str, Any] = {
            "part_seq": decision.part_seq,
            "part_epoch": decision.part_epoch,
            "shadow_digest": self._model.digest,
        }
        if decision.result is Result.FAULT:
            return []
        try:
            looked = self._model.look(seen.frame.pixels)
        except (GudgeonError, ValueError) as error:
            return [("fault", "shadow_failed", {**body, "reason": str(error)})]
        result = looked.judgement.result if looked.judgement else int(Result.REVIEW)
        if result == int(decision.result):
            return []
        score = looked.judgement.score if looked.judgement else None
        body |= {
            "result": int(decision.result),
            "shadow_result": result,
            "score": decision.score,
            "shadow_score": score,
        }
        return [("metric", "shadow_disagreement", body)]


class ReviewFolder:
    """Frames of parts sent to review, as PNG files in a folder of at most `max_bytes`; the oldest make room.

    They stay on the device. With `share` (the operator's consent) a small JPEG of each goes into an Event as well."""

    def __init__(self, folder: Path, max_bytes: int, share: bool = False) -> None:
        self._folder, self._max_bytes, self._share = folder, max_bytes, share

    def __call__(self, seen: Seen) -> list[Item]:
        decision = seen.decision
        if decision.result is not Result.REVIEW:
            return []
        name = f"{decision.part_epoch:06d}-{decision.part_seq:05d}.png"
        from PIL import Image  # only for the frames that are kept

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(seen.frame.pixels).save(self._folder / name, compress_level=1)
            self._make_room()
        except OSError as error:
            return [("fault", "review_folder", {"reason": f"{self._folder / name}: {error}"})]
        return [("review", "frame", self._shared(seen))] if self._share else []

    def _make_room(self) -> None:
        files = sorted(self._folder.glob("*.png"), key=lambda p: p.stat().st_mtime_ns)
        size_bytes = sum(p.stat().st_size for p in files)
        while files and size_bytes > self._max_bytes:
            size_bytes -= files[0].stat().st_size
            files.pop(0).unlink()

    def _shared(self, seen: Seen) -> dict[str, Any]:
        decision = seen.decision
        body = {"part_seq": decision.part_seq, "part_epoch": decision.part_epoch, "reason": decision.reason}
        return {**body, "jpeg_base64": base64.b64encode(thumbnail(seen.frame.pixels)).decode()}


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of at most SHARED_SIDE pixels a side and SHARED_LIMIT_BYTES."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SHARED_SIDE, SHARED_SIDE))
    for quality in (85, 60, 30, 10):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= SHARED_LIMIT_BYTES:
            break
    return buffer.getvalue()
