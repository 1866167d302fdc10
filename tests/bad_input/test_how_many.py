"""The tables cannot shrink unnoticed."""

from __future__ import annotations

from collections import Counter

from tests.bad_input import (
    test_command_line,
    test_data_files,
    test_experiments,
    test_method_files,
    test_products,
    test_profiles,
)

TABLES = {
    "command line": (test_command_line.CASES, 150),
    "experiments": (test_experiments.CASES, 150),
    "method files": (test_method_files.CASES, 45),
    "data files": (test_data_files.CASES, 40),
    "products": ([*test_products.CASES, *test_products.DAMAGED], 100),
    "profiles": (test_profiles.CASES, 8),
}


def test_there_are_at_least_150_cases_and_as_many_as_there_were():
    for name, (cases, least) in TABLES.items():
        assert len(cases) >= least, name
    assert sum(len(cases) for cases, _ in TABLES.values()) >= 450


def test_every_case_has_a_name_of_its_own_and_says_something():
    cases = [case for cases, _ in TABLES.values() for case in cases]
    assert not [name for name, count in Counter(map(str, cases)).items() if count > 1]
    assert all(case.says for case in cases)
