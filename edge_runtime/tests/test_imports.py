"""Importing the device package loads nothing from the deny list; `wire` loads the standard library only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DENIED = {"torch", "fastapi", "pydantic", "opacus", "onnx", "flwr", "tensorflow", "asyncua"}

#: imports every module below the named package, then prints the top-level names of what is loaded
BARE = "import json, sys; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
WALK = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for m in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if ".tests" not in m.name and not m.name.endswith("conftest"):
        importlib.import_module(m.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(package: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", WALK, package], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_device_loads_nothing_from_the_deny_list() -> None:
    loaded = loaded_by("edge_runtime")
    assert not loaded & DENIED
    assert not loaded & {"cloud", "models", "firmware_sim", "hil_tests", "tools"}


def test_wire_is_standard_library_only() -> None:
    known = sys.stdlib_module_names | {"edge_runtime", "__main__"}
    extra = {name for name in loaded_by("edge_runtime.wire") if name not in known and not name.startswith("_")}
    before = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=60, check=True)
    assert extra <= set(json.loads(before.stdout))  # site hooks of the environment, such as editable finders
