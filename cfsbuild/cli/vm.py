"""`cfsbuild vm`: build an image, and boot it in a virtual machine that believes a signed bundle only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cfsbuild.build.pipeline import Options, build
from cfsbuild.build.result import BuildResult, ImageReport
from cfsbuild.cli.output import note, write_json
from cfsbuild.cli.recipes import recipe_argument, request_of, variable_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import InputError, UsageError
from cfsbuild.events import BootStep, ignore

if TYPE_CHECKING:
    from cfsbuild.cli.vm_trust import Trust
    from cfsbuild.deploy.guest_kernel import GuestKernel
    from cfsbuild.deploy.machine import Machine
    from cfsbuild.deploy.machine_end import Take

VM_VERSION = 1
INITRAMFS = {"own": "initramfs.toml", "systemd": "initramfs-systemd.toml"}
SHELL = "/bin/sh"

_MOST_BYTES = 1 << 26


class Early(NamedTuple):
    """The recipe of the initramfs, its variables, and with which settings it is built."""

    recipe: Path
    variables: tuple[str, ...]
    settings: Settings


@click.command("vm")
@common_options("json", "quiet", "store", "jobs", "progress", changes=True)
@click.option(
    "--exec", "command_text", metavar="CMD", help="Run CMD with the image's /bin/sh instead of booting on."
)
@click.option("--init", metavar="PATH", default="/sbin/init", help="What the image starts [/sbin/init].")
@click.option(
    "--initramfs", metavar="RECIPE", type=click.Path(path_type=Path), help="The initramfs's recipe."
)
@click.option(
    "--agent",
    type=click.Choice(list(INITRAMFS)),
    default="own",
    help="What opens the bundle: cfsbuild, or systemd, of which it is a credential [own].",
)
@click.option(
    "--systemd-root",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The system whose systemd it is [/].",
)
@click.option("--kernel", metavar="FILE", type=click.Path(path_type=Path), help="The kernel to boot.")
@click.option("--modules", metavar="DIR", type=click.Path(path_type=Path), help="The kernel's modules.")
@click.option(
    "--memory", metavar="MIB", default=1024, type=click.IntRange(128, 1 << 20), help="Memory in MiB [1024]."
)
@click.option("--cpus", metavar="N", default=1, type=click.IntRange(1, 255), help="Processors [1].")
@click.option("--no-tpm", is_flag=True, help="Give the machine no TPM.")
@click.option(
    "--timeout",
    "seconds",
    metavar="SECONDS",
    type=click.IntRange(min=1),
    help="End the machine after this time.",
)
@click.option(
    "--keep", metavar="DISK", type=click.Path(path_type=Path), help="Keep the machine's disk as DISK."
)
@recipe_argument
@variable_options
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    /,
    recipe: Path,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
    *,
    command_text: str | None,
    init: str,
    initramfs: Path | None,
    agent: str,
    systemd_root: Path | None,
    kernel: Path | None,
    modules: Path | None,
    no_tpm: bool,
    keep: Path | None,
    **hardware: Any,  # noqa: ANN401 (--memory, --cpus, --timeout: as `Machine` has them)
) -> int:
    """Build RECIPE and boot its image in a virtual machine.

    Needs QEMU and mkfs.ext4; no root. The console is the terminal's; Ctrl-C ends the machine. With --exec the
    output is CMD's, and so is the exit status; it has no input.

    The machine trusts a key that is made for it: its bundle (what the recipe's says, if it has one) is signed
    by that key, sealed to the machine's TPM, and verified before anything is mounted. With --keep the disk
    stays, as do the TPM's state (DISK.tpm) and what the machine trusts (DISK.trust), and all are used again.
    """
    from cfsbuild.deploy.machine import Machine  # noqa: PLC0415 (help boots nothing)

    if settings.json and command_text is None:
        raise UsageError("--json needs --exec", details="without it the console is on standard output")
    chosen = _kernel(settings, kernel, modules)
    early = _early(settings, initramfs, agent, _variables(chosen, agent, systemd_root))
    image, bundle, initrd = _build(settings, (recipe, profiles, overrides), early, chosen)
    with tempfile.TemporaryDirectory(prefix="cfsbuild-vm-") as scratch:
        disk = keep or Path(scratch, "disk")
        tpm = None if no_tpm else _tpm(settings, disk)
        trust = _prepare(settings, image, bundle, disk, tpm, credential=agent == "systemd")
        wanted = Machine(
            kernel=chosen.image,
            initrd=_configured(initrd, Path(scratch, "initrd"), trust, init, command_text),
            disk=disk,
            kvm=_kvm(settings, chosen),
            tpm=tpm,
            interactive=command_text is None,
            **hardware,
        )
        with _in_use(disk):
            return _run(settings, wanted, image)


def _kernel(settings: Settings, kernel: Path | None, modules: Path | None) -> GuestKernel:
    """Return the kernel to boot, and tell which; raises `MachineError` first if nothing can be booted."""
    from cfsbuild.deploy import guest_kernel, machine  # noqa: PLC0415 (help boots nothing)
    from cfsbuild.deploy.state_disk import MKFS  # noqa: PLC0415

    machine.check_programs((machine.QEMU, MKFS))
    chosen = guest_kernel.find_kernel(kernel, modules, os.environ)
    note(settings, f"kernel: {chosen.image}, modules: {chosen.modules}")
    return chosen


def _early(settings: Settings, recipe: Path | None, agent: str, variables: tuple[str, ...]) -> Early:
    """Return how the initramfs is built: by the user's recipe, or by that of `agent`."""
    if recipe is not None:
        return Early(recipe, variables, settings)
    # In a store of its own: the user's may have another digest algorithm, and is the user's.
    own = settings._replace(store=_cache() / "store")
    return Early(shipped_recipe(INITRAMFS[agent]), variables, own)


def shipped_recipe(name: str) -> Path:
    """Return the path of a recipe that comes with cfsbuild."""
    from importlib import import_module  # noqa: PLC0415 (this verb only)

    return Path(import_module("cfsbuild.recipes").__path__[0], name)


def _variables(kernel: GuestKernel, agent: str, systemd_root: Path | None) -> tuple[str, ...]:
    """Return the variables of the initramfs's recipe."""
    modules = f"modules={kernel.modules.absolute()}"
    if agent == "systemd":
        return modules, f"root={(systemd_root or Path('/')).absolute()}"
    if systemd_root is not None:
        raise UsageError("--systemd-root needs --agent systemd")
    return (modules,)


def _build(
    settings: Settings,
    wanted: tuple[Path, tuple[str, ...], tuple[str, ...]],
    early: Early,
    kernel: GuestKernel,
) -> tuple[ImageReport, bytes | None, Path]:
    """Build the image and the initramfs; return what the image and its bundle are, and where the other is.

    `wanted` is the image's recipe with profiles and variables.
    """
    from cfsbuild.cli.listeners import listening  # noqa: PLC0415 (not for help)

    recipe, profiles, overrides = wanted
    request = request_of(settings, recipe, _output(recipe, kernel), profiles, overrides)
    early_output = _output(early.recipe, kernel)
    early_request = request_of(early.settings, early.recipe, early_output, (), early.variables)
    options = Options(jobs=settings.job_count)
    with listening(settings) as listener:
        image = build(request, options, environ=os.environ, listener=listener)
        first = build(early_request, options, environ=os.environ, listener=listener)
    found = _report(image, "image", recipe)
    return found, _bundle_document(image[0]), Path(_report(first, "initramfs", early.recipe).files[0])


def _bundle_document(result: BuildResult) -> bytes | None:
    """Return the mount bundle that a recipe's target made, unsigned; None if it has none."""
    from cfsbuild.cli.sign_subject import DOCUMENT_SUFFIX  # noqa: PLC0415 (not for help)

    files = [Path(file) for report in result.images for file in report.files]
    document = next((file for file in files if file.name.endswith(DOCUMENT_SUFFIX)), None)
    return None if document is None else document.read_bytes()


def _output(recipe: Path, kernel: GuestKernel) -> Path:
    """Return where output files go: always the same place, so that nothing is built twice."""
    from cfsbuild.build.keys import digest_of  # noqa: PLC0415 (not for help)

    identity = f"{recipe.absolute()}\0{kernel.modules.absolute()}"
    return _cache() / digest_of(os.fsencode(identity))[:32]


def _cache() -> Path:
    """Return where this user's machines leave what saves time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cfsbuild", "machines")


def _report(results: tuple[BuildResult, ...], target: str, recipe: Path) -> ImageReport:
    """Return what the target of a recipe's only image gave."""
    if len(results) != 1:
        raise UsageError(
            f"{recipe} describes {len(results)} images",
            details=", ".join(result.image for result in results),
            resolution="boot a recipe without a matrix",
            reason="several-images",
        )
    found = next((image for image in results[0].images if image.target == target), None)
    if found is None or not found.files:
        raise UsageError(
            f"{recipe} has no target {target!r}",
            resolution=f"add a table [targets.{target}]",
            reason="no-target",
        )
    return found


def _prepare(  # noqa: PLR0913 (what a machine has)
    settings: Settings,
    image: ImageReport,
    document: bytes | None,
    disk: Path,
    tpm: Path | None,
    *,
    credential: bool,
) -> Trust:
    """Make the machine's disk and what it trusts, unless they are there; return the latter."""
    from cfsbuild.cli import vm_trust  # noqa: PLC0415 (not for help)
    from cfsbuild.cli.stores import open_store  # noqa: PLC0415
    from cfsbuild.deploy.state_disk import make_state_disk  # noqa: PLC0415
    from cfsbuild.erofs.reader import read_image  # noqa: PLC0415

    if credential and tpm is None:
        raise UsageError(
            "systemd opens the bundle with a TPM, and the machine has none",
            resolution="install swtpm, leave out --no-tpm, or take --agent own",
            reason="tpm-missing",
        )
    beside = disk.with_name(f"{disk.name}.trust")
    if disk.exists():
        if not stat.S_ISREG(disk.stat().st_mode):
            raise UsageError(f"{disk} is not a regular file", reason="disk")
        trust = vm_trust.read_trust(beside, tpm=tpm is not None, credential=credential)
        return _kept(settings, image, disk, trust)
    digest = bytes.fromhex(image.digest)
    with open_store(settings) as store, contextlib.ExitStack() as undo:
        data = store.read_object(digest)
        form = read_image(data).format
        bundle = vm_trust.bundle_of(
            document, name=image.reference, digest=digest, image_format=form, size=len(data)
        )
        for directory in (beside, *([] if tpm is None else [tpm])):
            if not directory.exists():
                undo.callback(shutil.rmtree, directory, ignore_errors=True)
                directory.mkdir(mode=0o700)
        vm_trust.make_trust(beside, bundle, tpm)
        trust = vm_trust.read_trust(beside, tpm=tpm is not None, credential=credential)
        make_state_disk(disk, store, digest, name=image.reference, files=trust.disk)
        undo.pop_all()
    return trust


def _kept(settings: Settings, image: ImageReport, disk: Path, trust: Trust) -> Trust:
    """Return what the machine of a kept disk trusts. Raises `UsageError` if it is not that of `image`."""
    from cfsbuild.cli import vm_trust  # noqa: PLC0415 (not for help)
    from cfsbuild.trust.statement import digest_hex  # noqa: PLC0415

    bundle = vm_trust.bundle_in(trust)
    if digest_hex(bundle.image) != image.digest:
        raise UsageError(
            f"the disk {disk} has another image than the recipe makes now",
            details=f"there      {digest_hex(bundle.image)}, {bundle.name} {bundle.version}\n"
            f"the recipe {image.digest}, {image.reference}",
            resolution=f"remove {disk}, {disk}.trust and {disk}.tpm, or name another disk",
            reason="disk-other-image",
        )
    if trust.enrolment and not Path(f"{disk}.tpm").is_dir():
        raise UsageError(
            f"the TPM's state {disk}.tpm is missing",
            resolution="start it with --no-tpm, or remove the disk: a new one is made",
            reason="disk",
        )
    note(settings, f"disk: {disk}, as it is")
    return trust


@contextlib.contextmanager
def _in_use(disk: Path) -> Iterator[None]:
    """Let no other machine use the disk meanwhile. Raises `UsageError`."""
    with disk.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another machine uses the disk {disk}", reason="disk-in-use") from None
        yield


def _configured(initrd: Path, copy: Path, trust: Trust, init: str, command_text: str | None) -> Path:
    """Copy the initramfs with the machine's configuration behind it: Linux unpacks both, in this order."""
    from cfsbuild.cli import vm_trust  # noqa: PLC0415 (not for help)
    from cfsbuild.deploy import boot_config, machine  # noqa: PLC0415
    from cfsbuild.trust.tpm.transport import DEFAULT_NAME  # noqa: PLC0415

    place = boot_config.BOOT_CONFIG.parent
    config = boot_config.BootConfig(
        state=boot_config.StateDevice(device="/dev/vda"),
        bundle=trust.bundle,
        tpm=DEFAULT_NAME if trust.enrolment else None,
        enrolment=str(place / trust.enrolment) if trust.enrolment else None,
        name=vm_trust.bundle_in(trust).name,
        enable_verity=True,
        exec=(init,) if command_text is None else (SHELL, "-c", command_text),
        once=command_text is not None,
        report=machine.REPORT,
    )
    files = {str(place / name): data for name, data in trust.initramfs.items()}
    files[str(boot_config.BOOT_CONFIG)] = boot_config.encode(config)
    copy.write_bytes(append_files(initrd.read_bytes(), files))
    return copy


def append_files(initrd: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return an initramfs with a second archive behind it, which has these files by absolute path."""
    from cfsbuild.tree.cpio import write_cpio  # noqa: PLC0415 (not for help)
    from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode  # noqa: PLC0415
    from cfsbuild.tree.layer import Tree  # noqa: PLC0415

    entries = {
        os.fsencode(parent): IMPLICIT_DIRECTORY for path in files for parent in PurePosixPath(path).parents
    }
    for path, data in files.items():
        entries[os.fsencode(path)] = Inode(mode=stat.S_IFREG | 0o644, size=len(data), content=data)
    archive = write_cpio(Tree(entries=dict(sorted(entries.items()))), lambda digest: digest, epoch=0)
    return b"".join([initrd, bytes(-len(initrd) % 4), *archive])


def _kvm(settings: Settings, kernel: GuestKernel) -> bool:
    """Say whether KVM works, and tell why not."""
    from cfsbuild.deploy import kvm, machine  # noqa: PLC0415 (not for help)
    from cfsbuild.deploy.host_programs import find_program  # noqa: PLC0415

    why_not = kvm.why_no_kvm(find_program(machine.QEMU) or machine.QEMU, kernel.image, _cache())
    if why_not:
        note(settings, f"emulated, which is slow: {why_not}")
    return not why_not


def _tpm(settings: Settings, disk: Path) -> Path | None:
    """Return the directory of the TPM's state; None where there is no software TPM."""
    from cfsbuild.deploy.host_programs import find_program  # noqa: PLC0415 (not for help)
    from cfsbuild.deploy.software_tpm import SWTPM  # noqa: PLC0415

    if find_program(SWTPM) is None:
        note(settings, f"no TPM: {SWTPM} is not installed (apt-get install {SWTPM})")
        return None
    return disk.with_name(f"{disk.name}.tpm")


def _run(settings: Settings, wanted: Machine, image: ImageReport) -> int:
    """Run the machine; return the exit status of what ran in it."""
    from cfsbuild.cli.listeners import listening  # noqa: PLC0415 (with the next: not for help)
    from cfsbuild.deploy.machine import run_machine  # noqa: PLC0415

    if wanted.interactive:
        note(settings, "booting; Ctrl-C ends the machine")
    output, errors = bytearray(), bytearray()
    out, err = _writer(sys.stdout.fileno()), _writer(sys.stderr.fileno())
    if settings.json:
        out, err = _keeper(output), _keeper(errors)
    # On a terminal that is the machine's, its console says how far it is.
    with contextlib.nullcontext(ignore) if wanted.interactive else listening(settings) as listener:
        listener(BootStep(text="the kernel"))
        outcome = run_machine(wanted, out=out, err=err, listener=listener)
    if not settings.json:
        return outcome.status
    write_json(
        {
            "version": VM_VERSION,
            "image": image.reference,
            "digest": image.digest,
            "kernel": str(wanted.kernel),
            "kvm": wanted.kvm,
            "tpm": wanted.tpm is not None,
            "seconds": round(outcome.seconds, 3),
            "status": outcome.status,
            "stdout": output.decode(errors="backslashreplace"),
            "stderr": errors.decode(errors="backslashreplace"),
        }
    )
    return outcome.status


def _keeper(kept: bytearray) -> Take:
    """Return what collects output, as much of it as a document should have."""

    def keep(data: bytes) -> None:
        kept.extend(data)
        if len(kept) > _MOST_BYTES:
            raise InputError(
                "the command writes too much for a JSON document",
                details=f"more than {_MOST_BYTES} bytes",
                resolution="leave out --json",
                reason="output",
            )

    return keep


def _writer(fd: int) -> Take:
    """Return what writes to a descriptor at once, all of it."""

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(fd, data) :]

    return write
