"""The way of the data is the way of the folders: a room includes only what stands to the left of it."""

import re
from collections import defaultdict
from pathlib import Path

# Each may include those before it. `summary` stands before `study`: a calibration averages what it traces.
ORDER = ("work", "text", "hub", "model", "trace", "edit", "facts", "results", "summary", "study", "report", "cli")
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def room_of_file(path: Path, repository: Path) -> str | None:
    """The folder behind src/ or include/rometrace/; none for what lies beside these folders."""
    parts = path.relative_to(repository).parts
    rest = parts[1:] if parts[0] == "src" else parts[2:]
    return rest[0] if len(rest) > 1 else None


def room_of_include(name: str) -> str | None:
    """The room of "rometrace/text/utf8.hpp" or "text/size_text.hpp"; none for "rometrace/error.hpp"."""
    parts = name.removeprefix("rometrace/").split("/")
    return parts[0] if len(parts) > 1 else None


def arrows(repository: Path) -> dict[tuple[str, str], list[str]]:
    """(from, to) with the files whose #include lines make that arrow."""
    found = defaultdict(list)
    files = [*repository.glob("src/**/*.[ch]pp"), *repository.glob("include/rometrace/**/*.hpp")]
    for path in sorted(files):
        room = room_of_file(path, repository)
        if room is None:  # main.cpp, error.hpp
            continue
        for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
            other = room_of_include(name)
            if other is not None and other != room:
                found[room, other].append(f"{path.relative_to(repository)} includes {name}")
    return found


def test_each_room_is_in_the_order(repository):
    rooms = {path.name for path in (repository / "src").iterdir() if path.is_dir()}
    assert rooms == set(ORDER)
    assert {path.name for path in (repository / "include/rometrace").iterdir() if path.is_dir()} <= rooms


def test_a_room_includes_only_what_stands_before_it(repository):
    found = arrows(repository)
    assert len(found) > len(ORDER)  # the pattern still finds the include lines
    backwards = {
        arrow: lines
        for arrow, lines in found.items()
        if arrow[1] not in ORDER or ORDER.index(arrow[1]) > ORDER.index(arrow[0])
    }
    assert not backwards, "\n".join(line for lines in backwards.values() for line in lines)


def test_what_every_room_may_include_includes_no_room(repository):
    for path in (repository / "include/rometrace").glob("*.hpp*"):
        assert not [name for name in INCLUDE.findall(path.read_text(encoding="utf-8")) if room_of_include(name)], path


def test_an_arrow_backwards_is_found(tmp_path):
    source = tmp_path / "src/results/merge.cpp"
    source.parent.mkdir(parents=True)
    source.write_text('#include "rometrace/report/json.hpp"\n#include "rometrace/error.hpp"\n#include <map>\n')
    assert dict(arrows(tmp_path)) == {
        ("results", "report"): ["src/results/merge.cpp includes rometrace/report/json.hpp"]
    }
