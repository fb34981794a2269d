"""Which models judge, and what a judged part is. `Models` is the plain case: what was loaded at the start, for good;
`decide.swap` changes them while the line runs, between two parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.decide.decision import Decision
from edge_runtime.field.camera import Frame
from edge_runtime.infer.model import Looked, Model
from edge_runtime.outbox.recorder import Item

Pixels = NDArray[np.uint8]


class Judges(Protocol):
    """`of`: who judges the parts of this recipe now. `look` says also which model it was that judged: one on trial may be
    replaced in the middle of a part. `turn` does one thing that is due between parts: what is to be told of it, None where
    there was nothing to do; it never waits."""

    def of(self, recipe: int | None) -> Model | None: ...

    def look(
        self, model: Model, recipe: int | None, pixels: Pixels, previous: Pixels | None
    ) -> tuple[Model, Looked]: ...

    def turn(self, now_ns: int) -> list[Item] | None: ...

    @property
    def named(self) -> Mapping[str, Model]:
        """Slot set → model, of those that judge."""


@dataclass(frozen=True)
class Models:
    """`by_recipe` holds the bundles of single recipe codes; `default` serves the others. None: no model is loaded, and parts are
    answered `fault`."""

    default: Model | None
    by_recipe: Mapping[int, Model | None]
    shadow: Model | None = None

    def of(self, recipe: int | None) -> Model | None:
        return self.by_recipe.get(recipe, self.default) if recipe is not None else self.default

    def look(self, model: Model, recipe: int | None, pixels: Pixels, previous: Pixels | None) -> tuple[Model, Looked]:
        return model, model.look(pixels, previous)

    def turn(self, now_ns: int) -> list[Item] | None:
        return None

    @property
    def named(self) -> Mapping[str, Model]:
        found = {"default": self.default} if self.default else {}
        return found | {f"recipe-{code}": model for code, model in self.by_recipe.items() if model}

    def having(self, slot_set: str, model: Model | None) -> Models:
        """The same with another model in one slot set; None takes it away."""
        if slot_set == "default":
            return replace(self, default=model)
        others = {code: m for code, m in self.by_recipe.items() if f"recipe-{code}" != slot_set}
        if model is not None:
            others[int(slot_set.removeprefix("recipe-"))] = model
        return replace(self, by_recipe=others)


@dataclass(frozen=True)
class Seen:
    """A part that was judged, for the jobs that may wait."""

    decision: Decision
    frame: Frame


Job = Callable[[Seen], list[Item]]
