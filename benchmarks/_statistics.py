"""The few statistics the reports use: nearest-rank percentiles, median with range, and paired
ratios.

A ratio is always taken inside one round and only then summarised: two figures of different rounds
were measured on a machine in different moods.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The median of some figures, with the lowest and the highest of them."""

    median: float
    low: float
    high: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of `ordered`, which is sorted upwards and not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summarise(figures: Sequence[float]) -> Summary:
    """Return the median and the range of `figures`, which are not empty."""
    return Summary(statistics.median(figures), min(figures), max(figures))


def paired_ratio(figures: Mapping[int, float], reference: Mapping[int, float]) -> Summary | None:
    """Return the summary of figure over reference for the rounds both have; None if they share
    none.

    Both map the number of a round to the figure measured in it. Rounds whose reference is 0 are
    left out.
    """
    ratios = [
        figure / reference[number]
        for number, figure in figures.items()
        if reference.get(number, 0.0) != 0.0
    ]
    return summarise(ratios) if ratios else None
