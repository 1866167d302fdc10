from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipbench import keys
from ipbench.data import augment, crops
from ipbench.data.crops import HEIGHT, LEFT, TOP, WIDTH
from ipbench.spec import Augmentation

ON = Augmentation(random_resized_crop=True)


def drawn(n, height, width, augmentation=ON, seed=0, epoch=0, shape=(24, 24)):
    """Crops of n images of one size."""
    keyed = augment.Keyed(augmentation, seed, epoch)
    return crops.draw(np.arange(n), keyed, np.full(n, height), np.full(n, width), shape)


# Which part -----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_crops_are_inside_the_image_and_within_bounds(height, width, seed):
    top, left, h, w = drawn(20, height, width, seed=seed).T
    assert (np.minimum(top, left) >= 0).all() and (np.minimum(h, w) >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    assert max(h.max(), w.max()) <= crops.longest(min(height, width))
    # Rounding moves each side by at most half a pixel.
    assert ((w - 0.5) / (h + 0.5) <= 4 / 3).all() and ((w + 0.5) / (h - 0.5) >= 3 / 4).all()
    tried = ~((top == (height - h) // 2) & (left == (width - w) // 2))  # the middle may be smaller
    assert ((h + 0.5) * (w + 0.5) >= 0.08 * height * width)[tried].all()


def test_areas_and_ratios_are_uniform():
    """Of crops below half the area, which always fit; Kolmogorov-Smirnov at p = 0.001."""
    n, side = 20_000, 4000
    parts = drawn(n, side, side)
    share = parts[:, HEIGHT] * parts[:, WIDTH] / side**2
    assert share.min() > 0.0799 and share.max() <= 1
    parts, share = parts[share < 0.5], share[share < 0.5]
    top, left, h, w = parts.T
    uniform = np.stack(
        [
            (share - 0.08) / 0.42,
            np.log(w / h) / (2 * np.log(4 / 3)) + 0.5,
            top / (side - h),
            left / (side - w),
        ]
    )
    m = len(parts)
    assert np.abs(np.sort(uniform) - (np.arange(m) + 0.5) / m).max() < 1.95 / np.sqrt(m)
    assert np.abs(np.corrcoef(uniform) - np.eye(4)).max() < 5 / np.sqrt(m)


def test_what_no_try_can_fit_is_the_middle_by_hand():
    """30 x 1000: the smallest share, 2400 pixels, would have to be 80 wide and 30 high: too wide. So 4/3: 40 x 30."""
    assert drawn(3, 30, 1000).tolist() == [[0, 480, 30, 40]] * 3
    assert drawn(3, 1000, 30).tolist() == [[480, 0, 40, 30]] * 3


def test_the_middle_by_hand():
    """Without a random crop: the middle of that shape; the odd pixel is left out at the end."""
    assert drawn(2, 31, 40, Augmentation(flip=True)).tolist() == [[3, 8, 24, 24]] * 2
    assert crops.draw(np.arange(1), None, np.array([24]), np.array([25]), (24, 24)).tolist() == [[0, 0, 24, 24]]


def test_a_sample_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(24, 60, (2, 30))
    keyed, order = augment.Keyed(ON, 1, 2), rng.permutation(30)
    whole = crops.draw(np.arange(30), keyed, heights, widths, (24, 24))
    part = crops.draw(order.astype(np.uint64), keyed, heights[order].astype(np.uint16), widths[order], (24, 24))
    assert np.array_equal(part, whole[order])
    for one in order[:5]:
        alone = crops.draw(np.array([one]), keyed, heights[[one]], widths[[one]], (24, 24))
        assert np.array_equal(alone[0], whole[one])


def test_seeds_and_epochs_differ_and_other_parts_do_not_matter():
    first = drawn(50, 60, 80)
    assert not np.array_equal(first, drawn(50, 60, 80, seed=1))
    assert not np.array_equal(first, drawn(50, 60, 80, epoch=1))
    assert np.array_equal(first, drawn(50, 60, 80, ON.model_copy(update={"flip": True, "cutout": 5})))
    assert len(np.unique(first, axis=0)) > 45


def test_one_crop_in_plain_numbers():
    """The first try fits here."""
    base = keys.key(5, "augmentation", 3)
    bits = [keys.splitmix64(keys.splitmix64(11 ^ base) + augment.COLUMNS + number) for number in range(4)]
    area = 60 * 80 * (0.08 + 0.92 * (bits[2] >> 11) / 2**53)
    ratio = (4 / 3) ** (2 * (bits[3] >> 11) / 2**53 - 1)
    w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    assert w <= 80 and h <= 60
    got = crops.draw(np.array([11]), augment.Keyed(ON, 5, 3), np.array([60]), np.array([80]), (24, 24))
    assert got[0, [HEIGHT, WIDTH]].tolist() == [h, w]
    assert got[0, [TOP, LEFT]].tolist() == [(bits[0] >> 32) * (61 - h) >> 32, (bits[1] >> 32) * (81 - w) >> 32]


def test_the_numbers_themselves():
    """They are part of every published result: a change needs a new `ipbench.NUMERICS`."""
    assert drawn(3, 256, 341, seed=0, epoch=2, shape=(224, 224)).tolist() == DRAWN


def test_the_exponential():
    """Within two units in the last place, over all of its range."""
    x = np.linspace(-0.29, 0.29, 10_001)
    assert np.abs(crops._exp(x) / np.exp(x) - 1).max() < 5e-16


DRAWN = [[0, 132, 254, 209], [38, 11, 193, 180], [24, 90, 208, 212]]


# Its resize -----------------------------------------------------------------------------------------------------------


def resize(rows, shape, largest=16):
    """An image of one channel, as lists."""
    return crops.resize(np.array(rows, dtype=np.uint8)[:, :, None], shape, largest)[:, :, 0].tolist()


def test_enlarged_by_hand():
    """Two pixels at 1/4 and 3/4; the four new ones at 1/8, 3/8, 5/8, 7/8."""
    assert resize([[0, 100]], (1, 4)) == [[0, 25, 75, 100]]
    assert resize([[0], [100]], (4, 1)) == [[0], [25], [75], [100]]


def test_reduced_by_hand():
    """The triangle reaches over 1/2 to both sides: weights 3, 3, 1, 0 and 0, 1, 3, 3, of 7."""
    assert resize([[10, 20, 30, 40]], (1, 2)) == [[17, 33]]  # 120 / 7 and 230 / 7
    assert resize([[10, 20, 30, 40]] * 4, (2, 2)) == [[17, 33]] * 2


def test_halves_are_rounded_up_and_only_once():
    assert resize([[0, 1]], (1, 3)) == [[0, 1, 1]]
    # The middle is 2/4, which a rounding after each direction would make 1 too; 1/4 would become 1 in two steps.
    assert resize([[0, 0], [0, 1]], (3, 3))[1][1] == 0
    assert resize([[0, 1], [0, 1]], (3, 3))[1][1] == 1


def test_the_same_size_is_the_image_itself():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert crops.resize(image, (9, 9), 16) is image
    # And the filter would give the same, were one side of another size.
    assert np.array_equal(crops.resize(np.repeat(image, 2, axis=1), (9, 18), 20)[:, ::2], image)


def reference(image, shape):
    """The definition, in fractions."""

    def weights(size, out, o):
        reach = max(Fraction(1, size), Fraction(1, out))
        centre = Fraction(2 * o + 1, 2 * out)
        return [max(Fraction(0), reach - abs(Fraction(2 * k + 1, 2 * size) - centre)) for k in range(size)]

    result = np.zeros((*shape, image.shape[2]), dtype=np.uint8)
    for y in range(shape[0]):
        down = weights(image.shape[0], shape[0], y)
        for x in range(shape[1]):
            across = weights(image.shape[1], shape[1], x)
            for channel in range(image.shape[2]):
                mean = sum(
                    a * b * int(image[i, j, channel])
                    for i, a in enumerate(down)
                    if a
                    for j, b in enumerate(across)
                    if b
                ) / (sum(down) * sum(across))
                result[y, x, channel] = (mean + Fraction(1, 2)).__floor__()
    return result


SIDE = st.integers(1, 12)


@settings(max_examples=25, deadline=None)
@given(st.tuples(SIDE, SIDE, st.sampled_from([1, 3])), st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_like_the_reference(size, shape):
    image = np.random.default_rng(sum(size)).integers(0, 256, size, dtype=np.uint8)
    expected = reference(image, shape)
    assert np.array_equal(crops.resize(image, shape, 12), expected)
    assert np.array_equal(crops.resize(image, shape, 40), expected)  # longer tables change nothing


@pytest.mark.parametrize("size", [(72, 90), (224, 341), (256, 256), (342, 250)])
def test_at_most_one_off_pillow(size):
    """Pillow's bilinear filter is the same one, with rounded weights and a rounding after each direction."""
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(crops.resize(image, (224, 224), crops.longest(256)) - pillow).max() <= 1


def test_black_and_white_stay():
    for value in (0, 255):
        image = np.full((250, 341, 3), value, dtype=np.uint8)
        assert (crops.resize(image, (224, 224), 344) == value).all()


def test_sums_that_would_not_be_exact_are_refused():
    with pytest.raises(ValueError, match="no longer exact"):
        crops.taps(1, 400)
