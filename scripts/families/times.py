"""Clocks, calendars and small grids."""

from random import Random

from .base import Family, ints


def _grid(rng: Random, low: int, high: int) -> list[list[int]]:
    width = rng.randint(2, 3)
    return [ints(rng, low, high, sizes=(width, width)) for _ in range(2)]


FAMILIES = [
    Family(
        "week_day",
        "n",
        "Days are numbered from 0 in a week of {m} days; return the day n days after day {d}.",
        "return ({d} + n) % {m}",
        {"m": range(6, 12), "d": range(6)},
        lambda r, m, d: (r.randint(0, 40),),
    ),
    Family(
        "clock_add",
        "h, m",
        "Return the time {k} minutes after h:m on a clock of 24 hours, as a list of hours and minutes.",
        "t = h * 60 + m + {k}\nreturn [t // 60 % 24, t % 60]",
        {"k": range(5, 185, 5)},
        lambda r, k: (r.randint(0, 23), r.randint(0, 59)),
    ),
    Family(
        "mins_to",
        "h, m",
        "Return how many minutes h:m is after {a}:{b}, on the same day.",
        "return (h - {a}) * 60 + m - {b}",
        {"a": range(5, 11), "b": range(10, 40, 5)},
        lambda r, a, b: (r.randint(11, 20), r.randint(0, 59)),
    ),
    Family(
        "year_day",
        "m, d",
        "Each month has {a} days and each week {w}; return the weekday, from 0, of day d in month m.",
        "days = (m - 1) * {a} + d - 1\nreturn days % {w}",
        {"a": range(20, 26), "w": range(6, 12)},
        lambda r, a, w: (r.randint(1, 12), r.randint(1, 20)),
    ),
    Family(
        "shop_open",
        "h, m",
        "A shop is open from {a}:30 until {b}:15, both included; tell whether it is open at h:m.",
        "t = h * 60 + m\nreturn {a} * 60 + 30 <= t <= {b} * 60 + 15",
        {"a": range(6, 12), "b": range(15, 21)},
        lambda r, a, b: (r.choice((a, a, b, b, a - 1, b - 1)), r.randint(0, 59)),
    ),
    Family(
        "lap_time",
        "n",
        "A lap takes {p} seconds and a rest of {q} follows each; return [minutes, seconds] after n laps.",
        "t = n * ({p} + {q})\nreturn [t // 60, t % 60]",
        {"p": range(20, 56, 6), "q": range(3, 9)},
        lambda r, p, q: (r.randint(1, 20),),
    ),
    Family(
        "row_sums",
        "g",
        "Return the row sums of the grid g, without those less than {k}.",
        "sums = [sum(row) for row in g]\nreturn [s for s in sums if s >= {k}]",
        {"k": range(8, 44)},
        lambda r, k: ([[x := r.randint(1, k - 3), k - x + r.randint(-3, 3)] for _ in range(r.randint(2, 3))],),
    ),
    Family(
        "col_sums",
        "g",
        "Return for each column of the grid g its sum times {a} plus {b}.",
        "return [sum(col) * {a} + {b} for col in zip(*g)]",
        {"a": range(2, 8), "b": range(1, 7)},
        lambda r, a, b: (_grid(r, 0, 9),),
    ),
    Family(
        "cells",
        "g",
        "Count the cells of the grid g that hold {a}, and add 2 for each that holds {b}.",
        "count = 0\nfor row in g:\n    count += row.count({a}) + 2 * row.count({b})\nreturn count",
        {"a": range(1, 7), "b": range(7, 13)},
        lambda r, a, b: ([[r.choice((a, b, r.randint(1, 12))) for _ in range(3)] for _ in range(2)],),
    ),
    Family(
        "corner",
        "g",
        "Return {a} times the first cell of the grid g minus {b} times its last cell.",
        "first, last = g[0][0], g[-1][-1]\nreturn {a} * first - {b} * last",
        {"a": range(2, 8), "b": range(2, 8)},
        lambda r, a, b: (_grid(r, 0, 20),),
    ),
    Family(
        "flat_keep",
        "g",
        "Return one list of all numbers in the grid g that are above {k} but not above {j}.",
        "return [x for row in g for x in row if {k} < x <= {j}]",
        {"k": range(4, 10), "j": range(20, 26)},
        lambda r, k, j: ([[r.choice((r.randint(k - 4, k + 3), r.randint(j - 3, j + 4))) for _ in range(2)] for _ in range(2)],),
    ),
]
