import gzip
import hashlib
import io
import os
import tarfile
from urllib.error import URLError

import numpy as np
import pytest

from ipbench import files
from ipbench.data import archives, sources
from ipbench.errors import BadInput, BadProduct

from .conftest import cifar_records, idx, one_line, random_images, write_cifar10


def write_mnist(folder, images, labels, stem="train", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for what, array in (("images-idx3", images), ("labels-idx1", labels)):
        path = folder / f"{stem}-{what}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))


def test_digits(tmp_path):
    train, test = (sources.load("digits", split, tmp_path) for split in ("train", "test"))
    assert train.images.shape == (1500, 8, 8, 1) and test.images.shape == (297, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert set(np.unique(train.images)) == {round(value * 255 / 16) for value in range(17)}
    assert set(train.labels) == set(test.labels) == set(range(10))


def test_the_parts_of_digits_are_all_of_it(tmp_path):
    from sklearn.datasets import load_digits

    train, test = (sources.load("digits", split, tmp_path) for split in ("train", "test"))
    both = np.concatenate([train.images, test.images]).reshape(-1, 64)
    rows = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, rows))


def test_the_test_part_of_digits_never_changes(tmp_path):
    """It is part of every published result: a change needs a new `ipbench.NUMERICS`."""
    test = sources.load("digits", "test", tmp_path)
    assert hashlib.sha256(test.images.tobytes() + test.labels.tobytes()).hexdigest()[:16] == DIGITS_TEST


DIGITS_TEST = "7745ed6aeb57cd0e"


def test_a_process_reads_once_and_nobody_can_write(tmp_path):
    images = sources.load("digits", "train", tmp_path)
    assert sources.load("digits", "train", tmp_path) is images
    with pytest.raises(ValueError, match="read-only"):
        images.images[0] = 0


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")])
def test_idx_files(tmp_path, resize, no_debian, name, folder, packed):
    resize(name, 4, 2)
    images, labels = random_images(6, 28, 28), np.array([9, 0, 1, 2, 3, 4])
    write_mnist(tmp_path / folder, images[:4], labels[:4], packed=packed)
    write_mnist(tmp_path / folder, images[4:], labels[4:], "t10k", packed=packed)
    train, test = (sources.load(name, split, tmp_path) for split in ("train", "test"))
    assert np.array_equal(train.images, images[:4, :, :, None]) and train.labels.tolist() == [9, 0, 1, 2]
    assert np.array_equal(test.images, images[4:, :, :, None]) and test.labels.tolist() == [3, 4]


def test_debians_fashion_mnist_comes_first(tmp_path, resize, monkeypatch):
    resize("fashion-mnist", 1, 1)
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    images = random_images(2, 28, 28)
    write_mnist(tmp_path / "debian", images[:1], np.array([5]), packed=True)
    write_mnist(tmp_path / "FashionMNIST/raw", images[1:], np.array([6]))
    assert sources.load("fashion-mnist", "train", tmp_path).labels.tolist() == [5]


def test_cifar10(tmp_path, resize):
    resize("cifar10", 10, 3)
    images, labels = write_cifar10(tmp_path / "cifar-10-batches-bin", 2, 3)
    train = sources.load("cifar10", "train", tmp_path)
    assert np.array_equal(train.images, images) and np.array_equal(train.labels, labels)
    assert len(sources.load("cifar10", "test", tmp_path).images) == 3


def test_cifar100(tmp_path, resize):
    resize("cifar100", 2, 1)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    images = random_images(3, 32, 32, 3)
    (folder / "train.bin").write_bytes(cifar_records(images[:2], np.array([0, 1]), np.array([99, 50])))
    (folder / "test.bin").write_bytes(cifar_records(images[2:], np.array([0]), np.array([7])))
    train, test = (sources.load("cifar100", split, tmp_path) for split in ("train", "test"))
    assert np.array_equal(train.images, images[:2]) and train.labels.tolist() == [99, 50]
    assert np.array_equal(test.images, images[2:]) and test.labels.tolist() == [7]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_missing_files(tmp_path, no_debian, name):
    with pytest.raises(BadInput) as error:
        sources.load(name, "train", tmp_path)
    assert not isinstance(error.value, BadProduct)
    one_line(error, str(tmp_path), f"`ipbench data fetch {name}`", "by hand")


def test_a_missing_part_of_cifar10_is_named(tmp_path, resize):
    resize("cifar10", 10, 3)
    write_cifar10(tmp_path / "cifar-10-batches-bin", 2, 3)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(BadInput) as error:
        sources.load("cifar10", "train", tmp_path)
    one_line(error, "data_batch_4.bin")


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((4, 27, 28)), np.zeros(4), "images of 27 x 28 x 1"),
        (np.zeros((4, 28, 28)), np.zeros(3), "4 images but 3 labels"),
        (np.zeros((5, 28, 28)), np.zeros(5), "5 images where the train part of mnist has 4"),
        (np.zeros((4, 28, 28)), np.array([0, 1, 10, 2]), "label 10"),
        (np.zeros((4, 784)), np.zeros(4), "2 dimensions"),
        (np.zeros((4, 28, 28)), np.zeros((4, 1)), "2 dimensions"),
    ],
)
def test_files_that_do_not_fit(tmp_path, resize, images, labels, said):
    resize("mnist", 4, 1)
    write_mnist(tmp_path / "MNIST/raw", images, labels)
    with pytest.raises(BadProduct) as error:
        sources.load("mnist", "train", tmp_path)
    one_line(error, str(tmp_path / "MNIST/raw"), said)


def test_cifar10_cut_at_a_record(tmp_path, resize):
    resize("cifar10", 10, 3)
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar10(folder, 2, 3)
    (folder / "data_batch_5.bin").write_bytes((folder / "data_batch_5.bin").read_bytes()[:3073])
    with pytest.raises(BadProduct) as error:
        sources.load("cifar10", "train", tmp_path)
    one_line(error, str(folder), "9 images where the train part of cifar10 has 10")


def test_unknown_names(tmp_path):
    with pytest.raises(BadInput, match="unknown data set 'svhn'"):
        sources.load("svhn", "train", tmp_path)
    with pytest.raises(BadInput, match="unknown split 'validation'"):
        sources.load("digits", "validation", tmp_path)
    with pytest.raises(BadInput, match="unknown data set 'svhn'"):
        sources.fetch("svhn", tmp_path)


def test_nothing_to_fetch(tmp_path, resize):
    assert "scikit-learn" in sources.fetch("digits", tmp_path)
    resize("cifar10", 10, 3)
    write_cifar10(tmp_path / "cifar-10-batches-bin", 2, 3)
    assert sources.fetch("cifar10", tmp_path) == f"cifar10: already in {tmp_path / 'cifar-10-batches-bin'}"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_no_network(tmp_path, no_debian, monkeypatch, name):
    def refuse(*_args, **_kwargs):
        raise URLError("no\nroute")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    with pytest.raises(BadInput) as error:
        sources.fetch(name, tmp_path)
    first = sources.downloads(name)[0]
    one_line(error, "no route", first.file, first.urls[0], str(tmp_path / first.folder))


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def offered(tmp_path, monkeypatch, resize):
    """A tiny CIFAR-100 archive put where a download would land, so that only the unpacking is left."""
    resize("cifar100", 2, 1)
    images = random_images(3, 32, 32, 3)
    root = tmp_path / "data"
    root.mkdir()
    archive(
        root / "cifar-100-binary.tar.gz",
        {
            "cifar-100-binary/train.bin": cifar_records(images[:2], np.array([0, 1]), np.array([99, 50])),
            "cifar-100-binary/test.bin": cifar_records(images[2:], np.array([0]), np.array([7])),
        },
    )
    md5 = hashlib.md5((root / "cifar-100-binary.tar.gz").read_bytes()).hexdigest()
    download = sources.Download("cifar-100-binary.tar.gz", md5, ("http://127.0.0.1:9/cifar-100-binary.tar.gz",), "")
    monkeypatch.setattr(sources, "downloads", lambda name: [download])
    return root


def test_an_archive_put_there_by_hand_is_unpacked(offered):
    assert sources.fetch("cifar100", offered) == f"cifar100: unpacked into {offered / 'cifar-100-binary'}"
    assert sources.load("cifar100", "train", offered).labels.tolist() == [99, 50]


def test_a_broken_file_is_unpacked_anew_and_named(offered):
    (offered / "cifar-100-binary").mkdir()
    (offered / "cifar-100-binary" / "train.bin").write_bytes(b"cut")
    said = sources.fetch("cifar100", offered)
    assert "unpacked into" in said and "train.bin: truncated or corrupt: 3 bytes" in said
    assert sources.load("cifar100", "test", offered).labels.tolist() == [7]


def test_a_broken_file_beside_its_gz_is_mended(tmp_path, resize, monkeypatch):
    """Without the network: the other files have no archive beside them, and are whole."""
    resize("mnist", 4, 2)
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    content = {
        f"{stem}-{kind}-ubyte": idx(array)
        for stem, count in (("train", 4), ("t10k", 2))
        for kind, array in (("images-idx3", random_images(count, 28, 28)), ("labels-idx1", np.arange(count)))
    }
    for name, data in content.items():
        (folder / name).write_bytes(data)
    broken = folder / "train-images-idx3-ubyte"
    broken.with_suffix(".gz").write_bytes(gzip.compress(content[broken.name]))
    broken.write_bytes(content[broken.name][:500])
    md5 = hashlib.md5(broken.with_suffix(".gz").read_bytes()).hexdigest()
    listed = [sources.Download(f"{name}.gz", md5, ("http://127.0.0.1:9/",), "MNIST/raw") for name in content]
    monkeypatch.setattr(sources, "downloads", lambda name: listed)
    said = sources.fetch("mnist", tmp_path)
    assert "train-images-idx3-ubyte: truncated or corrupt: 500 bytes" in said and "\n" not in said
    assert broken.read_bytes() == content[broken.name]
    assert "already in" in sources.fetch("mnist", tmp_path)


def test_a_file_that_may_not_be_read_is_not_fetched_over(offered, monkeypatch):
    sources.fetch("cifar100", offered)
    sources.load.cache_clear(), sources._read.cache_clear()

    def refuse(path, *rest):
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(files.NotRead, match="Permission denied"):
        sources.fetch("cifar100", offered)


def test_a_full_disk_is_no_broken_archive(offered, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, os.strerror(28), "train.bin")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(BadInput) as error:
        sources.fetch("cifar100", offered)
    one_line(error, "No space left")
    assert "delete" not in str(error.value)


@pytest.mark.parametrize("limit", ["MOST_FILES", "MOST_BYTES"])
def test_an_archive_that_claims_too_much_is_not_unpacked(offered, monkeypatch, limit):
    """Before a file of it is written."""
    monkeypatch.setattr(archives, limit, 1)
    with pytest.raises(BadProduct, match="not the published one"):
        sources.fetch("cifar100", offered)
    assert not (offered / "cifar-100-binary").exists()


def test_a_wrong_archive_is_not_unpacked(offered):
    (offered / "cifar-100-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(BadInput) as error:  # it tries to download the right one; nobody listens there
        sources.fetch("cifar100", offered)
    one_line(error, "could not download", str(offered))
    assert not (offered / "cifar-100-binary").exists()


def test_addresses_are_the_official_ones():
    assert [d.urls for d in sources.downloads("cifar10")] == [
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
    ]
    files = {download.file for download in sources.downloads("mnist")}
    assert files == {f"{s}-{k}-ubyte.gz" for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1")}
    assert all(len(d.md5) == 32 and d.folder == "FashionMNIST/raw" for d in sources.downloads("fashion-mnist"))
