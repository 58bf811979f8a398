"""The options of a verb: a frozen model that documents them, and one parser from `key=value` words to that model.

    class StatusOptions(VerbOptions):
        verb: ClassVar[str] = "status"
        output: Path = Path()
        \"\"\"The folder of runs/ and replies/.\"\"\"

    options, overrides = read_options(StatusOptions, ["output=here"])

Lists are written with commas, `a,b` or `[a, b]`; lists of integers also as ranges, `0-9`. Where a verb reads a recipe, every
other key is an override of the recipe. The same mistake gets the same answer from every verb.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import AfterValidator, Field, ValidationError
from pydantic.fields import FieldInfo

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.validation import expected, type_words

HELP = ("-h", "--help", "help")
MAX_WORKERS = 64
LIST_RECIPES = "write recipe=NAME or recipe=path/to/mine.yaml (`recontext build` alone lists the recipes)"


class VerbOptions(Config):
    """The options of one verb, or of one target of `publish`."""

    verb: ClassVar[str]
    """The words after `recontext`."""
    example: ClassVar[str] = "recipe=code_mc"
    """Words that work, for messages and the usage line."""
    takes_overrides: ClassVar[bool] = False
    """Whether other keys are overrides of a recipe."""


class RunOptions(VerbOptions):
    """The options of every verb that may read a recipe."""

    takes_overrides: ClassVar[bool] = True

    output: Path = Path()
    """The folder of runs/ and replies/; the working directory unless set."""
    dry_run: bool = False
    """Print what would be sampled and what it would cost; nothing is sent or written."""


class RecipeOptions(RunOptions):
    """The options of every verb that needs a recipe."""

    recipe: str = Field(min_length=1)
    """The name of a shipped recipe, or a path to a YAML file."""


class OptionalRecipeOptions(RunOptions):
    """The options of a verb that works without a recipe as well."""

    recipe: str | None = None
    """The name of a shipped recipe, or a path to a YAML file."""


def _folder_name(name: str) -> str:
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise ValueError("becomes a folder; use letters, digits, '.', '_' and '-'")
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]
"""The name of a folder inside a run."""
Workers = Annotated[int, Field(ge=1, le=MAX_WORKERS)]
"""A number of processes."""

Options = TypeVar("Options", bound=Config)
Verb = TypeVar("Verb", bound=VerbOptions)


def wants_help(words: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word in HELP for word in words)


def with_seeds(overrides: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The overrides of a recipe with `seeds=` as training.seeds.

    Raises:
        RecipeError: training.seeds is among them already.
    """
    if not seeds:
        return list(overrides)
    if any(word.startswith("training.seeds=") for word in overrides):
        raise RecipeError("training.seeds: given twice, the other time as seeds=; write it once")
    return [*overrides, f"training.seeds={list(seeds)}"]


def command_line(verb: str, words: Sequence[str], *, without: Sequence[str] = ()) -> str:
    """The command as it was typed, without some of its keys."""
    return shlex.join(["recontext", *verb.split(), *(word for word in words if word.partition("=")[0] not in without)])


def read_options(kind: type[Verb], words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The options of a command line, and the overrides of the recipe. Words that ask for help are passed over.

    Raises:
        RecipeError: a word is not key=value, a key is unknown, missing or given twice, or a value is wrong.
    """
    words = [word for word in words if word not in HELP]
    given, fields = by_key(words, kind), fields_of(kind)
    own = {key: text for key, text in given.items() if key in fields and not _is_recipes(key, text, kind)}
    rest = {key: text for key, text in given.items() if key not in own}
    for key in rest:
        _require_known(key, kind, fields)
    return model_of(kind, own, example=kind.example), [f"{key}={text}" for key, text in rest.items()]


def _is_recipes(key: str, text: str, kind: type[VerbOptions]) -> bool:
    """`arms=` chooses among the recipe's arms and `rounds=` counts; as YAML both are the recipe's own."""
    return kind.takes_overrides and key in ("arms", "rounds") and text.strip().startswith(("[", "{"))


def by_key(words: Sequence[str], kind: type[VerbOptions]) -> dict[str, str]:
    """The words of a command line by key.

    Raises:
        RecipeError: a word is not key=value, or a key is given twice.
    """
    found: dict[str, str] = {}
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals or not key or key.startswith("-"):
            after = words[place + 1] if place + 1 < len(words) else ""
            fix = _as_option(word, after, kind)
            raise RecipeError(f"{word!r} is not an option; write key=value, such as {fix}, or --help")
        if key in found:
            raise RecipeError(f"{key}: given twice; write it once")
        found[key] = value
    return found


def _as_option(word: str, after: str, kind: type[VerbOptions]) -> str:
    """The option that a word was probably meant to be: `--recipe code_mc` and `code_mc` mean recipe=code_mc."""
    name, equals, value = word.lstrip("-").partition("=")
    name = name.replace("-", "_")
    if not word.startswith("-"):
        return f"recipe={name}" if name and not equals and "recipe" in fields_of(kind) else kind.example
    info = fields_of(kind).get(name)
    if info is None and not (kind.takes_overrides and "." in name):
        return kind.example
    if equals or (after and "=" not in after and not after.startswith("-")):
        return f"{name}={value if equals else after}"
    return f"{name}={'true' if info is not None and info.annotation is bool else '...'}"


def _require_known(key: str, kind: type[VerbOptions], fields: Mapping[str, FieldInfo]) -> None:
    first = key.partition(".")[0]
    if not kind.takes_overrides:
        raise RecipeError(f"{key}: unknown key; {_near(key, list(fields))}")
    from recontext_data.config.recipe import Recipe

    if first in Recipe.model_fields or first == "extends":
        return
    if first == key and "judge" in fields and "recipe" in fields:
        return  # calibrate: without a recipe the judge's own keys
    raise RecipeError(f"{first}: unknown key; {_near(key, [*fields, *Recipe.model_fields], _leaves())}")


def _leaves() -> dict[str, list[str]]:
    """The keys one step below the recipe's sections -> where they stand."""
    from recontext_data.config.help import configs_in
    from recontext_data.config.recipe import Recipe

    found: dict[str, list[str]] = {}
    for section, info in Recipe.model_fields.items():
        if get_origin(info.annotation) in (list, dict):
            continue
        configs = configs_in(info.annotation, info.metadata)
        for name in dict.fromkeys(name for config in configs for name in config.model_fields):
            found.setdefault(name, []).append(f"{section}.{name}")
    return found


def _near(key: str, known: Sequence[str], leaves: Mapping[str, Sequence[str]] | None = None) -> str:
    """The tail of the message about an unknown key."""
    name, below = key.replace("-", "_"), leaves or {}
    for wanted in (name, *get_close_matches(name.partition(".")[0] if leaves else name, [*known, *below], n=1)):
        if wanted in known:
            return f"did you mean {wanted!r}?"
        if wanted in below:
            return f"did you mean {_either([repr(place) for place in below[wanted]])}?"
    return did_you_mean(key, known)


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def model_of(kind: type[Options], given: Mapping[str, str], *, example: str = "", beside: Sequence[str] = ()) -> Options:
    """The model that texts by key make; the keys of a section stand after a dot. `beside`: keys that are known elsewhere.

    Raises:
        RecipeError: a key is unknown or missing, or a value is wrong.
    """
    fields = fields_of(kind)
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in fields:
            raise RecipeError(f"{key}: unknown key; {_near(key, [*fields, *beside])}")
        section, dot, name = key.partition(".")
        value = value_of(fields[key], key, text)
        if dot:
            values.setdefault(section, {})[name] = value
        else:
            values[key] = value
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_sentence(error, given, fields, example)) from None


def fields_of(kind: type[Config]) -> dict[str, FieldInfo]:
    """The fields by key, those of a section after a dot; `recipe` first."""
    found: dict[str, FieldInfo] = {}
    for name, info in sorted(kind.model_fields.items(), key=lambda item: item[0] != "recipe"):
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Config):
            found |= {f"{name}.{key}": inner for key, inner in section.model_fields.items()}
        else:
            found[name] = info
    return found


def value_of(info: FieldInfo, key: str, text: str) -> object:
    """A text as a value of the field's type; any other text stays, and validation refuses it."""
    annotation = info.annotation
    members = (annotation, *get_args(annotation))
    if get_origin(annotation) is list:
        parts = split_list(text)
        return integers(key, parts) if get_args(annotation) == (int,) else parts
    if text == "" and type(None) in members and str not in members:
        return None
    if Path in members:
        return Path(text).expanduser()
    if bool in members and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in members:
            try:
                return number(text)
            except ValueError:
                pass
    return text


def split_list(text: str) -> list[str]:
    """`a,b` or `[a, b]` as a list of texts."""
    return [part.strip().strip("'\"") for part in text.strip().removeprefix("[").removesuffix("]").split(",") if part.strip()]


def integers(key: str, parts: Sequence[str]) -> list[int]:
    """`0`, `1` and `3-5` as integers.

    Raises:
        RecipeError: a part is neither an integer nor a range.
    """
    found: list[int] = []
    for part in parts:
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise RecipeError(f"{key}={','.join(parts)}: must be integers, such as {key}=0,1,2 or {key}=0-9")
        found += range(int(first), int(last or first) + 1)
    return found


def _sentence(error: ValidationError, given: Mapping[str, str], fields: Mapping[str, FieldInfo], example: str) -> str:
    """The first problem that pydantic found, as one line with the key, the text as typed and the fix."""
    problem = error.errors()[0]
    # Of a union, pydantic names the member too; an option lies at most one dot deep.
    path = [str(part) for part in problem["loc"]]
    key = next((name for name in (".".join(path[:2]), path[0] if path else "") if name in fields), "")
    if problem["type"] == "missing" or (key == "recipe" and problem["type"] == "string_too_short"):
        return f"{key}: missing; {LIST_RECIPES if key == 'recipe' else _missing(key, example)}"
    text = _shown(given.get(key, ""))
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return message if not key or message.startswith(key) else f"{key}={text}: {message}"
    return f"{key}={text}: {expected(fields[key], problem, given.get(key, ''))}"


def _missing(key: str, example: str) -> str:
    if " | " in example:
        return f"write {example}"
    return f"write {key}=...{f', as in {example}' if f'{key}=' in example else ''}"


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def help_lines(kind: type[Config]) -> dict[str, tuple[str, str]]:
    """Every option: its type with the default, and its documentation; those of a section after a dot."""
    return dict(_help_lines(kind, ""))


def _help_lines(kind: type[Config], prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
    from recontext_data.core.field_docs import field_docs

    docs = field_docs(kind)
    for name, info in sorted(kind.model_fields.items(), key=lambda item: item[0] != "recipe"):
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Config):
            yield from _help_lines(section, f"{name}.")
        else:
            yield f"{prefix}{name}", (f"{type_words(info)}{_default(info)}", docs.get(name, ""))


def _default(info: FieldInfo) -> str:
    value = info.default
    if info.is_required() or value in (None, [], "", Path()):
        return ""
    return f" = {str(value).lower() if isinstance(value, bool) else value}"


def print_options(kind: type[VerbOptions]) -> None:
    """Prints the options of a verb with their types and documentation, `screen` last."""
    from recontext_data.reports import modes

    for key, (type_, meaning) in {**help_lines(kind), **modes.OPTION}.items():
        print(f"{key}: {type_}\n    {meaning}")


def print_help(kind: type[VerbOptions], *, usage: str | None = None) -> int:
    """Prints the help of a verb that reads no recipe."""
    print(f"usage: recontext {kind.verb} {usage or kind.example} [key=value ...]\n")
    print_options(kind)
    return 0
