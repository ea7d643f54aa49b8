"""A real mpirun starts the shards of a batch."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from batches import command, environment, finished, orders, run, without_times
from waiting import PATIENCE

MPIRUN = shutil.which("mpirun")
pytestmark = pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed (Debian: openmpi-bin)")


def test_two_ranks_of_mpirun_make_the_whole(bin_dir: Path, tmp_path: Path):
    version = subprocess.run([MPIRUN, "--version"], capture_output=True, text=True, check=True).stdout
    if "Open MPI" not in version:
        pytest.skip("this mpirun is not Open MPI's")
    launch = [MPIRUN, "-n", "2", "--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    variables = environment(OMPI_MCA_btl_vader_single_copy_mechanism="none")
    tried = subprocess.run([*launch, "true"], capture_output=True, encoding="utf-8", env=variables, timeout=PATIENCE)
    if tried.returncode != 0:
        pytest.skip(f"mpirun cannot start `true` here: {' '.join(tried.stderr.split())[:200]}")
    executable = bin_dir / "rometrace"
    finished(run(command(executable, tmp_path / "whole.jsonl", limit=12)))

    batch = command(executable, tmp_path / "part.jsonl", "--shard", "auto", limit=12)
    batch.remove("-q")  # each rank says which shard it has
    result = subprocess.run([*launch, *batch], capture_output=True, encoding="utf-8", env=variables, timeout=PATIENCE)
    finished(result)
    for rank in (0, 1):
        assert f"OMPI_COMM_WORLD_RANK {rank} of 2" in result.stderr
    files = [tmp_path / f"part.{index}-of-2.jsonl" for index in (1, 2)]
    assert [orders(file.read_bytes()) for file in files] == [list(range(1, 13, 2)), list(range(2, 13, 2))]

    merged = tmp_path / "merged.jsonl"
    assert run([str(executable), "merge", *map(str, files), "-o", str(merged)]).returncode == 0
    assert without_times(merged.read_bytes()) == without_times((tmp_path / "whole.jsonl").read_bytes())
