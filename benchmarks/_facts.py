"""What a run was measured on: without it, figures cannot be compared with anybody else's."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

_PACKAGES = ("lmtp-proto", "uvloop", "gevent", "aiosmtpd", "matplotlib")


def facts(mail: Path) -> dict[str, str | int | float]:
    """Return the machine's facts; `mail` is the folder whose file system takes the deliveries."""
    found: dict[str, str | int | float] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "mail file system": _file_system(mail),
        "load average before": round(os.getloadavg()[0], 2),
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    dovecot = _dovecot_version()
    if dovecot is not None:
        found["dovecot"] = dovecot
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Return the type and options of the file system that holds `path`."""
    best, answer = "", "unknown"
    resolved = str(path.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, answer = mount, f"{kind} ({options})"
    return answer


def _dovecot_version() -> str | None:
    try:
        return subprocess.run(
            ["/usr/sbin/dovecot", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
