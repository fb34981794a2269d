"""For all tests: no time limit for single examples, which a busy machine does not keep; in CI the same examples each time."""

from __future__ import annotations

import os
from contextlib import suppress

with suppress(ModuleNotFoundError):  # the training environment has no hypothesis
    from hypothesis import settings

    settings.register_profile("gudgeon", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("gudgeon")
