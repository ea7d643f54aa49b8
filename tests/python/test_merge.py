"""`--shard` and `rometrace merge`: the parts, put together, are the whole."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from batches import command, environment, finished, orders, refused, run, without_times


@pytest.fixture(scope="module")
def executable(bin_dir: Path) -> Path:
    return bin_dir / "rometrace"


@pytest.fixture(scope="module")
def made(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with whole.jsonl and its three shards."""
    folder = tmp_path_factory.mktemp("shards")
    finished(run(command(executable, folder / "whole.jsonl", limit=10)))
    for index in (1, 2, 3):
        finished(run(command(executable, folder / "part.jsonl", "--shard", f"{index}/3", limit=10)))
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> list[Path]:
    """Copies of the three shards that a test may damage."""
    copies = []
    for index in (1, 2, 3):
        copies.append(tmp_path / f"part.{index}-of-3.jsonl")
        copies[-1].write_bytes((made / copies[-1].name).read_bytes())
    return copies


@pytest.fixture
def merge(executable: Path):
    def merged(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run([str(executable), "merge", *map(str, arguments)])

    return merged


def test_a_shard_has_its_part_of_the_facts_in_a_file_of_its_own(made):
    assert sorted(os.listdir(made)) == [*(f"part.{index}-of-3.jsonl" for index in (1, 2, 3)), "whole.jsonl"]
    for index in (1, 2, 3):
        assert orders((made / f"part.{index}-of-3.jsonl").read_bytes()) == list(range(index, 11, 3))


def test_the_merge_of_the_shards_is_the_whole_but_for_times(made, parts, merge, tmp_path):
    whole = (made / "whole.jsonl").read_bytes()
    for files in (parts, parts[::-1]):
        (tmp_path / "merged.jsonl").unlink(missing_ok=True)
        result = merge(*files, "-o", tmp_path / "merged.jsonl")
        assert result.returncode == 0, result.stderr
        merged = (tmp_path / "merged.jsonl").read_bytes()
        assert without_times(merged) == without_times(whole)
        given = sorted(line for file in files for line in file.read_bytes().splitlines()[1:])
        assert sorted(merged.splitlines()[1:]) == given  # byte for byte
    assert merge(*parts).stdout.encode() == merged
    assert merge(*parts, "-o", "-").stdout.encode() == merged


def test_a_batch_goes_on_with_a_merged_file(executable, made, parts, merge, tmp_path):
    merged = tmp_path / "merged.jsonl"
    assert merge(*parts, "-o", merged).returncode == 0
    before = merged.read_bytes()
    finished(run(command(executable, merged, limit=10)))
    assert merged.read_bytes() == before
    # With a hole before its end it cannot.
    merged.unlink()
    assert merge(parts[0], parts[1], "-o", merged, "--allow-gaps").returncode == 0
    refused(run(command(executable, merged, limit=10)), "fact 3 is missing")


def test_gaps_are_refused_with_the_facts_and_the_shard_named(parts, merge, tmp_path):
    merged = tmp_path / "merged.jsonl"
    refused(merge(parts[0], parts[2], "-o", merged), "facts 2, 5 and 8 are missing", "no file of shard 2/3 was given")
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    refused(merge(*parts, "-o", merged), "fact 8 is missing", f"{parts[1]} ends after fact 5 and is torn there")
    assert not merged.exists()
    result = merge(*parts, "-o", merged, "--allow-gaps")
    assert result.returncode == 0 and "fact 8 is missing" in result.stderr
    assert orders(merged.read_bytes()) == [1, 2, 3, 4, 5, 6, 7, 9, 10]


def test_a_shard_that_is_run_again_closes_the_gap(executable, made, parts, merge, tmp_path):
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    finished(run(command(executable, tmp_path / "part.jsonl", "--shard", "2/3", limit=10)))
    assert merge(*parts, "-o", tmp_path / "merged.jsonl").returncode == 0
    merged, whole = (path.read_bytes() for path in (tmp_path / "merged.jsonl", made / "whole.jsonl"))
    assert without_times(merged) == without_times(whole)


def test_overlaps_are_refused_unless_allowed(made, parts, merge, tmp_path):
    merged = tmp_path / "merged.jsonl"
    whole = made / "whole.jsonl"
    refused(merge(parts[0], whole, "-o", merged), f"fact 1 is in {parts[0]} as well", "--allow-overlaps")
    result = merge(parts[0], whole, "-o", merged, "--allow-overlaps")
    assert result.returncode == 0 and "4 lines" in result.stderr
    lines = merged.read_bytes().splitlines()
    assert lines[1] == parts[0].read_bytes().splitlines()[1] and lines[2] == whole.read_bytes().splitlines()[2]
    refused(merge(parts[0], parts[0], "-o", merged), "is given twice")


def test_shards_of_other_settings_are_refused(executable, parts, merge, tmp_path):
    finished(run(command(executable, tmp_path / "other.jsonl", "--shard", "2/3", "--seed", "7", limit=10)))
    other = tmp_path / "other.2-of-3.jsonl"
    refused(merge(parts[0], other, parts[2], "-o", tmp_path / "merged"), f"{other}: was made with run.seed 7", "with 1")


def test_an_input_is_never_written_over(parts, merge, tmp_path):
    before = parts[0].read_bytes()
    (tmp_path / "link").symlink_to(parts[0])
    for output in (parts[0], tmp_path / "link"):
        refused(merge(*parts, "-o", output), "is one of the files to be merged")
    assert parts[0].read_bytes() == before


def test_the_output_is_whole_or_not_there(executable, parts, merge, tmp_path):
    merged = tmp_path / "merged.jsonl"
    merged.write_text("old")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))

    arguments = [str(executable), "merge", *map(str, parts), "-o", str(merged)]
    refused(run(arguments, preexec_fn=small_files), str(merged))
    assert merged.read_text() == "old"
    parts[2].write_text("my notes\n")
    refused(merge(*parts, "-o", merged), str(parts[2]), "expected the header of a batch's results")
    assert merged.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 4


def test_nothing_to_merge_is_refused(merge, tmp_path):
    result = merge("-o", tmp_path / "merged.jsonl")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    refused(merge(tmp_path / "absent.jsonl", "-o", tmp_path / "merged.jsonl"), "absent.jsonl: no such file")
    refused(merge(tmp_path, "-o", tmp_path / "merged.jsonl"), "is a folder")


@pytest.mark.parametrize(
    "variables, name",
    [
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "5"}, "2-of-5"),
        ({"PMI_RANK": "4", "PMI_SIZE": "5"}, "5-of-5"),
        ({"RANK": "0", "WORLD_SIZE": "5", "TORCHELASTIC_RUN_ID": "none"}, "1-of-5"),
    ],
)
def test_the_environment_says_which_shard(executable, tmp_path, variables, name):
    arguments = command(executable, tmp_path / "r.jsonl", "--shard", "auto", limit=5)
    result = subprocess.run(arguments, capture_output=True, encoding="utf-8", env=environment(**variables), timeout=60)
    finished(result)
    assert os.listdir(tmp_path) == [f"r.{name}.jsonl"]
    assert orders((tmp_path / f"r.{name}.jsonl").read_bytes()) == [int(name[0])]


def test_no_launcher_and_no_such_shard_are_refused(executable, tmp_path):
    refused(run(command(executable, tmp_path / "r", "--shard", "auto")), "no rank in the environment")
    refused(run(command(executable, tmp_path / "r", "--shard", "5/4")), "5/4", "I/N")
    assert os.listdir(tmp_path) == []
