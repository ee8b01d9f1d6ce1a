"""Confines a process before it runs a stranger's code: no network, no other processes, no files but its own.

On Linux a process can give up rights of its own for good, without being root. `confine` does that three times:
limits on memory, file size and open files; a seccomp filter on system calls; and Landlock rules on files. macOS and
Windows have no such means for a plain process. `python -m ddpm_course.classroom.grading.sandbox` tells what works here.
"""

import ctypes
import json
import os
import platform
import signal
import socket
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]  # ddpm_course

# ---- system calls (numbers: x86-64, AArch64; in linux/filter.h and linux/seccomp.h what the filter is made of) ------

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # what the kernel calls them
NETWORK = {"socket": (41, 198)}
REFUSED = {
    "fork": (57, None), "vfork": (58, None),
    "ptrace": (101, 117), "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),  # the memory of other processes
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "memfd_create": (319, 279), "shmget": (29, 194),  # memory that no limit counts
    "io_uring_setup": (425, 425),  # makes system calls that no filter sees
    "sched_setaffinity": (203, 122), "setpriority": (141, 140),
}  # fmt: skip
OWN = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}  # allowed on the process itself
CLONE, CLONE3 = (56, 220), (435, 435)  # a thread is allowed, a process is not; clone3 hides which of the two it is
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUALS, HAS_BITS, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
EPERM, EACCES, ENOSYS, CLONE_THREAD = 1, 13, 38, 0x10000
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # where they stand in what the filter is shown


def _filter(network: bool) -> list[tuple[int, int, int, int]]:
    """The program that the kernel runs at each system call: (operation, skip if true, skip if false, value)."""
    column = list(MACHINES).index(platform.machine())
    program = [
        (LOAD, 0, 0, MACHINE), (EQUALS, 1, 0, MACHINES[platform.machine()]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, ERROR | ENOSYS),  # x32, under other numbers
    ]  # fmt: skip
    refused = REFUSED | ({} if network else NETWORK)
    for name, numbers in refused.items():
        if numbers[column] is not None:
            error = EACCES if name in NETWORK else EPERM
            program += [(EQUALS, 0, 1, numbers[column]), (RETURN, 0, 0, ERROR | error)]
    program += [(EQUALS, 0, 1, CLONE3[column]), (RETURN, 0, 0, ERROR | ENOSYS)]  # libraries then use clone
    program += [
        (EQUALS, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (HAS_BITS, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, ERROR | EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip
    for name, numbers in OWN.items():
        nobody = 0 if name == "prlimit64" else os.getpid()  # process 0 is oneself for prlimit64, a group for kill
        program += [
            (EQUALS, 0, 5, numbers[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (EQUALS, 2, 0, os.getpid()),
            (EQUALS, 1, 0, nobody), (RETURN, 0, 0, ERROR | EPERM), (RETURN, 0, 0, ALLOW),
        ]  # fmt: skip
    return [*program, (RETURN, 0, 0, ALLOW)]


class _Operation(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("operations", ctypes.POINTER(_Operation))]


def _refuse_calls(libc, network: bool) -> bool:
    """Install the filter. It holds for this process to its end."""
    if platform.machine() not in MACHINES or sys.maxsize < 2**32:
        return False
    operations = [_Operation(*line) for line in _filter(network)]
    program = _Program(len(operations), (_Operation * len(operations))(*operations))
    return libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


# ---- files (linux/landlock.h) ---------------------------------------------------------------------------------------

READ, READ_FILE, READ_WRITE_FILE = 0b1101, 0b101, 0b110  # execute, write, read a file; list a folder


class _Rights(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("place", ctypes.c_int32)]


def readable() -> list[Path]:
    """What a submission may read: Python, its packages and this one, the system's libraries. No home, no /tmp."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    own = [PACKAGE, PACKAGE.parent / "assets", sys.prefix, sys.base_prefix, *sys.path, *filter(None, libraries)]
    system = ["/usr", "/lib", "/lib64", "/nix/store", "/proc/self", "/proc/meminfo", "/proc/cpuinfo"]
    system += ["/sys/devices/system/cpu", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/etc/passwd"]
    places = {Path(place).absolute() for place in [*own, *system]}
    return [place for place in places - {PACKAGE.parent, Path.cwd()} if place.exists()]  # not the clone around us


def _guard_files(libc, folder: Path) -> bool:
    """Leave `folder` to write in and `readable()` to read; everything else is closed. False without Landlock."""
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return False
    everything = (1 << (13 + (version >= 2) + (version >= 3))) - 1  # as many rights as the kernel knows
    rights = _Rights(everything, 0, 3 if version >= 6 else 0)  # 3: no signals, no abstract sockets to the outside
    ruleset = libc.syscall(444, ctypes.byref(rights), ctypes.sizeof(rights), 0)
    places = {place: READ if place.is_dir() else READ_FILE for place in readable()}
    places |= {Path(folder): everything}
    places |= {Path("/dev", name): READ_WRITE_FILE for name in ("null", "zero", "urandom", "random")}
    for place, allowed in places.items():
        handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
        rule = _Beneath(allowed, handle)
        failed = libc.syscall(445, ruleset, 1, ctypes.byref(rule), 0)
        os.close(handle)
        if failed:
            raise OSError(ctypes.get_errno(), "Landlock refuses a rule", str(place))
    done = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return done


# ---- all of it ------------------------------------------------------------------------------------------------------


def confine(folder: Path, memory: int = 4 << 30, network: bool = False) -> dict[str, bool]:
    """Give up what a submission must not have. To be called first of all: no other thread may run yet.

    folder:  where the process may write
    memory:  bytes that it may hold
    network: leave the network open
    returns  which of "network" and "files" are closed off now
    """
    if not sys.platform.startswith("linux"):
        return {"network": False, "files": False}
    import resource

    limits = {"DATA": memory, "CORE": 0, "FSIZE": 64 << 20, "NOFILE": 256}  # DATA: what it writes, libraries excluded
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:  # root in a container, say: keeps its name, loses its powers
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capset(header, none)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: does not outlive the report
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which the other two ask for
    files = _guard_files(libc, folder)
    filtered = _refuse_calls(libc, network)
    return {"network": filtered and not _has_network(), "files": files}


def _has_network() -> bool:
    try:
        socket.socket().close()
    except PermissionError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(confine(Path.cwd())))
