"""Which kernel modules get on the medium."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from rehost_builder.debian.modules import (
    Wish,
    choose,
    closure,
    parse_wishes,
    select_modules,
    soft_dependencies,
)
from rehost_builder.errors import BuildError
from rehost_builder.templates import iso_folder

from .elf_files import module

AVAILABLE = {
    "ahci": "drivers/ata/ahci",
    "libata": "drivers/ata/libata",
    "ata_piix": "drivers/ata/ata_piix",
    "smartpqi": "drivers/scsi/smartpqi/smartpqi",
    "usb_storage": "drivers/usb/storage/usb-storage",
}


def test_names_patterns_and_what_is_compiled_in() -> None:
    wishes = parse_wishes("# storage\ndrivers/ata/*\nusb-storage  # sticks\nvirtio_pci\nnot-here ?\n")
    assert wishes[1] == Wish("usb-storage", False)
    assert wishes[3] == Wish("not-here", True)
    assert choose(wishes, AVAILABLE, ["virtio-pci"]) == ["ahci", "ata_piix", "libata", "usb_storage"]


def test_all_missing_modules_are_named() -> None:
    with pytest.raises(BuildError, match="nothing, drivers/none/x") as error:
        choose(parse_wishes("smartpqi\nnothing\ndrivers/none/x\n"), AVAILABLE, [])
    assert "modules.txt" in error.value.hint


def test_a_line_that_is_no_wish_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_wishes("ahci\nahci libata\n")


def test_closure() -> None:
    depends = {"ahci": ["libahci"], "libahci": ["libata"], "libata": ["scsi_mod"], "scsi_mod": [], "x": []}
    assert closure(["ahci"], depends) == ["ahci", "libahci", "libata", "scsi_mod"]
    with pytest.raises(KeyError):
        closure(["y"], depends)


def test_soft_dependencies() -> None:
    assert soft_dependencies({"softdep": ["pre: crc32c-x post: b", "pre: c"]}) == ["crc32c_x", "b", "c"]


def _package(root: Path, modules: dict[str, list[str]], builtin: str = "") -> Path:
    for path, texts in modules.items():
        file = root / "kernel" / f"{path}.ko.xz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(module(texts)))
    (root / "modules.builtin").write_text(builtin)
    (root / "modules.builtin.modinfo").write_bytes(b"")
    (root / "modules.order").write_text("".join(f"kernel/{path}.ko\n" for path in modules))
    return root


def test_dependencies_come_along_unpacked(tmp_path: Path) -> None:
    source = _package(
        tmp_path / "in",
        {
            "drivers/net/e1000": ["depends="],
            "drivers/scsi/scsi-common": ["depends="],
            "drivers/scsi/hpsa": ["depends=scsi_common", "softdep=pre: crc-t10 absent"],
            "lib/crc-t10": ["depends="],
        },
        "kernel/drivers/virtio/virtio.ko\n",
    )
    target = tmp_path / "out"
    target.mkdir()
    assert select_modules(source, target, parse_wishes("hpsa\nvirtio\n")) == [
        "crc_t10",
        "hpsa",
        "scsi_common",
    ]
    assert sorted(p.name for p in target.rglob("*.ko")) == ["crc-t10.ko", "hpsa.ko", "scsi-common.ko"]
    assert (target / "kernel/lib/crc-t10.ko").read_bytes() == module(["depends="])
    assert (target / "modules.order").read_text() == (
        "kernel/drivers/scsi/scsi-common.ko\nkernel/drivers/scsi/hpsa.ko\nkernel/lib/crc-t10.ko\n"
    )


def test_a_dependency_that_the_package_lacks_is_named(tmp_path: Path) -> None:
    source = _package(tmp_path / "in", {"drivers/scsi/hpsa": ["depends=scsi_mod"]})
    with pytest.raises(BuildError, match="hpsa needs scsi_mod"):
        select_modules(source, tmp_path, parse_wishes("hpsa"))


def test_the_list_has_every_controller_that_is_promised() -> None:
    wishes = {w.pattern for w in parse_wishes((iso_folder() / "debian/modules.txt").read_text())}
    promised = (
        "aacraid smartpqi megaraid_sas mpt3sas mpi3mr hpsa drivers/ata/* drivers/nvme/host/nvme vmd xhci-pci uas "
        "usb-storage virtio_blk virtio_scsi vmw_pvscsi hv_storvsc ntfs3 exfat vfat dm-crypt efivarfs"
    )
    assert set(promised.split()) <= wishes
