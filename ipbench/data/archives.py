"""Unpacking the archives of data sets: members go below the folder, or nothing is unpacked."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ipbench import files
from ipbench.errors import BadProduct
from ipbench.store import NotWritten, write_bytes

#: Of an unpacked archive. Tiny ImageNet, the largest, has 120,000 files of 250 MB.
MOST_FILES, MOST_BYTES = 200_000, 2**30


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz or .zip. A single .gz is read as it is; a file unpacked from it is mended where it differs.

    Raises:
        NotWritten: the system refuses to read the archive, or to write.
        BadProduct: it is broken or of a size that cannot be right, or a member would land outside the folder or is no
            plain file; it names the archive.
    """
    try:
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive, "r:gz") as tar:
                _check(archive, ((member.name, member.isfile() or member.isdir(), member.size) for member in tar))
                # From 3.11.4 on Python checks too.
                tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
        elif archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                _check(archive, ((m.filename, not _is_link(m), m.file_size) for m in file.infolist()))
                file.extractall(folder)
        elif archive.suffix == ".gz" and archive.with_suffix("").is_file():
            _mend(archive, archive.with_suffix(""))
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:  # a full disk, a permission: the archive may be whole
            raise NotWritten(f"{archive}: not unpacked: {files.refusal(error)}") from None
        said = " ".join(str(error).split())
        raise BadProduct(
            f"{archive}: cannot be unpacked ({type(error).__name__}: {said}); delete it to have it fetched again"
        ) from None


def _mend(archive: Path, unpacked: Path) -> None:
    """Write what a .gz holds into the file that was unpacked from it, unless that has it."""
    with gzip.open(archive) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _too_large(archive)
    if unpacked.read_bytes() != content:
        write_bytes(unpacked, content)


def _too_large(archive: Path) -> BadProduct:
    return BadProduct(
        f"{archive}: not unpacked: more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes; delete the archive, it is"
        " not the published one"
    )


def _check(archive: Path, members: Iterable[tuple[str, bool, int]]) -> None:
    """Of every member its name in the archive, whether it is a plain file or a folder, and the bytes it claims."""
    total = 0
    for count, (name, plain, size) in enumerate(members, start=1):
        total += size
        if count > MOST_FILES or total > MOST_BYTES:
            raise _too_large(archive)
        path = PurePosixPath(name.replace("\\", "/"))
        if not plain or path.is_absolute() or ".." in path.parts or not name.isprintable():
            raise BadProduct(
                f"{archive}: not unpacked: its member {name!r:.100} would land outside of the folder, or is a link;"
                " delete the archive, it is not the published one"
            )


def _is_link(member: zipfile.ZipInfo) -> bool:
    return (member.external_attr >> 28) == 0xA
