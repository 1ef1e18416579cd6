# SPDX-License-Identifier: Apache-2.0
"""What the generators of nd/ and nd_views/ share: random choices, and how an array's layout is written down.

The generator is a counter hashed with SHA-256, so that every version of Python and NumPy draws the same cases.
"""

import hashlib


class Draw:
    """Random integers that depend on nothing but the seed."""

    def __init__(self, seed):
        self.seed = seed
        self.count = 0

    def below(self, n):
        self.count += 1
        digest = hashlib.sha256(f"{self.seed}/{self.count}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % n

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def chance(self, percent):
        return self.below(100) < percent

    def one_of(self, values):
        return values[self.below(len(values))]


def joined(values):
    return ",".join(str(v) for v in values) if len(values) else "-"


def element_strides(a):
    return [s // a.itemsize for s in a.strides]


def address(a):
    return a.__array_interface__["data"][0] // a.itemsize
