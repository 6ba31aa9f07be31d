"""The statistics of the reports, on data whose answers are known."""

import pytest

from benchmarks._statistics import Summary, paired_ratio, percentile, summarise


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentiles_are_nearest_rank(percent: float, value: float) -> None:
    assert percentile(range(1, 101), percent) == value


def test_a_single_figure_is_every_percentile() -> None:
    assert percentile([7.0], 0) == percentile([7.0], 99) == 7.0


def test_summary_is_median_and_range() -> None:
    assert summarise([5.0, 1.0, 3.0]) == Summary(3.0, 1.0, 5.0)
    assert summarise([4.0, 1.0]) == Summary(2.5, 1.0, 4.0)


def test_ratios_are_taken_inside_a_round() -> None:
    # The machine was ten times slower in round 1: the ratio does not see it.
    figures = {0: 300.0, 1: 30.0, 2: 200.0}
    assert paired_ratio(figures, {0: 100.0, 1: 10.0, 2: 100.0}) == Summary(3.0, 2.0, 3.0)


def test_only_rounds_of_both_make_a_ratio() -> None:
    assert paired_ratio({0: 3.0, 1: 8.0, 3: 5.0}, {1: 2.0, 2: 9.0, 3: 0.0}) == Summary(
        4.0, 4.0, 4.0
    )
    assert paired_ratio({0: 3.0}, {1: 2.0}) is None
