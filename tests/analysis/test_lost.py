"""Which runs have lost their net: chance levels by hand, layers with nothing left."""

from __future__ import annotations

from math import comb

import pytest

from ipbench.analysis.lost import at_chance, chance_bound, empty_layers
from ipbench.data.catalog import DATASETS


@pytest.mark.parametrize(("dataset", "percent"), [("fashion-mnist", 10.5), ("cifar100", 1.17), ("imagenet", 0.1)])
def test_chance_levels(dataset, percent):
    """Of 10,000 images of ten classes, a guess has at most 1,050 right in 95 % of cases."""
    assert 100 * chance_bound(DATASETS[dataset]) == pytest.approx(percent)


def test_a_chance_level_is_a_quantile_of_the_binomial_distribution():
    digits = DATASETS["digits"]
    share, most = 40 / 297, round(chance_bound(digits) * 297)

    def at_most(number):
        return sum(comb(297, k) * share**k * (1 - share) ** (297 - k) for k in range(number + 1))

    assert at_most(most - 1) < 0.95 <= at_most(most)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion-mnist", "cifar10", "tiny-imagenet"])
def test_a_net_that_always_names_one_class_is_at_chance(dataset):
    facts = DATASETS[dataset]
    assert at_chance(dataset, facts.commonest or 1 / facts.classes)
    assert not at_chance(dataset, 2 / facts.classes)


def test_the_most_frequent_class_is_that_of_the_images():
    from pathlib import Path

    from ipbench.data.sources import load

    labels = load("digits", "test", Path("data")).labels.tolist()
    assert max(map(labels.count, labels)) / len(labels) == DATASETS["digits"].commonest


def test_chance_of_detectors_and_of_unknown_data_sets():
    assert at_chance("coco", 0.01) and not at_chance("coco", 0.011)
    assert not at_chance("somebody-s", 0.0)


def test_layers_with_nothing_left():
    assert empty_layers("zero", '["fc1", "fc2"]') == ["fc1", "fc2"] == empty_layers("zero", ["fc1", "fc2"])
    assert empty_layers("zero", None) == empty_layers("zero", float("nan")) == empty_layers("zero", []) == []
    assert empty_layers("frozen", ["fc1"]) == empty_layers("decayed", ["fc1"]) == []  # they still compute
