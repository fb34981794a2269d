"""A small disk for the device's state: a file with an ext4 file system on a loop device, or a tmpfs where there is none.

`fill` takes the last byte, so that the kernel itself answers ENOSPC. `fail` makes the kernel turn the file system read-only
under the open files, as it does after an error of the disk (ext4 only); it is writable again after `remount`, as after a reboot.
The mount point stands in a folder whose name carries the process id of the run, so that `sweep` knows what is left behind.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

from edge_runtime.errors import GudgeonError
from tools.chaos.namespaces import command

WORK_PREFIX = "gudgeon-chaos-"
MOUNTS = Path("/proc/mounts")
BLOCK_BYTES = 4096


def why_not() -> str:
    """Why no small disk can be mounted here; empty if it can."""
    if os.geteuid():
        return "not root"
    if lacking := [name for name in ("mount", "unshare") if shutil.which(name) is None]:
        return f"no command {', '.join(lacking)}"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "mounting is not permitted here" if probe.returncode else ""


def why_no_ext4() -> str:
    """Why it cannot be ext4 on a loop device."""
    if shutil.which("mkfs.ext4") is None:
        return "no command mkfs.ext4"
    return "" if Path("/dev/loop-control").exists() else "no loop devices"


class SmallDisk:
    def __init__(self, image: Path, at: Path, size_bytes: int) -> None:
        self._image, self._at, self._size_bytes = image, at, size_bytes
        self._ballast = at / "ballast"
        self.kind = "ext4"

    def mount(self) -> None:
        self._at.mkdir(parents=True, exist_ok=True)
        try:
            with self._image.open("wb") as file:
                file.truncate(self._size_bytes)
            command("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
            command("mount", "-o", "loop", str(self._image), str(self._at))
        except GudgeonError:
            self.kind = "tmpfs"
            command("mount", "-t", "tmpfs", "-o", f"size={self._size_bytes}", "tmpfs", str(self._at))

    def fill(self) -> int:
        """Write until the kernel refuses; how many bytes it took. GudgeonError if it never refused with ENOSPC."""
        taken = 0
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while taken <= 2 * self._size_bytes:
                    taken += file.write(bytes(BLOCK_BYTES))
                    os.fsync(file.fileno())
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return taken
                raise GudgeonError(f"{self._at}: expected ENOSPC, found {error}") from error
        raise GudgeonError(f"{self._at}: took {taken} bytes and never was full")

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def fail(self) -> None:
        """Read-only from now on, under whoever has files open."""
        if self.kind != "ext4":
            raise GudgeonError("a file system that fails needs ext4 on a loop device; this machine has none")
        command("mount", "-o", "remount,abort", str(self._at))

    def refuses_writes(self) -> bool:
        """A write of our own is refused with EROFS."""
        try:
            (self._at / "probe").write_bytes(b"x")
        except OSError as error:
            return error.errno == errno.EROFS
        return False

    def remount(self) -> None:
        """As after a reboot; nobody may have a file open."""
        command("umount", str(self._at))
        command("mount", "-o", "loop", str(self._image), str(self._at))

    def unmount(self) -> None:
        unmount(self._at)


def unmount(at: Path) -> None:
    if os.path.ismount(at):
        command("umount", "--lazy", str(at))


def left_behind() -> list[Path]:
    """Mount points of runs that are gone."""
    name = re.compile(rf"/{WORK_PREFIX}(\d+)-")
    points = [line.split()[1] for line in MOUNTS.read_text().splitlines()] if MOUNTS.exists() else []
    return [Path(p) for p in points if (m := name.search(p)) and not Path(f"/proc/{m[1]}").exists()]
