"""The structure of the package: `scripts/check_house.py` measures it, and the limits that it states hold."""

import json
from pathlib import Path

import pytest

from recontext_data.judges.code import IDENTITIES
from scripts import check_house, pin_judges

MEASURED = check_house.measure()


@pytest.mark.parametrize("name", check_house.LIMITS)
def test_the_house_keeps_its_limits(name: str) -> None:
    places = {"upward imports": check_house.upward, "repeated public class names": check_house.repeated_classes}
    shown = places[name](check_house.modules()) if name in places else ""
    assert MEASURED[name] <= check_house.LIMITS[name], shown


def test_an_upward_import_and_a_knot_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "recontext_data"
    for module, text in {
        "core/a.py": "from recontext_data.viewer import b\n",
        "viewer/b.py": "import recontext_data.core.a\n",
    }.items():
        (package / module).parent.mkdir(parents=True, exist_ok=True)
        (package / module).write_text(text)
    monkeypatch.setattr(check_house, "PACKAGE", package)
    assert check_house.upward(check_house.modules()) == ["core.a imports viewer.b"]
    assert check_house.knots(check_house.modules()) == ["core", "viewer"]


def test_the_pinned_judges_are_those_of_the_source() -> None:
    # An edit of a judge asks for a decision: `python scripts/pin_judges.py`, with the judge's kind if a verdict changed.
    recorded = {row["source"] for row in json.loads(IDENTITIES.read_text(encoding="utf-8")).values()}
    assert recorded == set(pin_judges.digests().values())
