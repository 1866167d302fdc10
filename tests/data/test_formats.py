import gzip
import tracemalloc

import numpy as np
import pytest

from ipbench.data.formats import read_cifar, read_idx
from ipbench.errors import BadProduct

from .conftest import cifar_records, idx, one_line, random_images


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(3, 28, 28), (3,), (0, 2, 2)])
def test_idx(tmp_path, shape, packed):
    array = random_images(*shape)
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert read_idx(path).dtype == np.uint8
    assert np.array_equal(read_idx(path), array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x08\x00",  # no dimension
        b"\x00\x00\x08\x03\x00\x00\x00\x01",  # the header ends early
        idx(np.zeros((2, 4)))[:-1],
        idx(np.zeros((2, 4))) + b"\x00",
        b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00",  # float32
        b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff",  # a size beyond all memory
        b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"\x00",  # of more dimensions than numpy has
        b"<html>not found</html>",
    ],
)
def test_broken_idx(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(BadProduct) as error:
        read_idx(path)
    one_line(error, str(path))


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: data[:30], lambda data: b"no gzip" + data])
def test_broken_gzip(tmp_path, change):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(gzip.compress(idx(random_images(5, 28, 28)))))
    with pytest.raises(BadProduct) as error:
        read_idx(path)
    one_line(error, str(path))


def test_damaged_bytes_inside_a_gzip(tmp_path):
    data = bytearray(gzip.compress(idx(random_images(5, 28, 28))))
    data[200:220] = bytes(20)
    path = tmp_path / "x.gz"
    path.write_bytes(data)
    with pytest.raises(BadProduct) as error:
        read_idx(path)
    one_line(error, str(path))


def test_cifar10_by_hand(tmp_path):
    """One record: the label, then the red, green and blue planes, each row by row."""
    red, green, blue = (np.full((32, 32), value, dtype=np.uint8) for value in (1, 2, 3))
    red[0, 31] = 200  # the last pixel of the first row
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x07" + red.tobytes() + green.tobytes() + blue.tobytes())
    images, labels = read_cifar(path, 1)
    assert images.shape == (1, 32, 32, 3) and images.dtype == np.uint8
    assert images[0, 0, 31].tolist() == [200, 2, 3] and images[0, 31, 0].tolist() == [1, 2, 3]
    assert labels.tolist() == [7] and labels.dtype == np.int64


def test_cifar100_has_the_coarse_label_first(tmp_path):
    expected = random_images(3, 32, 32, 3)
    path = tmp_path / "x.bin"
    path.write_bytes(cifar_records(expected, np.array([1, 2, 3]), np.array([97, 98, 99])))
    images, labels = read_cifar(path, 2)
    assert np.array_equal(images, expected)
    assert labels.tolist() == [97, 98, 99]


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_truncated_cifar(tmp_path, size):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(BadProduct) as error:
        read_cifar(path, 1)
    one_line(error, str(path), "truncated")


def test_no_more_is_decompressed_than_the_header_says(tmp_path):
    """A file of a megabyte that would become a gigabyte of zeros."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    bomb = gzip.compress(bytes(2**24), 9)
    path.write_bytes(gzip.compress(idx(np.zeros((2, 4)))) + bomb * 64)
    tracemalloc.start()
    with pytest.raises(BadProduct, match="more bytes where its header says 20"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_claims_more_than_can_be_right(tmp_path, packed):
    path = tmp_path / ("x.gz" if packed else "x")
    content = b"\x00\x00\x08\x03" + (60_000).to_bytes(4, "big") + (2**16).to_bytes(4, "big") * 2
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(BadProduct, match="where at most 47040000 can be right"):
        read_idx(path, 60_000 * 784)


def test_a_cifar_file_that_is_too_large(tmp_path):
    path = tmp_path / "train.bin"
    path.write_bytes(bytes(4 * 3073))
    with pytest.raises(BadProduct, match=r"12,292 bytes, where at most 9,219 can be right"):
        read_cifar(path, 1, 3 * 3073)
