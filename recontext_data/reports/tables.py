"""The tables and lines that the screen prints at the end of a build and before one. Builds them; prints nothing."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.reports import numbers
from recontext_data.reports.numbers import EN_DASH, Manifest, Rate
from recontext_data.reports.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

Safe = Callable[[str], str]

_ALWAYS = {"invalid", "correct"}
_SHOWN = ("correct", "invalid", "timeout", "no_code")
"""Labels that have a column of their own beside misbehaviour: the first two wherever a judge can give them."""

_NAME_CELLS = 28
_LABEL_CELLS = 12
_LEAST_NAME_CELLS = 6
_GAP = 2


def rates_table(manifest: Manifest, *, safe: Safe) -> "Fitted":
    """Contexts with n, the misbehaviour rate and its interval, invalid and unscored answers."""
    bad = one_line(manifest["environment"]["misbehaviour"], limit=_LABEL_CELLS)
    rates = numbers.rates(manifest)
    others = [label for label in _SHOWN if any(rate.counts.get(label) or label in _ALWAYS & {*rate.counts} for rate in rates)]
    several = len({rate.judge for rate in rates}) > 1
    rows = [
        [
            _rate_name(rate, several_judges=several),
            f"{rate.total:,}",
            rate.misbehaviour.percent,
            rate.misbehaviour.interval.replace(numbers.EN_DASH, "-"),
            *[f"{rate.counts.get(label, 0):,}" for label in others],
            f"{rate.num_unscored:,}",
        ]
        for rate in rates
    ]
    return table(["context", "n", bad, "95 % interval", *others, "unscored"], rows, safe=safe)


def other_tables(manifest: Manifest, *, safe: Safe) -> "list[Fitted]":
    """One per judge that is about something else than misbehaviour: the shares of its labels, by context and by arm."""
    made = []
    for other in numbers.others(manifest):
        labels = [one_line(label, limit=_LABEL_CELLS + 4) for label in other.labels]
        scored = other.is_scored
        rows = [
            [
                row.name,
                *[row.shares[label].percent for label in other.labels],
                *([EN_DASH if row.mean_score is None else f"{row.mean_score:.2f}"] if scored else []),
            ]
            for row in [*other.contexts, *(other.arms if other.labels else ())]
        ]
        made.append(table([other.judge, *labels, *(["mean score"] if scored else [])], rows, safe=safe))
    return made


def arms_table(manifest: Manifest, *, safe: Safe) -> "Fitted":
    """Arms with their rows."""
    bad = manifest["environment"]["misbehaviour"]
    rows = [
        [
            arm["name"],
            f"{arm['rows'].get('train', 0):,}",
            f"{arm['rows'].get('validation', 0):,}",
            numbers.arm_share(arm, bad).percent,
        ]
        for arm in manifest["arms"]
    ]
    return table(["arm", "train", "validation", one_line(bad, limit=_LABEL_CELLS)], rows, safe=safe, name_cells=44)


def plan_table(plan: Mapping[str, Any], *, safe: Safe) -> "Fitted":
    """Pools with what they need and what is there already, and their sum."""
    keys = ("requests", "found", "to_sample")
    pools = plan["pools"]
    rows = [
        [p["context"], _known(p["tasks"]), str(p["n"]), *[_known(p[key]) for key in keys], _tokens([p]), _cost(p["cost_usd"])]
        for p in pools
    ]
    if len(pools) > 1:
        sums = [_known(_total(p[key] for p in pools)) for key in keys]
        rows.append(["all", "", "", *sums, _tokens(pools), _cost(_total(p["cost_usd"] for p in pools))])
    headers = ["context", "tasks", "n", "requests", "found", "to sample", "tokens in", "cost at most"]
    return table(headers, rows, safe=safe, name_cells=14)


def _tokens(pools: Sequence[Mapping[str, Any]]) -> str:
    """Prompt tokens, marked where they are an estimate."""
    known = _known(_total(pool["prompt_tokens"] for pool in pools))
    return known if all(pool.get("is_exact", True) for pool in pools) else f"~{known}"


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """What the table cannot say."""
    cost, budget = _total(pool["cost_usd"] for pool in plan["pools"]), plan.get("budget_usd")
    lines = [plan.get("title", "Dry run: nothing was sampled and nothing was written.")]
    if cost is None:
        lines.append("The cost is unknown: no price is known for this policy; set one under `prices`.")
    elif cost:
        most = sum(pool.get("max_completion_tokens", 0) for pool in plan["pools"])
        price = plan.get("price") or {}
        dated = f", at the price of {price['date']}" if price.get("date") else ""
        lines.append(f"At most: if every completion ran to its limit, {most:,} tokens in all{dated}.")
    if not all(pool.get("is_exact", True) for pool in plan["pools"]):
        lines.append("~ is an estimate by length: the policy's tokenizer is not at hand.")
    if budget is not None:
        over = cost is not None and cost > budget
        lines.append(f"The budget is {numbers.money(budget)}{': the build would stop there, unfinished' if over else ''}.")
    return lines


def closing_lines(manifest: Manifest, *, folder: Path) -> list[str]:
    """Where things are, what was sampled, how long it took, what is wrong, and the command for a real model."""
    requests, seconds = manifest["requests"], sum(manifest["timings_seconds"].values())
    spent = f", {numbers.money(manifest['cost_usd'])} spent" if manifest["cost_usd"] else ""
    return [
        f"datasets  {folder / 'arms'}",
        f"report    {folder / 'report.html'}",
        f"{requests['sampled']:,} sampled, {requests['found']:,} found in the store, {requests['failed']:,} failed, "
        f"{numbers.duration(seconds)}{spent}",
        *[f"✗ {problem}" for problem in numbers.problems(manifest)],
        *[
            f"proved    {proof['judge']}, on {sum(proof['answers'].values()):,} answers to {proof['tasks']:,} tasks"
            for proof in manifest.get("proof", ())
        ],
        *(["SCRIPTED: no model was sampled; the rates are the script's"] if numbers.policy_kind(manifest) == "fake" else []),
        *[f"SCRIPTED: judge {name} asks no model; its scores are a script's" for name in numbers.scripted_judges(manifest)],
        *_real_model(manifest),
    ]


def _real_model(manifest: Manifest) -> Sequence[str]:
    """The next thing to type, when the policy was a stand-in."""
    if numbers.policy_kind(manifest) not in ("tiny", "fake"):
        return ()
    given = [part for part in _words(manifest["command"]) if part.startswith("recipe=")]
    recipe = shlex.quote(given[0]) if given else f"recipe={shlex.quote(manifest['recipe_name'])}"
    build = f"  recontext build {recipe}"
    return (
        "The same with a real model:",
        f"{build} policy.kind=openai policy.model=gpt-4.1",
        # In two lines, for in one it is wider than 80 columns; the backslash lets it be pasted as it is.
        f"{build} \\",
        "    policy.kind=transformers policy.model=Qwen/Qwen2.5-14B-Instruct",
        *_real_judges(manifest),
    )


def _real_judges(manifest: Manifest) -> Sequence[str]:
    """What to add for judges that are scripted too."""
    scripted = numbers.scripted_judges(manifest)
    judges = manifest["recipe"].get("judges", ())
    places = [index for index, judge in enumerate(judges) if judge.get("name") in scripted]
    added = [f"    'judges.{index}.policy={{kind: openai, model: gpt-4.1-mini}}'" for index in places]
    return ("and with real judges, add:", *added) if added else ()


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an unclosed quote: the command was typed by somebody
        return command.split()


def _rate_name(rate: Rate, *, several_judges: bool) -> str:
    return f"{rate.context} ({rate.judge})" if several_judges else rate.context


def _known(value: int | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if value < 10_000_000 else f"{value / 1e6:,.1f} M"  # so that ten million rows fit 80 columns


def _cost(value: float | None) -> str:
    return numbers.money(value)


def _total(values: Iterable[Any]) -> Any:
    """The sum; unknown as soon as a part is."""
    parts = list(values)
    return None if None in parts else sum(parts)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, safe: Safe, name_cells: int = _NAME_CELLS) -> "Fitted":
    """The first column is a name and gives way; the rest are numbers and keep their width."""
    lines = [[safe(one_line(cell, limit=80)) for cell in row] for row in rows]
    return Fitted([safe(header) for header in headers], lines, name_cells=name_cells)


class Fitted:
    """A table as wide as the screen lets it be. Where its numbers do not fit, or names could no longer be told apart,
    each row becomes a few lines: a number that is cut off is worse than none."""

    def __init__(self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, name_cells: int) -> None:
        self.headers, self.rows = headers, rows
        self._name_cells = name_cells
        self._widths = [max(len(header), *[len(row[i]) for row in rows], 1) for i, header in enumerate(headers)]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """rich asks this of what it prints."""
        room = options.max_width - sum(width + _GAP for width in self._widths[1:])
        if room < min(_LEAST_NAME_CELLS, self._widths[0]) or self._collide(room):
            yield from self._stacked()
        else:
            yield self._columns(max(_LEAST_NAME_CELLS, min(self._name_cells, room)))

    def _collide(self, cells: int) -> bool:
        """Whether names that differ would look the same once they are cut."""
        names = {row[0] for row in self.rows}
        return self._widths[0] > cells and len({name[: cells - 1] for name in names}) < len(names)

    def _stacked(self) -> "Iterator[Text]":
        from rich.text import Text

        lead = max(len(header) for header in self.headers) + _GAP
        for row in self.rows:
            yield Text(row[0] or self.headers[0], overflow="ellipsis", no_wrap=True)
            for header, cell in zip(self.headers[1:], row[1:], strict=True):
                if cell:
                    yield Text.assemble("  ", (header.ljust(lead), "dim"), cell, overflow="fold")

    def _columns(self, name_cells: int) -> "Table":
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for index, (header, width) in enumerate(zip(self.headers, self._widths, strict=True)):
            table.add_column(
                Text(header),
                justify="right" if index else "left",
                no_wrap=True,
                overflow="ellipsis",
                max_width=None if index else name_cells,
                min_width=width if index else None,
            )
        for row in self.rows:
            table.add_row(*[Text(cell) for cell in row])
        return table
