import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipbench import keys
from ipbench.data.augment import COLUMNS, DX, DY, FLIP, LEFT, TOP, apply, draw
from ipbench.spec import Augmentation

ALL = Augmentation(flip=True, translate=2, cutout=3)
IMAGE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def one(augmentation, flip=0, dy=0, dx=0, top=0, left=0):
    """`IMAGE`, augmented as told."""
    images = torch.tensor(IMAGE, dtype=torch.uint8)[None, :, :, None]
    drawn = torch.tensor([[flip, dy, dx, top, left]])
    return apply(images, drawn, augmentation)[0, :, :, 0].tolist()


def reference(image, drawn, augmentation):
    """The definition, pixel by pixel, of one image (height, width, channels)."""
    height, width, _ = image.shape
    if drawn[FLIP]:
        image = image[:, ::-1]
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - drawn[DY] < height and 0 <= x - drawn[DX] < width:
                out[y, x] = image[y - drawn[DY], x - drawn[DX]]
            inside_rows = drawn[TOP] <= y < drawn[TOP] + augmentation.cutout
            if inside_rows and drawn[LEFT] <= x < drawn[LEFT] + augmentation.cutout:
                out[y, x] = 0
    return out


def test_flip_by_hand():
    assert one(Augmentation(flip=True), flip=1) == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert one(Augmentation(flip=True), flip=0) == IMAGE


def test_translation_by_hand():
    """Down by one and left by one; zeros move in."""
    assert one(Augmentation(translate=1), dy=1, dx=-1) == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert one(Augmentation(translate=2), dy=-2, dx=2) == [[0, 0, 7], [0, 0, 0], [0, 0, 0]]


def test_cutout_by_hand():
    """Clipped at the border: no pixel comes back on the other side."""
    assert one(Augmentation(cutout=2), top=1, left=1) == [[1, 2, 3], [4, 0, 0], [7, 0, 0]]
    assert one(Augmentation(cutout=2), top=-1, left=2) == [[1, 2, 0], [4, 5, 6], [7, 8, 9]]


def test_the_order_of_operations_by_hand():
    """Flipped [[3 2 1] [6 5 4] [9 8 7]], moved right by one, then a hole of side 1 at the original's place."""
    on = Augmentation(flip=True, translate=1, cutout=1)
    assert one(on, flip=1, dx=1, top=1, left=1) == [[0, 3, 2], [0, 0, 5], [0, 9, 8]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 500),
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    st.booleans(),
    st.integers(0, 10),
    st.integers(0, 12),
)
def test_like_the_reference(seed, epoch, shape, flip, translate, cutout):
    augmentation = Augmentation(flip=flip, translate=translate, cutout=cutout)
    images = np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)
    drawn = draw(np.arange(7, 7 + shape[0]), seed, epoch, augmentation, *shape[1:3])
    got = apply(torch.from_numpy(images), torch.from_numpy(drawn), augmentation)
    expected = np.stack([reference(*pair, augmentation) for pair in zip(images, drawn, strict=True)])
    assert np.array_equal(got.numpy(), expected)


def test_nothing_on_is_the_image_itself():
    images = torch.ones(2, 3, 3, 1, dtype=torch.uint8)
    drawn = draw(np.arange(2), 0, 0, Augmentation(), 3, 3)
    assert apply(images, torch.from_numpy(drawn), Augmentation()) is images


def test_the_input_is_left_alone():
    images = torch.ones(4, 5, 5, 1, dtype=torch.uint8)
    for on in (Augmentation(cutout=5), Augmentation(flip=True), Augmentation(translate=2)):
        apply(images, torch.from_numpy(draw(np.arange(4), 0, 0, on, 5, 5)), on)
        assert images.eq(1).all()


@given(st.permutations(range(20)), st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_a_sample_does_not_depend_on_the_others(order, seed, epoch):
    order = np.array(order)
    whole = draw(np.arange(20), seed, epoch, ALL, 8, 8)
    assert np.array_equal(draw(order, seed, epoch, ALL, 8, 8), whole[order])
    assert np.array_equal(draw(order[:3].astype(np.uint64), seed, epoch, ALL, 8, 8), whole[order[:3]])


def test_switching_one_part_off_changes_no_other():
    indices = np.arange(50)
    whole = draw(indices, 3, 1, ALL, 8, 8)
    for change, columns in (({"flip": False}, [FLIP]), ({"translate": 0}, [DY, DX]), ({"cutout": 0}, [TOP, LEFT])):
        less = draw(indices, 3, 1, ALL.model_copy(update=change), 8, 8)
        kept = [column for column in range(COLUMNS) if column not in columns]
        assert not less[:, columns].any()
        assert np.array_equal(less[:, kept], whole[:, kept])


def test_seeds_and_epochs_differ():
    first = draw(np.arange(50), 0, 0, ALL, 8, 8)
    assert not np.array_equal(first, draw(np.arange(50), 1, 0, ALL, 8, 8))
    assert not np.array_equal(first, draw(np.arange(50), 0, 1, ALL, 8, 8))


def test_ranges_and_shares():
    """40,000 draws: every value is within 5 standard deviations of its share, and columns are independent."""
    n = 40_000
    drawn = draw(np.arange(n), 0, 0, ALL, 6, 4)
    for column, values in (
        (FLIP, range(2)),
        (DY, range(-2, 3)),
        (DX, range(-2, 3)),
        (TOP, range(-1, 5)),
        (LEFT, range(-1, 3)),
    ):
        share = 1 / len(values)
        found, counts = np.unique(drawn[:, column], return_counts=True)
        assert found.tolist() == list(values)
        assert np.abs(counts - n * share).max() < 5 * np.sqrt(n * share * (1 - share))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(COLUMNS)).max() < 5 / np.sqrt(n)


def test_the_numbers_themselves():
    """They are part of every published result: a change needs a new `ipbench.NUMERICS`."""
    assert draw(np.array([0, 1, 59_999]), 0, 2, ALL, 28, 28).tolist() == DRAWN


def test_the_bits_in_plain_integers():
    """The high half of the bits of (key, sample, column), as a fraction of the range."""
    base = keys.key(5, "augmentation", 3)
    high = [keys.splitmix64(keys.splitmix64(11 ^ base) + column) >> 32 for column in range(COLUMNS)]
    by_hand = [high[0] * 2 >> 32, (high[1] * 5 >> 32) - 2, (high[2] * 5 >> 32) - 2, (high[3] * 6 >> 32) - 1]
    assert draw(np.array([11]), 5, 3, ALL, 6, 4)[0].tolist() == [*by_hand, (high[4] * 4 >> 32) - 1]


DRAWN = [[1, 1, 1, 1, 24], [0, 0, 1, 9, 9], [1, 1, -2, 10, 8]]
