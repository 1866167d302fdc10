"""One rule for what an image file is: every mode to 8-bit RGB without losing its range, or one line."""

from __future__ import annotations

import io
import os
import shutil
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from ipbench import files
from ipbench.cli.main import main
from ipbench.data import image_files, image_folder, tiny_imagenet
from ipbench.errors import BadProduct

from .conftest import noise, one_line, write_imagenet


def saved(image: Image.Image, path: Path, kind: str, **options) -> Path:
    image.save(path, kind, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(image_files.decode(path))


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path):
    """As Pillow does with 16 bits of colour: the upper eight."""
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 255
    found = pixels(saved(Image.fromarray(ramp), tmp_path / "x.png", "PNG"))
    assert found.shape == (16, 16, 3)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], np.arange(256).reshape(16, 16))


def test_sixteen_bits_of_colour(tmp_path):
    """Pillow writes none: a PNG by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">6H", 0, 255, 256, 32768, 65279, 65535)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert pixels(tmp_path / "x.png").ravel().tolist() == [0, 0, 1, 128, 254, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_eight_bits_stay_as_they_are_and_transparency_is_left_out(mode, tmp_path):
    colours = noise(9, 7, "RGBA" if mode in ("LA", "RGBA") else "RGB").convert(mode)
    expected = np.asarray(colours.convert("RGBA").convert("RGB"))
    np.testing.assert_array_equal(pixels(saved(colours, tmp_path / "x.png", "PNG")), expected)


def test_a_palette_with_transparency(tmp_path):
    """Pillow warns of it, and nobody would see the warning but who watches the terminal."""
    image = noise(9, 7, "P")
    path = saved(image, tmp_path / "x.png", "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(pixels(path), np.asarray(image.convert("RGB")))


def test_inverted_cmyk_and_plain_cmyk(tmp_path):
    """Adobe's files are inverted and say so; without the mark, 255 is full ink."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    adobe = saved(red, tmp_path / "adobe.jpg", "JPEG", quality=100)
    data = saved(ImageChops.invert(red), tmp_path / "plain.jpg", "JPEG", quality=100).read_bytes()
    start = data.index(b"\xff\xee")
    assert data[start + 4 : start + 9] == b"Adobe"
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
    (tmp_path / "plain.jpg").write_bytes(data[:start] + data[end:])
    for path in (adobe, tmp_path / "plain.jpg"):
        assert abs(pixels(path).astype(int) - [255, 0, 0]).max() < 4


def test_an_orientation_is_not_obeyed(tmp_path):
    image = noise(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(image, tmp_path / "x.png", "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(path), np.asarray(image))


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV"])
def test_a_mode_of_unknown_range_is_one_line(mode):
    """No JPEG and no PNG has one today."""
    with pytest.raises(BadProduct) as error:
        image_files._rgb(Path("x.png"), Image.new(mode, (2, 2)))
    one_line(error, "x.png", f"mode {mode}", "8-bit RGB")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_other_formats_under_a_good_name_are_one_line(kind, tmp_path):
    with pytest.raises(BadProduct) as error:
        pixels(saved(noise(8, 8), tmp_path / "x.jpg", kind))
    one_line(error, "x.jpg: not readable as an image", "expected a whole JPEG or PNG file")


def test_no_program_is_started_for_a_file(tmp_path):
    """Pillow calls ghostscript for this kind."""
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(BadProduct, match="not readable as an image"):
        pixels(path)


def test_an_animation_is_one_line(tmp_path):
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 99)]
    path = saved(frames[0], tmp_path / "x.png", "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(BadProduct, match="an animation of 2 images"):
        pixels(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # an error, outside of pytest
@pytest.mark.parametrize("side", [10_000, 2**15, 2**30])
def test_a_file_that_claims_billions_of_pixels_is_one_line(side, tmp_path, monkeypatch):
    """Before room is made for them."""
    data = bytearray()
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    data = file.getvalue()
    header = data[12:16] + struct.pack(">II", side, side) + data[24:29]
    path = tmp_path / "x.png"
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(BadProduct) as error:
        image_files.decode(path)
    one_line(error, str(path))


@pytest.fixture
def tiny(tmp_path):
    for name in ("n0", "n1"):
        folder = tmp_path / "tiny-imagenet-200/train" / name / "images"
        folder.mkdir(parents=True)
        noise(64, 64).save(folder / f"{name}_0.JPEG")
    return tmp_path / "tiny-imagenet-200"


LEFT_BEHIND = [".DS_Store", "._x.JPEG", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/x.JPEG", "__MACOSX/x.JPEG"]


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_file_managers_leave_is_left_out_of_both_kinds_of_folder(name, tiny, tmp_path):
    write_imagenet(tmp_path, 2, 2, 2)
    places = [tiny / "train", tiny / "train/n0/images", tmp_path / "imagenet/train", *tmp_path.glob("imagenet/*/n0*0")]

    def read():
        image_folder.listing.cache_clear()
        listing = image_folder.listing("imagenet", "train", tmp_path)
        return tiny_imagenet.read("train", tiny, 64), (listing.classes, listing.names)

    (images, labels), listed = read()
    for place in places:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"x")
    (found, found_labels), found_listed = read()
    np.testing.assert_array_equal(found, images)
    assert found_labels.tolist() == labels.tolist() and found_listed == listed


@pytest.mark.parametrize("name", ["notes.txt", "x.gif"])
def test_anything_else_is_named_in_both(name, tiny):
    (tiny / "train/n1/images" / name).touch()
    with pytest.raises(BadProduct, match=f"{name}: not an image file"):
        tiny_imagenet.read("train", tiny, 64)


def test_a_folder_that_may_not_be_listed_is_one_line(tiny, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(image_files.os, "scandir", refuse)
    assert main(["data", "fetch", "tiny-imagenet", "--data", str(tiny.parent)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "train: Permission denied" in err


def test_missing_files_are_missing(tmp_path):
    with pytest.raises(files.Missing):
        image_files.decode(tmp_path / "x.png")
    shutil.rmtree(tmp_path)
