"""No program earns a pass that it does not deserve, and none leaves anything behind: as root and as an ordinary user.

The programs are in tests/forging; `drive.py` runs them in a process of its own. As root it becomes an ordinary user for
half of the tests; as an ordinary user there is only that half.
"""

import os
import sys
from typing import Any

import pytest

from tests.forging import PROGRAMS
from tests.sandboxes import check, finish, open_folder, readable_copy, readable_python, start

USERS = ("root", "ordinary")


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, dict[str, Any]]]:
    """By user, then by program. Both users run at the same time."""
    drive = ["-B", "-m", "tests.forging.drive", "bubblewrap"]
    with open_folder() as folder:
        copy = readable_copy(folder)
        processes = {"ordinary": start(copy, [readable_python(), *drive], "ordinary")}
        if os.getuid() == 0:
            processes["root"] = start(copy, [sys.executable, *drive], "root")
        return {user: finish(process) for user, process in processes.items()}


def report(reports: dict[str, dict[str, dict[str, Any]]], user: str, name: str) -> dict[str, Any]:
    if user not in reports:
        pytest.skip("the tests do not run as root, so there is only the ordinary user")
    return reports[user][name]


def test_there_are_enough_programs_and_each_says_why() -> None:
    assert len(PROGRAMS) >= 60
    for name, (why, source) in PROGRAMS.items():
        assert len(why) >= 10 and source, name
        compile(source, name, "exec")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_earns_nothing_and_leaves_nothing(reports: dict[str, dict[str, dict[str, Any]]], name: str, user: str) -> None:
    check(report(reports, user, name))


@pytest.mark.parametrize("user", USERS)
def test_the_user_is_the_one_that_is_meant_and_closing_ends_everything(
    reports: dict[str, dict[str, dict[str, Any]]], user: str
) -> None:
    end = report(reports, user, "end")
    assert (end["uid"] == 0) == (user == "root")
    assert end["num_processes_after_close"] == 0 and end["host_is_the_same"]


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("loop", {"timeout"}),
        ("stop_itself", {"ok", "timeout"}),
        ("large_channel", {"output_limit"}),
        ("every_descriptor", {"garbled"}),
        ("collisions", {"garbled", "timeout"}),  # a busy machine ends it before it has written
        ("exit_at_import", {"source_error"}),
        ("segfault", {"crash"}),
        ("system_v_memory", {"ok"}),
        ("always_equal", {"ok"}),
    ],
)
def test_the_status_says_what_happened(reports: dict[str, dict[str, dict[str, Any]]], name: str, statuses: set[str]) -> None:
    for user in reports:
        assert reports[user][name]["status"] in statuses, reports[user][name]
