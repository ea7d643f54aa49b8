"""The documents: every command is run and prints what the page shows, every link leads somewhere, lines can be read.

How commands are run and what may differ stands in documents.py. A block that is not run is skipped by name, with the
reason that its page gives.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Iterator

import pytest

import documents
from documents import COMMANDS, REPOSITORY, TEXTS, Block, Place, difference, pages, prose_of, read_blocks

LONGEST_LINE = 120
README_LINES = 200
LONGEST_REPEAT = 60  # characters of a sentence that may stand in two pages

BLOCKS = [block for page in pages() for block in read_blocks(page)]
RUN_OR_MARKED = [block for block in BLOCKS if block.is_commands]


class Runs:
    """The folders of all pages, each with the blocks that were run in it."""

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self.folder, self.bin_dir = folder, bin_dir
        shared = Path(os.environ.get("ROMETRACE_SHARED", REPOSITORY.parent / "shared"))
        self.shared = shared if shared.is_dir() else None
        self.places: dict[Path, Place] = {}
        self.outcomes: dict[str, list[str]] = {}

    def place_of(self, page: Path) -> Place:
        if page not in self.places:
            self.places[page] = Place(self.folder / page.stem, self.bin_dir, self.shared)
        return self.places[page]

    def faults_of(self, wanted: Block) -> list[str]:
        """What is wrong with a block; runs it, and before it those of its page that were not run yet."""
        place = self.place_of(wanted.page)
        for block in BLOCKS:
            if block.page != wanted.page or block.where in self.outcomes:
                continue
            self.outcomes[block.where] = []
            if block.file:
                (place.work / block.file).write_text("\n".join(block.lines) + "\n", encoding="utf-8")
            if block.is_commands and block.not_run is None and not place.missing(block):
                self.outcomes[block.where] = list(faults(place, block))
            if block is wanted:
                break
        return self.outcomes[wanted.where]


def faults(place: Place, block: Block) -> Iterator[str]:
    """Runs a block's commands; tells which fail, or print something else than the page shows."""
    for command in block.commands():
        status, printed = place.run(command.text)
        if status != 0:
            yield f"{block.where}: exit status {status} of\n{command.text}\nwhich prints\n{printed}"
            return
        if command.expected is not None and (differs := difference(command.expected, printed)):
            yield f"{block.where}: {command.text}\n{differs}\nit prints\n{printed}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bin_dir: Path) -> Runs:
    return Runs(tmp_path_factory.mktemp("documents"), bin_dir)


# --- Commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", RUN_OR_MARKED, ids=lambda block: block.where)
def test_commands_run_and_print_what_the_page_shows(runs: Runs, block: Block) -> None:
    if block.not_run is not None:
        assert len(block.not_run.split()) >= 2, f"{block.where}: is marked as not run without a reason"
        pytest.skip(f"not run: {block.not_run}")
    if missing := runs.place_of(block.page).missing(block):
        pytest.skip(f"{', '.join(missing)} is not there")
    assert block.commands(), f"{block.where}: no line begins with $"
    found = runs.faults_of(block)
    assert not found, "\n".join(found)


def test_most_blocks_of_commands_are_run(record_property) -> None:
    count = Counter("marked" if block.not_run is not None else "run" for block in RUN_OR_MARKED)
    print(f"{count['run']} blocks of commands are run, {count['marked']} are marked with a reason")
    record_property("marked", count["marked"])
    assert count["run"] > count["marked"]


def test_blocks_are_commands_or_say_what_they_are() -> None:
    wrong = [f"{block.where}: ```{block.language}" for block in BLOCKS if block.language not in COMMANDS + TEXTS]
    assert not wrong, f"expected one of {COMMANDS + TEXTS}: {wrong}"
    hidden = [block.where for block in BLOCKS if not block.is_commands and any(map(is_prompt, block.lines))]
    assert not hidden, f"commands in blocks that are not run; expected console: {hidden}"


def is_prompt(line: str) -> bool:
    return line.startswith(("$ ", "scripts/", "rometrace "))


def test_marks_stand_right_before_blocks() -> None:
    for page in pages():
        comments = [number for number, line in prose_of(page) if documents.COMMENT.match(line)]
        opened = {block.line - 1 for block in read_blocks(page)}
        assert set(comments) <= opened, f"{page.name}: a mark without a block, lines {set(comments) - opened}"


def test_whole_commands_stand_in_blocks_where_they_are_run() -> None:
    """`summary` or `--window 3` may be spoken of; a line to be copied is run."""
    for page in pages():
        for number, line in prose_of(page):
            for span in re.findall(r"`([^`]+)`", line):
                whole = re.match(r"(?:\$ )?(?:scripts/\S+|rometrace) .*(?:--?\w|/)", span)
                assert not whole, f"{page.name}:{number}: {span} stands in a sentence; expected a block"


def test_every_option_is_explained(rometrace) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    silent = []
    for command in ([], ["summary"], ["merge"], ["calibrate"], ["edit"], ["moments"], ["repeat"], ["show"], ["export"], ["fetch"], ["models"]):
        options = re.findall(r"(?m)^ +(?:(-\w), ?)?(--[\w-]+)", rometrace(*command, "--help").stdout)
        assert options, command
        for short, name in options:
            spellings = "|".join(re.escape(one) for one in (short, name) if one)
            if name not in ("--help", "--version") and not re.search(rf"(?<![\w-])(?:{spellings})(?![\w-])", text):
                silent.append(" ".join([*command, name]))
    assert not silent, f"no page names these: {silent}"


# --- The comparison itself ----------------------------------------------------------------------------------------

MAP = " Davis* 35 34 10 9\n total effect 0.561.\n60 facts: 60 traced; 18 s\n"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (MAP, MAP, True),
        (MAP, MAP.replace("18 s", "7.25 s"), True),
        (MAP, MAP.replace("60 facts", "61 facts"), False),
        (MAP, MAP.replace("0.561", "0.562"), True),
        (MAP, MAP.replace("0.561", "0.5613"), True),
        (MAP, MAP.replace("0.561", "0.565"), False),
        (MAP, MAP.replace(" 34 ", " 33 "), True),
        (MAP, MAP.replace(" 34 ", " 32 "), False),
        (MAP, MAP.replace("traced", "failed"), False),
        (MAP, MAP.replace("* 35", "*    35"), True),
        (MAP, MAP + "more\n", False),
        ("...\n60 facts: 60 traced; 18 s", MAP, True),
        (" Davis* 35 34 10 9\n...", MAP, True),
        ("...\n total effect 0.561.", MAP, False),
        (" Davis* 35 34 10 9\n...\n60 facts: ...", MAP, True),
        ("...\nall 43.5\n...", "x 1\nall 100.0\nall 43.5\ny\n", True),
        ("...\nall 43.5\n...", "x 1\nall 100.0\nall 44.5\ny\n", False),
        ("", "", True),
        ("", "words\n", False),
        ('{"a": 1,\n "b": [0.25, ...],\n "seconds": 0.5}', '{"a":1,"b":[0.2501,3],"seconds":7e-05}\n', True),
        ('{"a": 1, ...}', '{"a":2,"b":3}\n', False),
        ('{"a": "x", ...}', '{"a":"x","b":3}\n', True),
        ("version 0.1.0", "version 0.1.1\n", False),
        ("9.63 % (14 %)", "9.63 % (15 %)\n", True),
        ("9.63 % (14 of 60)", "9.63 % (15 of 60)\n", False),
    ],
)
def test_only_what_may_differ_does(shown: str, printed: str, same: bool) -> None:
    assert (difference(shown.splitlines(), printed) == "") == same


def test_a_block_knows_its_mark_its_file_and_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "REPOSITORY", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a network -->\n```sh\nfetch\n```\n<!-- file: a.csv -->\n```csv\na,b\n```\n"
        "- in a list\n\n  ```console\n  $ one \\\n      two\n  out\n    deeper\n  $ three\n  > four\n  ```\n"
    )
    marked, data, listed = read_blocks(page)
    assert (marked.not_run, data.not_run, data.file) == ("needs a network", None, "a.csv")
    assert [command.text for command in marked.commands()] == ["fetch"]
    first, second = listed.commands()
    assert (first.text, first.expected) == ("one \\\n    two", ["out", "  deeper"])
    assert (second.text, second.expected) == ("three\nfour", [])
    assert [line for _, line in prose_of(page) if line] == [
        "<!-- not run: needs a network -->",
        "<!-- file: a.csv -->",
        "- in a list",
    ]


def test_a_command_that_fails_or_prints_otherwise_is_a_fault(tmp_path: Path, bin_dir: Path) -> None:
    place = Place(tmp_path / "place", bin_dir, None)
    page = pages()[0]

    def faults_of(*lines: str, language: str = "console") -> list[str]:
        return list(faults(place, Block(page, 1, language, list(lines))))

    assert not faults_of("$ echo one; echo two >&2", "one", "two")
    assert "exit status 3" in faults_of("$ exit 3")[0]
    assert "exit status 1" in faults_of("$ false | cat")[0]
    assert "not printed" in faults_of("$ echo one", "two")[0]
    assert not faults_of("echo one >file", "test -e file", language="sh")
    assert faults_of("false", "true", language="sh")
    columns = "import os; print(os.get_terminal_size(1).columns)"
    assert not faults_of(f"$ python3 -c '{columns}'", str(documents.COLUMNS))


# --- Links, names, lines ------------------------------------------------------------------------------------------


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    titles = [line.lstrip("#").strip() for _, line in prose_of(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links_of(page: Path) -> list[str]:
    text = "\n".join(line for _, line in prose_of(page))
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in links_of(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    assert not dead, f"{page.name}: {dead}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = {
        span
        for _, line in prose_of(page)
        for span in re.findall(r"`((?:\.ci|cmake|docs|include|scripts|share|src|tests)/[\w./*{},-]*)`", line)
    }
    missing = [path for path in named for one in spread(path) if not list(REPOSITORY.glob(one.rstrip("/")))]
    assert not missing, f"{page.name}: {missing}"


def spread(path: str) -> list[str]:
    """"a/{b,c}.d" as "a/b.d" and "a/c.d"."""
    braces = re.search(r"\{([^}]*)\}", path)
    if not braces:
        return [path]
    return [one for part in braces[1].split(",") for one in spread(path.replace(braces[0], part, 1))]


def test_functions_that_are_named_exist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    sources = [
        path
        for path in map(REPOSITORY.joinpath, listed.splitlines())
        if path.suffix in (".cpp", ".hpp", ".py") and path.is_file()
    ]
    if not sources:
        pytest.skip("no list of files: this is not a clone of git")
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sources)
    for page in pages():
        for number, line in prose_of(page):
            for name in re.findall(r"`(?:\w+::)*(\w+)\(\)`", line):
                assert re.search(rf"\b{name}\(", text), f"{page.name}:{number}: {name}() is nowhere"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_lines_are_not_too_long(page: Path) -> None:
    long = [number for number, line in prose_of(page) if len(line) > LONGEST_LINE and not line.startswith("|")]
    assert not long, f"{page.name}: more than {LONGEST_LINE} characters in lines {long}"


def test_the_readme_can_be_read_to_its_end() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_page_is_reached_from_the_readme() -> None:
    readme = pages()[0]
    linked = {(readme.parent / link.partition("#")[0]).resolve() for link in links_of(readme)}
    assert set(pages()[1:]) <= linked, [page.name for page in set(pages()[1:]) - linked]


def test_nothing_is_said_twice() -> None:
    seen: dict[str, str] = {}
    for page in pages():
        text = " ".join(line.strip() for _, line in prose_of(page) if not line.startswith("|"))
        for sentence in re.split(r"(?<=[.:;]) ", re.sub(r"\s+", " ", text)):
            if len(sentence) > LONGEST_REPEAT:
                first = seen.setdefault(sentence, page.name)
                assert first == page.name, f"{first} and {page.name} both say: {sentence}"
