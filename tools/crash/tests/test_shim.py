"""The shim under a real process: what it writes down makes the folder as it lies there, and it ends where it is told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from edge_runtime.errors import GudgeonError
from tools.chaos.shim import compiler
from tools.crash.disk import Disk, contents
from tools.crash.explore import notes_of
from tools.crash.models import MODELS, image
from tools.crash.shim import Recorder, Recording
from tools.crash.trace import Kind

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler: apt-get install gcc libc6-dev")

#: what a program may do to files, through many of the functions of the C library
PROGRAM = """
import os, shutil, sqlite3, subprocess, sys, threading
base = sys.argv[1]
os.chdir(base)
os.mkdir("sub")
fd = os.open("sub/a", os.O_CREAT | os.O_RDWR)
os.write(fd, b"a" * 1000); os.pwrite(fd, b"b" * 10, 500); os.writev(fd, [b"c", b"d" * 700])
os.posix_fallocate(fd, 0, 4096); os.ftruncate(fd, 3000); os.fsync(fd); other = os.dup(fd); os.write(other, b"e"); os.close(other)
with open("b", "ab") as file: file.write(b"1"); file.flush(); file.write(b"2")
open("b", "ab").write(b"3")
os.write(1, b"half way\\n")
shutil.copyfile("sub/a", "copied"); os.link("copied", "linked"); os.rename("linked", "sub/moved"); os.symlink("b", "s")
folder = os.open("sub", os.O_RDONLY); os.replace("b", "c")
os.rename("moved", "m", src_dir_fd=folder, dst_dir_fd=folder)
os.truncate("c", 2); os.unlink("copied"); os.mkdir("gone"); os.rmdir("gone"); os.fsync(folder)
open("c", "wb").write(b"new"); os.open("f", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
if os.fork() == 0:
    os.write(os.open("child", os.O_CREAT | os.O_WRONLY), b"x"); os._exit(0)
os.wait()
subprocess.run(["cp", "--reflink=never", "c", "by-cp"], check=True)
def many(name):
    for i in range(20): open(f"t{name}", "ab").write(b"z" * i)
threads = [threading.Thread(target=many, args=(i,)) for i in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
for mode in ("WAL", "DELETE"):
    db = sqlite3.connect(mode); db.execute(f"PRAGMA journal_mode = {mode}"); db.execute("CREATE TABLE t (x)")
    for i in range(5): db.execute("INSERT INTO t VALUES (zeroblob(3000))"); db.commit()
    db.close()
os.write(1, b"done\\n")
"""


def real(folder: Path) -> dict[str, bytes | None]:
    return contents(image(Disk.of(folder), MODELS["written"], Random(0)))


def made(recording: Recording) -> dict[str, bytes | None]:
    for op in recording.ops:
        recording.before.apply(op)
    return contents(image(recording.before, MODELS["written"], Random(0)))


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return Recorder(tmp_path_factory.mktemp("work"))


def command(folder: Path) -> list[str]:
    return [sys.executable, "-S", "-c", PROGRAM, str(folder)]


def test_the_trace_makes_the_folder(recorder: Recorder, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    recording = recorder.run(command(folder), folder)
    assert notes_of(recording.ops) == [{"text": "half way"}, {"text": "done"}]
    assert [op.number for op in recording.ops if op.number] == list(range(1, recording.ops[-2].number + 1))
    kinds = {op.kind for op in recording.ops}
    assert kinds >= set(Kind) - {Kind.UNKNOWN, Kind.SYNC_ALL, Kind.FAILED}
    assert made(recording) == real(folder)
    assert {"sub/a", "sub/m", "s", "c", "child", "by-cp", "t0", "WAL", "DELETE"} <= set(real(folder))


@pytest.mark.parametrize("number", [7, 130])
def test_it_ends_before_operation_n(recorder: Recorder, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    recording = recorder.run(command(folder), folder, crash_at=number)
    assert recording.crashed
    assert max((op.number for op in recording.ops), default=0) == number - 1
    assert made(recording) == real(folder)


def test_what_is_outside_is_left_alone(recorder: Recorder, tmp_path: Path) -> None:
    folder, other = tmp_path / "state", tmp_path / "state-other"
    folder.mkdir()
    other.mkdir()
    code = f"import os; os.mkdir({str(other / 'x')!r}); open({str(other / 'y')!r}, 'w').write('1')"
    assert recorder.run([sys.executable, "-S", "-c", code], folder).ops == []


@pytest.mark.parametrize(
    "code",
    [
        "import mmap; f = open('m', 'w+b'); f.write(b'x' * 4096); f.flush(); mmap.mmap(f.fileno(), 4096)[0] = 65",
        "import os; open('../outside', 'w').write('x'); os.rename('../outside', 'in')",
    ],
    ids=["mapping", "moved in"],
)
def test_what_no_image_can_show_is_told(recorder: Recorder, tmp_path: Path, code: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    recording = recorder.run([sys.executable, "-S", "-c", f"import os; os.chdir({str(folder)!r})\n{code}"], folder)
    with pytest.raises(GudgeonError, match="no image can show it"):
        made(recording)


def test_a_program_that_fails_is_told(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(GudgeonError, match="exit code 3"):
        recorder.run([sys.executable, "-S", "-c", "raise SystemExit(3)"], tmp_path / "state")


def test_it_compiles_without_warnings(tmp_path: Path) -> None:
    source = Path(__file__).parent.parent / "shim" / "record.c"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "x.so")]
    done = subprocess.run(
        [compiler() or "cc", *options, str(source), "-ldl"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
