"""Says what this machine lacks to run Penstock, and the one line that mends each lack.

Runs before anything is installed, from a source tree: `python3 penstock/cli/doctor.py [--json]`.
So: the standard library only, and nothing that an older Python could not parse.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import socket
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 1024**3
MIB = 1024**2

OK = "ok"
WARNING = "warning"
MISSING = "missing"

PYTHON = (3, 11)
"""The version that every pin in constraints.txt was tested with."""
GLIBC = (2, 35)
"""What Triton's binary is linked against."""
GATEWAY_PORT = 8400
SHARED_MEMORY = "/dev/shm"  # noqa: S108  a mount to measure, not a file to write


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    status: str
    """OK, WARNING (Penstock runs all the same) or MISSING (it does not)."""
    detail: str
    mend: str = ""
    """The command line that mends it; empty when all is well."""


def check_system() -> Finding:
    """Triton's wheel exists for x86-64 Linux only."""
    system, machine = platform.system(), platform.machine()
    found = f"{system} on {machine}"
    if system == "Linux" and machine in ("x86_64", "amd64"):
        return Finding("system", OK, found)
    mend = "ssh to an x86-64 Linux machine, or run the container image there"
    return Finding("system", MISSING, f"{found}; Triton needs Linux on x86-64", mend)


def check_glibc() -> Finding:
    """Triton's binary needs the C library of Debian 12 or Ubuntu 22.04."""
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
    except (ValueError, OSError):
        found = "no glibc"
    version = found.rpartition(" ")[2].split(".")
    needs = ".".join(str(part) for part in GLIBC)
    if found.startswith("glibc ") and tuple(int(part) for part in version[:2]) >= GLIBC:
        return Finding("glibc", OK, found)
    mend = "upgrade to Debian 12, Ubuntu 22.04 or later (do-release-upgrade)"
    return Finding("glibc", MISSING, f"{found}; Triton needs glibc {needs}", mend)


def check_python() -> Finding:
    """One Python version carries the pinned packages, torch and Triton's stub."""
    found = platform.python_version()
    wanted = ".".join(str(part) for part in PYTHON)
    if sys.version_info[:2] == PYTHON:
        return Finding("python", OK, f"{found} ({sys.executable})")
    if shutil.which(f"python{wanted}"):
        mend = f"make PYTHON=python{wanted} setup"
    else:
        mend = apt(f"python{wanted}", f"python{wanted}-venv", f"libpython{wanted}")
        if is_ubuntu():
            mend = f"{sudo()}add-apt-repository -y ppa:deadsnakes/ppa && {mend}"
    return Finding("python", MISSING, f"{found}; the pins are for Python {wanted}", mend)


def check_venv() -> Finding:
    """Debian leaves ensurepip out of its Python; `python3 -m venv` fails without it."""
    try:
        import ensurepip
        import venv

        del ensurepip, venv
    except ImportError as error:
        mend = apt("python{}.{}-venv".format(*sys.version_info[:2]))
        return Finding("venv", MISSING, f"this Python has no {error.name}", mend)
    return Finding("venv", OK, "venv and ensurepip are there")


def check_libpython() -> Finding:
    """Triton's Python stub is linked to the shared libpython, which python3 does not pull in."""
    name = "libpython{}.{}.so.1.0".format(*sys.version_info[:2])
    folder = sysconfig.get_config_var("LIBDIR")
    beside = Path(str(folder)) / name
    if folder and beside.exists():
        return Finding("libpython", OK, str(beside))
    try:
        ctypes.CDLL(name)
    except OSError:
        mend = apt("libpython{}.{}".format(*sys.version_info[:2]))
        return Finding("libpython", MISSING, f"no {name}: Triton's stub cannot start", mend)
    return Finding("libpython", OK, f"{name}, by the system's loader")


def check_make() -> Finding:
    """Everything in a source tree starts with make."""
    found = shutil.which("make")
    if found:
        return Finding("make", OK, found)
    return Finding("make", MISSING, "make is not on the PATH", apt("make"))


def check_shared_memory(
    folder: str = SHARED_MEMORY, needed: int = 32 * MIB, advised: int = 256 * MIB
) -> Finding:
    """Tensors travel between Triton and its stubs through shared memory; Docker gives 64 MiB."""
    mend = f"{sudo()}mount -o remount,size=1G {folder}  # Docker: --shm-size=1g"
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("shared-memory", MISSING, f"{folder}: {error.strerror}", mend)
    found = f"{free // MIB} MiB free in {folder}"
    if free < needed:
        return Finding("shared-memory", MISSING, f"{found}; {needed // MIB} are needed", mend)
    if free < advised:
        detail = f"{found}; {advised // MIB} are better when large images are sent"
        return Finding("shared-memory", WARNING, detail, mend)
    return Finding("shared-memory", OK, found)


def check_open_files(needed: int = 1024, advised: int = 4096) -> Finding:
    """Every connection and every model takes file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= advised:
        return Finding("open-files", OK, f"limit {soft}")
    mend = f"ulimit -n {advised}"
    if hard != resource.RLIM_INFINITY and hard < advised:
        mend = f"{sudo()}prlimit --pid $$ --nofile={advised}"
    if soft < needed:
        detail = f"limit {soft}; {needed} are needed"
        return Finding("open-files", MISSING, detail, mend)
    detail = f"limit {soft}; {advised} are better for many callers"
    return Finding("open-files", WARNING, detail, mend)


def check_disk(folder: str, needed: int, advised: int) -> Finding:
    """The packages take the room: torch above all, and most with GPU support."""
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / GIB:.1f} GiB free in {folder}"
    mend = f"df -h {folder}  # free some space, or clone to a larger disk"
    if usage.free < needed:
        return Finding("disk", MISSING, f"{found}; {needed / GIB:.0f} are needed", mend)
    if usage.free < advised:
        detail = f"{found}; torch with GPU support wants {advised / GIB:.0f}"
        mend = "export TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu"
        return Finding("disk", WARNING, detail, mend)
    return Finding("disk", OK, found)


def check_port(port: int = GATEWAY_PORT) -> Finding:
    """Another port is chosen by itself when the gateway's is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            detail = f"{port}: {error.strerror}; `penstock up` will take another port"
            return Finding("port", WARNING, detail, f"ss -ltnp 'sport = :{port}'")
    return Finding("port", OK, f"{port} is free")


def check_memory(advised: int = 6 * GIB) -> Finding:
    """Each demo model runs in a process of its own, most with torch inside."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{total / GIB:.1f} GiB"
    if total < advised:
        detail = f"{found}; all demo models together want {advised / GIB:.0f}"
        return Finding("memory", WARNING, detail, "penstock up --help  # fewer models at once")
    return Finding("memory", OK, found)


def apt(*packages: str) -> str:
    """The line that installs Debian packages here."""
    return f"{sudo()}apt-get install -y {' '.join(packages)}"


def sudo() -> str:
    """What goes before a line that only root may run."""
    return "" if os.geteuid() == 0 else "sudo "


def is_ubuntu() -> bool:
    """Ubuntu carries one Python version a release; the others are in a PPA."""
    try:
        return "ID=ubuntu" in Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return False


def checks(tree: Path) -> list[Callable[[], Finding]]:
    """Every check, for a source tree at ``tree``; later ones make sense if the first passed."""
    installed = (tree / ".venv" / ".installed").exists()
    chosen = bool(os.environ.get("TORCH_INDEX_URL"))
    needed = GIB if installed else 4 * GIB
    advised = needed if installed or chosen else 12 * GIB
    found: list[Callable[[], Finding]] = [check_system, check_glibc, check_python]
    if sys.version_info[:2] == PYTHON:
        found += [check_venv, check_libpython]
    return [
        *found,
        check_make,
        check_shared_memory,
        check_open_files,
        lambda: check_disk(str(tree), needed, advised),
        check_memory,
        check_port,
    ]


def examine(tree: Path) -> list[Finding]:
    """What every check finds."""
    return [check() for check in checks(tree)]


def report(findings: list[Finding]) -> str:
    """The findings for people: a line each, and under a problem the line that mends it."""
    marks = {OK: "ok     ", WARNING: "warning", MISSING: "MISSING"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.status]}  {finding.name:<14} {finding.detail}")
        if finding.mend:
            lines.append(f"         {'':<14} mend: {finding.mend}")
    return "\n".join(lines)


def verdict(findings: list[Finding]) -> tuple[int, str]:
    """The exit status (1 when something needed is missing) and the last line."""
    missing = [finding.name for finding in findings if finding.status == MISSING]
    if missing:
        return 1, "Penstock cannot run here yet: mend " + ", ".join(missing)
    return 0, "Penstock can run on this machine."


def main() -> int:
    """Check this machine; the exit status."""
    arguments = argparse.ArgumentParser(description="What this machine lacks to run Penstock.")
    arguments.add_argument("--json", action="store_true", help="print the findings as JSON")
    as_json = arguments.parse_args().json
    findings = examine(Path(__file__).resolve().parents[2])
    status, line = verdict(findings)
    if as_json:
        print(json.dumps({"ok": not status, "checks": [asdict(f) for f in findings]}, indent=2))
    else:
        print(report(findings))
        print(line)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
