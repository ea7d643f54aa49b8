"""A model's name stands for the same folder here as in huggingface_hub, in caches laid out as it lays them out.

Ours is asked through the test tool rometrace_resolve, each time in a process and an environment of its own; theirs
through try_to_load_from_cache in a fresh interpreter, because it reads the environment once, when it is imported.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from waiting import PATIENCE
from zygote import RUNNER

pytest.importorskip("huggingface_hub")

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("ROMETRACE_BIN_DIR", REPOSITORY / "build/release/bin")) / "rometrace_resolve"
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built")

VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME")
THEIRS = """
import sys
from huggingface_hub import try_to_load_from_cache
try:
    path = try_to_load_from_cache(sys.argv[1], "config.json", revision=sys.argv[2])
except Exception:  # not a repository's name
    path = None
print(path if isinstance(path, str) else "")
"""
COMMIT = "15ea56dee5df4983c59b2538573817e1667135e2"
OTHER_COMMIT = "32b71b12589c2f8d625668d2335a01cac3249519"


def environment_of(variables):
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return inherited | variables


def ours(folder, variables, name, revision):
    """The folder that the tool prints, or None; its working directory is `folder`."""
    command = [TOOL, name, revision]
    done = RUNNER.run(command, cwd=folder, env=environment_of(variables), encoding="utf-8", timeout=PATIENCE)
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
    return pathlib.Path(done.stdout.rstrip("\n")) if done.returncode == 0 else None


def theirs(folder, variables, name, revision):
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, name, revision],
        cwd=folder, env=environment_of(variables), capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    path = done.stdout.rstrip("\n")
    return pathlib.Path(path).parent if path else None


ALL_FILES = ("config.json", "tokenizer.json", "model.safetensors")


def cache_model(cache, repository, commit=COMMIT, references=("main",), files=ALL_FILES):
    """A repository as huggingface_hub leaves it: blobs, links to them in a snapshot, references to the commit."""
    folder = pathlib.Path(cache) / repository
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir(exist_ok=True)
    for name in files:
        blob = folder / "blobs" / f"{commit[:8]}-{name}"
        blob.write_text("{}")
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    for reference in references:
        file = folder / "refs" / reference
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(commit)
    return snapshot


@pytest.mark.parametrize(
    ("where", "variables"),
    [
        ("h/.cache/huggingface/hub", {"HOME": "{base}/h"}),
        ("h/.cache/huggingface/hub", {"HOME": "{base}/h/"}),
        ("x/huggingface/hub", {"HOME": "{base}/h", "XDG_CACHE_HOME": "{base}/x"}),
        ("h/x/huggingface/hub", {"HOME": "{base}/h", "XDG_CACHE_HOME": "~/x"}),
        ("e/hub", {"HOME": "{base}/h", "XDG_CACHE_HOME": "{base}/x", "HF_HOME": "{base}/e"}),
        ("h/e/hub", {"HOME": "{base}/h", "HF_HOME": "~/e"}),
        ("h/e/hub", {"HOME": "{base}/h", "HF_HOME": "$HOME/e/"}),
        ("h/e/hub", {"HOME": "{base}/h", "HF_HOME": "${HOME}/e"}),
        ("old", {"HOME": "{base}/h", "HF_HOME": "{base}/e", "HUGGINGFACE_HUB_CACHE": "{base}/old"}),
        ("h/old", {"HOME": "{base}/h", "HUGGINGFACE_HUB_CACHE": "~/old"}),
        ("new", {"HOME": "{base}/h", "HUGGINGFACE_HUB_CACHE": "{base}/old", "HF_HUB_CACHE": "{base}/new"}),
        ("h/new", {"HOME": "{base}/h", "HF_HUB_CACHE": "~/new/"}),
        ("relative", {"HOME": "{base}/h", "HF_HUB_CACHE": "relative"}),
        ("$UNSET_HERE/~", {"HOME": "{base}/h", "HF_HUB_CACHE": "{base}/$UNSET_HERE/~"}),
        ("a$b/${c", {"HOME": "{base}/h", "HF_HUB_CACHE": "{base}/a$b/${c"}),
        ("", {"HOME": "{base}/h", "HF_HUB_CACHE": ""}),
        ("", {"HOME": "{base}/h", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "{base}/e"}),
        ("hub", {"HOME": "{base}/h", "HF_HOME": ""}),
        ("huggingface/hub", {"HOME": "{base}/h", "XDG_CACHE_HOME": ""}),
    ],
)
def test_the_cache_is_found_in_the_same_place(tmp_path, where, variables):
    variables = {name: value.replace("{base}", str(tmp_path)) for name, value in variables.items()}
    snapshot = cache_model(tmp_path / where, "models--org--name")
    found = ours(tmp_path, variables, "org/name", "main")
    assert found is not None
    assert found == theirs(tmp_path, variables, "org/name", "main")
    assert (tmp_path / found).samefile(snapshot)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    cache_model(folder, "models--org--name", COMMIT, ("main", "v1.0", "refs/pr/1", "feature/x"))
    cache_model(folder, "models--org--name", OTHER_COMMIT, ("next",))
    cache_model(folder, "models--single")
    cache_model(folder, "models--org--no-config", files=("model.safetensors",))
    cache_model(folder, "models--org--no-reference", references=())
    cache_model(folder, "datasets--org--data")
    gone = cache_model(folder, "models--org--gone")
    for blob in (folder / "models--org--gone/blobs").iterdir():
        blob.unlink()  # links that lead nowhere
    assert not (gone / "config.json").exists()
    (folder / "models--org--stale/refs").mkdir(parents=True)
    (folder / "models--org--stale/refs/main").write_text(COMMIT)  # a reference without its snapshot
    return folder


@pytest.mark.parametrize(
    ("name", "revision"),
    [
        ("org/name", "main"),
        ("org/name", "v1.0"),
        ("org/name", "refs/pr/1"),
        ("org/name", "feature/x"),
        ("org/name", "next"),
        ("org/name", COMMIT),
        ("org/name", OTHER_COMMIT),
        ("org/name", COMMIT[:8]),
        ("org/name", "none"),
        ("org/name", "refs/pr"),
        ("org/name", "refs/pr/2"),
        ("single", "main"),
        ("org/no-config", "main"),
        ("org/no-reference", "main"),
        ("org/no-reference", COMMIT),
        ("org/gone", "main"),
        ("org/stale", "main"),
        ("org/data", "main"),
        ("org/none", "main"),
        ("org--name", "main"),
        ("models--org--name", "main"),
        ("org/name/x", "main"),
        ("/org/name", "main"),
        ("org/", "main"),
        ("org/name.git", "main"),
        ("org/.name", "main"),
        ("", "main"),
        ("ORG/NAME", "main"),
    ],
)
def test_a_name_and_a_revision_lead_to_the_same_snapshot(cache, tmp_path, name, revision):
    variables = {"HF_HUB_CACHE": str(cache), "HOME": str(tmp_path)}
    assert ours(tmp_path, variables, name, revision) == theirs(tmp_path, variables, name, revision)


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"])
def test_a_first_model_is_found_under_the_name_that_it_moved_to(tmp_path, name):
    # huggingface_hub asks the server for this; offline it does not find it.
    organisation = "distilbert" if name == "distilgpt2" else "openai-community"
    snapshot = cache_model(tmp_path / "c", f"models--{organisation}--{name}")
    variables = {"HF_HUB_CACHE": str(tmp_path / "c"), "HOME": str(tmp_path)}
    assert ours(tmp_path, variables, name, "main") == snapshot
    assert ours(tmp_path, variables, f"{organisation}/{name}", "main") == snapshot
    assert theirs(tmp_path, variables, f"{organisation}/{name}", "main") == snapshot
