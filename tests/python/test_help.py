"""--help of the program and of each command: how wide it is, how it is ordered, and the pages that it names."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

COMMANDS = ("summary", "show", "export", "merge", "calibrate", "edit", "moments", "repeat", "fetch", "models", "families")
HELPS = ((), *((command,) for command in COMMANDS))
HEADING = re.compile(r"^(\S.*) \((docs/\w+\.md)\):$")
NAMES = re.compile(r"^  ((?:-\w, )?--[a-z0-9-]+|\w+(?:\.\.\.)?)(?: |$)")
EVERY_HELP = pytest.mark.parametrize("words", HELPS, ids=lambda words: words[0] if words else "rometrace")


@pytest.fixture
def help_of(rometrace):
    """help_of(*words) is what `rometrace words --help` prints."""

    def read(*words: str, **environment: str) -> str:
        done = rometrace(*words, "--help", **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return read


def options_by_heading(text: str) -> dict[str, list[str]]:
    """The names of the options and words that stand below each heading; "" for what stands below none."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line in text.splitlines():
        if match := HEADING.match(line):
            heading = match[1]
            assert heading not in found, f"{heading} is there twice"
            found[heading] = []
        elif line and not line.startswith(" "):
            heading = ""
        elif match := NAMES.match(line):
            found[heading].append(match[1])
    return found


@EVERY_HELP
def test_no_line_is_wider_than_80(help_of, words):
    text = help_of(*words)
    assert text.isascii()  # so characters are columns
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert max(map(len, text.splitlines())) > 60, "lines are broken for a narrower page"


@EVERY_HELP
def test_every_option_stands_in_a_group_that_says_what_it_is_for(help_of, words):
    groups = options_by_heading(help_of(*words))
    listed = [option for heading, options in groups.items() if heading for option in options]
    assert list(groups.values())[-1][-1] == "-h, --help"
    assert not [option for option in groups[""] if option.startswith("-")]
    assert all(options for heading, options in groups.items() if heading)
    assert len(listed) == len(set(listed)), "an option is there twice"


def test_the_groups_of_the_main_command_are_these(help_of):
    groups = options_by_heading(help_of())
    assert list(groups) == [
        "",
        "What to trace",
        "Model",
        "Method: what is restored",
        "Neurons, with --kinds neuron",
        "Corruption and noise",
        "Answers and measures",
        "Many facts, with --facts",
        "Settings of a result",
        "Output",
        "Running",
    ]
    assert groups["What to trace"] == ["--prompt", "--subject", "--subject-at", "--facts", "--special-tokens"]
    assert groups["Settings of a result"] == ["--from", "--id", "--print-command"]
    assert groups["Output"] == ["-o, --output", "--json", "-v, --verbose", "-q, --quiet"]
    assert groups["Neurons, with --kinds neuron"] == ["--layers", "--rank-by", "--top", "--sets", "--neurons"]
    assert "--window" in groups["Method: what is restored"]


def test_every_option_of_the_sources_is_in_some_help(help_of, repository):
    sources = "".join(path.read_text() for path in (repository / "src/cli/options").glob("*.cpp"))
    sources = re.sub("//.*", "", sources)
    known = set(re.findall(r'"(?:-\w,)?(--[a-z0-9][a-z0-9-]*)"', sources))
    assert len(known) > 50
    texts = [help_of(*words) for words in HELPS]
    shown = {name.split()[-1] for text in texts for options in options_by_heading(text).values() for name in options}
    assert known <= shown, known - shown


def test_every_command_is_listed_with_what_it_does(help_of):
    text = help_of()
    section = text[text.index("\nCommands ") :].split("\n\n")[0]
    assert tuple(re.findall(r"^  (\w+) {2,}\w", section, re.MULTILINE)) == COMMANDS


@EVERY_HELP
def test_the_pages_named_are_there(help_of, repository, words):
    pages = set(re.findall(r"docs/\w+\.md", help_of(*words)))
    assert pages
    assert [page for page in sorted(pages) if not (repository / page).is_file()] == []


@pytest.mark.parametrize(
    "name, shown",
    [
        ("--kinds", "[state,mlp,attn]"),
        ("--window", "[10]"),
        ("--knockout-window", "[9]"),
        ("--rank-by", "[gradient]"),
        ("--top", "[20]"),
        ("--noise", "[s3]"),
        ("--engine", "[sweep]"),
        ("--dtype", "[float32]"),
        ("--known-by", "[said:2]"),
    ],
)
def test_defaults_stand_behind_what_is_said(help_of, name, shown):
    entry = re.search(rf"^  {name} .*(?:\n {{10,}}.*)*", help_of(), re.MULTILINE)
    assert entry is not None and entry[0].endswith(shown), entry


def test_what_is_required_is_said(help_of):
    assert "(required)" in help_of("calibrate")
    assert "\nUsage: rometrace summary [options] files...\n" in help_of("summary")


def on_a_terminal(command: list[str | Path], columns: int, **environment: str) -> str:
    """What the command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | environment) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                some = os.read(ours, 4096)
            except OSError:  # the terminal's other end is closed
                break
            if not some:
                break
            text += some
        os.close(ours)
        assert process.wait() == 0
    return text.decode().replace("\r\n", "\n")


@EVERY_HELP
def test_help_is_the_same_text_wherever_it_is_written(help_of, bin_dir, words):
    text = help_of(*words)
    assert help_of(*words, NO_COLOR="1") == text
    for columns in ("20", "80", "300", "", "many"):
        assert help_of(*words, COLUMNS=columns) == text
    command = [bin_dir / "rometrace", *words, "-h"]
    for columns in (40, 200):
        assert on_a_terminal(command, columns, TERM="xterm-256color", COLORTERM="truecolor") == text
