"""Looks into the store of replies: `python -m recontext_data.replies [count | check | find | prune] [key=value ...]`.

    replies                                    what is there, by model
    replies check                              reads every file and sets aside what is damaged; exit code 1 if any was
    replies find recipe=code_mc                what a recipe wants, what of it is there, and why the rest is not
    replies find recipe=code_mc task=ID k=0    one reply: its key, what goes into it, and whether it is there
    replies prune before=2026-01-31 model=NAME what would go; dry_run=false removes it

`output=` says where replies/ is, as for a build. Times are UTC.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recontext_data.cli import HELP, Arguments, guarded, parse
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.reports import modes

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.core.records import SamplingParams
    from recontext_data.pipeline.preparation import Prepared
    from recontext_data.store.replies import ReplyStore

SHOWN = 8
"""Replies that `find` shows in full."""

EXPLAINED = 1000
"""Missing replies that `find` compares with what is stored."""

WIDTH = 80


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    if any(word in HELP for word in words):
        print(__doc__)
        print("".join(f"{key}: {type_}\n    {meaning}\n" for key, (type_, meaning) in modes.OPTION.items()))
        return 0
    action, rest = (words[0], words[1:]) if words and "=" not in words[0] else ("count", words)
    if action not in ACTIONS:
        raise RecipeError(f"{action!r} is nothing that replies can do; {did_you_mean(action, ACTIONS)}")
    arguments = parse(rest)
    if arguments.recipe is not None and action != "find":
        raise RecipeError(f"recipe={arguments.recipe}: {action} takes no recipe; write replies find recipe={arguments.recipe}")
    if not any(word.startswith("dry_run=") for word in rest):
        arguments.dry_run = True  # removing is asked for, never assumed
    return ACTIONS[action](arguments)


def _store(arguments: Arguments) -> "ReplyStore":
    from recontext_data.store.replies import ReplyStore

    return ReplyStore(arguments.output / "replies")


def _is_empty(store: "ReplyStore") -> bool:
    if store.folder.is_dir():
        return False
    print(f"{store.folder}: no replies yet; say where with output=, or build something first")
    return True


def _options(arguments: Arguments, known: Sequence[str]) -> dict[str, str]:
    """The options beside the common ones, all of which must be known."""
    pairs = dict((key, value) for key, _, value in (word.partition("=") for word in arguments.overrides))
    for key in pairs:
        if key not in known:
            raise RecipeError(f"{key}={pairs[key]}: unknown option; {did_you_mean(key, [*known, 'output'])}")
    return pairs


def count(arguments: Arguments) -> int:
    """Prints what the store holds."""
    from recontext_data.store.upkeep import summary

    _options(arguments, ())
    store = _store(arguments)
    if _is_empty(store):
        return 0
    facts = summary(store)
    if _result("replies", {**asdict(facts), "folder": store.folder, "models": facts.models.to_dicts()}):
        _print_warnings(store)
        return 0
    print(f"{store.folder}: {_many(facts.replies, 'reply', 'replies')}, {_size(facts.bytes)}")
    print(f"  in {_many(facts.segments, 'segment')} and {_many(facts.journals, 'open journal')}")
    _print_models(facts.models)
    for name in facts.aside:
        print(f"set aside as damaged: {name}")
    _print_warnings(store)
    return 0


def check(arguments: Arguments) -> int:
    """Reads every file; 1 if any was damaged."""
    from recontext_data.store import upkeep

    _options(arguments, ())
    store = _store(arguments)
    if _is_empty(store):
        return 0
    files = replies = wrong = 0
    for found in upkeep.check(store):
        files, replies = files + 1, replies + found.replies
        if found.wrong is not None:
            wrong += 1
            if not _result("damaged", asdict(found)):
                print(found.name)
                _print_folded("  ", found.wrong)
    if _result("check", {"folder": store.folder, "files": files, "replies": replies, "damaged": wrong}):
        return 1 if wrong else 0
    verdict = "all good" if not wrong else f"{wrong} with damage"
    print(f"{store.folder}: {_many(files, 'file')} read, {_many(replies, 'reply', 'replies')}, {verdict}")
    return 1 if wrong else 0


def prune(arguments: Arguments) -> int:
    """Removes replies by age, by model or by both; only says what would go unless dry_run=false."""
    import polars as pl

    from recontext_data.store import upkeep

    options = _options(arguments, ("before", "model", "dry_run"))
    if not options:
        raise RecipeError("prune: say what goes with before=YYYY-MM-DD, model=NAME or both (both must then hold)")
    which = pl.lit(True)
    if "before" in options:
        which &= pl.col("written") < _day(options["before"])
    if "model" in options:
        which &= pl.col("model") == options["model"]
    store = _store(arguments)
    if _is_empty(store):
        return 0
    table = upkeep.prunable(store, which)
    if table.is_empty():
        _no_match(store, options)
        return 0
    number = int(table["replies"].sum()) if arguments.dry_run else upkeep.prune(store, which)
    facts = {"folder": store.folder, "is_dry": arguments.dry_run, "replies": number, "models": table.to_dicts()}
    if _result("prune", facts):
        return 0
    _print_models(table)
    if arguments.dry_run:
        print(f"{_many(number, 'reply', 'replies')} would go; dry_run=false removes them for good")
        return 0
    print(f"{_many(number, 'reply', 'replies')} removed")
    return 0


def _day(text: str) -> float:
    from datetime import UTC, date, datetime

    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise RecipeError(f"before={text}: is no date; write before=2026-01-31") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _no_match(store: "ReplyStore", options: dict[str, str]) -> None:
    from recontext_data.store.upkeep import summary

    models = summary(store).models["model"].to_list()
    hint = ""
    if "model" in options and options["model"] not in models:
        hint = f"; no reply is by {options['model']!r}, {did_you_mean(options['model'], models)}"
    print(f"{store.folder}: nothing matches{hint}")


@dataclass(frozen=True)
class _Wanted:
    """A recipe's plan beside the store."""

    job: "Prepared"
    sampling: "SamplingParams"
    rows: "pl.DataFrame"
    """The plan's rows, with `there`."""

    def asked(self, row: dict[str, Any]) -> dict[str, Any]:
        """What goes into the key of one row."""
        from recontext_data.contexts.context import render
        from recontext_data.core.records import content_hash
        from recontext_data.pipeline.purchase import asked_for

        contexts = {pool.name: pool.context for pool in self.job.pools}
        name = row["generation_context"]
        prompt = content_hash(render(self.job.by_id[row["task_id"]], contexts[name], name=name, how=self.job.recipe.how))
        return asked_for(prompt, dict(self.job.policy.identity), self.sampling, seed=row["seed"], k=row["k"])


def find(arguments: Arguments) -> int:
    """Prints what a recipe wants and what of it is there; with task, context or k those replies one by one."""
    if arguments.recipe is None:
        raise RecipeError("find: say whose replies, with recipe=NAME or recipe=path/to/mine.yaml")
    chosen = {key: value for key, _, value in (word.partition("=") for word in arguments.overrides) if key in CHOICES}
    arguments.overrides = [word for word in arguments.overrides if word.partition("=")[0] not in CHOICES]
    store = _store(arguments)
    wanted = _wanted(arguments, store)
    rows = _choose(wanted.rows, chosen)
    if modes.mode() == "json":
        for row in rows.iter_rows(named=True):
            _result("reply", row)
    elif chosen:
        _print_each(wanted, rows, store)
    else:
        _print_contexts(rows)
        _print_reasons(wanted, rows, store)
    _print_warnings(store)
    return 0


CHOICES = {"task": "task_id", "context": "generation_context", "k": "k"}
"""Options of `find` and the columns of the plan that they choose by."""


def _wanted(arguments: Arguments, store: "ReplyStore") -> _Wanted:
    """Plans the recipe as a build does; nothing is sampled."""
    import polars as pl

    from recontext_data.config.loading import load
    from recontext_data.core.records import SamplingParams
    from recontext_data.pipeline.preparation import plan as plan_of
    from recontext_data.pipeline.preparation import prepared

    assert arguments.recipe is not None
    loaded = load(arguments.recipe, arguments.overrides)
    sampler = loaded.recipe.sampler
    job = prepared(loaded.name, loaded.recipe, output=arguments.output)
    plan = plan_of(job, store)
    missing = [key for request in plan.requests for key in request.keys]
    rows = plan.wanted.table().with_columns(there=~pl.col("reply_key").is_in(missing))
    sampling = SamplingParams(temperature=sampler.temperature, top_p=sampler.top_p, max_tokens=sampler.max_tokens)
    return _Wanted(job, sampling, rows)


def _choose(rows: "pl.DataFrame", chosen: dict[str, str]) -> "pl.DataFrame":
    import polars as pl

    for option, value in chosen.items():
        known = [str(one) for one in rows[CHOICES[option]].unique(maintain_order=True)]
        if value not in known:
            more = did_you_mean(value, known if len(known) <= SHOWN or option == "task" else known[:SHOWN])
            hint = more if len(more) < 200 else f"the first is {known[0]!r}"
            raise RecipeError(f"{option}={value}: the recipe wants no such reply; {hint}")
        rows = rows.filter(pl.col(CHOICES[option]).cast(pl.String) == value)
    return rows


def _print_contexts(rows: "pl.DataFrame") -> None:
    import polars as pl

    there = int(rows["there"].sum())
    print(f"{_many(len(rows), 'completion')} wanted, {there:,} there, {len(rows) - there:,} missing\n")
    table = rows.group_by("generation_context", maintain_order=True).agg(wanted=pl.len(), there=pl.col("there").sum())
    lines = [(name, f"{wanted:,}", f"{there:,}", f"{wanted - there:,}") for name, wanted, there in table.iter_rows()]
    _print_table(["context", "wanted", "there", "missing"], lines)


def _print_reasons(wanted: _Wanted, rows: "pl.DataFrame", store: "ReplyStore") -> None:
    import polars as pl

    missing = rows.filter(~pl.col("there"))
    reasons = Counter(reason for _, _, reason in _reasons(wanted, missing.head(EXPLAINED), store))
    if reasons:
        print("\nwhy" + (f" (of the first {EXPLAINED:,})" if len(missing) > EXPLAINED else ""))
    for reason, number in reasons.most_common():
        _print_folded(f"  {number:>9,}  ", reason)


def _reasons(
    wanted: _Wanted, rows: "pl.DataFrame", store: "ReplyStore"
) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """(row, what it asks for, how the nearest stored reply differs) of rows that are missing."""
    from recontext_data.store.asked import why
    from recontext_data.store.upkeep import asked_of

    pairs = [(row, wanted.asked(row)) for row in rows.iter_rows(named=True)]
    stored = asked_of(store, {asked["prompt"] for _, asked in pairs}) if pairs else {}
    for row, asked in pairs:
        yield row, asked, why(asked, stored.get(asked["prompt"], []))


def _print_each(wanted: _Wanted, rows: "pl.DataFrame", store: "ReplyStore") -> None:
    shown = rows.head(SHOWN)
    missing = {row["reply_key"]: reason for row, _, reason in _reasons(wanted, shown.filter(~shown["there"]), store)}
    replies = {reply["key"]: reply for reply in store.find(shown["reply_key"]).iter_rows(named=True)}
    for row in shown.iter_rows(named=True):
        key = row["reply_key"]
        print(f"task {row['task_id']}, context {row['generation_context']}, k {row['k']}")
        _print_folded("  there        ", _there(replies[key]) if key in replies else f"no: {missing[key]}")
        _print_folded("  key          ", key)
        _print_asked(wanted.asked(row))
        print()
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN:,} more; narrow it with task=, context= and k=")


def _print_asked(asked: dict[str, Any]) -> None:
    from recontext_data.store.asked import flat

    for name, value in flat(asked):
        _print_folded(f"  {name:12} ", str(value))


def _there(reply: dict[str, Any]) -> str:
    from recontext_data.reports.text import one_line

    return f"yes: by {one_line(reply['model'], limit=40) or '?'}, written {_time(reply['written'])}"


def _print_models(models: "pl.DataFrame") -> None:
    from recontext_data.reports.text import one_line

    lines = [
        (
            one_line(model or "?", limit=24),
            f"{replies:,}",
            "-" if tokens is None else f"{tokens:,}",
            _time(oldest),
            _time(newest),
        )
        for model, replies, tokens, oldest, newest in models.iter_rows()
    ]
    if lines:
        print()
        _print_table(["model", "replies", "tokens", "oldest", "newest"], lines)
        print()


def _print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be: the first to the left, the others to the right."""
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    for line in [head, *lines]:
        first, *others = (
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(["", first, *others]).rstrip())


def _print_folded(lead: str, text: str) -> None:
    import textwrap

    from recontext_data.reports.text import visible

    print(textwrap.fill(visible(text), WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead)))


def _print_warnings(store: "ReplyStore") -> None:
    from recontext_data.reports.screen import Screen

    for text in store.warnings:
        Screen().warn(text)


def _result(name: str, facts: dict[str, Any]) -> bool:
    from recontext_data.reports.screen import Screen

    return Screen().result(name, facts)


def _many(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _size(number: int) -> str:
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if number >= 1000**power:
            return f"{number / 1000**power:.1f} {unit}"
    return f"{number} bytes"


def _time(seconds: float | None) -> str:
    from datetime import UTC, datetime

    return "?" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


ACTIONS: dict[str, Callable[[Arguments], int]] = {"count": count, "check": check, "find": find, "prune": prune}


if __name__ == "__main__":
    sys.exit(main())
