"""Manifests of runtime releases and configurations, and what wheels ask of a machine."""

from __future__ import annotations

import pytest

from edge_runtime.wire import release
from edge_runtime.wire.release import ConfigManifest, Needs, RuntimeManifest

SHA = "0" * 64
RUNTIME = f"""schema = 1
kind = "runtime"
name = "gudgeon"
version = "1.2+b3"
python = "3.11"
machine = "x86_64"
glibc = "2.28"
outbox = 2
[files]
"gudgeon-1.2-py3-none-any.whl" = "{SHA}"
"""
CONFIG = f'schema = 1\nkind = "config"\nname = "line"\nversion = "1"\n[files]\n"config.toml" = "{SHA}"\n'


def test_what_is_parsed() -> None:
    made = release.parse(RUNTIME.encode(), RuntimeManifest)
    assert (made.version, made.outbox, made.glibc, list(made.files)) == (
        "1.2+b3",
        2,
        "2.28",
        ["gudgeon-1.2-py3-none-any.whl"],
    )
    assert release.parse(CONFIG.encode(), ConfigManifest).name == "line"


WRONG = [
    (RUNTIME.replace("3.11", "2.7"), RuntimeManifest, "python is '2.7'"),
    (RUNTIME.replace("outbox = 2", "outbox = 0"), RuntimeManifest, "outbox is 0"),
    (RUNTIME.replace("outbox = 2", 'outbox = "2"'), RuntimeManifest, "outbox must be int"),
    (RUNTIME.replace("py3-none-any.whl", "py3.zip"), RuntimeManifest, "not the name of a wheel"),
    (RUNTIME.replace('"gudgeon-1', '"../gudgeon-1'), RuntimeManifest, "not the name of a wheel"),
    (RUNTIME.replace(SHA, "0"), RuntimeManifest, "64 hex digits"),
    (RUNTIME.split("[files]")[0] + "[files]\n", RuntimeManifest, "0 wheels"),
    (RUNTIME, ConfigManifest, "kind is 'runtime', expected 'config'"),
    (CONFIG + f'"more" = "{SHA}"\n', ConfigManifest, "expected config.toml and nothing else"),
    (CONFIG.replace('"line"', '"Line"'), ConfigManifest, "name is 'Line'"),
]


@pytest.mark.parametrize(("text", "kind", "told"), WRONG, ids=[told for _, _, told in WRONG])
def test_what_is_wrong_is_told(text: str, kind: type, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        release.parse(text.encode(), kind)


def test_the_needs_of_wheels() -> None:
    pure, many = "a-1-py3-none-any.whl", "b-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
    old, abi3 = "c-1-cp311-cp311-manylinux2014_x86_64.whl", "d-50.0-cp311-abi3-manylinux_2_34_x86_64.whl"
    assert release.needs_of([pure], "3.11") == Needs("3.11", "any", "any")
    assert release.needs_of([pure, old], "3.11") == Needs("3.11", "x86_64", "2.17")
    assert release.needs_of([pure, old, many], "3.11") == Needs("3.11", "x86_64", "2.27")
    assert release.needs_of([many, abi3], "3.11") == Needs("3.11", "x86_64", "2.34")
    with pytest.raises(ValueError, match="not for Linux"):
        release.needs_of(["e-1-cp311-cp311-win_amd64.whl"], "3.11")
    with pytest.raises(ValueError, match="aarch64 and x86_64 in one release"):
        release.needs_of([many, "f-1-cp311-cp311-manylinux_2_17_aarch64.whl"], "3.11")


HAS = Needs("3.11", "aarch64", "2.31")
FITS = [
    (Needs("3.11", "any", "any"), ""),
    (Needs("3.11", "aarch64", "2.31"), ""),
    (Needs("3.11", "aarch64", "2.4"), ""),
    (Needs("3.11", "aarch64", "2.36"), "it needs glibc 2.36"),
    (Needs("3.11", "x86_64", "any"), "it is for x86_64"),
    (Needs("3.12", "any", "any"), "it is for Python 3.12"),
]


@pytest.mark.parametrize(("needs", "told"), FITS)
def test_what_fits_a_machine(needs: Needs, told: str) -> None:
    assert release.misfit(needs, HAS).startswith(told)
    assert bool(release.misfit(needs, HAS)) == bool(told)
    assert "another C library" in release.misfit(Needs("3.11", "any", "2.17"), Needs("3.11", "aarch64", "any"))
