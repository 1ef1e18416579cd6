# SPDX-License-Identifier: Apache-2.0
"""Medians of measurements with their 95 % intervals.

Samples come as a list of process starts, each a list of rounds. Rounds of one start have more in common (pages, placement, neighbours) than rounds of
different starts, so the bootstrap draws starts first, then rounds within each: Davison and Hinkley, Bootstrap Methods and their Application, 3.8.
The interval is the 2.5 and 97.5 % quantile of the medians of the draws; the draws are seeded, so a table can be had again from its samples.
"""
import random

DRAWS = 1000


def median(values):
    return quantile(sorted(values), 0.5)


def quantile(ordered, q):
    """Linear between neighbours, as NumPy's default."""
    if not ordered:
        return float("nan")
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def interval(starts, scale=1.0, draws=DRAWS):
    """[median, low, high] of all samples; the same three times where there is only one."""
    starts = [s for s in starts if s]
    values = sorted(v for s in starts for v in s)
    middle = quantile(values, 0.5)
    if len(values) < 2:
        return [middle * scale] * 3
    generator = random.Random(12345)
    choices = generator.choices
    medians = []
    for _ in range(draws):
        drawn = [v for s in choices(starts, k=len(starts)) for v in choices(s, k=len(s))]
        drawn.sort()
        medians.append(quantile(drawn, 0.5))
    medians.sort()
    return [middle * scale, quantile(medians, 0.025) * scale, quantile(medians, 0.975) * scale]


def ratio(above, below, scale=1.0, draws=DRAWS):
    """interval() of the quotients of the rounds' own pairs; starts in which one of the two was not measured are left out."""
    return interval([[a / b for a, b in zip(x, y) if b] for x, y in zip(above, below)], scale, draws)
