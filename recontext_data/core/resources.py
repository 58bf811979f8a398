"""Where the files that ship with the package are: recipes/, judges/ and data/.

In an installed wheel they lie in `recontext_data/shipped/`; in a checkout they lie at its top, where people edit them.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The path of a shipped file or folder, such as `recipes` or `data/tiny`. It may not exist; the caller says so."""
    installed = _PACKAGE / "shipped"
    return (installed if installed.is_dir() else _PACKAGE.parent) / name
