"""What the tests of batches share: commands over the shipped facts, and results files compared but for times."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from zygote import RUNNER

REPOSITORY = Path(__file__).resolve().parents[2]
FACTS = REPOSITORY / "share/rometrace/facts.json"
QUICK = ("--kinds", "state", "--samples", "2", "-q")


def environment(**more: str) -> dict[str, str]:
    """One thread, no model chosen outside, and no launcher's variables."""
    launchers = ("SLURM_", "OMPI_", "PMI", "RANK", "WORLD_SIZE", "TORCHELASTIC", "ROMETRACE_MODEL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def command(executable: Path, output: Path | str, *more: object, limit: int = 25, facts: Path = FACTS) -> list[str]:
    """A batch over the first facts, as quick as one can be. Later options win."""
    return [str(executable), "--facts", str(facts), *QUICK, "--limit", str(limit), "-o", str(output), *map(str, more)]


def run(arguments: list[str], **more) -> subprocess.CompletedProcess[str]:
    return RUNNER.run(arguments, encoding="utf-8", **{"env": environment(), "timeout": 300} | more)


def finished(result: subprocess.CompletedProcess[str]) -> None:
    """The batch came to its end, whether or not all of its facts were traced."""
    assert result.returncode in (0, 1), (result.returncode, result.stderr)


def without_times(text: bytes | str) -> str:
    """A results file but for run.seconds. Nothing is parsed, so that all else is compared to the byte."""
    text = text.decode() if isinstance(text, bytes) else text
    return re.sub(r'("run":\{.*?"seconds":)[0-9.eE+-]+', r"\1_", text)


def orders(text: bytes) -> list[int]:
    """The facts' places; every line must be whole."""
    assert text.endswith(b"\n")
    header, *lines = (json.loads(line) for line in text.splitlines())
    assert header["schema"] == "rometrace/batch/1"
    return [line["fact"]["order"] for line in lines]


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 2, and one line of error with these words."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr, (word, result.stderr)
