"""Where the texts of the medium are, and how they are filled in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def iso_folder() -> Path:
    """The folder ``iso``: inside the package when installed from a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "iso", here.parents[1] / "iso"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError("the folder iso with the texts of the medium is missing")


def render(name: str, **values: object) -> str:
    """Fills in the template ``name`` (relative to ``iso``). An unknown variable is an error, not an empty text."""
    environment = Environment(
        loader=FileSystemLoader(iso_folder()),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.get_template(name).render(**values)
