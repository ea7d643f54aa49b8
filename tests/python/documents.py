"""The pages README.md and docs/*.md: their blocks, and how their commands are run and compared with what is printed.

    tests/python/documents.py docs/study.md     prints the page's commands with what they print today

Blocks fenced as `sh` are run as one script that must succeed; what it prints is not looked at. In blocks fenced as
`console` each line that begins with "$ " is a command (with the lines after it that begin with "> ", or while one ends in
a backslash), and the lines after it are what it prints on a terminal of 100 columns without colour, stdout and stderr
together. Of that the following may differ, and nothing else:

1. "..." alone on a line stands for any lines, elsewhere for any text within its line.
2. A number shown with a decimal point or an exponent may differ by one in its last digit, or by a thousandth, and may
   have more digits than are shown: processors round differently. A whole number may differ by one where it was rounded:
   before " %", and in a heat map's row.
3. A number before " s" (seconds), or the value of "seconds" in JSON, may be any.
4. Runs of spaces count as one; what begins with { or [ is JSON, in which white space counts for nothing.

An HTML comment in the line before a block says more about it: `<!-- not run: REASON -->`, or `<!-- file: NAME -->`, by
which the block's text becomes a file of that name for the commands after it. Commands of one page run in order, in one
folder that looks like a working copy.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = ("sh", "console")
TEXTS = ("cmake", "cpp", "csv", "json", "python", "text", "tsv")  # fences of what is not run
COLUMNS = 100
SECONDS = 600  # of a command; the longest takes half a minute on a machine with nothing else to do

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*) *$")
COMMENT = re.compile(r"^ *<!-- (?P<what>[^:>]+)(?:: *(?P<value>.*?))? *-->$")
NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
PIECE = re.compile(rf"(?P<dots>\.\.\.)|(?P<number>(?<![\w.]){NUMBER}(?![\w.]*\w))|(?P<other>.)", re.DOTALL)


def pages() -> list[Path]:
    """The pages that are tested, README.md first."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


# --- Reading --------------------------------------------------------------------------------------------------------


@dataclass
class Command:
    """A command line and what it prints."""

    text: str
    expected: list[str] | None
    """Lines, or None where any output will do."""


@dataclass
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its opening fence, from 1."""
    language: str
    lines: list[str] = field(default_factory=list)
    not_run: str | None = None
    """The reason of its mark; empty where the mark has none."""
    file: str | None = None
    """The file that it is."""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def is_commands(self) -> bool:
        return self.language in COMMANDS

    def commands(self) -> list[Command]:
        """Its commands, in order."""
        if self.language == "sh":
            return [Command("\n".join(self.lines), None)]
        commands: list[Command] = []
        goes_on = False
        for line in self.lines:
            if goes_on or (commands and not commands[-1].expected and line.startswith("> ")):
                commands[-1].text += "\n" + line.removeprefix("> ")
            elif line.startswith("$ "):
                commands.append(Command(line.removeprefix("$ "), []))
            else:
                assert commands, f"{self.where}: begins with output; expected a line that begins with $"
                commands[-1].expected.append(line)  # type: ignore[union-attr]
                continue
            goes_on = commands[-1].text.endswith("\\")
        return commands


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page. Fails for a fence that is not closed."""
    blocks: list[Block] = []
    before, indent = "", None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if indent is None and fence:
            indent = len(fence["indent"])
            comment = COMMENT.match(before)
            marks = {comment["what"]: comment["value"] or ""} if comment else {}
            blocks.append(Block(page, number, fence["language"], [], marks.get("not run"), marks.get("file")))
        elif indent is not None and fence and not fence["language"]:
            indent = None
        elif indent is not None:
            blocks[-1].lines.append(line[min(indent, len(line) - len(line.lstrip(" "))) :])
        before = line
    assert indent is None, f"{blocks[-1].where}: a block without end"
    return blocks


def prose_of(page: Path) -> list[tuple[int, str]]:
    """The page's lines outside blocks, with their numbers."""
    lines = page.read_text(encoding="utf-8").splitlines()
    inside = {
        number for block in read_blocks(page) for number in range(block.line, block.line + len(block.lines) + 2)
    }
    return [(number, line) for number, line in enumerate(lines, start=1) if number not in inside]


# --- Running --------------------------------------------------------------------------------------------------------


class Place:
    """A folder that looks like a working copy, in which a page's commands are run."""

    def __init__(self, folder: Path, bin_dir: Path, shared: Path | None) -> None:
        self.work = folder / "rometrace"
        self.work.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "scripts", self.work / "scripts", ignore=ignored)
        program = bin_dir / "rometrace"
        stand_in = self.work / "scripts/rometrace"  # the real one would build
        stand_in.write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
        stand_in.chmod(0o755)
        for name in ("share", "docs", "tests", "include", "src"):
            (self.work / name).symlink_to(REPOSITORY / name)
        (self.work / "build/release").mkdir(parents=True)
        (self.work / "build/release/bin").symlink_to(bin_dir)
        if sys.prefix != sys.base_prefix:
            (self.work / ".venv").symlink_to(sys.prefix)
        self.shared = {"known_1000.json": "facts/known_1000.json", "lre": "facts/lre"}
        for name, path in self.shared.items():
            if shared and (shared / path).exists():
                (self.work / name).symlink_to(shared / path)
        fonts = {"MPLCONFIGDIR": str(folder.parent / "matplotlib")}  # found once for all pages
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "MPLCONFIGDIR", "TMPDIR") if name in os.environ}
        self.environment = fonts | kept | {
            # One thread: on a busy machine two threads of a tiny model wait for each other most of the time.
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(bin_dir), os.environ["PATH"]]),
            "TERM": "dumb",
        }

    def missing(self, block: Block) -> list[str]:
        """The files from outside the repository that the block names and that are not here."""
        text = "\n".join(command.text for command in block.commands())
        named = [name for name in self.shared if re.search(rf"(?<![\w./-]){re.escape(name)}\b", text)]
        return [name for name in named if not (self.work / name).exists()]

    def run(self, command: str) -> tuple[int, str]:
        """Exit status, and what the command prints on a terminal."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-e", "-c", command],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        watch = threading.Timer(SECONDS, process.kill)
        watch.start()
        printed = bytearray()
        try:
            while some := os.read(ours, 65536):
                printed += some
        except OSError:  # the last one to hold the other end has closed it
            pass
        status = process.wait()
        watch.cancel()
        os.close(ours)
        return status, printed.decode(errors="replace").replace("\r\n", "\n")


# --- Comparing ------------------------------------------------------------------------------------------------------


@dataclass
class Number:
    """A number as a page shows it."""

    text: str
    any: bool = False
    """Seconds."""
    rounded: bool = False
    """A whole number that was a fraction."""

    def agrees(self, found: str) -> bool:
        if self.any:
            return True
        shown = self.text.lower()
        if not set(".e") & set(shown):
            return float(found) == int(shown) or (self.rounded and abs(float(found) - int(shown)) <= 1)
        digits, _, exponent = shown.partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        return abs(float(found) - float(shown)) <= max(1.01 * unit, 1e-3 * abs(float(shown)))


@dataclass
class Chunk:
    """What stands between two "..."."""

    pattern: re.Pattern[str]
    numbers: list[Number]
    text: str

    def search(self, text: str, start: int, at_start: bool, at_end: bool) -> int | None:
        """Where the first place at or after `start` ends that agrees."""
        while found := self.pattern.search(text, start):
            right_place = (not at_start or found.start() == 0) and (not at_end or found.end() == len(text))
            if right_place and all(map(Number.agrees, self.numbers, found.groups())):
                return found.end()
            if at_start and found.start() > 0:
                return None
            start = found.start() + 1
        return None


def is_json(text: str) -> bool:
    return text.lstrip().startswith(("{", "["))


def simplified(text: str) -> str:
    """The text without what is not compared (rule 4)."""
    if is_json(text):
        return re.sub(r"\s+", "", text)
    return "".join(re.sub(r"[ \t]+", " ", line).rstrip() + "\n" for line in text.splitlines())


def chunks_of(expected: str) -> list[Chunk]:
    """The simplified text, cut at its "..."."""
    json = is_json(expected)
    if not json:
        expected = re.sub(r"(?m)^ ?\.\.\.\n", "\0", expected)  # whole lines
    chunks: list[Chunk] = []
    for part in re.split(r"\0", expected):
        pattern, numbers, text = "", [], ""
        for piece in PIECE.finditer(part):
            if piece["dots"]:
                if json:
                    chunks.append(Chunk(re.compile(pattern), numbers, text))
                    pattern, numbers, text = "", [], ""
                    continue
                pattern += r"[^\n]*?"
            elif piece["number"]:
                line = part[part.rfind("\n", 0, piece.start()) + 1 : part.find("\n", piece.end())]
                after, before = part[piece.end() :], part[: piece.start()]
                pattern += f"({NUMBER})"
                numbers.append(
                    Number(
                        piece[0],
                        any=bool(re.match(r" s\b", after)) or before.endswith('"seconds":'),
                        rounded=after.startswith(" %") or bool(re.search(r"(?: [-+]?\d+){4}$", line)),
                    )
                )
            else:
                pattern += re.escape(piece[0])
            text += piece[0]
        chunks.append(Chunk(re.compile(pattern), numbers, text))
    return chunks


def difference(expected: list[str], printed: str) -> str:
    """What a page shows against what was printed: empty where they agree."""
    shown = simplified("\n".join(expected))
    found = simplified(printed)
    chunks = chunks_of(shown)
    place = 0
    for i, chunk in enumerate(chunks):
        end = chunk.search(found, place, i == 0, i == len(chunks) - 1)
        if end is None:
            diff = difflib.unified_diff(shown.splitlines(), found.splitlines(), "page", "printed", lineterm="", n=1)
            return f"not printed, or with other numbers:\n{chunk.text}\n" + "\n".join(diff)
        place = end
    return ""


# --- For whoever writes a page --------------------------------------------------------------------------------------


def show(page: Path) -> None:
    """Prints the page's commands with what they print."""
    bin_dir = Path(os.environ.get("ROMETRACE_BIN_DIR", REPOSITORY / "build/release/bin"))
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), bin_dir, REPOSITORY.parent / "shared")
        for block in read_blocks(page):
            if block.file:
                (place.work / block.file).write_text("\n".join(block.lines) + "\n")
            if not block.is_commands or block.not_run is not None:
                continue
            for command in block.commands():
                status, printed = place.run(command.text)
                print(f"{block.where}\n$ {command.text}\n{printed}[exit status {status}]", flush=True)
                if status == 0 and command.expected is not None:
                    print(difference(command.expected, printed) or "[as on the page]", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        show(Path(name).resolve())
