"""What is there: the survey. `survey_machine` and `survey_images` are its two doors, `model` is what they
give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rehost_payload.survey.model import Controller, Survey
    from rehost_payload.system.protocol import Progress, System

__all__ = ["survey_images", "survey_machine"]

# imported at the call, because system.protocol needs survey.model, and so this package, first


def survey_machine(system: System, progress: Progress | None = None) -> Survey:
    """Describes the machine as it stands; reads only. ``progress`` is called with (what, done, total)."""
    from rehost_payload.survey.run import survey_machine as run

    return run(system, progress)


def survey_images(
    images: Sequence[Path], progress: Progress | None = None, controllers: Sequence[Controller] = ()
) -> Survey:
    """Describes disk images (raw, qcow2, VHDX, VHD, VMDK) on a workstation, as if behind ``controllers``.

    Raises SystemError_ where none of them can be opened.
    """
    from rehost_payload.survey.run import survey_images as run

    return run(images, progress, controllers)
