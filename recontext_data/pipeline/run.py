"""Builds the datasets of a recipe and shows the outcome; `pipeline.build` has the stages."""

from pathlib import Path

from recontext_data.config.loading import Loaded
from recontext_data.pipeline.build import build
from recontext_data.pipeline.preparation import forecast, prepared
from recontext_data.reports.screen import Screen
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import RunFolder, require_writable


def build_datasets(
    loaded: Loaded, *, output: Path = Path(), dry_run: bool = False, command: str = "", screen: Screen | None = None
) -> RunFolder | None:
    """Builds what the recipe declares, or only what is missing of it; a dry run prints what would be sampled.

    `command` is written into the report. Returns the run's folder; None after a dry run.

    Raises:
        RecontextError: of any kind; nothing that was paid for is lost.
    """
    screen = screen or Screen()
    require_writable(output)
    job = prepared(loaded.name, loaded.recipe, output=output, screen=screen)
    if dry_run:
        screen.dry_run(forecast(job, ReplyStore(output / "replies")))
        return None
    folder, manifest = build(job, output=output, screen=screen, command=command)
    screen.closing(manifest, folder=folder.path)
    return folder
