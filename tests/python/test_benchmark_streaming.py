"""What scripts/benchmarks/benchmark_streaming.py measures of a program is that program's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import benchmark_streaming

MEBIBYTE = 1 << 20


def peaks(mebibytes: list[int]) -> list[int]:
    """Of programs that use so much, one after the other. They are started by a small program, as by the script: what a
    process weighs when it starts another is counted as that one's, too."""
    program = (
        "import sys, benchmark_streaming\n"
        "for size in sys.argv[1:]:\n"
        "    use = [sys.executable, '-c', f'bytearray({size})']\n"
        "    status, seconds, _, peak = benchmark_streaming.measure(use)\n"
        "    assert status == 0 and seconds > 0\n"
        "    print(peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(size * MEBIBYTE) for size in mebibytes)],
        cwd=Path(benchmark_streaming.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def test_the_peak_of_a_program_is_not_that_of_one_before_it():
    large, small = peaks([200, 1])
    assert large > 200 * MEBIBYTE
    assert small < large - 150 * MEBIBYTE


def test_the_bytes_read_are_counted_to_the_end_of_a_program(tmp_path: Path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(8 * MEBIBYTE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    _, _, read, _ = benchmark_streaming.measure(["/bin/cat", path])
    if read == 0:
        pytest.skip("this file system is in memory")
    assert read >= 8 * MEBIBYTE


def test_a_failure_leaves_no_control_group_behind(monkeypatch, tmp_path: Path):
    class Group:
        removed = 0

        def __init__(self, limit: int) -> None:
            pass

        def enter(self) -> None:
            pass

        def remove(self) -> None:
            Group.removed += 1

    monkeypatch.setattr(benchmark_streaming, "Group", Group)
    monkeypatch.setattr(sys, "argv", ["benchmark_streaming.py", str(tmp_path), "--program", "/bin/false"])
    arguments = benchmark_streaming.parse_arguments()
    arguments.program = Path("/bin/sh")  # to whom --model is no option: status 2
    with pytest.raises(SystemExit, match="ended with status 2"):
        benchmark_streaming.run(arguments, [], 1 << 30)
    assert Group.removed == 1


def test_a_batch_has_as_many_facts_as_are_asked_for_and_no_prompt_twice(monkeypatch, capsys):
    facts = benchmark_streaming.made_facts(96)
    assert len({fact["prompt"] for fact in facts}) == len({fact["id"] for fact in facts}) == 96
    refusals = {("--facts-per-batch", "97"): "expected 0 to 96", ("--alone", "9"): "expected 0 to the 8"}
    for options, message in refusals.items():
        monkeypatch.setattr(sys, "argv", ["benchmark_streaming.py", "folder", *options])
        with pytest.raises(SystemExit):
            benchmark_streaming.parse_arguments()
        assert message in capsys.readouterr().err


def test_a_batch_is_compared_with_its_facts_alone(repository: Path, demo: Path, bin_dir: Path):
    command = [sys.executable, repository / "scripts/benchmarks/benchmark_streaming.py", demo, "--program", bin_dir / "rometrace"]
    command += ["--memory", "4M", "--facts-per-batch", "14", "--alone", "2", "--samples", "2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for name in ("one prompt, streamed", "14 facts together, streamed", "2 of them alone, streamed", "14 facts, held"):
        assert "s a fact" in lines[name] and "GiB a fact" in lines[name] and "peak" in lines[name]
    for name in ("one prompt, streamed and held", "14 facts, streamed and held", "together and alone"):
        assert float(lines[name].rpartition(" ")[2]) < 1e-5
