"""Lists again, where order counts: sorting, neighbours, running totals, ranges, two lists at once."""

from random import Random

from .base import Family, ints


def _distinct(rng: Random, low: int, high: int, size: int) -> list[int]:
    return rng.sample(range(low, high + 1), size)


FAMILIES = [
    Family(
        "run_total",
        "xs",
        "Return the running totals of xs, starting with {s} and adding {k} times each number.",
        "out = [{s}]\nfor x in xs:\n    out.append(out[-1] + {k} * x)\nreturn out",
        {"s": range(6), "k": range(2, 8)},
        lambda r, s, k: (ints(r, -5, 12, sizes=(2, 3)),),
    ),
    Family(
        "insert_at",
        "xs",
        "Return the list xs with {v} inserted so that it stands at index {i}.",
        "return xs[:{i}] + [{v}] + xs[{i}:]",
        {"i": (0, 1, 2), "v": range(20, 56, 3)},
        lambda r, i, v: (ints(r, 0, 60),),
    ),
    Family(
        "fill_to",
        "xs",
        "Return the first {n} numbers of xs, filled up with {v} where there are fewer.",
        "out = xs[:{n}]\nreturn out + [{v}] * ({n} - len(out))",
        {"n": (2, 3, 4), "v": range(12)},
        lambda r, n, v: (ints(r, 10, 99, sizes=(1, 4)),),
    ),
    Family(
        "near_sort",
        "xs",
        "Sort the numbers in xs by their distance from {k}, the nearest first, ties in their old order.",
        "return sorted(xs, key=lambda x: abs(x - {k}))",
        {"k": range(8, 44)},
        lambda r, k: (_distinct(r, k - 6, k + 6, r.randint(3, 4)),),
    ),
    Family(
        "rem_sort",
        "xs",
        "Sort xs by the remainder of each number divided by {m}, ties in their old order.",
        "return sorted(xs, key=lambda x: x % {m})",
        {"m": range(4, 40)},
        lambda r, m: (ints(r, 1, 99, sizes=(3, 4)),),
    ),
    Family(
        "top_sum",
        "xs",
        "Return {b} plus the sum of the {k} largest numbers in xs.",
        "top = sorted(xs)[-{k}:]\nreturn sum(top) + {b}",
        {"b": range(5, 41, 2), "k": (2, 3)},
        lambda r, b, k: (ints(r, 0, 30, sizes=(3, 4)),),
        held_out=True,
    ),
    Family(
        "jumps",
        "xs",
        "Count the neighbours in xs that are more than {k} apart.",
        "pairs = zip(xs, xs[1:])\nreturn sum(abs(a - b) > {k} for a, b in pairs)",
        {"k": range(3, 39)},
        lambda r, k: (_steps(r, k),),
    ),
    Family(
        "pair_is",
        "xs",
        "Tell whether two neighbours in xs add up to {k} or to {j}.",
        "sums = [a + b for a, b in zip(xs, xs[1:])]\nreturn {k} in sums or {j} in sums",
        {"k": range(10, 16), "j": range(20, 26)},
        lambda r, k, j: (_with_sum(r, r.choice((k, j, r.randint(8, 28)))),),
    ),
    Family(
        "alt_sum",
        "xs",
        "Return {a} times the sum of xs at even indexes minus {b} times that at odd indexes.",
        "return {a} * sum(xs[::2]) - {b} * sum(xs[1::2])",
        {"a": range(2, 8), "b": range(2, 8)},
        lambda r, a, b: (ints(r, 0, 20),),
    ),
    Family(
        "common",
        "xs, ys",
        "Return the numbers of xs that are also in ys or are above {k}, in their order.",
        "return [x for x in xs if x in ys or x > {k}]",
        {"k": range(8, 44)},
        lambda r, k: _overlapping(r, k),
    ),
    Family(
        "blend",
        "xs, ys",
        "Return the list of {a} times each number in xs plus {b} times the number beside it in ys.",
        "return [x * {a} + y * {b} for x, y in zip(xs, ys)]",
        {"a": range(2, 8), "b": range(2, 8)},
        lambda r, a, b: (ints(r, 0, 9, sizes=(3, 3)), ints(r, 0, 9, sizes=(3, 3))),
    ),
    Family(
        "stairs",
        "a, b",
        "Return the numbers a, a plus {s} and so on, up to b at most, without the multiples of {m}.",
        "return [i for i in range(a, b + 1, {s}) if i % {m} != 0]",
        {"s": range(3, 9), "m": range(2, 8)},
        lambda r, s, m: _span(r, s),
    ),
    Family(
        "down_by",
        "n",
        "Count down from n in steps of {s}, and return the list of the numbers that are above {k}.",
        "return list(range(n, {k}, -{s}))",
        {"s": range(3, 9), "k": range(5, 35, 5)},
        lambda r, s, k: (r.randint(k - 2, k + 5 * s),),
    ),
    Family(
        "all_ok",
        "xs",
        "Tell whether each number in xs is below {k} or a multiple of {m}.",
        "return all(x < {k} or x % {m} == 0 for x in xs)",
        {"k": range(20, 50, 5), "m": (3, 4, 5, 7, 11, 13)},
        lambda r, k, m: (
            [r.choice((m * r.randint(k // m, k // m + 3), r.randint(k - 9, k + 4))) for _ in range(r.randint(2, 3))],
        ),
    ),
    Family(
        "squeeze",
        "xs",
        "Return xs with {a} taken from numbers above {k} and {a} given to all others.",
        "return [x - {a} if x > {k} else x + {a} for x in xs]",
        {"a": range(1, 7), "k": range(10, 40, 5)},
        lambda r, a, k: (ints(r, k - 8, k + 8),),
    ),
    Family(
        "until",
        "xs",
        "Add up the numbers of xs from the left, and stop after the total reaches {k}; return the total times {t}.",
        "total = 0\nfor x in xs:\n    total += x if total < {k} else 0\nreturn total * {t}",
        {"k": range(8, 26, 3), "t": range(2, 8)},
        lambda r, k, t: (ints(r, 1, 12, sizes=(3, 4)),),
    ),
]


def _steps(rng: Random, k: int) -> list[int]:
    values = [rng.randint(0, 20)]
    for _ in range(rng.randint(2, 3)):
        values.append(values[-1] + rng.choice((-1, 1)) * rng.randint(max(1, k - 3), k + 4))
    return values


def _with_sum(rng: Random, total: int) -> list[int]:
    first = rng.randint(2, total - 2)
    return [*ints(rng, 1, 20, sizes=(0, 1)), first, total - first, *ints(rng, 1, 20, sizes=(0, 1))]


def _overlapping(rng: Random, k: int) -> tuple[list[int], list[int]]:
    xs = ints(rng, k - 6, k + 6, sizes=(3, 4))
    return xs, [rng.choice(xs), *ints(rng, k - 6, k + 6, sizes=(1, 2))]


def _span(rng: Random, s: int) -> tuple[int, int]:
    a = rng.randint(1, 40)
    return a, a + rng.randint(s, 4 * s)
