"""The command rometrace of a wheel: becomes the program that the wheel holds, linked against the environment's torch.

It does not import torch, which would take a second; it looks which version there is, as libtorch's functions differ
from one minor version to the next and the program would stop at its start, or worse.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
from pathlib import Path

from rometrace.places import find_program, wheel_folder

CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, and what the wheel's libcurl looks for by itself
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)


class LauncherError(Exception):
    """What was found, what was expected, what to do; in one line."""


def version_of(torch: Path) -> str:
    """The version of the torch package in this folder, read without running it; empty where it does not say."""
    try:
        text = (torch / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"""^__version__\s*(?::\s*\w+\s*)?=\s*["']([^"']+)""", text, re.MULTILINE)
    return found[1] if found else ""


def minor_of(version: str) -> str:
    """2.13 of 2.13.0+cpu."""
    return ".".join(version.split(".")[:2])


def find_torch(site: Path) -> Path:
    """The torch that the program is to load: the one beside the package, where it looks by itself, or else Python's."""
    beside = site / "torch"
    if (beside / "lib").is_dir():
        return beside
    spec = importlib.util.find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        if (Path(folder) / "lib").is_dir():
            return Path(folder)
    raise LauncherError(f"torch is not installed in the environment of {sys.executable}")


def torch_settings(wheel: Path) -> dict[str, str]:
    """What the environment must say for the program to load torch. Raises LauncherError if there is none that fits."""
    built_with = (wheel / "torch_version.txt").read_text(encoding="utf-8").strip()
    wanted = minor_of(built_with)
    remedy = f"{sys.executable} -m pip install 'torch=={wanted}.*' brings one that fits"
    try:
        torch = find_torch(wheel.parent)
    except LauncherError as error:
        raise LauncherError(f"{error}; {remedy}") from None
    found = version_of(torch)
    if minor_of(found) != wanted:
        raise LauncherError(
            f"{torch} is torch {found or 'of an unknown version'}, expected {wanted}, with which this rometrace was "
            f"built; {remedy}"
        )
    if torch.parent == wheel.parent:
        return {}
    others = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{torch / 'lib'}:{others}" if others else str(torch / "lib")}


def certificate_settings() -> dict[str, str]:
    """Where the system's certificates are, if not in Debian's place and the user does not say."""
    if any(os.environ.get(name) for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")):
        return {}
    present = next((path for path in CERTIFICATES if Path(path).exists()), None)
    return {"SSL_CERT_FILE": present} if present and present != CERTIFICATES[0] else {}


def main() -> int:
    """Becomes the program. Gives the exit status 2 if it cannot."""
    program, wheel = find_program(), wheel_folder()
    try:
        settings = torch_settings(wheel) | certificate_settings() if wheel is not None else {}
        # Python ignores these, and what is ignored stays so in the program.
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        os.execve(program, [sys.argv[0], *sys.argv[1:]], os.environ | settings)
    except LauncherError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or program} cannot be run ({error.strerror}); install rometrace again"
    print(f"rometrace: {message}", file=sys.stderr)
    return 2
