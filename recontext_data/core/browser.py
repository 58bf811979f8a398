"""Opens a page in the user's browser, where there is a screen to see it on."""

import os
import sys


def show(address: str) -> bool:
    """Opens an address; False where nobody could see it, as over ssh, in CI and in a container.

    Without a screen `webbrowser` would take a browser for terminals if one is installed, and that would hold the terminal.
    """
    has_screen = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not has_screen:
        return False
    import webbrowser

    return webbrowser.open(address)
