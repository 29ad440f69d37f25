"""The command ``rehost``: builds media here, and brings the payload's commands for disk images."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress
from rehost_payload.ui.paths import InputPath

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


class _Group(click.Group):
    """Turns every way to end into an exit code: 0 done, 1 failed, 2 usage, 4 declined, 5 blocked, 130 interrupted.

    The payload's commands bring further codes of their own, which pass through.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except BuildError as e:
            click.echo(f"rehost: {e.message}", err=True)
            if e.hint:
                click.echo(f"        {e.hint}", err=True)
            sys.exit(e.exit_code)
        except click.ClickException as e:
            e.show()
            sys.exit(e.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("\nrehost: interrupted; nothing half-done is left", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # the reader of our output has gone (rehost ... | head)
            sys.stderr.close()
            sys.exit(EXIT_FAILED)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rehost", prog_name="rehost")
def main() -> None:
    """Builds a recovery medium for Windows servers, and looks into disk images.

    \b
    rehost build -o out/rehost.iso            builds the medium
    rehost survey --image disk.qcow2          what is on a disk
    rehost diagnose --survey survey.json      what ails a server whose survey was sent
    """


@main.command()
@click.option(
    "--media", multiple=True, type=InputPath(disks=True, exists=True), metavar="ISO|DIR|WIM",
    help="Build on Windows PE from your own media: an ISO of Windows Server or Windows, its files, the ADK's add-on, "
    "a recovery ISO of another maker, or a boot image; may be repeated.",
)  # fmt: skip
@click.option(
    "--base", type=click.Choice(["debian", "winpe"]),
    help="The system below.  [default: winpe with --media, else debian]",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("rehost.iso"),
    show_default=True, help="Where the ISO goes.",
)  # fmt: skip
@click.option("--suite", default="trixie", show_default=True, help="The Debian release.")
@click.option("--offline", is_flag=True, help="No network: exactly the packages of the last build.")
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder of packages and lock."
)
@click.option(
    "--lock", type=InputPath(folders=False, exists=True),
    help="Exactly the packages of this lock (a kept copy of CACHE/debian/SUITE/lock.json).",
)  # fmt: skip
@click.option(
    "--sources", type=InputPath(folders=False, exists=True),
    help="An apt .sources file to use instead of this machine's mirrors.",
)  # fmt: skip
@click.option("--compression", type=click.IntRange(1, 19), default=9, show_default=True, help="zstd level.")
@click.option(
    "--append", default="", metavar="OPTIONS", help="Kernel options for every entry of the boot menu."
)
@click.option(
    "--boot-files", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
    help="Put vmlinuz and initrd.img there as well (PXE, direct start).",
)  # fmt: skip
@click.option(
    "--drivers", multiple=True, type=InputPath(exists=True), metavar="DIR|FILE",
    help="Driver packages for the medium: a folder, ZIP, EXE, CAB, MSI or 7z; may be repeated.  "
    "[default: drivers/packages]",
)  # fmt: skip
@click.option("--no-drivers", is_flag=True, help="No driver packages, not even those of drivers/packages.")
@click.option(
    "--allow-unverified-drivers", is_flag=True,
    help="Take packages whose signature is missing or wrong, too; build.json says so.",
)  # fmt: skip
@click.option(
    "--python-embed", metavar="ZIP|URL",
    help="With --media: CPython's embeddable package for amd64, or a mirror of it.  [default: downloaded]",
)  # fmt: skip
@click.option(
    "--ucrt", type=InputPath(exists=True), metavar="DIR|MSU|CAB",
    help="With --media of Windows 8.1 / Server 2012 R2: the Universal C Runtime for Python, from a Windows SDK "
    "(Redist\\<version>\\ucrt\\DLLs\\x64) or the update KB2999226.",
)  # fmt: skip
@click.option(
    "--secure-boot-ca", type=click.Choice(["auto", "2011", "2023"]), default="auto", show_default=True,
    help="With --media: boot files signed under this authority of Microsoft's; auto: as the media have them.",
)  # fmt: skip
@click.option("--keyboard", default="", metavar="LAYOUT", help="With --media: de, fr ..., or 0407:00000407.")
@click.option(
    "--scratch-space", type=click.IntRange(32, 4094), metavar="MB",
    help="With --media: writable space in memory, instead of Windows PE's own choice (512 MB).",
)  # fmt: skip
@click.option(
    "--prompt", is_flag=True, help="With --media: UEFI asks for a key before it starts from the disc."
)
@click.option(
    "--replace-shell", is_flag=True,
    help="With --media: the menu instead of another maker's program, not beside it.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="With --media: show what would be built, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="The result (or the plan) as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.argument("stray", nargs=-1, metavar="")
@click.pass_context
def build(
    ctx: click.Context,
    stray: tuple[str, ...],
    media: tuple[Path, ...],
    base: str | None,
    output: Path,
    suite: str,
    offline: bool,
    cache: Path | None,
    lock: Path | None,
    sources: Path | None,
    compression: int,
    append: str,
    boot_files: Path | None,
    drivers: tuple[Path, ...],
    no_drivers: bool,
    allow_unverified_drivers: bool,
    python_embed: str | None,
    ucrt: Path | None,
    secure_boot_ca: str,
    keyboard: str,
    scratch_space: int | None,
    prompt: bool,
    replace_shell: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Builds the bootable ISO. No root is needed and nothing of this machine is changed.

    SOURCE_DATE_EPOCH, if set, dates the medium; the same packages, version and date give the same bytes.

    \b
    Examples:
      rehost build -o out/rehost.iso                     newest packages, from the network
      rehost build --offline -o out/rehost.iso           the packages of the last build
      rehost build --append 'rehost.keymap=de' -o de.iso German keyboard on the screen console
      rehost build --drivers SmartPQI.zip -o out/rehost.iso   with a controller's driver package
      rehost build --json -q -o out/rehost.iso           for scripts
      rehost build --media SERVER_2022.iso --drivers SmartPQI.zip -o out/rehost.iso     on Windows PE
      rehost build --media winre.wim --media SERVER_2019.iso --dry-run                  image and boot files apart
      rehost build --media SERVER_2012R2.iso --ucrt Windows8.1-KB2999226-x64.msu        without a C runtime of its own

    \b
    Exit codes:
      0    built, or with --dry-run: could be built
      1    an error: no medium was made, and what stood at its place is as it was
      2    the command line is wrong
      130  interrupted with Ctrl-C
    """
    if stray:
        raise click.UsageError(
            f"{stray[0]}: Windows media are named with --media, driver packages with --drivers, the new ISO with -o"
        )
    if base is None:
        base = "winpe" if media else "debian"
    _check_base(ctx, base)
    from rehost_builder.drivers.bundle import default_sources
    from rehost_builder.output import unfit_output

    if no_drivers and drivers:
        raise click.UsageError("--drivers and --no-drivers exclude each other")
    packages = () if no_drivers else drivers or default_sources()
    read = (*media, *packages, *(Path(p) for p in (python_embed, ucrt, lock, sources) if p))
    refusal = None if dry_run else unfit_output(output, read)
    if refusal is not None:
        raise click.BadParameter(refusal, param_hint="-o")
    if base == "winpe":
        from rehost_builder.winpe.build import WinpeOptions
        from rehost_builder.winpe.build_cli import build_winpe

        wanted = WinpeOptions(
            media=media,
            output=output,
            drivers=packages,
            python_embed=python_embed,
            ucrt=ucrt,
            secure_boot=secure_boot_ca,
            keyboard=keyboard,
            scratch_space=scratch_space or 0,
            prompt=prompt,
            keep_shell=not replace_shell,
            allow_unverified=allow_unverified_drivers,
            cache=cache,
            offline=offline,
        )
        build_winpe(wanted, dry_run=dry_run, as_json=as_json, quiet=quiet)
        return

    from rehost_builder.debian.build import DebianOptions, build_debian_iso, expected_steps

    options = DebianOptions(
        output=output,
        suite=suite,
        cache=cache,
        offline=offline,
        lock=lock,
        sources=sources,
        compression=compression,
        append=append,
        boot_files=boot_files,
        drivers=packages,
        allow_unverified_drivers=allow_unverified_drivers,
    )
    result = build_debian_iso(options, Progress(expected_steps(options), quiet=quiet))
    if as_json:
        click.echo(json.dumps(asdict(result), default=str, indent=1))
    else:
        if result.drivers:
            click.echo(
                f"drivers: {', '.join(result.drivers)} ({result.drivers_size / 1e6:.1f} MB of the medium)"
            )
        click.echo(
            f"{result.iso}: {result.size / 1e6:.1f} MB in {result.seconds:.0f} s, "
            f"{result.packages} packages, kernel {result.kernel}\nsha256 {result.sha256}"
        )


_ONLY = {
    "debian": ("suite", "lock", "sources", "compression", "append", "boot_files"),
    "winpe": (
        "media",
        "python_embed",
        "ucrt",
        "secure_boot_ca",
        "keyboard",
        "scratch_space",
        "prompt",
        "replace_shell",
        "dry_run",
    ),
}


def _check_base(ctx: click.Context, base: str) -> None:
    """Refuses options that would be passed over."""
    if base == "winpe" and not ctx.params["media"]:
        raise click.UsageError("--base winpe needs --media: Windows PE is made from your own Windows media")
    for other, names in _ONLY.items():
        for name in names if other != base else ():
            if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
                option = f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{option} is for the {other} base, and this builds on {base}")


def _add_payload_commands() -> None:
    """What runs on the server runs here on disk images and saved surveys; only its menu stays there."""
    from rehost_payload.ui.cli import commands
    from rehost_payload.ui.lazy import Lazy

    for command in commands:
        if command.name not in ("menu", "verify"):
            main.add_command(command)
    main.add_command(
        Lazy("verify", "rehost_builder.verify.cli:verify", "Judge a medium, or the Windows on a disk.")
    )
    main.add_command(
        Lazy("boot", "rehost_builder.emulator.cli:boot", "Start a medium in a virtual machine (QEMU).")
    )
    main.add_command(Lazy("usb", "rehost_builder.usb.cli:usb", "Write a medium to a USB stick."))
    main.add_command(
        Lazy("media", "rehost_builder.winpe.cli:media", "Windows media that a medium can be built from.")
    )
    # with `check`, which needs libraries that are not on the medium
    text = "Driver packages: what they are, which one is needed, whether they are sound."
    main.add_command(Lazy("drivers", "rehost_builder.drivers.cli:drivers", text))


_add_payload_commands()
