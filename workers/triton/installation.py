"""Where a tritonserver is installed, and what it needs around it to run our models.

Two layouts: the vendor's container (/opt/tritonserver), complete as it is; and the PyPI wheel
nvidia-pytriton installed with ``pip --target``, whose python backend lacks the stub that fits this
Python until it is put beside it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE_TREE = Path(__file__).resolve().parents[2]
_CONTAINER = Path("/opt/tritonserver")
_SECRET = ("PENSTOCK_GATEWAY_", "PENSTOCK_SCHEDULER_", "PENSTOCK_WORKER_")


class TritonMissing(Exception):
    """No usable tritonserver was found; the text says where it was looked for."""


@dataclass(frozen=True)
class Installation:
    """A tritonserver that can be started."""

    binary: Path
    backends: Path
    libraries: tuple[Path, ...] = ()
    """Directories that the dynamic linker must search."""

    def environment(self, inherited: Mapping[str, str], stub_threads: int) -> dict[str, str]:
        """What the server and its models' processes are started with.

        The models' Python is the one found first on PATH, so this process's own comes first. Other
        services' settings are left out: models have no use for their secrets.
        """
        kept = {name: v for name, v in inherited.items() if not name.startswith(_SECRET)}
        kept["PATH"] = _joined(Path(sys.executable).parent, inherited=kept.get("PATH"))
        kept["PYTHONPATH"] = _joined(SOURCE_TREE, inherited=kept.get("PYTHONPATH"))
        if self.libraries:
            kept["LD_LIBRARY_PATH"] = _joined(
                *self.libraries, inherited=kept.get("LD_LIBRARY_PATH")
            )
        return kept | {
            "OMP_NUM_THREADS": str(stub_threads),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }


def locate(home: str) -> Installation:
    """The installation at ``home``, or the first of the usual ones; raises TritonMissing."""
    places = [Path(home)] if home else [Path(sys.prefix) / "triton", _CONTAINER]
    for place in places:
        if (place / "pytriton/tritonserver/bin/tritonserver").is_file():
            return _from_wheel(place)
        if (place / "bin/tritonserver").is_file():
            return Installation(place / "bin/tritonserver", place / "backends")
    looked = " or ".join(str(place) for place in places)
    raise TritonMissing(f"no tritonserver in {looked}; set PENSTOCK_TRITON_HOME")


def _from_wheel(home: Path) -> Installation:
    server = home / "pytriton/tritonserver"
    release = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / release / "triton_python_backend_stub"
    if not stub.is_file():
        raise TritonMissing(f"{server} has no python backend stub for Python {release}")
    binary = server / "bin/tritonserver"
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    backend = server / "backends/python"
    sources = [
        backend / "libtriton_python.so",
        backend / "triton_python_backend_utils.py",
        stub,
    ]
    libraries = (home / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR")))
    return Installation(binary, _assembled(home, sources), libraries)


def _assembled(home: Path, sources: list[Path]) -> Path:
    """A backend directory of copies beside the wheel: made once, whole or not at all.

    The wheel's own stay as they are. Processes that race build one each; the first rename wins.
    """
    marks = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sources]
    key = hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
    target = home / f"backends-{key}"
    if target.is_dir():
        return target
    fresh = Path(tempfile.mkdtemp(prefix=".backends-", dir=home))
    try:
        (fresh / "python").mkdir()
        for path in sources:
            Path(shutil.copy(path, fresh / "python")).chmod(0o755)
        fresh.chmod(0o755)
        fresh.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _joined(*first: Path, inherited: str | None) -> str:
    return os.pathsep.join([*(str(path) for path in first), *([inherited] if inherited else [])])
