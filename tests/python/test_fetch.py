"""Fetching models by name: against a hub on this machine that fails in every way that networks and servers do.

The judge of the cache's layout is huggingface_hub: it must find what rometrace fetched, and the other way round.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Iterator

import pytest
from hub_server import COMMIT, Fault, Hub, etag_of
from waiting import PATIENCE, wait_until
from zygote import RUNNER

pytest.importorskip("huggingface_hub")

NAME = "org/tiny"
TOKEN = "hf_" + "s3cret" * 5
HUB_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "ROMETRACE_", "XDG_CACHE_HOME", "http_proxy", "https_proxy",
                 "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "CURL_", "SSL_CERT")
WANTED = {"config.json", "merges.txt", "vocab.json", "model.safetensors"}


@pytest.fixture
def hub(demo: pathlib.Path) -> Iterator[Hub]:
    """A hub with the demo model, and files beside it that nobody needs."""
    server = Hub()
    files = {name: (demo / name).read_bytes() for name in WANTED}
    unwanted = {"README.md": b"# Tiny\n", "flax_model.msgpack": b"f" * 9000, "onnx/config.json": b"{}"}
    server.models[NAME] = files | unwanted
    yield server
    server.close()


class Cache:
    """A cache of models of its own, and the environment that makes programs use it."""

    def __init__(self, folder: pathlib.Path, hub: Hub, program: pathlib.Path) -> None:
        self.folder, self.program = folder / "hub", program
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(HUB_VARIABLES)}
        self.environment = inherited | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "ROMETRACE_RETRY_SECONDS": "0.01", "OMP_NUM_THREADS": "1", "HOME": str(folder), "NO_PROXY": "*",
        }  # fmt: skip

    def repository(self, name: str = NAME) -> pathlib.Path:
        return self.folder / f"models--{name.replace('/', '--')}"

    def snapshot(self, name: str = NAME) -> pathlib.Path:
        return self.repository(name) / "snapshots" / COMMIT

    def start(self, *arguments: Any, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, *map(str, arguments)], env=self.environment | environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def run(self, *arguments: Any, before: Callable[[], None] | None = None, **environment: str) -> Any:
        return RUNNER.run(
            [self.program, *arguments], env=self.environment | environment, encoding="utf-8", timeout=PATIENCE,
            preexec_fn=before,
        )  # fmt: skip

    def resolved(self, name: str) -> str:
        """The folder that the name stands for."""
        command = [self.program.with_name("rometrace_resolve"), name]
        return RUNNER.run(command, env=self.environment, encoding="utf-8", timeout=PATIENCE).stdout.rstrip("\n")

    def fetched(self, *arguments: Any, **environment: str) -> pathlib.Path:
        """Runs `rometrace fetch`, expects success, and gives the folder that it prints."""
        done = self.run("fetch", *(arguments or (NAME,)), **environment)
        assert done.returncode == 0, done.stderr
        return pathlib.Path(done.stdout.rstrip("\n"))

    def refused(self, *arguments: Any, **environment: str) -> str:
        """Runs `rometrace fetch -q`, expects one line of refusal, and gives it."""
        done = self.run("fetch", "-q", *(arguments or (NAME,)), **environment)
        assert done.returncode == 2 and done.stdout == "", (done.returncode, done.stderr)
        assert done.stderr.startswith("rometrace: ") and done.stderr.count("\n") == 1, done.stderr
        assert not any(self.folder.glob("*/snapshots/*/*")), "something was made visible"
        return done.stderr

    def python(self, program: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program], env=self.environment | environment, capture_output=True,
            encoding="utf-8", timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


@pytest.fixture
def cache(tmp_path: pathlib.Path, hub: Hub, bin_dir: pathlib.Path) -> Cache:
    return Cache(tmp_path, hub, bin_dir / "rometrace")


def layout(repository: pathlib.Path) -> dict[str, str]:
    """Links with what they say, files with what they hold."""
    return {
        str(path.relative_to(repository)): os.readlink(path) if path.is_symlink() else etag_of(path.read_bytes())
        for path in repository.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def size_of_parts(cache: Cache, content: bytes) -> int:
    """Bytes of a content that have arrived, in its file on the way."""
    return sum(path.stat().st_size for path in cache.repository().glob(f"blobs/{etag_of(content)}.incomplete*"))


def test_what_is_fetched_lies_in_the_cache_as_huggingface_hub_would_have_put_it(
    hub: Hub, cache: Cache, tmp_path: pathlib.Path
) -> None:
    folder = cache.fetched()
    assert folder == cache.snapshot()
    assert {path.name for path in folder.iterdir()} == WANTED
    for name in WANTED:
        assert (folder / name).read_bytes() == hub.models[NAME][name]
    get = f"from huggingface_hub import snapshot_download as get; print(get({NAME!r}, allow_patterns={sorted(WANTED)!r}"
    theirs = cache.python(f"{get}))", HF_HUB_CACHE=str(tmp_path / "theirs"))
    their_repository = pathlib.Path(theirs).parents[1]
    expected = layout(their_repository)
    assert {key: value for key, value in expected.items() if not key.startswith("trees/")} == layout(cache.repository())
    assert cache.python(f"{get}, local_files_only=True))", HF_HUB_OFFLINE="1") == str(folder)


def test_transformers_finds_offline_what_was_fetched(cache: Cache) -> None:
    folder = cache.fetched()
    program = (
        "from transformers import AutoConfig\nfrom transformers.utils import cached_file\n"
        f"print(AutoConfig.from_pretrained({NAME!r}).n_layer, cached_file({NAME!r}, 'model.safetensors'))"
    )
    layers = json.loads((folder / "config.json").read_text())["n_layer"]
    assert cache.python(program, HF_HUB_OFFLINE="1") == f"{layers} {folder}/model.safetensors"


def test_what_huggingface_hub_put_there_is_used_and_not_fetched_again(hub: Hub, cache: Cache) -> None:
    theirs = cache.python(f"from huggingface_hub import snapshot_download as get; print(get({NAME!r}))")
    assert cache.resolved(NAME) == theirs
    hub.requests.clear()
    assert str(cache.fetched()) == theirs
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}/revision/main"]


def test_what_is_there_is_not_fetched_again_under_another_revision(hub: Hub, cache: Cache) -> None:
    cache.fetched()
    hub.requests.clear()
    assert cache.fetched(NAME, "--revision", "refs/pr/1") == cache.snapshot()
    assert (cache.repository() / "refs/refs/pr/1").read_text() == COMMIT
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}/revision/refs%2Fpr%2F1"]
    (cache.snapshot() / "merges.txt").unlink()
    cache.fetched(NAME, "--revision", COMMIT)
    assert hub.gets("merges.txt") == [], "its blob is there"
    assert not (cache.repository() / f"refs/{COMMIT}").exists()


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, cache: Cache) -> None:
    whole = len(hub.models[NAME]["model.safetensors"])
    part = whole // 10
    hub.faults["model.safetensors"] = [Fault(drop_after=part)] * 8 + [Fault(reset=True)]
    cache.fetched()
    ranges = [request.headers.get("Range") for request in hub.gets("model.safetensors")]
    assert ranges[0] is None and len(ranges) == 10
    starts = [int(each.removeprefix("bytes=").rstrip("-")) for each in ranges[1:]]
    assert starts == sorted(starts) and starts[0] > 0 and starts[-1] >= 4 * part
    assert sum(request.sent for request in hub.gets("model.safetensors")) < 1.5 * whole
    assert (cache.snapshot() / "model.safetensors").read_bytes() == hub.models[NAME]["model.safetensors"]


def test_a_server_that_knows_no_ranges_sends_it_again(hub: Hub, cache: Cache) -> None:
    hub.faults["model.safetensors"] = [Fault(drop_after=100_000), Fault(no_range=True)]
    cache.fetched()
    ranges = [request.headers.get("Range") for request in hub.gets("model.safetensors")]
    assert len(ranges) == 2 and ranges[0] is None and ranges[1] is not None
    assert (cache.snapshot() / "model.safetensors").read_bytes() == hub.models[NAME]["model.safetensors"]


def test_tries_without_progress_come_to_an_end(hub: Hub, cache: Cache) -> None:
    hub.forever = True
    hub.faults["model.safetensors"] = [Fault(drop_after=0)]
    line = cache.refused()
    assert "tried 6 times" in line and "it goes on where it stopped" in line
    assert len(hub.gets("model.safetensors")) == 6
    assert "secret" not in line, "the signature of an address"


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.json", "config.json"])
def test_a_wrong_content_is_fetched_anew_once(hub: Hub, cache: Cache, file: str) -> None:
    content = hub.models[NAME][file]
    hub.faults[file] = [Fault(body=bytes([content[0] ^ 1]) + content[1:])]
    cache.fetched()
    assert (cache.snapshot() / file).read_bytes() == content
    assert len(hub.gets(file)) == 2


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_content_that_stays_wrong_is_refused_and_not_kept(hub: Hub, cache: Cache, file: str) -> None:
    hub.forever = True
    hub.faults[file] = [Fault(body=bytes(len(hub.models[NAME][file])))]
    line = cache.refused()
    assert ("sha256 " if file.startswith("model") else "git's sha1 ") in line and "twice" in line
    assert etag_of(hub.models[NAME][file]) in line
    assert len(hub.gets(file)) == 2
    assert not any((cache.repository() / "blobs").glob(f"{etag_of(hub.models[NAME][file])}"))


def test_a_length_that_is_a_lie_is_refused(hub: Hub, cache: Cache) -> None:
    whole = len(hub.models[NAME]["model.safetensors"])
    hub.head_headers["model.safetensors"] = {"X-Linked-Size": str(whole - 1)}
    assert f"more than {whole - 1} bytes" in cache.refused()
    hub.head_headers["model.safetensors"] = {"X-Linked-Size": str(whole + 1)}
    assert "tried" in cache.refused()
    hub.head_headers["model.safetensors"] = {"X-Linked-Size": str(10**18)}
    assert "are to be fetched" in cache.refused()


def test_a_garbled_part_from_an_attempt_before_does_no_harm(hub: Hub, cache: Cache) -> None:
    content = hub.models[NAME]["model.safetensors"]
    blobs = cache.repository() / "blobs"
    for left in (b"garbage" * 100, content + b"too much", content[:1000], content):
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / f"{etag_of(content)}.incomplete").write_bytes(left)
        cache.fetched()
        assert (cache.snapshot() / "model.safetensors").read_bytes() == content
        assert not list(blobs.glob("*.incomplete*"))
        (cache.snapshot() / "model.safetensors").unlink()
        (blobs / etag_of(content)).unlink()


@pytest.mark.parametrize(
    ("status", "code", "token", "words"),
    [
        (401, "RepoNotFound", False, ["no such model, or not for everyone", "HF_TOKEN"]),
        (401, "", True, ["refuses access with this token"]),
        (403, "GatedRepo", False, ["refuses access", "accept its terms, if it has any, at ", f"/{NAME}", "HF_TOKEN"]),
        (403, "GatedRepo", True, ["refuses access with this token", "accept its terms"]),
        (404, "RevisionNotFound", False, ["no such revision", "--revision"]),
        (404, "", False, ["no such model or file", "check the name"]),
        (400, "", False, ["refused (status 400)"]),
    ],
)
def test_a_refusal_is_final_and_says_what_to_do(
    hub: Hub, cache: Cache, status: int, code: str, token: bool, words: list[str]
) -> None:
    hub.info_faults = [Fault(status=status, headers={"X-Error-Code": code} if code else {})]
    line = cache.refused(**({"HF_TOKEN": TOKEN} if token else {}))
    assert NAME in line and all(word in line for word in words), line
    assert TOKEN not in line
    assert len(hub.requests) == 1


def test_what_passes_is_tried_again(hub: Hub, cache: Cache) -> None:
    # On a connection that was used before, libcurl would answer a reset with a try of its own.
    hub.info_faults = [Fault(reset=True), Fault(status=503)]
    hub.head_faults["model.safetensors"] = [Fault(status=500), Fault(status=429, headers={"Retry-After": "1"})]
    hub.faults["model.safetensors"] = [Fault(status=408), Fault(status=502)]
    start = time.monotonic()
    done = cache.run("fetch", NAME)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start >= 1
    assert done.stderr.count("trying again in") == 6, done.stderr
    assert "status 429; trying again in 1 s" in done.stderr
    hub.forever, hub.info_faults = True, [Fault(status=500)]
    hub.requests.clear()
    done = cache.run("fetch", "-q", "org/another")
    assert done.returncode == 2 and "status 500 (tried 6 times)" in done.stderr
    assert len(hub.requests) == 6


def test_a_server_that_falls_silent_is_left(hub: Hub, cache: Cache) -> None:
    hub.faults["model.safetensors"] = [Fault(stall=120)]
    start = time.monotonic()
    done = cache.run("fetch", NAME, HF_HUB_DOWNLOAD_TIMEOUT="0.5")
    assert done.returncode == 0, done.stderr
    assert "fell silent; trying again" in done.stderr
    assert time.monotonic() - start < 100


def test_a_server_that_drips_is_left_as_a_silent_one(hub: Hub, cache: Cache) -> None:
    hub.faults["model.safetensors"] = [Fault(drop_after=100_000), Fault(drip=0.1)]
    done = cache.run("fetch", NAME, HF_HUB_DOWNLOAD_TIMEOUT="0.5")
    assert done.returncode == 0, done.stderr
    assert "fell silent; trying again" in done.stderr
    assert hub.gets("model.safetensors")[1].sent < 1000


def test_a_server_that_drips_for_ever_does_not_hold_the_program_for_ever(hub: Hub, cache: Cache) -> None:
    hub.forever, hub.faults["model.safetensors"] = True, [Fault(drip=0.1)]
    assert "fell silent (tried 6 times)" in cache.refused(NAME, HF_HUB_DOWNLOAD_TIMEOUT="0.5")


def test_an_answer_about_a_model_may_not_take_any_time(hub: Hub, cache: Cache) -> None:
    # Fast enough to be no silence: 4 kB a second.
    hub.info_faults = [Fault(drip=0.005, body=b" " * 1_000_000)]
    done = cache.run("fetch", NAME, HF_HUB_DOWNLOAD_TIMEOUT="0.3")
    assert done.returncode == 0, done.stderr
    assert "the answer takes too long; trying again" in done.stderr


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_without_end_is_read_as_far_as_it_says_something(hub: Hub, cache: Cache, status: int) -> None:
    hub.faults["config.json"] = [Fault(status=status, endless=True)]
    done = cache.run("fetch", NAME)
    assert done.returncode == (2 if status == 404 else 0), done.stderr
    assert f"status {status}" in done.stderr
    assert hub.gets("config.json")[0].sent < 50_000_000


@pytest.mark.parametrize("how", ["variable", "old variable", "file", "none", "disabled"])
def test_the_token_goes_to_the_endpoint_and_to_no_other_host(
    hub: Hub, cache: Cache, tmp_path: pathlib.Path, how: str
) -> None:
    variables = {
        "variable": {"HF_TOKEN": TOKEN},
        "old variable": {"HUGGING_FACE_HUB_TOKEN": TOKEN + "\n"},
        "file": {"HF_TOKEN": ""},
        "none": {},
        "disabled": {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
    }[how]
    if how == "file":
        (tmp_path / "token").write_text(TOKEN + "\n")
    hub.models["org/new"], hub.moved[NAME] = hub.models[NAME], "org/new"
    done = cache.run("fetch", NAME, **variables)
    assert done.returncode == 0, done.stderr
    by_server = {server: [each for each in hub.requests if each.server == server] for server in ("hub", "store")}
    assert len(by_server["store"]) == 3
    assert all("Authorization" not in request.headers for request in by_server["store"])
    expected = None if how in ("none", "disabled") else f"Bearer {TOKEN}"
    assert {request.headers.get("Authorization") for request in by_server["hub"]} == {expected}
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in path.read_bytes() for path in cache.folder.rglob("*") if path.is_file())


def test_another_port_of_the_same_host_gets_no_token_either(hub: Hub, cache: Cache) -> None:
    hub.store_url = hub.store_url.replace("localhost", "127.0.0.1")
    cache.fetched(NAME, HF_TOKEN=TOKEN)
    stored = [request for request in hub.requests if request.server == "store"]
    assert stored and all("Authorization" not in request.headers for request in stored)


def test_the_model_is_looked_up_on_the_endpoint_only(hub: Hub, cache: Cache) -> None:
    hub.info_faults = [Fault(status=302, headers={"Location": f"{hub.store_url}/api"})]
    line = cache.refused(NAME, HF_TOKEN=TOKEN)
    assert "another server; set HF_ENDPOINT" in line
    assert [request.server for request in hub.requests] == ["hub"]


def test_redirects_without_end_come_to_an_end(hub: Hub, cache: Cache) -> None:
    hub.forever, hub.info_faults = True, [Fault(status=302, headers={"Location": f"/api/models/{NAME}/revision/main"})]
    assert "redirects without end" in cache.refused()
    assert len(hub.requests) == 11


def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(cache: Cache) -> None:
    line = cache.refused(NAME, HF_TOKEN=f"{TOKEN}\r\nX-Evil: 1")
    assert "HF_TOKEN: holds characters that no token has" in line and TOKEN not in line


def test_a_model_that_moved_is_fetched_under_the_name_asked_for(hub: Hub, cache: Cache) -> None:
    hub.models["openai-community/gpt2"], hub.moved["gpt2"] = hub.models[NAME], "openai-community/gpt2"
    assert cache.fetched("gpt2") == cache.snapshot("gpt2")


def test_a_model_with_two_names_is_kept_under_the_one_that_the_cache_has_it_under(hub: Hub, cache: Cache) -> None:
    new, old = "openai-community/gpt2", "gpt2"
    hub.models[new], hub.moved[old] = hub.models[NAME], new
    content = hub.models[new]["model.safetensors"]
    part = cache.repository(new) / "blobs" / f"{etag_of(content)}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:100_000])
    done = cache.run("fetch", old)
    assert done.stdout == f"{cache.snapshot(new)}\n", done.stderr
    assert f"{old}: in the cache as {new}, and kept under that name" in done.stderr
    assert hub.gets("model.safetensors")[-1].headers["Range"] == "bytes=100000-"
    hub.requests.clear()
    for name in (old, new):
        assert cache.fetched(name) == cache.snapshot(new)
        assert cache.resolved(name) == str(cache.snapshot(new))
    assert not any("/resolve/" in request.path for request in hub.requests)
    assert not cache.repository(old).exists()
    theirs = f"from huggingface_hub import snapshot_download as get; print(get({new!r}))"
    assert cache.python(theirs, HF_HUB_OFFLINE="1") == str(cache.snapshot(new))


def test_sharded_weights_are_fetched_with_every_shard(hub: Hub, cache: Cache, repository: pathlib.Path) -> None:
    files = {path.name: path.read_bytes() for path in (repository / "tests/goldens/models/sharded").iterdir()}
    tokeniser = {name: hub.models[NAME][name] for name in ("vocab.json", "merges.txt")}
    hub.models["org/shards"] = files | tokeniser
    folder = cache.fetched("org/shards")
    assert {path.name for path in folder.iterdir()} == set(files) - {"golden.json"} | set(tokeniser)
    gone = "model-00002-of-00003.safetensors"
    hub.models["org/gap"] = {name: content for name, content in hub.models["org/shards"].items() if name != gone}
    done = cache.run("fetch", "-q", "org/gap")
    assert done.returncode == 2 and f'names "{gone}", which the model does not have' in done.stderr
    assert not cache.snapshot("org/gap").exists()


def test_pickled_weights_are_fetched_where_there_are_no_others(hub: Hub, cache: Cache) -> None:
    files = hub.models["org/old"] = dict(hub.models[NAME])
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    folder = cache.fetched("org/old")
    assert {path.name for path in folder.iterdir()} == WANTED - {"model.safetensors"} | {"pytorch_model.bin"}


def test_a_model_without_weights_that_can_be_read_is_refused_before_anything_is_fetched(hub: Hub, cache: Cache) -> None:
    hub.models["org/gguf"] = {"config.json": b"{}", "tokenizer.json": b"{}", "tiny-Q4.gguf": b"g" * 9000}
    assert 'org/gguf: has weights such as "tiny-Q4.gguf" only' in cache.refused("org/gguf")
    assert len(hub.requests) == 1


def test_an_answer_that_is_not_a_hubs_is_refused(hub: Hub, cache: Cache) -> None:
    for body in (b"<html>Log in</html>", b"[]", b'{"sha": "../../x", "siblings": []}', b'{"sha": "c0ffee"}'):
        hub.info_faults = [Fault(body=body)]
        assert "/api/models/" in cache.refused()
    hub.head_headers["config.json"] = {"ETag": '"../../../x"'}
    assert "its etag is" in cache.refused()


def test_two_at_once_fetch_it_once(hub: Hub, cache: Cache) -> None:
    hub.faults["model.safetensors"] = [Fault(slow=0.01)]
    both = [cache.start("fetch", NAME) for _ in range(2)]
    ends = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert {out for out, _ in ends} == {f"{cache.snapshot()}\n"}
    whole = sum(len(hub.models[NAME][name]) for name in WANTED)
    assert sum(request.sent for request in hub.requests if not request.path.startswith("/api/")) == whole


def test_rometrace_waits_for_huggingface_hub(hub: Hub, cache: Cache) -> None:
    filelock = pytest.importorskip("filelock")
    locks = cache.folder / ".locks" / cache.repository().name
    locks.mkdir(parents=True)
    with filelock.FileLock(locks / f"{etag_of(hub.models[NAME]['model.safetensors'])}.lock", mode=0o664):
        process = cache.start("fetch", NAME)
        assert process.stderr is not None
        said = ""
        while "waiting for another process, which is fetching model.safetensors" not in said:
            said = process.stderr.readline()
            assert said, "it did not wait"
        assert hub.gets("model.safetensors") == []
    assert process.communicate(timeout=PATIENCE)[0] == f"{cache.snapshot()}\n"


def test_huggingface_hub_waits_for_rometrace(hub: Hub, cache: Cache) -> None:
    filelock = pytest.importorskip("filelock")
    name, gate = "model.safetensors", threading.Event()
    hub.faults[name] = [Fault(gate=gate)]
    lock = cache.folder / ".locks" / cache.repository().name / f"{etag_of(hub.models[NAME][name])}.lock"
    process = cache.start("fetch", NAME)
    wait_until(lambda: hub.gets(name))
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(lock, timeout=0).acquire()
    threading.Timer(2, gate.set).start()
    theirs = f"from huggingface_hub import hf_hub_download as get; print(get({NAME!r}, {name!r}))"
    assert cache.python(theirs) == str(cache.snapshot() / name)
    assert process.communicate(timeout=PATIENCE)[0] == f"{cache.snapshot()}\n"
    assert len(hub.gets(name)) == 1, "it was fetched twice"


def test_where_locks_lock_nobody_out_two_at_once_both_succeed(hub: Hub, cache: Cache) -> None:
    content, gate = hub.models[NAME]["model.safetensors"], threading.Event()
    hub.faults["model.safetensors"] = [Fault(gate=gate)]
    first = cache.start("fetch", NAME)
    wait_until(lambda: size_of_parts(cache, content))
    for lock in (cache.folder / ".locks").rglob("*.lock"):
        lock.unlink()
    assert cache.fetched() == cache.snapshot()
    assert "Range" in hub.gets("model.safetensors")[1].headers, "what the first one has is not used"
    gate.set()
    end = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0 and end[0] == f"{cache.snapshot()}\n", end
    assert (cache.snapshot() / "model.safetensors").read_bytes() == content
    assert not list(cache.repository().glob("blobs/*.incomplete*"))


def test_a_killed_fetch_goes_on_where_it_was(hub: Hub, cache: Cache) -> None:
    content = hub.models[NAME]["model.safetensors"]
    hub.faults["model.safetensors"] = [Fault(slow=0.05)]
    process = cache.start("fetch", NAME)
    wait_until(lambda: size_of_parts(cache, content), process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    kept = size_of_parts(cache, content)
    cache.fetched()
    assert hub.gets("model.safetensors")[-1].headers["Range"] == f"bytes={kept}-"
    assert (cache.snapshot() / "model.safetensors").read_bytes() == content
    assert not list(cache.repository().glob("blobs/*.incomplete*"))


def test_an_interrupted_fetch_goes_on_where_it_stopped(hub: Hub, cache: Cache) -> None:
    content = hub.models[NAME]["model.safetensors"]
    hub.faults["model.safetensors"] = [Fault(slow=0.1)]
    process = cache.start("fetch", NAME)
    part = cache.repository() / "blobs" / f"{etag_of(content)}.incomplete"
    wait_until(lambda: size_of_parts(cache, content))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said and said.endswith("rometrace: interrupted\n")
    kept = part.stat().st_size
    assert 0 < kept < len(content)
    assert not cache.snapshot().exists()
    cache.fetched()
    assert hub.gets("model.safetensors")[-1].headers["Range"] == f"bytes={kept}-"
    assert (cache.snapshot() / "model.safetensors").read_bytes() == content


def test_offline_nothing_is_asked(hub: Hub, cache: Cache) -> None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        line = cache.refused(NAME, **{variable: "1"})
        assert f"{variable}=1 forbids to fetch it" in line
    assert hub.requests == []
    folder = cache.fetched()
    hub.requests.clear()
    assert cache.fetched(NAME, HF_HUB_OFFLINE="yes") == folder
    assert hub.requests == []


def test_without_a_network_one_line_says_what_to_do(hub: Hub, cache: Cache) -> None:
    hub.close()
    line = cache.refused()
    assert "(tried 3 times)" in line and "check the network, the proxy (https_proxy) and HF_ENDPOINT" in line
    assert "HF_ENDPOINT is " in cache.refused(NAME, HF_ENDPOINT="hub.example")
    assert 'ROMETRACE_RETRY_SECONDS is "soon"' in cache.refused(NAME, ROMETRACE_RETRY_SECONDS="soon")


def test_a_model_that_is_there_is_used_when_the_hub_cannot_be_reached(hub: Hub, cache: Cache) -> None:
    folder = cache.fetched()
    hub.forever, hub.info_faults = True, [Fault(status=503)]
    for _ in range(2):
        done = cache.run("fetch", NAME)
        assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
        assert done.stderr.count(f"{NAME}: the hub does not answer; what the cache has is complete and is used") == 1
        get = f"get({NAME!r}, allow_patterns={sorted(WANTED)!r})"
        theirs = f"from huggingface_hub import snapshot_download as get; print({get})"
        assert cache.python(theirs) == str(folder)
        hub.close()  # the second time
    (folder / "vocab.json").unlink()
    done = cache.run("fetch", "-q", NAME)
    assert done.returncode == 2 and "(tried 3 times)" in done.stderr


def test_a_proxy_is_gone_through_as_by_curl(hub: Hub, cache: Cache) -> None:
    for name, content in list(hub.models[NAME].items()):
        hub.models[NAME][name] = content[:8000]  # all of it on the hub itself
    endpoint = "http://hub.invalid"
    assert cache.fetched(NAME, HF_ENDPOINT=endpoint, http_proxy=hub.url, NO_PROXY="") == cache.snapshot()
    assert {request.headers["Host"] for request in hub.requests} == {"hub.invalid"}


def test_a_disk_that_is_full_is_told_and_nothing_is_made_visible(hub: Hub, cache: Cache) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = cache.run("fetch", "-q", NAME, before=small_files_only)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written: File too large; make room and run it again" in done.stderr
    assert not cache.snapshot().exists()
    cache.fetched()
    assert hub.gets("model.safetensors")[-1].headers["Range"] == "bytes=100000-"


def test_a_cache_that_cannot_be_written_to_is_told(cache: Cache, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    done = cache.run("fetch", "-q", NAME, HF_HUB_CACHE=str(tmp_path / "file/hub"))
    assert done.returncode == 2 and "cannot be made: Not a directory" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_name_is_refused(hub: Hub, cache: Cache) -> None:
    for name in ("a b", "../x", "a/b/c", ""):
        assert "not a model's name" in cache.refused(name)
    assert "expected a branch" in cache.refused(NAME, "--revision", "..")
    assert hub.requests == []


def test_a_trace_downloads_what_is_not_there_and_asks_nobody_when_it_is(hub: Hub, cache: Cache) -> None:
    command = ("--model", NAME, "--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--samples", "1",
               "--kinds", "state")  # fmt: skip
    done = cache.run(*command)
    assert done.returncode == 2 and f"get it with `rometrace fetch {NAME}`" in done.stderr
    assert hub.requests == []
    done = cache.run(*command, "--download")
    assert done.returncode == 0, done.stderr
    fetched = json.loads(done.stdout)
    hub.requests.clear()
    again = json.loads(cache.run(*command, "--download").stdout)
    assert hub.requests == []
    assert again["grids"] == fetched["grids"] and again["model"] == fetched["model"]
    assert fetched["model"]["name"] == NAME


def test_a_download_that_is_interrupted_does_not_say_that_nothing_was_written(hub: Hub, cache: Cache) -> None:
    hub.faults["model.safetensors"] = [Fault(slow=0.1)]
    process = cache.start("--model", NAME, "--download", "--prompt", "A", "--subject", "A")
    wait_until(lambda: size_of_parts(cache, hub.models[NAME]["model.safetensors"]))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    expected = [f"rometrace: {NAME}: what has arrived is kept; the same command goes on from there",
                "rometrace: interrupted"]  # fmt: skip
    assert said.splitlines()[-2:] == expected


def test_weights_that_a_link_leads_nowhere_to_are_fetched_before_others_are_used(hub: Hub, cache: Cache) -> None:
    folder = cache.fetched()
    (folder / "pytorch_model.bin").write_bytes(b"other weights")
    (cache.repository() / "blobs" / etag_of(hub.models[NAME]["model.safetensors"])).unlink()
    done = cache.run("--model", NAME, "--download", "--prompt", "Miles Davis plays the", "--subject", "Miles Davis",
                     "--samples", "1", "--kinds", "state")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(hub.gets("model.safetensors")) == 2


def test_an_empty_reference_that_a_power_cut_left_is_written_anew(hub: Hub, cache: Cache) -> None:
    reference = cache.repository() / "refs" / "main"
    cache.fetched()
    reference.write_text("")
    done = cache.run("--model", NAME, "--prompt", "A", "--subject", "A")
    assert done.returncode == 2 and f"get it with `rometrace fetch {NAME}`" in done.stderr
    assert cache.fetched() == cache.snapshot()
    assert reference.read_text() == COMMIT


def test_a_revision_of_what_has_none_is_refused(cache: Cache, demo: pathlib.Path) -> None:
    prompt = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--revision", "step1000")
    for model, reason in ((("--model", demo), "is a folder, which has no other revision"), ((), "no model is named")):
        done = cache.run(*model, *prompt)
        assert done.returncode == 2 and done.stdout == "", done.stderr
        assert "--revision step1000: " in done.stderr and reason in done.stderr


def test_weights_that_do_not_fit_the_config_are_listed_as_not_traceable(hub: Hub, cache: Cache) -> None:
    header = json.dumps({"h.0.attn.c_attn.qweight": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(4)
    hub.models["org/quantised"] = hub.models[NAME] | {"model.safetensors": weights}
    cache.fetched("org/quantised")
    (listed,) = json.loads(cache.run("models", "--json").stdout)["models"]
    assert not listed["can_be_traced"] and 'model.safetensors: no tensor "wte.weight"' in listed["obstacle"], listed


def test_the_cache_is_listed_with_what_can_be_traced(
    hub: Hub, cache: Cache, validate: Callable[[dict[str, Any]], None]
) -> None:
    done = cache.run("models")
    assert done.returncode == 0 and done.stdout == "" and "rometrace fetch" in done.stderr
    cache.fetched()
    weights = {"model.safetensors": b"x" * 10}
    hub.models["org/old"] = weights | {"config.json": b'{"model_type": "t5"}', "tokenizer.json": b"{}"}
    cache.fetched("org/old", "--revision", COMMIT)
    listed = json.loads(cache.run("models", "--json").stdout)
    validate(listed)
    old, tiny = listed["models"]
    assert (old["name"], tiny["name"]) == ("org/old", NAME)
    config = json.loads(hub.models[NAME]["config.json"])
    assert tiny["can_be_traced"] and tiny["obstacle"] is None
    assert (tiny["family"], tiny["layers"], tiny["width"]) == ("gpt2", config["n_layer"], config["n_embd"])
    assert tiny["revisions"] == ["main"] and tiny["commit"] == COMMIT and tiny["folder"] == str(cache.snapshot())
    assert tiny["bytes"] == sum(len(hub.models[NAME][name]) for name in WANTED)
    assert not old["can_be_traced"] and "config.json" in old["obstacle"] and old["revisions"] == []
    table = cache.run("models").stdout
    assert f"org/tiny  main ({COMMIT[:7]})" in table and "not traceable: config.json: " in table
