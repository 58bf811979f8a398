"""Records the source digests of the shipped judges in recontext_data/judges/identities.json: `python scripts/pin_judges.py`.

Run it after an edit that changes no verdict (the golden tests show whether one changed). For a judge whose verdicts did
change, name its kind: `python scripts/pin_judges.py choice` gives it a new identity, so that its runs are built anew.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from recontext_data.config.recipe import JUDGES  # noqa: E402
from recontext_data.judges.code import IDENTITIES, source_digest  # noqa: E402


def digests() -> dict[str, str]:
    """Kind -> digest of the source as it is now."""
    return {kind: source_digest(JUDGES.config(kind).model_construct()) for kind in JUDGES.homes}


def pin(changed: Sequence[str] = ()) -> None:
    """Writes identities.json; judges in `changed`, and judges that are new, are identified by their present source."""
    known = json.loads(IDENTITIES.read_text(encoding="utf-8"))
    rows = {
        kind: {"source": digest, "identity": digest if kind in changed or kind not in known else known[kind]["identity"]}
        for kind, digest in digests().items()
    }
    IDENTITIES.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    pin(sys.argv[1:])
