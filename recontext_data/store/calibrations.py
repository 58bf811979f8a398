"""What was measured of judges, beside the runs: `calibrations/<judge>-<labels>.json`, found by what the judge is.

<judge> is the hash of the judge's rubric, model and sampling: a judge that is changed in any of them has no calibration until
it is measured again. <labels> is the hash of the labels' file.
"""

from pathlib import Path
from typing import Any

import orjson

from recontext_data.core.errors import StoreError
from recontext_data.store.files import replace_file, writing

FORMAT = 1


def write(output: Path, facts: dict[str, Any]) -> Path:
    """Writes one calibration; `facts` has `identity` and `labels.sha256`."""
    folder = output / "calibrations"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{facts['identity'][:16]}-{facts['labels']['sha256'][:8]}.json"
    text = orjson.dumps({"format": FORMAT, **facts}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    replace_file(path, lambda target: target.write_bytes(text))
    return path


def find(output: Path, identity: str) -> list[dict[str, Any]]:
    """The calibrations of a judge with this identity, in the order of their labels' hashes.

    Raises:
        StoreError: a file is damaged.
    """
    found = []
    for path in sorted((output / "calibrations").glob(f"{identity[:16]}-*.json")):
        try:
            facts = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise StoreError(f"{path}: is damaged ({error}); delete it and run calibrate again") from None
        if isinstance(facts, dict) and facts.get("format") == FORMAT and facts.get("identity") == identity:
            found.append(facts)
    return found
