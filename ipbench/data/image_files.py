"""What an image file is, and its pixels: one rule for all data sets that are folders of images.

JPEG and PNG alone are read, by what a file holds, not by its name: Pillow's other readers start programs, or guess.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ipbench import files
from ipbench.errors import BadProduct

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpeg", ".jpg", ".png")
#: What file managers leave behind, besides what begins with a dot; in lower case.
_LEFT_BEHIND = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}
#: Pixels of an image, from where on Pillow warns. A file of some kilobytes may claim billions.
MOST_PIXELS = 89_478_485
#: Modes of Pillow with values from 0 to 255, or a palette of such. Transparency is left out: colours stand as written.
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_SIXTEEN_BITS = {"I;16", "I;16B", "I;16L"}


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, hidden entries and those of file managers left out."""
    with os.scandir(folder) as found:
        return [entry for entry in found if entry.name[0] != "." and entry.name.lower() not in _LEFT_BEHIND]


def folders(folder: Path, expected: str) -> list[str]:
    """The names of the folders in a folder, sorted.

    Raises:
        BadProduct: something else lies there; the message names it, and says what is `expected`.
    """
    found = entries(folder)
    for entry in found:
        if not entry.is_dir():
            raise BadProduct(f"{entry.path}: not a folder of a class; {expected}")
    return sorted(entry.name for entry in found)


def names(folder: Path, expected: str) -> list[str]:
    """The names of the image files in a folder, sorted.

    Raises:
        BadProduct: something else lies there; the message names it, and says what is `expected`.
    """
    found = entries(folder)
    for entry in found:
        if not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
            raise BadProduct(f"{entry.path}: not an image file ({', '.join(SUFFIXES)}); {expected}")
    return sorted(entry.name for entry in found)


def decode(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB.

    Grey becomes three equal channels, of 16 bits the upper eight are taken, transparency is left out. An orientation
    written into the file is not obeyed, as everywhere on ImageNet.

    Args:
        path: the file.
        size: (width, height) that it must have; looked at before the pixels are decoded.

    Raises:
        files.Missing, files.NotRead: as `files.opened`.
        BadProduct: the file is no image, a broken or a huge one, an animation, or of another size.
    """
    pillow = _pillow()
    with files.opened(path) as file:
        try:
            with pillow.open(file, formats=("JPEG", "PNG")) as image:
                _check_claims(path, image, size)
                return _rgb(path, image)
        except (BadProduct, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever a broken file makes them stumble over
            if isinstance(error, OSError) and error.errno:
                raise files.not_read(path, error) from None
            said = " ".join(str(error).split()).replace(repr(file), "it") or "no reason given"
            raise BadProduct(
                f"{path}: not readable as an image ({type(error).__name__}: {said}); expected a whole JPEG or PNG file"
            ) from None


@cache
def _pillow() -> ModuleType:
    """Imported when it is needed: planning needs none."""
    from PIL import Image

    warnings.simplefilter("error", Image.DecompressionBombWarning)  # of `MOST_PIXELS`, which are refused
    return Image


def _check_claims(path: Path, image: Image.Image, size: tuple[int, int] | None) -> None:
    """What the file says of itself, before room is made for its pixels."""
    width, height = image.size
    if size is not None and image.size != size:
        raise BadProduct(f"{path}: {height} x {width} pixels where there must be {size[1]} x {size[0]}")
    if width * height > MOST_PIXELS:
        raise BadProduct(f"{path}: claims {height} x {width} pixels; an image has at most {MOST_PIXELS:,}")
    if image.format == "PNG" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise BadProduct(f"{path}: an animation of {frames} images where one is expected")


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    """To 8-bit RGB, whatever Pillow made of the file."""
    if image.mode in _SIXTEEN_BITS:  # Pillow would clip them at 255
        return _pillow().fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _EIGHT_BITS:
        raise BadProduct(f"{path}: an image of mode {image.mode}, whose range is not known; save it as 8-bit RGB")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA").convert("RGB")
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        from PIL import ImageChops

        return ImageChops.invert(image).convert("RGB")  # Pillow takes every file for Adobe's, which are inverted
    return image.convert("RGB")
