"""Confines a program that nobody has read: with bubblewrap, which Linux distributions maintain, or in a container.

What a confined program sees is listed below, and there is nothing else: Python, its packages, the course, and one small
folder of its own in memory. It has no network, no powers, no other process in sight, and it does not outlive this one.
What the kernel counts nowhere, its memory and threads in all, a supervisor asks for with `used`.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import site
import struct
import subprocess
import sys
import sysconfig
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]  # ddpm_course
OWN, COURSE = "/own", "/course"  # where a confined program works, and where it finds the package
OWN_SIZE = 64 << 20  # bytes
IMAGE = "ddpm-course"
OTHERWISE = (
    "run each in a container of its own: --container docker, or podman; or, after reading every submission: --trust"
)
NO_BUBBLEWRAP = f"""\
there is no bubblewrap here, which confines submissions on Linux. Install it (Debian, Ubuntu: apt install bubblewrap; \
Fedora: dnf install bubblewrap). Or {OTHERWISE}"""
REFUSED = f"""\
bubblewrap may not confine submissions here ({{reason}}). Ubuntu allows it with a profile (notebooks/INSTRUCTORS.md); \
in Docker and in Colab it cannot work. Or {OTHERWISE}"""


class DoesNotRun(RuntimeError):
    """The course itself does not run here, confined in this way."""


@contextlib.asynccontextmanager
async def program(kind: str, course: Path, *arguments: str) -> AsyncIterator[Process]:
    """Python with these arguments, running with pipes at its three ends; it is gone, with all it started, at the end.

    kind:    "bubblewrap", "nothing", or the command that starts containers, "docker" or "podman"
    course:  a folder with the package in it, as `without_solutions` makes it
    """
    name = f"submission-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as opened:
        command, folder, environment, passed = [sys.executable, *arguments], None, None, ()
        if kind == "bubblewrap":
            passed = (opened.enter_context(_filter_file()),)
            command = [*_bubblewrap(course), "--seccomp", str(passed[0]), *command]
            environment = {"PATH": os.environ.get("PATH", os.defpath)}  # bubblewrap's own can be read in /proc/1
        elif kind == "nothing":
            folder = opened.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            environment = os.environ | _environment(folder, os.pathsep.join([str(course), *sys.path]))
        else:
            command = [*_container(kind, name), *command[1:]]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE, pass_fds=passed,
            limit=1 << 16, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if kind not in ("bubblewrap", "nothing"):  # the command's end is not the container's
                await (await asyncio.create_subprocess_exec(kind, "kill", name, stdout=DEVNULL, stderr=DEVNULL)).wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            await process.communicate()  # it has no end, to asyncio, before all that it wrote is read


def without_solutions(folder: Path) -> Path:
    """Copy package and assets into a folder, with a stub in the place of every solution, and no mistakes."""
    from ...exercises import EXERCISES

    ignored = shutil.ignore_patterns("*.mistakes", "__pycache__", "assets", "pages")
    shutil.copytree(PACKAGE, folder / "ddpm_course", ignore=ignored)
    for exercise in EXERCISES:
        path = folder / "ddpm_course" / "exercises" / f"lesson{exercise.lesson}.py"
        text = path.read_text(encoding="utf-8").replace(exercise.source, exercise.stub)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(
        next(place for place in (PACKAGE / "assets", PACKAGE.parent / "assets") if place.is_dir()), folder / "assets"
    )
    return folder


def why_not(kind: str) -> str | None:
    """What keeps programs from being confined in this way here, and what to do; tried by running one."""
    if shutil.which("bwrap" if kind == "bubblewrap" else kind) is None:
        return NO_BUBBLEWRAP if kind == "bubblewrap" else f"there is no {kind} here"
    with contextlib.ExitStack() as opened:
        command, passed = _container(kind, f"submission-{secrets.token_hex(8)}"), ()
        if kind == "bubblewrap":
            if os.uname().machine not in MACHINES:
                return REFUSED.format(reason=f"system calls of {os.uname().machine} are not known")
            passed = (opened.enter_context(_filter_file()),)
            command = [*_bubblewrap(PACKAGE), "--seccomp", str(passed[0]), sys.executable]
        command += ["-c", "print('confined')"]
        done = subprocess.run(command, capture_output=True, pass_fds=passed, timeout=120)
    if done.stdout.strip() == b"confined":
        return None
    reason = done.stderr.decode(errors="replace").strip()[-300:] or f"exit {done.returncode}"
    return REFUSED.format(reason=reason) if kind == "bubblewrap" else f"{kind} does not run the image: {reason}"


def used(process: Process) -> dict[str, int]:
    """Bytes in memory, threads, and files in the own folder of a process and its descendants; 0 without a /proc."""
    held = dict.fromkeys(("memory", "threads", "files"), 0)
    for pid in _family(process.pid):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended just now
            held["memory"] += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            held["threads"] += len(os.listdir(f"/proc/{pid}/task"))
            folder = os.statvfs(f"/proc/{pid}/root{OWN}")  # a file without content takes memory too, of the kernel
            if folder.f_blocks * folder.f_frsize == OWN_SIZE:  # not one of that name on this machine
                held["files"] = max(held["files"], folder.f_files - folder.f_ffree)
    return held


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _family(int(child))


def _environment(home: str, course: str = COURSE) -> dict[str, str]:
    """What a confined program finds in its environment: nothing of this process's."""
    own = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR"), home)
    own |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own |= {
        "MPLCONFIGDIR": f"{home}/matplotlib",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": course,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return own | {"DDPM_COURSE_FAST": "1", "DDPM_COURSE_SAVE": "0"}  # shortened budgets; no my_ddpm.py


def _container(kind: str, name: str) -> list[str]:
    """The command up to Python's arguments. The image is made from the Containerfile in ddpm_course/classroom."""
    line = [kind, "run", "--rm", "--interactive", f"--name={name}", "--network=none", "--read-only", "--cap-drop=ALL"]
    line += ["--security-opt=no-new-privileges", "--pids-limit=256", "--memory=6g", "--init"]
    line += [f"--tmpfs={OWN}:size={OWN_SIZE}", f"--workdir={OWN}"]
    return [*line, *(f"--env={name}={value}" for name, value in _environment(OWN).items()), IMAGE, "python"]


@cache
def _bubblewrap(course: Path) -> list[str]:
    """The command up to the filter and the program. What comes later lies on top of what came before."""
    line = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    # a child of root would otherwise undo a read-only bind
    line += ["--cap-drop", "ALL", "--clearenv", "--hostname", "submission"]
    for place in _readable():
        line += ["--ro-bind", place, place]
        if Path(place, "ddpm_course").is_dir():  # an installed one has solutions
            line += ["--tmpfs", f"{place}/ddpm_course", "--remount-ro", f"{place}/ddpm_course"]
    for place in ("/bin", "/lib", "/lib64", "/sbin"):  # links into /usr on most systems
        if os.path.islink(place):
            line += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            line += ["--ro-bind", place, place]
    line += ["--ro-bind", str(course), COURSE]
    # A root without powers still owns /proc/sys, which belongs to the machine; /dev and /dev/shm would have no bounds.
    line += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    line += ["--size", str(OWN_SIZE), "--tmpfs", OWN, "--chdir", OWN]
    for found in _fonts():  # looking for fonts takes seconds
        line += ["--ro-bind", str(found), f"{OWN}/matplotlib/{found.name}"]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    for name, value in (kept | _environment(OWN)).items():
        line += ["--setenv", name, value]
    return [*line, "--remount-ro", "/"]


def _readable() -> list[str]:
    """Python, its packages and the libraries of the system, each place by all its names; no home, no clone."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    python = [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), site.getusersitepackages(), *packages]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    system = ["/usr", "/nix/store", "/sys/devices/system/cpu", "/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts"]
    system += ["/etc/localtime"]
    places = {str(Path(place).absolute()) for place in [*python, *libraries, *system] if place}
    places |= {os.path.realpath(place) for place in places}
    clone = PACKAGE.parent
    return sorted(place for place in places if os.path.exists(place) and not clone.is_relative_to(place))


def _fonts() -> list[Path]:
    import matplotlib

    return list(Path(matplotlib.get_cachedir()).glob("fontlist*.json"))


# ---- system calls that no namespace covers (numbers: x86-64, AArch64; linux/filter.h, linux/seccomp.h) ---------------

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # what the kernel calls them
REFUSED_CALLS = {
    "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),  # clone, below, is for threads alone
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "vmsplice": (278, 75),  # memory that no limit counts
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425),  # makes system calls that no filter sees
    "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),  # few for each user
    "io_setup": (206, 0), "mq_open": (240, 180),  # few for the whole machine, and for each user
    "perf_event_open": (298, 241), "bpf": (321, 280), "userfaultfd": (323, 282),  # known for holes
    "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "ptrace": (101, 117),
}  # fmt: skip
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUALS, HAS_BITS, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
EPERM, ENOSYS, CLONE, CLONE_THREAD = 1, 38, (56, 220), 0x10000
SOCKET, AF_UNIX = (41, 198), 1  # other kinds reach the host of a virtual machine (vsock), or drivers
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # where they stand in what the filter is shown


def filter_program(machine: str) -> bytes:
    """What the kernel runs at each system call, as bubblewrap takes it: (operation, skips, value), eight bytes each."""
    column = list(MACHINES).index(machine)
    program = [
        (LOAD, 0, 0, MACHINE), (EQUALS, 1, 0, MACHINES[machine]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, ERROR | ENOSYS),  # x32, under other numbers
    ]  # fmt: skip
    for name, numbers in REFUSED_CALLS.items():
        if numbers[column] is not None:  # without clone3, libraries use clone
            error = ENOSYS if name == "clone3" else EPERM
            program += [(EQUALS, 0, 1, numbers[column]), (RETURN, 0, 0, ERROR | error)]
    for numbers, test, value in ((CLONE, HAS_BITS, CLONE_THREAD), (SOCKET, EQUALS, AF_UNIX)):
        program += [
            (EQUALS, 0, 4, numbers[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (test, 1, 0, value),
            (RETURN, 0, 0, ERROR | EPERM), (RETURN, 0, 0, ALLOW),
        ]  # fmt: skip
    program += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", code, yes, no, value) for code, yes, no, value in program)


@contextlib.contextmanager
def _filter_file() -> Iterator[int]:
    """A descriptor from which bubblewrap reads the filter, once."""
    with tempfile.TemporaryFile() as file:
        file.write(filter_program(os.uname().machine))
        file.seek(0)
        yield file.fileno()


if __name__ == "__main__":  # for the Containerfile
    without_solutions(Path(sys.argv[1]))
