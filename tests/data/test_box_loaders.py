"""Batches with boxes, of scenes in memory and of COCO's folder: splits, flips, sizes, and the truth beside them."""

import numpy as np
import pytest
import torch
from PIL import Image

from ipbench.data import augment, boxes, catalog, coco, digest, scene_making, scenes, splits
from ipbench.data.average_precision import average_precision
from ipbench.data.boxes import Target
from ipbench.data.loaders import Batch, Data
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import Augmentation, Recipe

from .coco_files import described, write_annotations, write_coco
from .conftest import one_line, random_images

FLIP = Augmentation(flip=True)
RECIPE = Recipe(batch_size=8, validation=0.25, augmentation=FLIP)


@pytest.fixture(scope="module")
def drawn():
    """Scenes of images of noise: no data set needed."""
    images, labels = random_images(50, 28, 28), np.arange(50) % 10
    return {
        split: list(scene_making.scenes(count, split, images, labels)) for split, count in (("train", 40), ("test", 12))
    }


@pytest.fixture
def root(tmp_path, resize, drawn, monkeypatch):
    """40 and 12 scenes on disk."""
    resize("fashion-scenes", 40, 12)

    def made(split, root):
        found = drawn[split]
        return np.stack([one.image for one in found]), scene_making.described(found, f"{split}-images-idx3-ubyte")

    monkeypatch.setattr(scenes, "_made", made)
    scenes.make(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """COCO's images become 40 to 64 pixels, in batches of multiples of 16."""
    facts = catalog.DATASETS["coco"]
    changed = {"shape": (3, 48, 64), "shorter_side": 40, "longer_side": 64, "multiple": 16, "evaluation_batch": 4}
    monkeypatch.setitem(catalog.DATASETS, "coco", catalog.DataSet(**{**vars(facts), **changed}))


@pytest.fixture
def folder(tmp_path, small):
    write_coco(tmp_path, 8, 3)
    return tmp_path


def target(*rows):
    """Rows: x1, y1, x2, y2, label."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    return Target(table[:, :4].float(), table[:, 4].long())


def equal(one, other):
    return torch.equal(one.boxes, other.boxes) and torch.equal(one.labels, other.labels)


def same(one: Batch, other: Batch):
    assert torch.equal(one.images, other.images) and torch.equal(one.indices, other.indices)
    assert one.sizes == other.sizes and len(one.targets) == len(other.targets) == len(one.indices)
    assert all(map(equal, one.targets, other.targets))


class TestBoxes:
    def test_a_flip_by_hand(self):
        """In an image 10 pixels wide the columns 2 to 4 become 5 to 7."""
        before = target((2, 1, 5, 4, 3), (0, 0, 10, 2, 1))
        after = boxes.mirrored(before, 10)
        assert equal(after, target((5, 1, 8, 4, 3), (0, 0, 10, 2, 1)))
        assert equal(boxes.mirrored(after, 10), before)

    def test_a_flip_of_nothing(self):
        after = boxes.mirrored(target(), 10)
        assert after.boxes.shape == (0, 4) and after.labels.shape == (0,)

    def test_the_flip_of_a_hair(self):
        """What float32 cannot hold any more is left out: nets refuse a box without a width."""
        after = boxes.mirrored(target((1e-6, 0, 2e-6, 5, 1), (1, 0, 2, 5, 2)), 1000)
        assert after.labels.tolist() == [2]

    def annotations(self, **changes):
        told = described(1)
        for annotation in told["annotations"]:
            annotation.update(changes)
        return coco.checked(told, __file__, 80)

    def test_crowds_are_no_targets_but_part_of_the_truth(self):
        found = self.annotations()
        assert equal(boxes.target(found, 0), target((4.5, 6.25, 44.5, 36.25, 1)))
        assert [one["iscrowd"] for one in boxes.truth(found, [0])["annotations"]] == [0, 1]

    def test_resized_by_hand(self):
        """60 x 80 to 30 x 160: half as high, twice as wide."""
        found = self.annotations()
        assert equal(boxes.target(found, 0, (30, 160)), target((9, 3.125, 89, 18.125, 1)))
        told = boxes.truth(found, [0], lambda image: (30, 160))
        assert told["images"] == [{"id": 1, "height": 30, "width": 160, "scale": [0.5, 2.0]}]
        assert told["annotations"][0] == {
            "id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 3.125, 80, 15], "area": 600, "iscrowd": 0,
        }  # fmt: skip
        assert told["categories"] == [{"id": i, "name": n} for i, n in ((1, "cat"), (2, "tram"), (3, "brush"))]

    def test_boxes_never_leave_the_image(self):
        """Rounding must not carry an edge over the border."""
        told = described(1)
        told["annotations"][0]["bbox"] = [0.1, 0.1, 79.9, 59.9]
        found = coco.checked(told, __file__, 80)
        for size in ((800, 1066), (333, 444), (7, 9)):
            (box,) = boxes.target(found, 0, size).boxes.tolist()
            assert box[2] <= size[1] and box[3] <= size[0]


class TestScenes:
    def test_an_epoch_from_its_parts(self, root, drawn):
        """Order, flips and boxes of epoch 3, put together by hand."""
        data = Data("fashion-scenes", RECIPE, 7, root=root)
        assert data.steps_per_epoch == 3 and len(data.train_indices) == 30 and len(data.validation_indices) == 10
        train, held_out = splits.split(40, 7, 0.25, None)
        assert np.array_equal(data.train_indices, train) and np.array_equal(data.validation_indices, held_out)
        facts, flipped, seen = catalog.dataset("fashion-scenes"), 0, []
        for batch in data.train(3):
            assert batch.images.shape == (8, 1, 96, 96) and batch.images.dtype == torch.float32
            assert batch.labels.shape == (0,) and batch.labels.dtype == batch.indices.dtype == torch.int64
            assert batch.sizes == ((96, 96),) * 8
            flips = augment.draw(batch.indices.numpy(), 7, 3, FLIP, 96, 96)[:, augment.FLIP]
            for image, found, index, flip in zip(
                batch.images, batch.targets, batch.indices.tolist(), flips, strict=True
            ):
                scene = drawn["train"][index]
                pixels = (scene.image / 255 - facts.mean[0]) / facts.std[0]
                expected = target(
                    *((x, y, x + w, y + h, kind + 1) for (x, y, w, h), kind in zip(*scene[1:], strict=True))
                )
                if flip:
                    pixels, expected = pixels[:, ::-1], boxes.mirrored(expected, 96)
                assert np.abs(image[0].numpy() - pixels).max() < 1e-5 and equal(found, expected)
                assert found.boxes.dtype == torch.float32 and found.labels.dtype == torch.int64
                flipped += int(flip)
                seen.append(index)
        assert 4 <= flipped <= 20 and len(set(seen)) == 24 and set(seen) <= set(train.tolist())

    def test_boxes_stay_at_what_they_are_about(self, root):
        """Whatever is done to an image, its lit pixels fill its boxes to all four sides."""
        data = Data("fashion-scenes", RECIPE, 0, root=root)
        dark = data._normalise(torch.zeros(1, 1, 1, 1, dtype=torch.uint8)).item()
        for batch in data.train(0):
            for image, found in zip(batch.images, batch.targets, strict=True):
                lit, covered = image[0] > dark, torch.zeros(96, 96, dtype=torch.bool)
                for x1, y1, x2, y2 in found.boxes.int().tolist():
                    part = lit[y1:y2, x1:x2]
                    assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
                    covered[y1:y2, x1:x2] = True
                assert not (lit & ~covered).any()

    def test_any_epoch_and_any_step_without_those_before(self, root):
        data = Data("fashion-scenes", RECIPE, 0, root=root)
        whole = list(data.train(2))
        for batch, expected in zip(data.train(2, 1), whole[1:], strict=True):
            same(batch, expected)
        assert not torch.equal(next(data.train(1)).images, whole[0].images)

    def test_parts_of_all_ranks_are_the_whole(self, root):
        one = Data("fashion-scenes", RECIPE, 0, root=root)
        ranks = [Data("fashion-scenes", RECIPE, 0, root=root, rank=rank, world=2) for rank in range(2)]
        for batch, *parts in zip(one.train(1), *(data.train(1) for data in ranks), strict=True):
            assert torch.cat([part.indices for part in parts]).tolist() == batch.indices.tolist()
            assert all(map(equal, (found for part in parts for found in part.targets), batch.targets))
        for part in ("train_plain", "validation", "test"):
            indices = torch.cat([batch.indices for data in ranks for batch in getattr(data, part)()])
            assert torch.equal(indices, torch.cat([batch.indices for batch in getattr(one, part)()]))
        assert all(data.truth("test") == one.truth("test") for data in ranks)

    def test_truth_finds_itself(self, root):
        """Targets of the plain batches as detections: an AP of 1, on every part; ids, labels and corners fit."""
        data = Data("fashion-scenes", RECIPE, 0, root=root)
        parts = {"train": data.train_plain, "validation": data.validation, "test": data.test}
        for part, batches in parts.items():
            detections = [
                {"image_id": index + 1, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}
                for batch in batches()
                for index, found in zip(batch.indices.tolist(), batch.targets, strict=True)
                for (x1, y1, x2, y2), label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
            ]
            truth = data.truth(part)
            assert len(truth["annotations"]) == len(detections)
            assert [image["id"] for image in truth["images"]] == sorted({one["image_id"] for one in detections})
            assert average_precision(truth, detections)["map"] == pytest.approx(1)

    def test_only_so_much_of_a_large_training_part(self, root, monkeypatch):
        monkeypatch.setattr("ipbench.data.loaders.PLAIN_TRAINING_WITH_BOXES", 5)
        data = Data("fashion-scenes", RECIPE, 0, root=root)
        (batch,) = data.train_plain()
        assert (
            len(batch.indices) == 5
            and [one["id"] - 1 for one in data.truth("train")["images"]] == batch.indices.tolist()
        )

    def test_score_batch(self, root):
        data = Data("fashion-scenes", RECIPE, 0, root=root)
        batch = data.score_batch(20)
        assert (
            batch.images.shape == (20, 1, 96, 96) and len(batch.targets) == len(batch.indices) == len(batch.sizes) == 20
        )
        assert set(batch.indices.tolist()) <= set(data.train_indices.tolist())
        assert data.score_batch().indices.tolist() == batch.indices[:8].tolist()
        with pytest.raises(BadInput, match="an image shows several"):
            data.score_batch(per_class=2)

    def test_batches_are_the_readers_own(self, root):
        data = Data("fashion-scenes", RECIPE, 0, root=root)
        for batch in data.test():
            batch.images.zero_()
            for found in batch.targets:
                found.boxes.zero_()
        assert all(found.boxes.any() for batch in data.test() for found in batch.targets)

    @pytest.mark.parametrize(
        "augmentation",
        [{"translate": 2}, {"cutout": 3}, {"random_resized_crop": True}],
        ids=lambda one: next(iter(one)),
    )
    def test_what_does_not_move_boxes_is_refused(self, root, augmentation):
        recipe = RECIPE.model_copy(update={"augmentation": Augmentation(flip=True, **augmentation)})
        for name in ("fashion-scenes", "coco"):
            with pytest.raises(BadInput) as error:
                Data(name, recipe, 0, root=root)
            one_line(error, name, f"augmentation.{next(iter(augmentation))} does not move boxes", "flip alone")

    def test_ffcv_is_refused(self, root):
        with pytest.raises(BadInput, match="loader ffcv reads no boxes"):
            Data("fashion-scenes", RECIPE, 0, root=root, loader="ffcv")
        with pytest.raises(BadInput, match="loader ffcv reads no boxes"):
            digest.of("fashion-scenes", root, "ffcv")

    def test_nothing_is_there(self, tmp_path):
        with pytest.raises(BadInput) as error:
            Data("fashion-scenes", RECIPE, 0, root=tmp_path)
        one_line(error, "instances_train.json", "no such file", "`ipbench data make fashion-scenes`")

    def test_truth_is_of_boxes(self, tmp_path):
        with pytest.raises(ValueError, match="digits has no boxes"):
            Data("digits", Recipe(batch_size=8), 0, root=tmp_path).truth("test")


class TestCoco:
    RECIPE = Recipe(batch_size=2, validation=0.25, augmentation=FLIP)

    def test_an_epoch_from_its_parts(self, folder):
        """Resized by Pillow, then mirrored, then padded; mirrored boxes are those of the resized image."""
        data = Data("coco", self.RECIPE, 1, root=folder, workers=2)
        told = described(8)
        images = sorted(told["images"], key=lambda one: one["id"])
        plain = {one["image_id"]: one for one in told["annotations"] if not one["iscrowd"]}
        flipped = 0
        for batch in data.train(0):
            height, width = batch.images.shape[2:]
            assert (height % 16, width % 16) == (0, 0)
            assert height - max(h for h, _ in batch.sizes) < 16 and width - max(w for _, w in batch.sizes) < 16
            flips = augment.draw(batch.indices.numpy(), 1, 0, FLIP, 1, 1)[:, augment.FLIP].tolist()
            for i, (index, flip) in enumerate(zip(batch.indices.tolist(), flips, strict=True)):
                (h, w), entry = batch.sizes[i], images[index]
                assert min(h, w) == 40 or max(h, w) == 64
                assert not batch.images[i, :, h:].any() and not batch.images[i, :, :, w:].any()
                with Image.open(folder / "coco/train2017" / entry["file_name"]) as file:
                    if file.mode != "CMYK":  # see `image_files`
                        pixels = np.asarray(file.convert("RGB").resize((w, h), Image.Resampling.BILINEAR)) / 255
                        pixels = (pixels[:, ::-1] if flip else pixels) - catalog.dataset("coco").mean
                        pixels = (pixels / catalog.dataset("coco").std).transpose(2, 0, 1)
                        assert np.abs(batch.images[i, :, :h, :w].numpy() - pixels).max() < 1e-5
                x, y, bw, bh = plain[entry["id"]]["bbox"]
                x1, x2 = x * w / entry["width"], (x + bw) * w / entry["width"]
                x1, x2 = (w - x2, w - x1) if flip else (x1, x2)
                expected = [x1, y * h / entry["height"], x2, (y + bh) * h / entry["height"]]
                assert batch.targets[i].boxes.tolist() == [pytest.approx(expected, abs=1e-4)]
                flipped += flip
        assert 1 <= flipped <= 5

    def test_truth_finds_itself(self, folder):
        data = Data("coco", self.RECIPE, 0, root=folder)
        truth = data.truth("test")
        assert all("scale" in image for image in truth["images"])
        assert {one["category_id"] for one in truth["annotations"]} == {1, 2, 3}
        detections, sizes = [], {}
        for batch in data.test():
            for index, found, size in zip(batch.indices.tolist(), batch.targets, batch.sizes, strict=True):
                sizes[index + 1] = size
                for (x1, y1, x2, y2), label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
                    box = [x1, y1, x2 - x1, y2 - y1]
                    detections.append({"image_id": index + 1, "category_id": label, "bbox": box, "score": 0.5})
        assert sizes == {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        result = average_precision(truth, detections)
        # 40 x 30 pixels of 60 x 80 would be medium; by the area that the file tells, 600, they are small.
        assert result["map"] == result["map_small"] == pytest.approx(1) and result["map_medium"] is None

    def test_workers_and_the_start_change_nothing(self, folder):
        one, other = (Data("coco", self.RECIPE, 0, root=folder, workers=workers) for workers in (1, 3))
        for mine, others in zip(list(one.train(1))[1:], other.train(1, 1), strict=True):
            same(mine, others)

    def test_a_score_batch_of_several_sizes(self, folder):
        data = Data("coco", self.RECIPE, 0, root=folder)
        batch = data.score_batch(6)  # more than one batch of evaluation
        assert len(batch.targets) == len(batch.sizes) == len(batch.indices) == 6
        for image, (height, width), index in zip(batch.images, batch.sizes, batch.indices.tolist(), strict=True):
            alone = next(data._plain(data._train, np.array([index]))).images[0]
            assert torch.equal(image[:, :height, :width], alone[:, :height, :width])
            assert not image[:, height:].any() and not image[:, :, width:].any()

    def test_an_image_without_boxes(self, folder):
        told = described(8)
        told["annotations"] = told["annotations"][:1]
        write_annotations(folder, "train2017", told)
        data = Data("coco", self.RECIPE.model_copy(update={"validation": 0}), 0, root=folder)
        targets = [found for batch in data.train(0) for found in batch.targets]
        assert sorted(len(found.labels) for found in targets) == [0] * 7 + [1]
        assert all(found.boxes.shape == (len(found.labels), 4) for found in targets)

    def test_what_was_left_out_is_told(self, folder):
        told = described(8)
        told["annotations"][2]["bbox"][2] = 0
        write_annotations(folder, "train2017", told)
        data = Data("coco", self.RECIPE, 0, root=folder)
        assert data.notes == {"train": "boxes without an area left out: 1"}

    def test_a_broken_image_is_one_line(self, folder):
        (folder / "coco/val2017/000000000001.jpg").write_bytes(b"no image")
        data = Data("coco", self.RECIPE, 0, root=folder)
        with pytest.raises(BadProduct) as error:
            list(data.test())
        one_line(error, "000000000001.jpg", "not readable as an image")

    def test_images_and_boxes_are_the_identity(self, folder, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        write_coco(other, 8, 3)
        assert digest.of("coco", folder) == digest.of("coco", other)
        third = tmp_path_factory.mktemp("third")
        told = write_coco(third, 8, 3)[1]
        told["annotations"][0]["bbox"][0] += 0.5
        write_annotations(third, "val2017", told)
        assert digest.of("coco", third) != digest.of("coco", other)
