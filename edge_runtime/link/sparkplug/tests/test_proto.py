"""The generated module is what `make proto` makes of the schema, and a missing protobuf is told with its install line."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import MissingExtraError
from edge_runtime.link.sparkplug import payload

FOLDER = Path(__file__).parents[1]


def descriptor(source: str) -> bytes:
    """The serialized schema that a generated module carries; the rest of it changes with the generator's version."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    (call,) = [c for c in calls if c.func.attr == "AddSerializedFile"]  # type: ignore[attr-defined]
    value = ast.literal_eval(call.args[0])
    assert isinstance(value, bytes)
    return value


def test_the_generated_module_is_of_this_schema(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}", f"--python_out={tmp_path}", "sparkplug_b.proto"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made, kept = (folder / "sparkplug_b_pb2.py" for folder in (tmp_path, FOLDER))
    assert descriptor(made.read_text()) == descriptor(kept.read_text()), "run: make proto"


def test_the_schema_says_whose_it_is() -> None:
    text = (FOLDER / "sparkplug_b.proto").read_text()
    assert "SPDX-License-Identifier: EPL-2.0" in text
    assert "Cirrus Link Solutions" in text


def test_a_missing_protobuf_is_told_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("google") or "sparkplug_b_pb2" in str(args[2] if len(args) > 2 else ""):
            raise ModuleNotFoundError("No module named 'google'", name="google")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'gudgeon\[sparkplug\]'"):
        payload.generated()


def test_importing_the_device_does_not_load_protobuf() -> None:
    code = "import sys, edge_runtime.link.process, edge_runtime.link.sparkplug.node; sys.exit('google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
