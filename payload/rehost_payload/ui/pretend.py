"""A controller that is not there: disk images looked at as if they were connected to it (--pci)."""

from __future__ import annotations

import click

from rehost_payload.survey.model import Controller

ADDRESS = "ffff:00:00.0"
"""No machine has such a bus; it names the controller in surveys and reports."""
# what drives these is named by class; without the programming interface Windows would not know them
_INTERFACES = {"0106": "010601", "0108": "010802"}


def pretended(text: str) -> Controller:
    """From "9005:028D:9005:0552" or "PCI\\\\VEN_1022&DEV_7901&CC_010601". click.BadParameter for anything else."""
    from rehost_payload.drivers.catalogue import find_controller, load_catalogue
    from rehost_payload.formats.inf_rank import parse_pci

    try:
        device = parse_pci(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--pci") from error
    code = device.class_code
    if not code:
        known = find_controller(load_catalogue(), device)
        if known is None:
            example = f"PCI\\VEN_{device.vendor}&DEV_{device.device}&CC_010601"
            raise click.BadParameter(
                f"{text} is not in the catalogue, so its class is not known; give that too, for an AHCI controller as "
                f"in {example} (NVMe: CC_010802, RAID: CC_010400)",
                param_hint="--pci",
            )
        code = known.class_codes[0] if len(known.class_codes) == 1 else ""
    return Controller(
        address=ADDRESS,
        vendor=device.vendor.lower(),
        device=device.device.lower(),
        subsystem_vendor=device.subsystem[4:].lower(),
        subsystem_device=device.subsystem[:4].lower(),
        class_code=_INTERFACES.get(code, code).lower(),
        revision=device.revision.lower(),
        driver=None,
    )


def controllers_of(pci: str | None, images: bool) -> tuple[Controller, ...]:
    """What `--pci` asks for. click.UsageError where it does not go with the rest."""
    if pci is None:
        return ()
    if not images:
        raise click.UsageError("--pci goes with --image: this machine's own controllers are looked at anyway")
    return (pretended(pci),)
