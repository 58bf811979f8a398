"""One or two whole numbers in, one out: prices, groups, limits, rounding."""

from random import Random

from .base import Family


def _pair(rng: Random, low: int, high: int) -> tuple[int, int]:
    return rng.randint(low, high), rng.randint(low, high)


FAMILIES = [
    Family(
        "scale_add",
        "n",
        "Return n multiplied by {a}, plus {b}.",
        "return n * {a} + {b}",
        {"a": range(3, 9), "b": range(1, 7)},
        lambda r, a, b: (r.randint(-20, 60),),
    ),
    Family(
        "clamp",
        "n",
        "Return n, but never less than {lo} and never more than {hi}.",
        "if n < {lo}:\n    return {lo}\nreturn min(n, {hi})",
        {"lo": range(0, 18, 3), "hi": range(30, 48, 3)},
        lambda r, lo, hi: (r.choice((r.randint(lo - 12, lo + 5), r.randint(hi - 5, hi + 12))),),
    ),
    Family(
        "round_off",
        "n",
        "Lower n to the nearest multiple of {m}, then add {b}.",
        "return n - n % {m} + {b}",
        {"m": range(4, 10), "b": range(1, 7)},
        lambda r, m, b: (r.randint(0, 99),),
    ),
    Family(
        "near_dist",
        "n",
        "Return how far n is from {k}, but never more than {c}.",
        "far = abs(n - {k})\nreturn min(far, {c})",
        {"k": range(20, 50, 5), "c": range(6, 12)},
        lambda r, k, c: (r.randint(k - c - 4, k + c + 4),),
    ),
    Family(
        "discount",
        "n",
        "Return the cost of n items at {p} each, lowered by {d} when n is at least 10.",
        "cost = n * {p}\nreturn cost - {d} if n >= 10 else cost",
        {"p": range(3, 9), "d": range(4, 10)},
        lambda r, p, d: (r.randint(1, 25),),
    ),
    Family(
        "boxes",
        "n",
        "Return how many boxes of {m} hold n items, plus {e} spare boxes.",
        "return -(-n // {m}) + {e}",
        {"m": range(4, 10), "e": range(1, 7)},
        lambda r, m, e: (r.choice((r.randint(1, 60), m * r.randint(1, 8))),),
        held_out=True,
    ),
    Family(
        "groups",
        "n",
        "Split n into groups of {a}; return the number of full groups plus {b} for each one left over.",
        "full, rest = divmod(n, {a})\nreturn full + rest * {b}",
        {"a": range(3, 9), "b": range(2, 8)},
        lambda r, a, b: (r.randint(0, 70),),
    ),
    Family(
        "grow",
        "n",
        "Return how many times the positive number n must be multiplied by {b} to reach {k} or more.",
        "for i in range(99):\n    if n * {b}**i >= {k}:\n        return i",
        {"b": (2, 3, 4), "k": range(20, 140, 10)},
        lambda r, b, k: (r.choice((r.randint(1, 20), max(1, k // b ** r.randint(0, 3) - r.randint(-3, 6)))),),
    ),
    Family(
        "weigh",
        "a, b",
        "Return {p} times a plus {q} times b.",
        "return a * {p} + b * {q}",
        {"p": range(2, 8), "q": range(2, 8)},
        lambda r, p, q: _pair(r, -9, 30),
    ),
    Family(
        "bigger",
        "a, b",
        "Return the larger of a plus {p} and b times {q}.",
        "x = a + {p}\nreturn max(x, b * {q})",
        {"p": range(4, 22, 3), "q": range(2, 8)},
        lambda r, p, q: (r.randint(0, 60), r.randint(0, 12)),
    ),
    Family(
        "gap_or",
        "a, b",
        "Return the difference between a and b if it is above {k}, else {e}.",
        "gap = abs(a - b)\nreturn gap if gap > {k} else {e}",
        {"k": range(8, 20, 2), "e": range(6)},
        lambda r, k, e: (r.randint(0, 30), r.randint(10, 50)),
    ),
    Family(
        "parking",
        "n",
        "Parking costs {a} for each of the first {h} hours and 1 for each further hour; return the price of n hours.",
        "return min(n, {h}) * {a} + max(n - {h}, 0)",
        {"a": range(3, 9), "h": range(2, 8)},
        lambda r, a, h: (r.randint(1, h + 12),),
    ),
    Family(
        "near_side",
        "n",
        "Return n plus {lo} or {hi}, whichever of them is nearer to n, the lower one on a tie.",
        "low_side = n - {lo} <= {hi} - n\nreturn n + ({lo} if low_side else {hi})",
        {"lo": range(0, 18, 3), "hi": range(40, 58, 3)},
        lambda r, lo, hi: (r.randint((lo + hi) // 2 - 9, (lo + hi) // 2 + 9),),
    ),
]
