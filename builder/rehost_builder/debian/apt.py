"""A private apt: resolves and downloads packages of a Debian release as any user, on Debian or Ubuntu.

Nothing of the host's apt state is read or changed. What is taken over from the host: its mirrors when it is
a Debian itself, its ``Acquire::`` settings (proxies, certificates, time-outs), and the archive's keys.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.errors import BuildError
from rehost_builder.run import last_words, require, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY = "http://deb.debian.org/debian-security"
_ARCHITECTURE = "amd64"

Stanza = Mapping[str, str]


@dataclass(frozen=True)
class Candidate:
    """One package that the resolver wants: the file's name in apt's cache, and its record in the archive."""

    name: str
    version: str
    architecture: str
    file: str
    size: int
    sha256: str
    source: str


class Apt:
    def __init__(self, root: Path, sources: str, acquire: Sequence[str] = ()) -> None:
        """``root``: a folder of ours, kept between builds. ``sources``: text of a deb822 .sources file."""
        self._root = root
        self.archives = root / "archives"
        for folder in ("state/lists/partial", "archives/partial", "etc/preferences.d", "etc/trusted.gpg.d"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "etc/rehost.sources").write_text(sources)
        # The pretended packages must not be "upgraded" to the archive's package of the same version.
        (root / "etc/preferences").write_text("Package: *\nPin: release a=now\nPin-Priority: 1001\n")
        self._status = root / "status"
        self._status.write_text("")
        settings = [
            f'Dir "{root}";',
            f'Dir::State "{root}/state";',
            f'Dir::State::status "{self._status}";',
            f'Dir::Etc "{root}/etc";',
            f'Dir::Etc::sourcelist "{root}/etc/rehost.sources";',
            'Dir::Etc::sourceparts "-";',
            f'Dir::Cache "{root}";',
            f'Dir::Cache::archives "{self.archives}";',
            f'APT::Architecture "{_ARCHITECTURE}";',
            f'APT::Architectures {{ "{_ARCHITECTURE}"; }};',
            # As root apt would drop to a user who may not enter a private folder.
            'APT::Sandbox::User "root";',
            'APT::Install-Recommends "false";',
            'Acquire::Languages "none";',
            'Acquire::Retries "3";',
            *acquire,
        ]
        (root / "apt.conf").write_text("\n".join(settings) + "\n")
        self._env = {"APT_CONFIG": str(root / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}

    def update(self) -> None:
        """Fetches the package lists. Raises BuildError (no network, wrong keys, wrong clock, full disk)."""
        with self._hints(
            "check the network, the proxy (apt-config dump Acquire) and the clock; "
            "with packages from an earlier build, --offline builds without a network"
        ):
            run(
                [require("apt-get", "apt"), "update", "-q", "--error-on=any"],
                env=self._env,
                what="the package lists cannot be fetched",
            )

    def records(self, names: Iterable[str]) -> Sequence[Stanza]:
        """The archive's records of these packages; those the release does not know are left out."""
        argv = [require("apt-cache", "apt"), "show", "--no-all-versions", *names]
        done = subprocess.run(
            argv,
            env=dict(os.environ, LC_ALL="C", **self._env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return parse_stanzas(done.stdout.decode("utf-8", "replace"))

    def kernel(self, meta: str) -> str:
        """The name of the kernel image that the package ``meta`` stands for today."""
        for record in self.records([meta]):
            match = re.search(r"\b(linux-image-[0-9][^\s,(]*)", record.get("Depends", ""))
            if match:
                return match.group(1)
        raise BuildError(f"the package lists know no {meta}", "is the --suite right? try without --offline")

    def resolve(self, wanted: Sequence[str], pretended: Sequence[str]) -> list[Candidate]:
        """Everything to install for ``wanted`` when ``pretended`` are there already, sorted by name."""
        self._status.write_text(dpkg_status(self.records(pretended)))
        empty = self._root / "empty"
        (empty / "partial").mkdir(parents=True, exist_ok=True)
        listing = run(
            # print-uris leaves out what is in the cache: ask with an empty one
            [
                require("apt-get", "apt"), "install", "-q", "-y", "--print-uris",
                "-o", f"Dir::Cache::archives={empty}", *wanted,
            ],
            env=self._env,
            what="apt finds no way to install the recovery system's packages",
            hint="another --suite or other --sources may have them",
        )  # fmt: skip
        files = parse_uris(listing)
        records = {(r["Package"], r["Version"]): r for r in self.records(name for name, _, _ in files)}
        result = []
        for name, version, file in files:
            record = records.get((name, version))
            if record is None or "SHA256" not in record:
                raise BuildError(f"the package lists have no checksum for {name} {version}")
            result.append(
                Candidate(
                    name,
                    version,
                    record.get("Architecture", _ARCHITECTURE),
                    file,
                    int(record["Size"]),
                    record["SHA256"],
                    source_of(record),
                )
            )
        return sorted(result, key=lambda c: c.name)

    def download_exact(self, packages: Sequence[Candidate]) -> None:
        """Downloads these very versions into ``archives``. Raises BuildError if the mirror has them no more."""
        run(
            [require("apt-get", "apt"), "download", "-q", *(f"{p.name}={p.version}" for p in packages)],
            env=self._env,
            cwd=self.archives,
            what="the locked packages cannot be downloaded",
            hint="replaced packages leave the mirrors: use the cache they were kept in, or build without --lock",
        )

    def download(self, wanted: Sequence[str], progress: Callable[[float], None]) -> None:
        """Downloads what `resolve` named into ``archives``; apt checks the hashes. ``progress`` gets percent."""
        read_end, write_end = os.pipe()
        with (self._root / "download.log").open("w+b") as log:
            process = subprocess.Popen(
                [
                    require("apt-get", "apt"), "install", "-q", "-y", "--download-only",
                    "-o", f"APT::Status-Fd={write_end}", *wanted,
                ],
                env=dict(os.environ, LC_ALL="C", **self._env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[write_end],
            )  # fmt: skip
            os.close(write_end)
            try:
                with os.fdopen(read_end, encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        match = re.match(r"dlstatus:\d+:([\d.]+):", line)
                        if match:
                            progress(float(match.group(1)))
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            if code:
                log.seek(0)
                with self._hints("check the network; what has arrived is kept, so run it again"):
                    raise BuildError(f"the packages cannot be downloaded: {last_words(log.read(), code)}")

    @contextmanager
    def _hints(self, otherwise: str) -> Iterator[None]:
        """Gives apt's failures the next step: a full disk is told from a network that does not answer."""
        try:
            yield
        except BuildError as e:
            full = "No space left" in e.message or "enough free space" in e.message
            hint = f"free some space in {self._root}, or use --cache" if full else otherwise
            raise BuildError(e.message, hint) from None


def parse_stanzas(text: str) -> list[dict[str, str]]:
    """Splits "Field: value" paragraphs (Debian control files, deb822); continuation lines are joined."""
    stanzas: list[dict[str, str]] = []
    current: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if current:
                stanzas.append(current)
            current, field = {}, ""
        elif line.startswith("#"):
            continue
        elif line[0] in " \t":
            if field:
                current[field] += "\n" + line.strip()
        else:
            field, _, value = line.partition(":")
            current[field] = value.strip()
    return stanzas


def dpkg_status(records: Iterable[Stanza]) -> str:
    """A dpkg status file in which the packages of ``records`` are installed and depend on nothing."""
    out = []
    for record in records:
        lines = [f"Package: {record['Package']}", "Status: install ok installed"]
        lines += [
            f"{field}: {record[field]}"
            for field in ("Version", "Architecture", "Multi-Arch", "Provides")
            if field in record
        ]
        out.append("\n".join([*lines, "Maintainer: nobody", "Description: said to be installed", ""]))
    return "\n".join(out)


def parse_uris(listing: str) -> list[tuple[str, str, str]]:
    """(name, version, file) of each line of ``apt-get --print-uris``: 'uri' file size [hash]."""
    result = []
    for match in re.finditer(r"^'[^']+' (\S+\.deb) \d+", listing, re.MULTILINE):
        file = match.group(1)
        name, version, _ = file.removesuffix(".deb").split("_")
        result.append((name, version.replace("%3a", ":"), file))
    return result


def source_of(record: Stanza) -> str:
    """ "name version" of the source package: what a source offer must name."""
    source = record.get("Source", record["Package"])
    match = re.fullmatch(r"(\S+) \((\S+)\)", source)
    return f"{match.group(1)} {match.group(2)}" if match else f"{source} {record['Version']}"


def carried_over(apt_config_dump: str) -> list[str]:
    """The host's ``Acquire::`` settings that have to do with how to reach the network."""
    wanted = re.compile(r"^Acquire::(https?|ftp|tor|Check-|Force|Proxy|Retries|Queue|socks)", re.IGNORECASE)
    return [
        line
        for line in apt_config_dump.splitlines()
        if wanted.match(line) and not line.rstrip().endswith('"";')
    ]


def host_acquire_settings() -> list[str]:
    argv = [require("apt-config", "apt"), "dump"]
    return carried_over(run(argv, what="the host's apt settings cannot be read"))


def host_sources(suite: str, etc: Path = Path("/etc")) -> str:
    """A .sources text for ``suite``: the host's own mirrors if it is a Debian, else the public ones."""
    release = _os_release(etc / "os-release")
    entries: list[tuple[str, str]] = []
    if release.get("ID") == "debian" and release.get("VERSION_CODENAME"):
        entries = _host_entries(etc / "apt", release["VERSION_CODENAME"], suite)
    if not any(s == suite for _, s in entries):
        entries = [
            (DEFAULT_MIRROR, suite),
            (DEFAULT_MIRROR, f"{suite}-updates"),
            (DEFAULT_SECURITY, f"{suite}-security"),
        ]
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {s}\nComponents: main\nArchitectures: {_ARCHITECTURE}\n"
        f"Signed-By: {KEYRING}\n"
        for uri, s in dict.fromkeys(entries)
    )


def _os_release(path: Path) -> dict[str, str]:
    values = {}
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition("=")
            values[key.strip()] = value.strip().strip("\"'")
    return values


def _host_entries(etc_apt: Path, codename: str, suite: str) -> list[tuple[str, str]]:
    """(URI, suite to ask for) of the host's entries for its own release and that release's updates."""
    found: list[tuple[str, str]] = []
    lists = sorted((etc_apt / "sources.list.d").glob("*")) if (etc_apt / "sources.list.d").is_dir() else []
    for path in [etc_apt / "sources.list", *lists]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            for stanza in parse_stanzas(text):
                if "deb" in stanza.get("Types", "").split() and stanza.get("Enabled", "yes").lower() != "no":
                    for uri in stanza.get("URIs", "").split():
                        found += [
                            (uri, s)
                            for s in stanza.get("Suites", "").split()
                            if "main" in stanza.get("Components", "").split()
                        ]
        elif path.suffix == ".list":
            for line in text.splitlines():
                match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
                if match and "main" in match.group(3).split():
                    found.append((match.group(1), match.group(2)))
    own = re.compile(rf"(?:{re.escape(codename)}|stable)((?:-updates|-security)?|/updates)")
    result = []
    for uri, name in found:
        match = own.fullmatch(name)
        if match and uri.startswith(("http:", "https:", "file:", "mirror", "tor+")):
            result.append((uri, suite + match.group(1)))
    return result
