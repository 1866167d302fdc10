"""Unpacking the archives of data sets (floor 2): members go below the folder, or nothing is unpacked."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ipbench.errors import BadProduct


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz or .zip; any other file is left as it is (a single .gz is read without).

    Raises:
        BadProduct: it is broken, or a member would land outside the folder or is no plain file; it names the archive.
    """
    try:
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive, "r:gz") as tar:
                plain = [(member.name, member.isfile() or member.isdir()) for member in tar]
                _check(archive, plain)
                # From 3.11.4 on Python checks too.
                tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
        elif archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                _check(archive, [(member.filename, not _is_link(member)) for member in file.infolist()])
                file.extractall(folder)
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        said = " ".join(str(error).split())
        raise BadProduct(
            f"{archive}: cannot be unpacked ({type(error).__name__}: {said}); delete it to have it fetched again"
        ) from None


def _check(archive: Path, members: Iterable[tuple[str, bool]]) -> None:
    """Names as they stand in the archive, and whether each is a plain file or a folder."""
    for name, plain in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if not plain or path.is_absolute() or ".." in path.parts or not name.isprintable():
            raise BadProduct(
                f"{archive}: not unpacked: its member {name!r:.100} would land outside of the folder, or is a link;"
                " delete the archive, it is not the published one"
            )


def _is_link(member: zipfile.ZipInfo) -> bool:
    return (member.external_attr >> 28) == 0xA
