"""What is taken from the host's apt, and how apt's answers are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehost_builder.debian.apt import (
    DEFAULT_MIRROR,
    carried_over,
    dpkg_status,
    host_sources,
    parse_stanzas,
    parse_uris,
    source_of,
)


def _host(etc: Path, release: str, files: dict[str, str]) -> Path:
    (etc / "apt/sources.list.d").mkdir(parents=True)
    (etc / "os-release").write_text(release)
    for name, text in files.items():
        (etc / "apt" / name).write_text(text)
    return etc


DEBIAN_12 = 'ID=debian\nVERSION_CODENAME="bookworm"\n'


def _asked(text: str) -> set[tuple[str, str]]:
    return {(s["URIs"], s["Suites"]) for s in parse_stanzas(text)}


def test_a_debian_host_lends_its_mirrors(tmp_path: Path) -> None:
    etc = _host(
        tmp_path,
        DEBIAN_12,
        {
            "sources.list": "deb [arch=amd64] https://mirror.example/debian bookworm main contrib\n"
            "deb-src https://mirror.example/debian bookworm main\n"
            "# deb https://other.example/debian bookworm main\n",
            "sources.list.d/security.sources": "Types: deb\nURIs: https://mirror.example/security\n"
            "Suites: bookworm-security\nComponents:\n main\n\n"
            "Types: deb\nURIs: https://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n",
            "sources.list.d/vendor.list": "deb https://vendor.example/apt nodistro main\n",
        },
    )
    text = host_sources("trixie", etc)
    assert _asked(text) == {
        ("https://mirror.example/debian", "trixie"),
        ("https://mirror.example/security", "trixie-security"),
    }
    assert all(s["Signed-By"].endswith("debian-archive-keyring.gpg") for s in parse_stanzas(text))


@pytest.mark.parametrize(
    ("release", "files"),
    [
        (
            "ID=ubuntu\nVERSION_CODENAME=noble\n",
            {"sources.list": "deb http://ubuntu.example/ubuntu noble main\n"},
        ),
        (DEBIAN_12, {"sources.list": "deb cdrom:[Debian]/ bookworm main\n"}),
        (DEBIAN_12, {}),
        ("", {}),
    ],
)
def test_other_hosts_get_the_public_mirror(tmp_path: Path, release: str, files: dict[str, str]) -> None:
    asked = _asked(host_sources("trixie", _host(tmp_path, release, files)))
    assert (DEFAULT_MIRROR, "trixie") in asked
    assert {suite for _, suite in asked} == {"trixie", "trixie-updates", "trixie-security"}


def test_how_to_reach_the_network_is_carried_over_and_nothing_else() -> None:
    dump = (
        'APT::Architecture "arm64";\nAcquire "";\nAcquire::http::Proxy "http://proxy:3128";\n'
        'Acquire::https "";\nAcquire::https::CAInfo "/etc/ssl/own.pem";\nAcquire::Check-Date "false";\n'
        'Acquire::Languages:: "de";\nAcquire::IndexTargets::deb::Packages::MetaKey "x";\n'
        'DPkg::Post-Invoke:: "rm x";\n'
    )
    assert carried_over(dump) == [
        'Acquire::http::Proxy "http://proxy:3128";',
        'Acquire::https::CAInfo "/etc/ssl/own.pem";',
        'Acquire::Check-Date "false";',
    ]


def test_pretended_packages_depend_on_nothing_but_provide() -> None:
    records = parse_stanzas(
        "Package: debconf\nVersion: 1.5\nArchitecture: all\nMulti-Arch: foreign\nDepends: perl-base\n"
        "Provides: debconf-2.0\nDescription: long\n text\n\nPackage: sed\nVersion: 4\nArchitecture: amd64\n"
    )
    again = parse_stanzas(dpkg_status(records))
    assert [r["Package"] for r in again] == ["debconf", "sed"]
    assert again[0]["Provides"] == "debconf-2.0"
    assert again[0]["Status"] == "install ok installed"
    assert not any("Depends" in r for r in again)


def test_uris_with_and_without_a_hash() -> None:
    listing = (
        "Reading package lists...\n"
        "'http://m/pool/k/kbd_2.7.1-2_amd64.deb' kbd_2.7.1-2_amd64.deb 345572 MD5Sum:bff4\n"
        "'http://m/pool/z/zlib1g.deb' zlib1g_1%3a1.3.dfsg+really1-1_amd64.deb 88720 \n"
    )
    assert parse_uris(listing) == [
        ("kbd", "2.7.1-2", "kbd_2.7.1-2_amd64.deb"),
        ("zlib1g", "1:1.3.dfsg+really1-1", "zlib1g_1%3a1.3.dfsg+really1-1_amd64.deb"),
    ]


def test_the_source_that_an_offer_must_name() -> None:
    assert source_of({"Package": "libhivex0", "Version": "1-2+b1", "Source": "hivex (1-2)"}) == "hivex 1-2"
    assert source_of({"Package": "kbd", "Version": "2"}) == "kbd 2"
    assert source_of({"Package": "mount", "Version": "2.41", "Source": "util-linux"}) == "util-linux 2.41"
