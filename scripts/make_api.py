"""Writes docs/api.md from the docstrings of the public names: `python scripts/make_api.py`.

The page is read from the source, so nothing is imported but the table of names. `tests/test_docs.py` compares.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

import recontext_data  # noqa: E402

PAGE = ROOT / "docs" / "api.md"

GROUPS = {
    "Recipes and runs": "load LoadedRecipe Preview open_run Run RunArm TrainedModel EvaluationResults Recipe",
    "Rows from elsewhere": "recontextualize RecontextualizedRows Context render",
    "Writing an environment, a judge or a policy": "Config Environment TaskSet LedgerEntry entry chosen require_unique "
    "AnyJudge Reader Asker Comparer Match Deriver Policy AnyPolicy FakePolicy uniform",
    "Records": "Task Message Messages SamplingParams Request Reply Candidate Judgement",
    "Errors": "RecontextError InputError RecipeError DataError SetupError SandboxMissing PolicyError StoreError ProofFailed "
    "GateFailed BuildStopped PublishError",
}
FIELDS_ELSEWHERE = ("Recipe", "Context")
"""Configs whose fields are in docs/options.md."""

_HEAD = """# The Python API

Written from the docstrings by `python scripts/make_api.py`; a test keeps it current. [api.ipynb](api.ipynb) is a notebook that
uses it. Every name is imported from `recontext_data`:

    import recontext_data as rc

    run = rc.load("code_mc", {"sampler.n": 6}).build(output="out")
    run.arm("default -> hack").dataset()    # a datasets.DatasetDict
    run.rates()                             # a Polars frame
    run.train(seeds=[0, 1])
    run.evaluate().differences()

Errors have the text of the command line and are raised, never printed. All of it works in a notebook, where an event loop is
running already.
"""


def api_page() -> str:
    """The page."""
    listed = [name for names in GROUPS.values() for name in names.split()]
    missing = set(recontext_data.__all__) ^ set(listed)
    if missing:
        raise SystemExit(f"scripts/make_api.py: GROUPS and recontext_data.__all__ differ in {', '.join(sorted(missing))}")
    parts = [_HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names.split():
            parts += _entry(name)
    return "\n".join(parts).rstrip() + "\n"


def _entry(name: str) -> Iterator[str]:
    home = recontext_data._HOMES[name]
    text = (ROOT / "recontext_data" / f"{home.replace('.', '/')}.py").read_text(encoding="utf-8")
    yield f"### {name}\n"
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield f"`{_signature(node)}`\n"
            yield _described(node)
        elif isinstance(node, ast.ClassDef) and node.name == name:
            yield _described(node)
            yield from _members(node) if name not in FIELDS_ELSEWHERE else ["Its fields are in [every option](options.md).\n"]
        elif isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            yield f"`{ast.unparse(node)}`\n"


def _members(node: ast.ClassDef) -> Iterator[str]:
    following = [*node.body[1:], None]
    for member, after in zip(node.body, following, strict=True):
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.target.id[0] != "_":
            constant = after.value if isinstance(after, ast.Expr) else None
            words = f": {' '.join(str(constant.value).split())}" if isinstance(constant, ast.Constant) else ""
            yield f"- `{member.target.id}: {_plain(ast.unparse(member.annotation))}`{words}"
    yield ""
    for member in node.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name[0] != "_":
            kinds = [ast.unparse(one) for one in member.decorator_list]
            is_property = any(kind in ("property", "cached_property") for kind in kinds)
            returns = f": {_plain(ast.unparse(member.returns))}" if member.returns else ""
            yield f"**`{f'{member.name}{returns}' if is_property else _signature(member)}`**\n"
            yield _described(member)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = re.sub(r"^self(, )?", "", ast.unparse(node.args))
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _plain(f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}{node.name}({arguments}){returns}")


def _plain(annotation: str) -> str:
    """Without the quotes of a forward reference."""
    return re.sub(r"(?<!=)'([\w.\[\], |]*[A-Za-z\]])'", r"\1", annotation) if "Literal" not in annotation else annotation


def _described(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """The docstring in Markdown: its sections as lists."""
    lines: list[str] = []
    is_section = False
    for line in inspect.cleandoc(ast.get_docstring(node) or "").splitlines():
        if line in ("Args:", "Returns:", "Raises:"):
            is_section = True
            lines += [f"*{line.removesuffix(':')}*", ""]
        elif is_section and line.startswith("    ") and not line.startswith("     "):
            head, colon, rest = line.strip().partition(": ")
            lines.append(f"- `{head}`: {rest}" if colon and " " not in head else f"- {line.strip()}")
        elif is_section and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
