"""Writes docs/options.md, recipes/help.txt, the tables of docs/formats.md and the shown files of docs/extend.

    python scripts/make_options.py

What stands there is what the code says: every field with its type, its default and the string under it, every option of every
verb, every column of every table, and the examples as they are run. `tests/test_docs.py` compares.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from recontext_data.cli import VERBS  # noqa: E402
from recontext_data.config.help import HELP_RECIPE, build_help, configs_in, plain  # noqa: E402
from recontext_data.config.loading import load  # noqa: E402
from recontext_data.config.options import RecipeOptions, VerbOptions, help_lines  # noqa: E402
from recontext_data.core import tables  # noqa: E402
from recontext_data.core.config import Config  # noqa: E402
from recontext_data.core.field_docs import field_docs  # noqa: E402
from recontext_data.core.validation import type_words  # noqa: E402
from recontext_data.publishing.targets import TARGETS, target_of  # noqa: E402
from recontext_data.reports import modes  # noqa: E402

OPTIONS = ROOT / "docs" / "options.md"
HELP = ROOT / "recipes" / "help.txt"
FORMATS = ROOT / "docs" / "formats.md"
EXAMPLES = ROOT / "docs" / "examples"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

TABLES = {
    "tasks.parquet": tables.TASKS,
    "candidates.parquet": tables.CANDIDATES,
    "judgements.parquet": tables.JUDGEMENTS,
    "selection.parquet": tables.SELECTION,
    "violations.parquet": tables.VIOLATIONS,
    "labels.parquet": tables.LABELS,
    "arms/<arm>/, the training rows": tables.TRAINING_ROWS,
}

_HEAD = """# Every option

Written from the types by `python scripts/make_options.py`; a test keeps it current. `recontext build recipe=NAME --help`
shows the same with the values of a recipe and where each came from. On the command line a key is written with dots
(`sampler.n=6`), a list's members by number (`judges.0.name=first`), lists and mappings as YAML (`arms='[default -> hack]'`).
"""


def options_page() -> str:
    """The page of all options: the verbs', then the recipe's by section."""
    from recontext_data.config.recipe import Recipe

    parts = [_HEAD, "## On the command line\n", *_verbs(), "## In a recipe\n", *_config(Recipe, "", seen=set())]
    return "\n".join(parts).rstrip() + "\n"


RUN_OPTIONS = {**help_lines(RecipeOptions), **modes.OPTION}


def _verbs() -> Iterator[str]:
    yield "Every verb that reads a recipe:\n"
    yield _rows(RUN_OPTIONS)
    for verb in VERBS:
        for name, own in options_of_verb(verb).items():
            if own:
                yield f"### recontext {name}\n\n{VERBS[verb][0].upper()}{VERBS[verb][1:]}.\n"
                yield _rows(own)
    for target, (_, meaning) in TARGETS.items():
        yield f"### recontext publish to={target}\n\nTo {meaning}.\n"
        yield _rows(help_lines(target_of(target).OPTIONS))


def options_of_verb(verb: str) -> Mapping[str, Mapping[str, tuple[str, str]]]:
    """The options that are this verb's alone, by the words after `recontext`."""
    found: type[VerbOptions] | tuple[type[VerbOptions], ...]
    found = getattr(import_module(f"recontext_data.{verb}"), "OPTIONS", ())
    kinds = found if isinstance(found, tuple) else (found,)
    return {kind.verb: {k: line for k, line in help_lines(kind).items() if RUN_OPTIONS.get(k) != line} for kind in kinds}


def _rows(options: Mapping[str, tuple[str, str]]) -> str:
    lines = ["| option | type | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {_cell(type_)} | {_cell(meaning)} |" for key, (type_, meaning) in options.items()]
    return "\n".join(lines) + "\n"


def _config(config: type[Config], prefix: str, *, seen: set[type[Config]]) -> Iterator[str]:
    """A config's table, and then those of the configs in it, each once."""
    docs, deeper = field_docs(config), []
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, info in config.model_fields.items():
        inner = configs_in(info.annotation, info.metadata)
        deeper += [(f"{prefix}{name}", one) for one in inner]
        default = "required" if info.is_required() else _default(info.get_default(call_default_factory=True), inner=bool(inner))
        key = f"`{name}`" if name != "kind" else f"`kind: {info.default}`"
        lines.append(f"| {key} | {_cell(type_words(info))} | {default} | {_cell(docs.get(name) or _about(name, inner))} |")
    if prefix or not seen:
        about = " ".join((config.__doc__ or "").split("\n\n")[0].split())
        yield f"{_escape(about)}\n"
    yield "\n".join(lines) + "\n"
    for key, one in deeper:
        if one in seen:
            continue
        seen.add(one)
        kind = one.model_fields["kind"].default if "kind" in one.model_fields else None
        yield f"### {key}{f': {kind}' if isinstance(kind, str) else ''}\n"
        yield from _config(one, f"{key}.", seen=seen)


def _about(name: str, inner: list[type[Config]]) -> str:
    """For a section that has no string of its own, what its config says of itself."""
    if name == "kind":
        return "Says that it is this one."
    return (inner[0].__doc__ or "").split("\n\n")[0] if inner else ""


def _default(value: Any, *, inner: bool) -> str:
    if isinstance(value, Config) or (inner and value not in (None, [], {})):
        return "see below"
    return f"`{json.dumps(plain(value), ensure_ascii=False, default=str)}`" if len(str(value)) < 60 else "a text"


def _cell(text: str) -> str:
    return _escape(text).replace("|", "\\|")


def _escape(text: str) -> str:
    """Outside of code, `<name>` would be taken for HTML."""
    return re.sub(r"<(?=[^`]*(?:`[^`]*`[^`]*)*$)", "&lt;", " ".join(text.split()))


def tables_section() -> str:
    """Every table with its columns."""
    parts = []
    for name, columns in TABLES.items():
        parts.append(f"### {name.replace('<', '&lt;')}\n\n| column | type | written by | what it holds |\n|---|---|---|---|")
        parts += [f"| `{one.name}` | {_cell(one.in_words)} | {one.writer} | {_cell(one.meaning)} |" for one in columns]
        parts.append("")
    return "\n".join(parts)


def formats_page(text: str) -> str:
    """The page with its tables as the code says them."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables_section()}\n{END}{rest.partition(END)[2]}"


def with_files(text: str) -> str:
    """A page with every block that begins with `# file: NAME` filled from docs/examples."""

    def filled(block: re.Match[str]) -> str:
        source = (EXAMPLES / block[2]).read_text(encoding="utf-8")
        return f"```{block[1]}\n# file: {block[2]}\n{source}```"

    return re.sub(r"^```(\w+)\n# file: (\S+)\n.*?^```", filled, text, flags=re.MULTILINE | re.DOTALL)


def main() -> None:
    """Writes all of them."""
    for page in sorted((ROOT / "docs" / "extend").glob("*.md")):
        page.write_text(with_files(page.read_text(encoding="utf-8")), encoding="utf-8")
    OPTIONS.write_text(options_page(), encoding="utf-8")
    HELP.write_text(build_help(load(HELP_RECIPE)), encoding="utf-8")
    FORMATS.write_text(formats_page(FORMATS.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
