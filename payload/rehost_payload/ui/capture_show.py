"""A host, its machines and what is to be said of them as lines of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rehost_payload.capture.model import CapturePlan, CaptureUnit, HostSettings, MachineSummary
from rehost_payload.repair.model import Finding
from rehost_payload.ui import describe
from rehost_payload.ui.describe import Names
from rehost_payload.ui.show import Page, grouped, part, title
from rehost_payload.ui.texts import Texts, ascii_fold

_EVIDENCE = 6  # lines of one finding; --json has all
_WIDTHS = (25, 4, 6, 13, 13, 6, 10)  # the last is aligned to the right


@dataclass(frozen=True)
class CapturePage:
    """Lays a capture's plan out in ``width`` columns. Nothing here writes anything. ``ascii`` is that of `Page`."""

    texts: Texts
    width: int = 79
    ascii: bool = False

    @property
    def _page(self) -> Page:
        return Page(Names(None, self.texts), self.width, self.ascii)

    def plan(self, plan: CapturePlan, settings: HostSettings | None = None) -> list[str]:
        """Host, table of machines, what else is captured, findings."""
        out = self.host(plan, settings)
        out += self.machines(plan.units)
        out += self.findings([*plan.findings, *(f for u in plan.units for f in u.findings)])
        return out

    def host(self, plan: CapturePlan, settings: HostSettings | None) -> list[str]:
        t, page = self.texts, self._page
        out = page.heading(f"{t('machines.host')}: {plan.host or '?'}")
        if settings is None:
            return out
        out += page.wrap(f"{settings.product}, {t('survey.build', build=settings.build or '?')}", 2)
        for switch in settings.switches:
            kind = t(f"machines.switch-{switch.kind}")
            uplinks = ", ".join(u.name or u.description or u.guid for u in switch.uplinks)
            line = f"{switch.name} ({kind}{', ' + switch.team.upper() if switch.team else ''})"
            out += page.labelled(t("machines.switch"), f"{line}{': ' + uplinks if uplinks else ''}")
        for label, text in (
            ("machines.roles", ", ".join(settings.roles)),
            ("machines.letters", " ".join(entry.letter for entry in settings.letters)),
        ):
            if text:
                out += page.labelled(t(label), text)
        return out

    def machines(self, units: Sequence[CaptureUnit]) -> list[str]:
        """One line for each machine and one with the place of its configuration; the other units below."""
        t = self.texts
        out = self._page.heading(t("machines.title"))
        machines = [u for u in units if u.kind == "machine"]
        if machines:
            names = ("name", "generation", "version", "state", "checkpoints", "disks", "size")
            out.append(self._row([t(f"machines.{name}") for name in names]))
            for unit in machines:
                out += self._unit(unit)
        else:
            out += self._page.wrap(t("machines.none"))
        for unit in units:
            if unit.kind != "machine":
                key = "machines.host-files" if unit.kind == "host" else "machines.orphans"
                out += self._page.wrap(t(key, count=len(unit.files), size=describe.size(unit.size)), 0, 2)
        out += self._page.wrap(t("machines.total", size=describe.size(sum(u.size for u in units))))
        return out

    def _unit(self, unit: CaptureUnit) -> Iterator[str]:
        machine = unit.machine
        assert machine is not None
        generation = "?" if machine.generation is None else str(machine.generation)
        yield self._row(
            [
                unit.name,
                generation,
                machine.version,
                self._state(machine),
                str(len(machine.checkpoints)),
                str(sum(not d.pass_through for d in machine.disks)),
                describe.size(unit.size),
            ]
        )
        place = machine.configuration
        if machine.registered is False:
            place += f" ({self.texts('machines.not-registered')})"
        yield from self._page.wrap(place, 2, 2)
        for path in unit.missing:
            yield from self._page.labelled(self.texts("machines.missing"), path, 4)

    def _state(self, machine: MachineSummary) -> str:
        return self.texts("machines.saved" if machine.saved_state else "machines.off")

    def findings(self, findings: Iterable[Finding]) -> list[str]:
        """The worst first; of one kind each with its title, every different explanation once, the remedy once."""
        t, page = self.texts, self._page
        groups = grouped(findings)
        out = page.heading(t("show.findings"))
        if not groups:
            return [*out, *page.wrap(t("machines.no-findings"))]
        for group in groups:
            out.append("")
            for finding in group:
                out += page.wrap(
                    f"{t(f'severity.{finding.severity.value}')}  {title(finding, page.names)}", 0, 4
                )
            for text in dict.fromkeys(part(f, "explain", page.names) or "" for f in group):
                out += page.labelled(t("show.cause"), text)
            out += page.labelled(t("show.manual"), part(group[0], "manual", page.names) or "")
            lines = [line for f in group for line in f.evidence]
            for line in lines[:_EVIDENCE]:
                out += page.labelled(t("show.evidence"), line)
            if len(lines) > _EVIDENCE:
                out += page.wrap(t("show.more", count=len(lines) - _EVIDENCE), 4)
        return out

    def _row(self, cells: Sequence[str]) -> str:
        """One line of the table; what is too long is cut, with a dot in the place of its last letter."""
        parts = []
        for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True)):
            cell = ascii_fold(cell) if self.ascii else cell
            text = cell if len(cell) < width else cell[: width - 2] + "."
            parts.append(text.rjust(width) if index == len(cells) - 1 else text.ljust(width))
        return "".join(parts).rstrip()
