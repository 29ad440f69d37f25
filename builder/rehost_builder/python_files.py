"""Our payload and the pure Python packages it uses, as they go onto a medium.

click, Jinja2 and MarkupSafe are copied from the builder's own environment: pyproject.toml pins their
versions, so what runs on the server is what the tests ran against, and no second download is needed. The files are
checked against the hashes in the installed wheel's RECORD (PEP 376, PEP 427), and what they come to together against
the pinned wheel for Windows (`WHEELS`): the same sources are in the wheels of all systems.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import rehost_payload
from rehost_builder.errors import BuildError

PACKAGES = ("click", "jinja2", "markupsafe")
TARGET = "usr/lib/python3/dist-packages"


@dataclass(frozen=True)
class Wheel:
    """``content`` is the digest of what is taken out of it, as `PythonPackage.sha256`."""

    file: str
    sha256: str
    content: str


WHEELS = {
    "click": Wheel(
        "click-8.5.1-py3-none-any.whl",
        "8bb5376d2006950386f8c6427613334a2acadc5f559cb80e638d00b4df957e37",
        "e90c95f58a02a8133ec33bde636431e19b181ec3b477b433b6bf5985ab792ecc",
    ),
    "jinja2": Wheel(
        "jinja2-3.1.6-py3-none-any.whl",
        "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67",
        "09e8025a146384bd056dbc2f684e6a2aef5ed59cd89a538ac0606b24870291c7",
    ),
    "markupsafe": Wheel(
        "markupsafe-3.0.4-cp312-cp312-win_amd64.whl",
        "11935df9bf455ed0c04eb87bcd720f02b1fe5e02128a9430f23aed6f93336fc7",
        "ffef84587ba1d38b6ad2ab856a4c94badf688b5d5862c0b89a152ed4945bf42a",
    ),
}
"""Those for CPython 3.12 on Windows, by their hashes on PyPI. A test takes them from there and compares."""


@dataclass(frozen=True)
class PythonPackage:
    name: str
    version: str
    sha256: str
    """Over the sorted "path NUL sha256" lines of the files taken."""
    wheel: str = ""
    """The pinned wheel that has these very files; empty where the environment has others."""


def package_files(name: str) -> tuple[PythonPackage, dict[str, bytes]]:
    """A distribution's Python files, data and licences by their path; compiled extensions stay behind.

    Raises BuildError when the distribution is absent or a file is not the one that was installed.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise BuildError(f"the Python package {name} is missing", "pip install the builder again") from None
    files: dict[str, bytes] = {}
    for file in distribution.files or []:
        path = PurePosixPath(file)
        if not taken(path):
            continue
        data = Path(str(distribution.locate_file(file))).read_bytes()
        if file.hash is not None:
            digest = hashlib.new(file.hash.mode, data).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                raise BuildError(
                    f"{file} of {name} was changed after it was installed", "pip install it again"
                )
        files[str(path)] = plain(data)
    if not files:
        raise BuildError(f"the Python package {name} does not list its files", "pip install it again")
    content, wheel = files_digest(files), WHEELS.get(name)
    pinned = wheel.file if wheel is not None and wheel.content == content else ""
    return PythonPackage(name, distribution.version, content, pinned), files


def taken(path: PurePosixPath) -> bool:
    """Sources, data, licences and the metadata of a distribution; nothing compiled: MarkupSafe has Python for its C."""
    if ".." in path.parts or path.suffix in (".pyc", ".so", ".pyd", ".pyi", ".c"):
        return False
    info = path.parts[0].endswith((".dist-info", ".egg-info"))
    return not info or any(w in str(path).lower() for w in ("license", "licence", "copying", "metadata"))


def plain(data: bytes) -> bytes:
    """With line feeds alone: wheels that were made on Windows have the same sources with CR LF."""
    return data if b"\0" in data else data.replace(b"\r\n", b"\n")


def payload_files(version: str) -> tuple[PythonPackage, dict[str, bytes]]:
    """rehost_payload as it is imported here: sources and data, no byte code."""
    source = Path(rehost_payload.__file__).resolve().parent
    files: dict[str, bytes] = {}
    for path in sorted(source.rglob("*")):
        if (
            path.is_dir()
            or "__pycache__" in path.parts
            or path.suffix in (".pyc", ".pyo")
            or path.name[0] == "."
        ):
            continue
        files[f"rehost_payload/{path.relative_to(source).as_posix()}"] = path.read_bytes()
    return PythonPackage("rehost_payload", version, files_digest(files)), files


def our_licence() -> bytes | None:
    for file in importlib.metadata.files("rehost") or []:
        if PurePosixPath(file).name == "LICENSE":
            return Path(str(file.locate())).read_bytes()
    return None


def install_package(name: str, root: Path) -> PythonPackage:
    """Puts a distribution into the root of the Debian base; see `package_files`."""
    package, files = package_files(name)
    for path, data in files.items():
        _write(root / TARGET / path, data)
    return package


def install_payload(root: Path, version: str) -> PythonPackage:
    """Puts the payload and our licence into the root of the Debian base."""
    package, files = payload_files(version)
    for path, data in files.items():
        _write(root / TARGET / path, data)
    licence = our_licence()
    if licence is not None:
        _write(root / "usr/share/doc/rehost/copyright", licence)
    return package


def files_digest(files: dict[str, bytes]) -> str:
    return tree_digest({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


def tree_digest(digests: dict[str, str]) -> str:
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)
