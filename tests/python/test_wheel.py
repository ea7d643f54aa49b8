"""The wheel that scripts/build_wheel made, in a new virtual environment, where neither a compiler nor a library of the
system but the C and C++ ones can be seen. It is not made here, as that takes minutes: without one all of this is skipped."""

from __future__ import annotations

import email.parser
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from glob import glob
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPT = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")

# Libraries that every Linux of the wheel's platform tag has; all others are to come with the wheel or with torch.
SYSTEM_LIBRARIES = r"(linux-vdso|ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+))\.so(\.\d+)?"

HIDDEN_FOLDERS = ("/usr/include", "/usr/local/include", "/usr/lib/gcc", "/usr/lib/cmake", "/usr/share/cmake*", "/usr/lib/*/cmake",
                  "/usr/lib/*/pkgconfig", "/usr/share/pkgconfig")
HIDDEN_PROGRAMS = ("gcc*", "g++*", "cc", "c++", "c89", "c99", "clang*", "x86_64-linux-gnu-g*", "cpp*", "ld", "ld.*d", "as", "make", "cmake",
                   "ninja", "pkg-config")
HIDDEN_LIBRARIES = ("sentencepiece", "pcre2-8", "icu", "csv", "curl", "jemalloc", "spdlog", "fmt", "protobuf", "ssl", "crypto", "gomp")

HIDING = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(*arguments):
    if libc.mount(*arguments):
        sys.exit(f"{arguments[1]}: {os.strerror(ctypes.get_errno())}")
if libc.unshare(0x20000):  # CLONE_NEWNS
    sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE: nothing of this is seen outside
end = sys.argv.index("--")
for path in sys.argv[1:end]:
    if os.path.isdir(path):
        mount(b"none", path.encode(), b"tmpfs", 0, None)
    else:
        mount(b"/dev/null", path.encode(), None, 0x1000, None)  # MS_BIND
os.execve(sys.argv[end + 1], sys.argv[end + 1:], os.environ)
"""


def newest_source() -> Path:
    """The file of the sources that was changed last."""
    roots = ("CMakeLists.txt", "pyproject.toml", "cmake", "include", "src", "share", "scripts/python")
    files = (file for root in roots for file in [REPOSITORY / root, *(REPOSITORY / root).rglob("*")])
    return max((file for file in files if file.is_file() and "__pycache__" not in file.parts), key=lambda file: file.stat().st_mtime)


@pytest.fixture(scope="session")
def wheel() -> Path:
    """$ROMETRACE_WHEEL, or what lies in dist/ if it is of these sources."""
    if given := os.environ.get("ROMETRACE_WHEEL"):
        return Path(given).resolve(strict=True)
    found = sorted((REPOSITORY / "dist").glob("rometrace-*.whl"))
    if not found:
        pytest.skip("no wheel in dist/; scripts/build_wheel makes it")
    source = newest_source()
    if source.stat().st_mtime > found[-1].stat().st_mtime:
        pytest.skip(f"{found[-1].name} is older than {source.relative_to(REPOSITORY)}; scripts/build_wheel makes it anew")
    return found[-1]


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Any:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.BytesParser().parsebytes(archive.read(name))


@pytest.fixture(scope="session")
def torch_version(metadata: Any) -> str:
    """The minor version of torch that the wheel asks for."""
    (requirement,) = [line for line in metadata.get_all("Requires-Dist") if line.startswith("torch")]
    found = re.fullmatch(r"torch==(\d+\.\d+)\.\*", requirement)
    assert found, requirement
    return found[1]


class Environment:
    """A virtual environment, and how its commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        (self.site,) = (folder / "lib").glob("python*/site-packages")
        self.hidden: list[str] = []
        """Files and folders that commands do not see."""
        self.first_map: dict[str, float] = {}
        """Seconds from pip's start to the first heat map."""

    def variables(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}

    def pip(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [self.bin / "python", "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    def command(self, name: str, *arguments: object) -> list[str]:
        hiding = [sys.executable, "-c", HIDING, *self.hidden, "--"] if self.hidden else []
        return [*hiding, str(self.bin / name), *map(str, arguments)]

    def run(self, name: str, *arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        command = self.command(name, *arguments)
        return subprocess.run(
            command, env=self.variables() | variables, cwd=cwd or self.folder, capture_output=True, text=True, timeout=300, check=False
        )

    def hide(self) -> None:
        """From now on, where that is allowed (root, Linux), commands see no compiler and none of the system's libraries."""
        nothing = subprocess.run([sys.executable, "-c", HIDING, "--", "/bin/true"], capture_output=True, check=False)
        if nothing.returncode:
            return
        programs = [path for name in HIDDEN_PROGRAMS for path in glob(f"/usr/bin/{name}") + glob(f"/usr/local/bin/{name}")]
        libraries = [path for name in HIDDEN_LIBRARIES for path in glob(f"/usr/lib/*/lib{name}*") + glob(f"/usr/local/lib/lib{name}*")]
        files = {os.path.realpath(path) for path in programs + libraries}
        self.hidden = [path for pattern in HIDDEN_FOLDERS for path in glob(pattern) if os.path.isdir(path)]
        self.hidden += sorted(path for path in files if os.path.isfile(path))


def make_environment(folder: Path) -> Environment:
    """A new one with pip, of the Python that the tests' own environment was made with."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([base if base.exists() else sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    return Environment(folder)


@pytest.fixture(scope="session")
def installed(wheel: Path, torch_version: str, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """torch first, as a user has it already; then the wheel with [plots], and what that took."""
    environment = make_environment(tmp_path_factory.mktemp("wheel") / "an environment")
    done = environment.pip("install", f"torch=={os.environ.get('ROMETRACE_WHEEL_TORCH', torch_version + '.0')}")
    if done.returncode:
        pytest.skip(f"pip does not get torch {torch_version}: {done.stderr.strip().splitlines()[-1]}")
    began, used = time.monotonic(), cpu_seconds()
    done = environment.pip("install", f"{wheel}[plots]")
    assert done.returncode == 0, done.stderr
    first = environment.run("rometrace", *PROMPT)
    environment.first_map = {"wall": time.monotonic() - began, "cpu": cpu_seconds() - used}
    assert first.returncode == 0, first.stderr
    environment.hide()
    return environment


def cpu_seconds() -> float:
    """Of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# --- The file ---------------------------------------------------------------------------------------------------


def test_the_wheel_weighs_less_than_20_mb(wheel: Path) -> None:
    assert wheel.stat().st_size < 20e6


def test_the_wheel_is_for_many_linuxes_and_every_python_3(wheel: Path) -> None:
    assert re.search(r"-py3-none-manylinux_2_\d+_\w+\.whl$", wheel.name), wheel.name


def test_the_version_is_the_programs(metadata: Any, installed: Environment) -> None:
    assert installed.run("rometrace", "--version").stdout.startswith(f"rometrace {metadata['Version']} (libtorch ")


def test_nothing_that_torch_a_driver_or_icus_data_brings_lies_inside(wheel: Path) -> None:
    entries = zipfile.ZipFile(wheel).infolist()
    assert not [entry.filename for entry in entries if re.search(r"lib(torch|c10|gomp|cuda)", entry.filename)]
    (icu_data,) = [entry for entry in entries if "libicudata" in entry.filename]
    assert icu_data.file_size < 100_000, "ICU's data, of 31 MB"
    assert len([entry for entry in entries if "/licences/" in entry.filename and entry.file_size > 500]) >= 10


# --- The commands -----------------------------------------------------------------------------------------------


def test_the_first_heat_map_comes_within_half_a_minute(installed: Environment) -> None:
    """CPU seconds, as a busy machine makes the others longer."""
    print(f"pip install to the first heat map: {installed.first_map}")
    assert installed.first_map["cpu"] < 30


def test_a_prompt_is_traced_without_compiler_and_libraries_of_the_system(installed: Environment, validate: Callable[..., None]) -> None:
    done = installed.run("rometrace", *PROMPT, "--window", "3")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    validate(record)
    assert record["model"]["name"] == "rometrace-demo" and record["answer"] == " trumpet"
    assert record["high_score"] == pytest.approx(0.603, abs=5e-4)


def test_the_program_is_the_one_that_this_tree_builds(installed: Environment, rometrace: Callable[..., Any]) -> None:
    """The same scores; rounding may differ where another processor is built for."""
    arguments = [*PROMPT, "--kinds", "state,mlp", "--samples", "3"]
    ours, theirs = (json.loads(done.stdout) for done in (installed.run("rometrace", *arguments), rometrace(*arguments)))
    for kind, grid in theirs["grids"].items():
        for row, expected in zip(ours["grids"][kind]["scores"], grid["scores"], strict=True):
            assert row == pytest.approx(expected, abs=1e-6)


def test_a_compiler_is_out_of_sight(installed: Environment) -> None:
    """Or else the tests above say less than they seem to."""
    if not installed.hidden:
        pytest.skip("hiding the system's compilers and libraries needs root and mount namespaces")
    look = "import os; print(os.path.getsize(os.path.realpath('/usr/bin/gcc')), os.listdir('/usr/include'))"
    if Path("/usr/bin/gcc").exists():
        assert installed.run("python", "-c", look).stdout == "0 []\n"


@pytest.fixture(scope="session")
def results(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch's results file, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a study")
    facts = installed.site / "rometrace/share/rometrace/facts.json"
    arguments = ("--facts", facts, "--limit", 6, "--window", 3, "--sever", "mlp,attn", "--samples", 2, "-o", folder / "results.jsonl")
    done = installed.run("rometrace", *arguments, "-q")
    assert done.returncode == 0, done.stderr
    assert len((folder / "results.jsonl").read_text().splitlines()) == 7
    return folder / "results.jsonl"


def assert_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_the_other_commands_draw_and_report_what_the_program_wrote(installed: Environment, results: Path) -> None:
    folder = results.parent
    summary = folder / "summary.json"
    assert installed.run("rometrace", "summary", results, "--json", "-o", summary).returncode == 0
    for name, arguments in {
        "rometrace-plot-trace": (results, "--record", 2, "-o", folder / "trace.png"),
        "rometrace-plot-summary": (summary, "-o", folder / "summary.png"),
        "rometrace-plot-severed": (summary, "-o", folder / "severed.png"),
    }.items():
        done = installed.run(name, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert_picture(arguments[-1])
    done = installed.run("rometrace-report", results, "-o", folder / "report.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("rometrace-report: wrote 6 facts"), done.stderr
    page = (folder / "report.html").read_text()
    assert "results.jsonl" in page and 'id="block-0"' in page  # its name, and the facts' grids


@pytest.mark.parametrize("name", ["rometrace-plot-trace", "rometrace-plot-summary", "rometrace-plot-severed", "rometrace-plot-neurons", "rometrace-plot-edit",
                                  "rometrace-report"])  # fmt: skip
def test_errors_and_help_name_the_command_that_was_typed(installed: Environment, name: str, tmp_path: Path) -> None:
    assert installed.run(name, "--help").stdout.startswith(f"usage: {name} ")
    for arguments in ([], [tmp_path / "absent.json", "-o", tmp_path / "out.png"]):
        done = installed.run(name, *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith(f"{name}: "), done.stderr


# --- What is loaded ---------------------------------------------------------------------------------------------


def libraries_of(program: Path, **variables: str) -> dict[str, str]:
    """The loader's own list: a library's name, and where it is found."""
    trace = {"LD_TRACE_LOADED_OBJECTS": "1"} | variables
    listed = subprocess.run([program], env=trace, capture_output=True, text=True, check=True).stdout
    return {name: path for name, path in re.findall(r"^\s*(\S+) (?:=> (.+?) )?\(0x", listed, re.MULTILINE)}


def test_every_library_but_the_c_and_cpp_ones_is_the_wheels_or_torchs(installed: Environment) -> None:
    program = installed.site / "rometrace/bin/rometrace"
    listed = subprocess.run([program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True).stdout
    assert "not found" not in listed
    libraries = libraries_of(program)
    assert len(libraries) > 10
    of_system = [name for name, path in libraries.items() if not Path(path).resolve().is_relative_to(installed.site.resolve())]
    assert all(re.fullmatch(SYSTEM_LIBRARIES, Path(name).name) for name in of_system), of_system
    assert Path(libraries["libtorch_cpu.so"]).resolve() == (installed.site / "torch/lib/libtorch_cpu.so").resolve()
    assert len([name for name in libraries if "gomp" in name or "iomp" in name]) == 1, "OpenMP runtimes"


def test_sentencepiece_comes_before_torch_in_the_order_of_symbols(installed: Environment) -> None:
    """Both export FLAGS_minloglevel, of 32 and of 4 bytes (src/CMakeLists.txt)."""
    names = list(libraries_of(installed.site / "rometrace/bin/rometrace"))
    assert next(i for i, name in enumerate(names) if "sentencepiece" in name) < names.index("libtorch_cpu.so")


def test_another_torch_that_ld_library_path_names_is_not_loaded(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "libtorch_cpu.so").write_text("no library")
    assert installed.run("rometrace", "--version", LD_LIBRARY_PATH=str(tmp_path)).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="no /proc")
def test_the_command_becomes_the_program(installed: Environment, results: Path, tmp_path: Path) -> None:
    """The process is the program's, and a signal sent to it ends it as it ends the program."""
    facts = installed.site / "rometrace/share/rometrace/facts.json"
    program = installed.site / "rometrace/bin/rometrace"
    statuses = []
    for number, command in enumerate([installed.bin / "rometrace", program]):
        output = tmp_path / f"{number}.jsonl"
        started = subprocess.Popen(
            [command, "--facts", facts, "-o", output], env=installed.variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not (output.exists() and output.stat().st_size) and started.poll() is None:
            time.sleep(0.05)
        assert os.path.realpath(f"/proc/{started.pid}/exe") == str(program.resolve())
        started.send_signal(signal.SIGTERM)
        statuses.append(started.wait(timeout=60))
    assert statuses[0] == statuses[1] != 0


# --- torch elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def apart(wheel: Path, installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment whose torch lies in another folder of Python's path, as with `pip install --user`."""
    environment = make_environment(tmp_path_factory.mktemp("apart"))
    (environment.site / "elsewhere.pth").write_text(f"{installed.site}\n")
    done = environment.pip("install", "--no-deps", "--ignore-installed", wheel)
    assert done.returncode == 0, done.stderr
    return environment


def test_a_torch_in_another_folder_of_pythons_path_is_found(apart: Environment) -> None:
    assert not (apart.site / "torch").exists()
    done = apart.run("rometrace", *PROMPT, "--kinds", "state")
    assert done.returncode == 0, done.stderr


def test_without_torch_one_line_tells_what_to_install(apart: Environment, torch_version: str) -> None:
    link = apart.site / "elsewhere.pth"
    away = link.rename(apart.folder / "elsewhere.pth")
    try:
        done = apart.run("rometrace", "--version")
    finally:
        away.rename(link)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "torch is not installed" in done.stderr and f"torch=={torch_version}.*" in done.stderr


# --- Unicode without ICU's data ---------------------------------------------------------------------------------


def make_model(folder: Path, vocabulary: int) -> None:
    """GPT-2's architecture, as small as it can be, for long texts."""
    import numpy
    from safetensors.numpy import save_file

    width, length = 2, 16384
    random = numpy.random.default_rng(0)
    shapes = {"wte.weight": (vocabulary, width), "wpe.weight": (length, width), "ln_f.weight": (width,), "ln_f.bias": (width,)}
    layer = {"ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
             "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,), "attn.c_proj.weight": (width, width),
             "attn.c_proj.bias": (width,), "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
             "mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,)}  # fmt: skip
    shapes |= {f"h.0.{name}": shape for name, shape in layer.items()}
    save_file({name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}, folder / "model.safetensors")
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_head": 1, "n_embd": width,
              "n_positions": length, "n_ctx": length, "vocab_size": vocabulary, "layer_norm_epsilon": 1e-5,
              "activation_function": "gelu_new"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def bytes_of_tokens(environment: Environment, model: Path, texts: list[str], folder: Path) -> Iterator[bytes]:
    """What the program's tokens of each text stand for: the text after normalisation."""
    facts = [{"subject": "q", "prompt": text, "id": str(number)} for number, text in enumerate(texts)]
    (folder / "facts.json").write_text(json.dumps(facts))
    output = folder / "results.jsonl"
    done = environment.run(
        "rometrace", "--model", model, "--facts", folder / "facts.json", "--all", "--kinds", "state", "--positions", "last",
        "--samples", 1, "--noise", "0.1", "-q", "-o", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    assert [record["fact"]["id"] for record in records] == [str(number) for number in range(len(texts))]
    for record in records:
        yield b"".join(bytes.fromhex(token) for token in record["token_bytes"])


def chunks(words: list[str], size: int = 800) -> list[str]:
    return [" ".join(["q", *words[begin : begin + size]]) for begin in range(0, len(words), size)]


CHARACTERS = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def test_nfc_is_tokenizers_for_all_of_unicode(installed: Environment, tmp_path: Path) -> None:
    """Every character that NFC changes, that a decomposition has, or that combines. Those that are normalised alike by no
    table (the rest) are asked for one in 97."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    make_model(tmp_path, len(alphabet))

    def matters(character: str) -> bool:
        return unicodedata.normalize("NFD", character) != character or unicodedata.combining(character) > 0

    words = [form for c in CHARACTERS if matters(c) for form in (c, unicodedata.normalize("NFD", c))]
    words += ["a" + c + "\u0323" for c in CHARACTERS if unicodedata.combining(c)]
    words += [c for c in CHARACTERS[:: 97] if not matters(c) and c.isprintable() and not c.isspace()]
    texts = chunks(words)
    judge = normalizers.NFC()
    expected = [judge.normalize_str(text).encode() for text in texts]
    assert sum(text.encode() != normalised for text, normalised in zip(texts, expected)) > 20
    for found, wanted in zip(bytes_of_tokens(installed, tmp_path, texts, tmp_path), expected, strict=True):
        assert found.split(b" ") == wanted.split(b" ")


def test_lower_case_is_pythons_for_all_of_unicode(installed: Environment, tmp_path: Path) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e q"] * 9), model_writer=model, vocab_size=300, hard_vocab_limit=False, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "do_lower_case": true}')
    make_model(tmp_path, sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size())

    # ICU 72 knows Unicode 15; of a Python that knows more, only what was there long before.
    known = unicodedata if unicodedata.unidata_version.split(".") <= ["15", "0", "0"] else unicodedata.ucd_3_2_0
    words = [c for c in CHARACTERS if c.lower() != c and known.category(c) != "Cn"]
    words += ["ΑΣ", "ΑΣΑ", "Σ", "İ", "ẞ", "ǅ"]  # a final sigma; letters that become two, or another
    assert len(words) > 1000
    texts = chunks(words, 300)
    for text, found in zip(texts, bytes_of_tokens(installed, tmp_path, texts, tmp_path), strict=True):
        assert found.decode().replace("▁", " ").strip().split(" ") == text.lower().split(" ")
