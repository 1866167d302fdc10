import gzip

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
