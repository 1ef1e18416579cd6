# SPDX-License-Identifier: Apache-2.0
"""tools/bench_stats.py on samples whose answers are known, and tools/bench_plot.py on its edges."""
import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools"))
import bench_plot  # noqa: E402
import bench_stats  # noqa: E402


class statistics(unittest.TestCase):
    def test_median_and_quantiles(self):
        self.assertEqual(bench_stats.median([3, 1, 2]), 2)
        self.assertEqual(bench_stats.median([4, 1, 3, 2]), 2.5)
        ordered = [0, 1, 2, 3, 4]
        self.assertEqual([bench_stats.quantile(ordered, q) for q in (0, 0.25, 0.5, 0.975, 1)], [0, 1, 2, 3.9, 4])
        self.assertNotEqual(bench_stats.median([]), bench_stats.median([]))  # NaN

    def test_equal_samples_have_no_width(self):
        self.assertEqual(bench_stats.interval([[2.0] * 5] * 3), [2, 2, 2])
        self.assertEqual(bench_stats.interval([[2.0]], scale=1e3), [2000] * 3)
        self.assertEqual(bench_stats.ratio([[3.0] * 4], [[2.0] * 4]), [1.5] * 3)

    def test_ratios_are_taken_round_by_round(self):
        # A neighbour slows both down fivefold in every other round: the paired ratio does not see it.
        ours = [[1.0, 5.0, 1.0, 5.0, 1.0]] * 3
        peer = [[1.2, 6.0, 1.2, 6.0, 1.2]] * 3
        for value in bench_stats.ratio(peer, ours):
            self.assertAlmostEqual(value, 1.2)

    def test_starts_in_which_one_is_missing_are_left_out(self):
        self.assertEqual(bench_stats.ratio([[2.0, 2.0], [], [9.0]], [[1.0, 1.0], [1.0], []]), [2, 2, 2])

    def test_an_outlier_moves_neither_the_median_nor_a_wide_share(self):
        middle, low, high = bench_stats.interval([[1.0] * 7] * 4 + [[1.0] * 6 + [50.0]])
        self.assertEqual([middle, low, high], [1, 1, 1])

    def test_spread_between_starts_widens_the_interval(self):
        # The same 35 values, once alike in every start, once as five starts that differ: only the second says little.
        alike = [[1.0 + 0.1 * k for k in range(5)]] * 7
        apart = [[1.0 + 0.1 * k] * 7 for k in range(5)]
        width = [high - low for _, low, high in map(bench_stats.interval, (alike, apart))]
        self.assertLess(width[0], 0.21)  # a step of the values to either side
        self.assertGreater(width[1], 0.39)  # three of five starts drawn are the extreme one with p = 5.8 %: the whole range

    def test_the_interval_covers_the_truth_about_as_often_as_it_says(self):
        generator = random.Random(7)
        hits = 0
        for _ in range(200):  # the median of a lognormal with mu = 0 is 1
            low, high = bench_stats.interval([[generator.lognormvariate(0, 0.1) for _ in range(7)] for _ in range(5)], draws=200)[1:]
            hits += low <= 1 <= high
        # 0.95 * 200 = 190; a binomial with that mean falls below 178 with p < 0.1 %. Above, wide for so few starts, is no fault.
        self.assertGreaterEqual(hits, 178)

    def test_the_same_samples_give_the_same_interval(self):
        samples = [[1.0, 1.1, 0.9, 1.3], [1.2, 1.0, 1.05, 0.95]]
        self.assertEqual(bench_stats.interval(samples), bench_stats.interval(samples))


class plots(unittest.TestCase):
    def test_ticks_enclose_the_values(self):
        for low, high in ((1, 512), (3, 3), (0.07, 40), (1, 40), (150, 151)):
            for logarithmic in (False, True):
                marks = bench_plot.ticks(low, high, logarithmic)
                self.assertLessEqual(marks[0], low)
                self.assertGreaterEqual(marks[-1], high)
                self.assertLess(len(marks), 20)

    def test_parts_of_a_page(self):
        page = "a\n<!-- t: one -->\nold\n<!-- end -->\nb\n<!-- t: two -->\n<!-- end -->\n"
        new, missing = bench_plot.into_page(page, "t", {"one": r"1 \g<0>", "two": "2", "three": "3"})
        self.assertEqual(new, "a\n<!-- t: one -->\n1 \\g<0>\n<!-- end -->\nb\n<!-- t: two -->\n2\n<!-- end -->\n")
        self.assertEqual(missing, ["three"])


if __name__ == "__main__":
    unittest.main()
