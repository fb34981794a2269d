"""A folder as a camera: order, what is no image, and broken files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import DataError, EndpointError
from edge_runtime.field import camera_folder
from edge_runtime.field.camera_folder import FolderCamera, decode_image


def save(file: Path, value: int, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (8, 6), value if mode == "L" else (value, 0, 0)).save(file)


def sources(camera: FolderCamera, n: int) -> list[str]:
    frames = [camera.frame(i, 1.0) for i in range(1, n + 1)]
    return [f.source for f in frames if f is not None]


def test_images_come_in_order_of_name_round_and_round(tmp_path: Path) -> None:
    for name in ("b.png", "a.bmp", "sub/c.jpg"):
        save(tmp_path / name, 9)
    for name in (".hidden.png", "b_mask.png"):
        save(tmp_path / name, 9)
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "folder.png").mkdir()
    camera = FolderCamera(tmp_path)
    camera.open()
    assert sources(camera, 5) == ["a.bmp", "b.png", "c.jpg", "a.bmp", "b.png"]
    assert camera.describe()["images"] == 3


def test_one_broken_image_costs_one_frame(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"not an image")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    save(tmp_path / "d.png", 4)
    camera = FolderCamera(tmp_path)
    camera.open()
    seen: list[str] = []
    for trigger in range(1, 9):
        camera.idle()
        try:
            frame = camera.frame(trigger, 1.0)
        except EndpointError as error:
            seen.append(str(error).split(": ")[2])
            camera.open()
        else:
            assert frame is not None
            seen.append(frame.source)
    assert seen == ["a.png", "not a readable image", "not a readable image", "d.png"] * 2


def test_no_folder_and_no_image(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="no such folder"):
        FolderCamera(tmp_path / "none").open()
    with pytest.raises(EndpointError, match=r"no image \(\.png"):
        FolderCamera(tmp_path).open()
    with pytest.raises(EndpointError, match="not open"):
        FolderCamera(tmp_path).frame(1, 1.0)


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("L", (6, 8)), ("1", (6, 8)), ("LA", (6, 8)), ("RGB", (6, 8, 3)), ("RGBA", (6, 8, 3)), ("P", (6, 8, 3))],
)
def test_every_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    Image.new(mode, (8, 6)).save(tmp_path / "x.png")
    pixels = decode_image(tmp_path / "x.png")
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8


def test_a_16_bit_image_keeps_its_contrast(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(deep).save(tmp_path / "x.png")
    pixels = decode_image(tmp_path / "x.png")
    assert pixels.shape == (6, 8)
    assert np.abs(pixels.astype(int) - deep // 257).max() <= 1


def test_a_picture_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "x.png", 1)
    monkeypatch.setattr(camera_folder, "PIXELS_LIMIT", 40)
    with pytest.raises(DataError, match="over the limit of 40"):
        decode_image(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="not a readable image"), warnings.catch_warnings():
        decode_image(tmp_path / "x.png")


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        save(tmp_path / f"{i}.png", i)
    monkeypatch.setattr(camera_folder, "CACHE_BYTES", 100)  # two images of 48 bytes
    camera = FolderCamera(tmp_path)
    camera.open()
    values = [f.pixels[0, 0] for i in range(10) if (f := camera.frame(i, 1.0))]
    assert values == [0, 1, 2, 3, 4] * 2
    assert len(camera._cache) <= 2
