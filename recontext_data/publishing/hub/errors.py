"""What a Hub refuses, in one line of ours that says what to do. No line carries a header, a signed address, or a key."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recontext_data.core.errors import BuildStopped, InputError, RecipeError, RecontextError, SetupError
from recontext_data.publishing.hub.secrets import KnownSecrets
from recontext_data.reports.text import one_line

CONTINUE = "what was sent is kept; the same command continues"


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """What the lines are about."""

    where: str
    """`repo=ann/x`"""
    endpoint: str
    secrets: KnownSecrets

    def card(self, said: str) -> InputError:
        """The header of a card is refused."""
        return InputError(
            f"{self.where}: the Hub refuses the card's header: {_clean(said, self)}; "
            "if it is the licence, give one that it knows, such as licence=cc-by-4.0"
        )


@contextmanager
def refusals(about: Refusals) -> Iterator[None]:
    """Turns every error of the Hub's client into one of ours.

    Raises:
        SetupError: no token, or one that may not do this.
        RecipeError: no such repository.
        InputError: a card or a file that the Hub refuses.
        BuildStopped: the Hub is busy, fails or cannot be reached; or somebody else made a commit meanwhile.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except RecontextError:
        raise
    except HfHubHTTPError as error:
        raise _of_status(error, about) from None
    except (HTTPError, LocalEntryNotFoundError) as error:
        raise _unreachable(error, about) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise _other(error, about) from None


def _of_status(error: Any, about: Refusals) -> RecontextError:
    status, said = error.response.status_code, _said(error, about)
    if status == 401:
        return SetupError(
            f"{about.where}: the Hub does not take the token ({said}); make one with write permission, "
            "set HF_TOKEN or run `hf auth login`"
        )
    if status == 403:
        return SetupError(
            f"{about.where}: the token may not do this ({said}); use one with write permission there, or another repository"
        )
    if status == 404:
        return RecipeError(f"{about.where}: there is no such repository, or the token may not see it ({said}); check its name")
    if status in (409, 412):
        return BuildStopped(f"{about.where}: somebody else changed it meanwhile ({said}); run the same command again")
    if status == 429:
        return BuildStopped(f"{about.where}: the Hub's rate limit is reached; try again {_when(error)}; {CONTINUE}")
    if status in (400, 413, 422):
        return InputError(f"{about.where}: the Hub refuses what was sent: {said}")
    return BuildStopped(f"{about.where}: the Hub failed with {status} ({said}); {CONTINUE}")


def _other(error: BaseException, about: Refusals) -> RecontextError:
    """An upload that failed carries its cause; a card that is refused is a ValueError."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError) and "Invalid metadata" not in str(error):
        return _of_status(cause, about)
    if isinstance(cause, HTTPError):
        return _unreachable(cause, about)
    words = _clean(str(error), about)
    if "Invalid metadata" in words:
        return about.card(words.partition("README.md.")[2].strip(" -"))
    return BuildStopped(f"{about.where}: the upload failed ({type(error).__name__}: {words}); {CONTINUE}")


def _unreachable(error: BaseException, about: Refusals) -> RecontextError:
    return BuildStopped(
        f"{about.where}: the Hub at {about.endpoint} cannot be reached or broke off ({type(error).__name__}); {CONTINUE}"
    )


def _said(error: Any, about: Refusals) -> str:
    """The server's own words, else the status."""
    said = error.response.headers.get("X-Error-Message") or getattr(error, "server_message", None)
    return _clean(said or f"status {error.response.status_code}", about)


def _when(error: Any) -> str:
    after = error.response.headers.get("Retry-After", "")
    return f"in {after} s" if re.fullmatch(r"\d{1,6}", after) else "later"


def _clean(text: str, about: Refusals) -> str:
    """One line without keys and without the queries of addresses, which hold signatures."""
    return one_line(re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", about.secrets.hide(text)), limit=300)


def first_words(error: BaseException) -> str:
    """The kind of an error and its first line, without the queries of addresses."""
    words = re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", str(error).strip().partition("\n")[0])
    return one_line(f"{type(error).__name__}: {words}", limit=200)
