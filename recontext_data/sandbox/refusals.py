"""What code may not do if it is to earn anything: ask whether it runs as a script, or end the process it runs in.

Both are ways around tests that run a file. Here neither works (a solution is no script, and its process is one of many), but
a policy that is trained on such code learns to try. `refused` reads the code's syntax tree and runs nothing of it; parsing is
not safe for the parser, though (a deeply nested text can end the interpreter), so the tests judge runs this file inside the
sandbox with the code as data. It therefore needs the standard library only.
"""

import ast
import re

WORDS = re.compile(r"__name__|__main__|exit|quit|SystemExit|abort|kill|raise_signal")
"""Code without any of these is not refused, so it need not be parsed."""

GUARD = "a script guard"
EXIT = "a process exit"
_EXITS = {"sys": {"exit"}, "os": {"_exit", "abort", "kill", "killpg"}, "signal": {"raise_signal"}, "builtins": {"exit", "quit"}}


def refused(code: str) -> str | None:
    """Why the code earns nothing, or None. Code that does not parse is not refused: it fails by itself."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = list(ast.walk(tree))
    modules, functions, defined = _names(nodes)
    for node in nodes:
        line = getattr(node, "lineno", 0)
        if _is_guard(node):
            return f"{GUARD} (line {line})"
        if _is_exit(node, modules, functions, defined):
            return f"{EXIT} (line {line})"
    return None


def _names(nodes: list[ast.AST]) -> tuple[dict[str, str], set[str], set[str]]:
    """Module by the name that it was imported under; functions that exit, by name; what the code itself defines."""
    modules: dict[str, str] = {}
    functions: set[str] = set()
    defined: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            exits = _EXITS.get(node.module or "", set())
            functions |= {alias.asname or alias.name for alias in node.names if alias.name in exits}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
    return modules, functions, defined


def _is_guard(node: ast.AST) -> bool:
    """The module's own __name__ (not a function's), or "__main__", in whatever comparison or table."""
    if isinstance(node, ast.Name):
        return node.id == "__name__"
    return isinstance(node, ast.Constant) and node.value in ("__main__", "__name__")


def _is_exit(node: ast.AST, modules: dict[str, str], functions: set[str], defined: set[str]) -> bool:
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id in modules:
            return node.attr in _EXITS.get(modules[node.value.id], ())
        return node.attr == "_exit"
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.id == "SystemExit" or node.id in functions:
            return True
        return node.id in ("exit", "quit") and node.id not in defined
    return False
