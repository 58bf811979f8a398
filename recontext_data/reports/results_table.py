"""The tables and lines that the screen prints at the end of an evaluation. Builds them; prints nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from recontext_data.reports import evaluation_numbers as numbers
from recontext_data.reports.evaluation_costs import WORDS, cost_rows
from recontext_data.reports.evaluation_numbers import ArmName, Results
from recontext_data.reports.numbers import EN_DASH, percent
from recontext_data.reports.tables import Fitted, Safe, table
from recontext_data.reports.text import one_line

_COLUMNS = 80
_NAME_CELLS = 26
"""What a table of many contexts leaves to names before it is cut in two."""
_GAP = 2
_CONTEXT_CELLS = 18


def tables(results: Results, *, safe: Safe) -> Iterator[Fitted]:
    """Rates with intervals, as many contexts beside each other as fit 80 columns; then the differences."""
    arms = numbers.arms(results)
    names = _names(arms)
    columns = [(_context(name), [_cell(results, arm.key, name) for arm in arms]) for name in results["contexts"]]
    for part in _fitting(columns):
        headers = ["trained on", *[header for header, _ in part]]
        rows = [[names[arm.key], *[cells[i] for _, cells in part]] for i, arm in enumerate(arms)]
        yield table(headers, rows, safe=safe, name_cells=44)
    if results["differences"]:
        yield _differences(results, names, safe=safe)
    costs = [row for row in cost_rows(results) if row.what != WORDS["compliance"]]  # the first table has these rates
    if costs:
        shown = [
            [row.what, row.of, names[row.arm], _context(row.context), f"{row.value} ({row.interval})".replace(EN_DASH, "-")]
            for row in costs
        ]
        yield table(["cost", "of", "model", "under", f"{numbers.level(results)} interval"], shown, safe=safe, name_cells=24)


def lines(results: Results, *, folder: Path) -> list[str]:
    """What the numbers are, what is missing, and where the rest is."""
    bad, level = results["environment"]["misbehaviour"], numbers.level(results)
    said = [f"% of scored answers labelled {bad} ({level} interval); {results['tasks']:,} tasks, {results['n']:,} per task"]
    if results.get("exact"):
        covered = min(cell["coverage"]["mean"] for cell in results["cells"])
        said = [
            f"% probability of answers labelled {bad} ({level} interval); {results['tasks']:,} tasks",
            f"exact, as shares of the listed answers, which cover at least {percent(covered)} under every context",
        ]
    marked = [f"{one_line(name, limit=40)}: {', '.join(own)}" for name, own in numbers.marks(results).items() if own]
    said += [f"contexts: {'; '.join(marked)}"] if marked else []
    if results["differences"]:
        names = _names(numbers.arms(results))
        said.append(f"points: minus {one_line(names[results['baseline']], limit=40)}, on the same tasks and seeds")
        said.append(f"* the {level} interval excludes 0; p is corrected (Holm) for {len(results['differences'])} comparisons")
    if any(row["num_seeds"] == 1 for row in results["differences"]):
        said.append("one seed says nothing about retraining: train with seeds=0,1,2 or more")
    missing = sum(cell["answers"] - numbers.scored(cell) for cell in results["cells"])
    if missing:
        said.append(f"{missing:,} of {sum(cell['answers'] for cell in results['cells']):,} answers are unscored and left out")
    return [*said, f"report    {folder / 'report.html'}"]


def _names(arms: Sequence[ArmName]) -> dict[str, str]:
    """`default -> hack`: ASCII, for any terminal; an arm that its author named goes by that name."""
    plain = {arm.key: arm.pair.replace("→", "->") or ("(before)" if arm.key == numbers.BEFORE else arm.title) for arm in arms}
    return {arm.key: arm.title if arm.is_named else plain[arm.key] for arm in arms}


def _context(name: str) -> str:
    return one_line(name, limit=_CONTEXT_CELLS).split("(…")[0]


def _cell(results: Results, arm: str, context: str) -> str:
    """`12.2 (9.8-15.0)`"""
    cell = numbers.cell_of(results, arm, context)
    if cell is None or cell["rate"] is None:
        return "-"
    rate = percent(cell["rate"]["estimate"]).removesuffix(" %")
    return f"{rate} ({numbers.interval(cell['rate']).replace(EN_DASH, '-')})"


def _fitting(columns: Sequence[tuple[str, list[str]]]) -> Iterator[list[tuple[str, list[str]]]]:
    """The columns in parts, each of which fits beside the names."""
    part: list[tuple[str, list[str]]] = []
    used = 0
    for header, cells in columns:
        width = max(len(text) for text in (header, *cells)) + _GAP
        if part and used + width > _COLUMNS - _NAME_CELLS:
            yield part
            part, used = [], 0
        part.append((header, cells))
        used += width
    if part:
        yield part


def _differences(results: Results, names: dict[str, str], *, safe: Safe) -> Fitted:
    contexts, order = list(results["contexts"]), list(names)
    found = sorted(results["differences"], key=lambda row: (order.index(row["arm"]), contexts.index(row["context"])))
    rows = [
        [
            names[row["arm"]],
            _context(row["context"]),
            numbers.points(row["estimate"]).replace(numbers.MINUS, "-"),
            "*" if numbers.excludes_zero(row) else "",
            numbers.point_interval(row).replace(numbers.MINUS, "-"),
            numbers.p_value(row["p_holm"]),
            f"{row['num_seeds']:,}",
        ]
        for row in found
    ]
    level = f"{numbers.level(results)} interval"
    return table(["against", "under", "points", "", level, "p", "seeds"], rows, safe=safe)
