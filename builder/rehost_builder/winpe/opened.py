"""The media that the user named, opened: files, boot image and report, as long as they are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rehost_builder.content import Content, open_content
from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.inspect import MediaReport, inspect_media
from rehost_builder.winpe.media import Media, find_media
from rehost_builder.winpe.sources import Source, open_source
from rehost_payload.formats.errors import FormatError


@contextmanager
def opened_media(
    places: tuple[Path, ...], work: Path, *, prompt: bool = False, progress: Progress | None = None
) -> Iterator[tuple[Media, Wim, MediaReport]]:
    """The media of these places, the WIM file of their boot image and what is in them; open as long as the context."""
    step = progress.step("media") if progress is not None else ExitStack()
    with ExitStack() as files:
        with step:
            sources: list[Source] = []
            for number, place in enumerate(places):
                folder = work / f"media{number}"
                folder.mkdir()
                sources.append(open_source(place, folder))
            opened: list[Wim] = []

            def open_wim(content: Content) -> Wim:
                opened.append(Wim(files.enter_context(open_content(content))))
                return opened[-1]

            media = find_media(sources, open_wim, work, prompt=prompt)
            with damage(str(places[0])):
                report = inspect_media(media, opened[-1])
        yield media, opened[-1], report


@contextmanager
def damage(place: str) -> Iterator[None]:
    try:
        yield
    except FormatError as e:
        raise BuildError(
            f"{place}: the boot image is damaged: {e}", "check its hash, download or copy it again"
        ) from None
