"""What `rehost drivers check` says: a table for each package, which of several packages Windows would take, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rehost_payload.drivers.catalogue import Controller, find_controller
from rehost_payload.drivers.check import Kind, Level, PackageReport
from rehost_payload.formats.inf_rank import IdMatch, PciDevice, parse_pci, rank
from rehost_payload.formats.pkcs7 import Signature

_WORDS = {
    Level.PASS: "yes",
    Level.WARN: "yes, but",
    Level.UNKNOWN: "not known",
    Level.FAIL: "no",
}
_COLUMN = 13
_FEW = 8  # controllers that are listed without -v
_SOME = 20  # reasons, likewise


def as_text(
    reports: Sequence[PackageReport], catalogue: tuple[Controller, ...], verbose: bool
) -> Iterator[str]:
    """A table for each package; what passed is listed with ``verbose`` only."""
    for report in reports:
        yield f"{report.path}: {report.kind.value}"
        yield from _table(report, catalogue, verbose)
        yield ""
    yield from _competitors(reports)
    counts = {kind: sum(r.kind is kind for r in reports) for kind in Kind}
    parts = [f"{counts[Kind.USABLE]} usable", f"{counts[Kind.UNUSABLE]} not"]
    if counts[Kind.UNCLEAR]:
        parts.append(f"{counts[Kind.UNCLEAR]} not known")
    if counts[Kind.OTHER]:
        parts.append(f"{counts[Kind.OTHER]} without a boot driver")
    yield f"{len(reports)} {'package' if len(reports) == 1 else 'packages'}: {', '.join(parts)}"


def _table(report: PackageReport, catalogue: tuple[Controller, ...], verbose: bool) -> Iterator[str]:
    if report.class_name or report.provider:
        services = ", ".join(report.services) or "no boot service"
        yield _line("driver", f"{services} {report.driver.text}, {report.class_name}, {report.provider}")
    if report.other:
        yield _line("", report.other)
    if report.signature is not None:
        usage = f" ({report.signature.usage_text})" if report.signature.usage_text else ""
        yield _line("signer", f"{report.signature.signer}{usage}")
        if report.signature.chain:
            yield _line("", _signed_on(report.signature))
    if report.systems:
        yield _line("tested for", ", ".join(dict.fromkeys(r.name for r in report.systems)))
    controllers = list(_controllers(report.ids, catalogue))
    shown = controllers if verbose else controllers[:_FEW]
    for i, text in enumerate(shown):
        yield _line("" if i else "controllers", text)
    if len(shown) < len(controllers):
        yield _line("", f"and {len(controllers) - len(shown)} more (-v)")
    said: set[str] = set()
    groups: dict[tuple[Level, tuple[str, ...]], list[str]] = {}
    for verdict in report.verdicts:
        groups.setdefault((verdict.level, verdict.reasons), []).append(_year(verdict.target.name))
        said.update(verdict.reasons)
    for i, ((level, reasons), years) in enumerate(groups.items()):
        yield _line("" if i else "Windows", f"Server {', '.join(years)}: {_WORDS[level]}")
        listed = reasons if verbose else reasons[:_SOME]
        yield from (_line("", f"  {reason}") for reason in listed)
        if len(listed) < len(reasons):
            yield _line("", f"  and {len(reasons) - len(listed)} more (-v)")
    lines = list(_statements(report, said, verbose))
    shown = lines if verbose else lines[:_SOME]
    yield from shown
    if len(shown) < len(lines):
        yield _line("", f"and {len(lines) - len(shown)} more (-v)")


def _statements(report: PackageReport, said: set[str], verbose: bool) -> Iterator[str]:
    """What was checked and is not among the verdicts' reasons; what passed with ``verbose`` only."""
    offered = frozenset(t.build for t in report.offered)
    for check in report.checks:
        concerned = check.builds & offered
        if (
            check.sentence in said
            or (check.level is Level.PASS and not verbose)
            or (offered and not concerned)
        ):
            continue
        some = [_year(t.name) for t in report.offered if t.build in concerned]
        only = f" ({', '.join(some)})" if concerned < offered else ""
        yield f"  {check.level.value.upper():<{_COLUMN - 1}} {check.sentence}{only}"


def _signed_on(signature: Signature) -> str:
    stamp = signature.timestamp
    when = (
        f"signed {stamp.day} (timestamp), "
        if stamp is not None and stamp.problem is None
        else "no timestamp, "
    )
    return f"{when}certificate valid {signature.issued} to {signature.expires}"


def _line(name: str, text: str) -> str:
    return f"  {name:<{_COLUMN}}{text}".rstrip()


def _year(name: str) -> str:
    return name.removeprefix("Windows Server ").partition(" (")[0]


def _controllers(ids: Sequence[str], catalogue: tuple[Controller, ...]) -> Iterator[str]:
    """The device IDs by chip, with what the catalogue calls it."""
    groups: dict[str, list[PciDevice | None]] = {}
    for one in ids:
        device = _device(one)
        key = f"{device.vendor}:{device.device}" if device is not None else one
        groups.setdefault(key, []).append(device)
    for key, devices in groups.items():
        names: dict[str, None] = {}
        for device in devices:
            controller = find_controller(catalogue, device) if device is not None else None
            if controller is not None:
                names[f"{controller.vendor}, {controller.family}"] = None
        count = f" ({len(devices)} IDs)" if len(devices) > 1 else ""
        yield f"{key}  {'; '.join(names)}{count}".rstrip()


def _device(text: str) -> PciDevice | None:
    try:
        return parse_pci(text)
    except ValueError:
        return None


def _competitors(reports: Sequence[PackageReport]) -> Iterator[str]:
    """Devices for which several packages are usable, and the order in which Windows would take them."""
    holders: dict[str, list[PackageReport]] = {}
    spelled: dict[str, str] = {}
    for report in reports:
        if report.usable:
            for one in report.ids:
                holders.setdefault(one.lower(), []).append(report)
                spelled.setdefault(one.lower(), one)
    groups: dict[tuple[int, ...], list[str]] = {}
    for key, several in holders.items():
        if len(several) > 1:
            several = sorted(several, key=_preference)
            groups.setdefault(tuple(map(id, several)), []).append(key)
    by_id = {id(r): r for r in reports}
    for members, keys in groups.items():
        count = len(keys) - 1
        more = f" and {count} more {'ID' if count == 1 else 'IDs'} are" if count else " is"
        yield f"{spelled[keys[0]]}{more} in several packages; Windows takes them in this order:"
        before = None
        for report in (by_id[m] for m in members):
            same = ", no better than the one before it" if _preference(report) == before else ""
            yield f"  {report.path} ({report.driver.text}){same}"
            before = _preference(report)
        yield ""


def _preference(report: PackageReport) -> Any:
    return rank(IdMatch(0, ""), report.feature_score, report.driver).sort_key


def as_json(reports: Sequence[PackageReport]) -> list[dict[str, Any]]:
    """The same for programs; the checks complete."""
    return [
        {
            "path": str(r.path),
            "result": r.kind.value,
            "failed": r.failed,
            "why_no_boot_driver": r.other or None,
            "provider": r.provider,
            "class": r.class_name,
            "version": ".".join(map(str, r.driver.version)) if r.driver.version else None,
            "date": r.driver.date.isoformat() if r.driver.date else None,
            "services": r.services,
            "ids": r.ids,
            "files": r.files,
            "signature": _signature(r),
            "tested_for": [
                {"word": s.word, "name": s.name, "server": s.server, "build": s.build, "amd64": s.amd64}
                for s in r.systems
            ],
            "usable": [t.name for t in r.usable],
            "windows": [
                {
                    "build": v.target.build,
                    "name": v.target.name,
                    "level": v.level,
                    "reasons": v.reasons,
                    "secure_boot_refuses": not v.secure_boot,
                }
                for v in r.verdicts
            ],
            "checks": [
                {"file": c.file, "level": c.level, "text": c.text, "builds": sorted(c.builds)}
                for c in r.checks
            ],
        }
        for r in reports
    ]


def _signature(report: PackageReport) -> dict[str, Any] | None:
    s = report.signature
    if s is None:
        return None
    return {
        "signer": s.signer,
        "chain": s.chain,
        "usages": s.usages,
        "digest": s.digest,
        "issued": s.issued.isoformat(),
        "expires": s.expires.isoformat(),
        "timestamp": None
        if s.timestamp is None
        else {
            "day": s.timestamp.day.isoformat(),
            "by": s.timestamp.by,
            "problem": s.timestamp.problem,
        },
        "trust": s.trust,
        "problem": s.problem,
    }
