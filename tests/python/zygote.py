"""Runs the executable, and the tools of the tests: as a process of its own, or by a fork of one that has been loaded before.

Loading libtorch takes most of a small run. tests/zygote.cpp is the executable, loaded, and waits for command lines; a fork
of it is what the executable is at the start of its main(). What such a fork would not show goes to the executable itself:
reason_for_a_process() says what that is. drawing_zygote.py is the same for the scripts that import matplotlib.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from waiting import PATIENCE

LIBRARY_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "LD_", "MALLOC_", "GLIBC_", "DNNL_", "ONEDNN_", "TORCH", "ATEN_")
"""How the names of variables begin that libraries read when they are loaded, long before main()."""

EXCLUSIVE = {"preexec_fn", "pass_fds", "start_new_session", "user", "stdout", "stderr"}
"""Options of subprocess.run() that a fork of the zygote does not know."""


TOOLS = ("tokenize", "resolve", "tensors", "moments", "randomstate", "logits")
PROGRAMS = ("rometrace", *(f"rometrace_{tool}" for tool in TOOLS))
"""What the zygote can be."""

SCRIPTS = ("plot_trace.py", "plot_summary.py", "plot_severed.py", "plot_neurons.py")
"""What drawing_zygote.py can be."""


class ZygoteDied(RuntimeError):
    """The zygote has ended, or does not answer: the test says nothing about the executable."""


class Zygote:
    """The loaded executable. Several threads may use it."""

    def __init__(self, program: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self.environment = library_variables(environment)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(program, stdin=theirs, env=dict(environment))

    def close(self) -> None:
        """Ends it, and what still runs of it."""
        self.socket.close()
        self.process.wait(timeout=PATIENCE)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        input: bytes | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """What subprocess.run(command, capture_output=True, ...) gives, and raises on a time-out."""
        deadline = time.monotonic() + (timeout or float("inf"))
        out, their_out = os.pipe()
        error, their_error = os.pipe()
        answer, their_answer = os.pipe()
        their_in, feed = os.pipe() if input is not None else (os.dup(0), None)
        theirs = [their_in, their_out, their_error, their_answer]
        try:
            try:
                self.send(self.request(command, environment, cwd), theirs)
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            child = self.number_from(answer)
            try:
                feeding, feed = feed, None  # exchange() closes it
                told = exchange((out, error), feeding, input or b"", deadline)
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                self.number_from(answer)
                raise subprocess.TimeoutExpired(command, timeout) from None
            status = os.waitstatus_to_exitcode(self.number_from(answer))
            return subprocess.CompletedProcess(command, status, *told)
        finally:
            for descriptor in (out, error, answer, *([] if feed is None else [feed])):
                os.close(descriptor)

    def request(self, command: Sequence[str], environment: Mapping[str, str], cwd: Any) -> bytes:
        """The message that tests/zygote.cpp describes."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        words = [os.getcwd() if cwd is None else os.fspath(cwd), str(len(command)), *command, *variables]
        return b"".join(os.fsencode(word) + b"\0" for word in words)

    def send(self, request: bytes, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self.socket, [request], descriptors)
        except OSError as error:
            raise ZygoteDied(f"the zygote takes no request: {error} (exit status: {self.process.poll()})") from error

    def number_from(self, pipe: int) -> int:
        """A line of an answer."""
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], PATIENCE)
            one = os.read(pipe, 1) if ready else b""  # two lines may have come together
            if not one:
                raise ZygoteDied(f"the zygote did not answer (exit status: {self.process.poll()})")
            line += one
        return int(line)


def exchange(pipes: tuple[int, ...], feed: int | None, data: bytes, deadline: float) -> list[bytes]:
    """Reads pipes to their ends, and writes `data` to one meanwhile and closes it. Raises TimeoutError."""
    parts: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
    rest = memoryview(data)
    with selectors.DefaultSelector() as waiting:
        for pipe in pipes:
            waiting.register(pipe, selectors.EVENT_READ)
        if feed is not None:
            os.set_blocking(feed, False)
            waiting.register(feed, selectors.EVENT_WRITE)
        try:
            while waiting.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                for key, _ in waiting.select(min(left, 60)):
                    if key.fd == feed:
                        try:
                            rest = rest[os.write(feed, rest) :] if rest else rest
                        except BrokenPipeError:
                            rest = rest[:0]
                        if not rest:
                            waiting.unregister(feed)
                            os.close(feed)
                            feed = None
                        continue
                    part = os.read(key.fd, 1 << 16)
                    if part:
                        parts[key.fd].append(part)
                    else:
                        waiting.unregister(key.fd)
        finally:
            if feed is not None:
                os.close(feed)
    return [b"".join(each) for each in parts.values()]


def library_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(LIBRARY_VARIABLES)}


def is_drawing(command: Sequence[str]) -> bool:
    """Whether it is this Python with a script that draws."""
    return command[0] == sys.executable and len(command) > 1 and Path(command[1]).name in SCRIPTS


class Runner:
    """Runs the executable, by the zygote where that shows the same. One for all tests of a pytest process."""

    def __init__(self) -> None:
        self.only_processes = False
        """While a test marked real_process runs."""
        self.forks = self.processes = 0
        """How many runs there have been of each kind."""
        self.zygotes: dict[Path, Zygote] = {}
        """By the folder of their programs; by Python's path, that of the scripts."""
        self.lock = threading.Lock()

    def reason_for_a_process(self, command: Sequence[str], options: Mapping[str, Any]) -> str | None:
        """Why a run takes the executable itself; None: a fork of the zygote does it. The one place that decides."""
        executable = Path(command[0])
        if os.environ.get("ROMETRACE_TEST_ZYGOTE") == "0":
            return "ROMETRACE_TEST_ZYGOTE is 0"
        if self.only_processes:
            return "the test is marked real_process: it is about processes, or where the program is"
        if is_drawing(command):
            differs = EXCLUSIVE & options.keys() or options["env"] != os.environ
            return "matplotlib or Python may read this environment when it starts" if differs else None
        if executable.name not in PROGRAMS or executable.is_symlink():
            return "another program, or another name of it"
        if not executable.with_name("rometrace_zygote").exists():
            return "there is no zygote beside the program: an installed one, or not Linux"
        if EXCLUSIVE & options.keys():
            return "the process is changed before it starts, or its descriptors are not pipes"
        if library_variables(options["env"]) != self.zygote(executable).environment:
            return "libraries read this environment when they are loaded"
        return None

    def drawing_zygote(self) -> Zygote:
        with self.lock:
            python = Path(sys.executable)
            if python not in self.zygotes:
                self.zygotes[python] = Zygote([python, Path(__file__).with_name("drawing_zygote.py")], os.environ)
            return self.zygotes[python]

    def zygote(self, executable: Path) -> Zygote:
        with self.lock:
            folder = executable.parent
            if folder not in self.zygotes:
                variables = dict(os.environ) | {"OMP_NUM_THREADS": "1"}  # as nearly all tests have it
                self.zygotes[folder] = Zygote([folder / "rometrace_zygote"], variables)
            return self.zygotes[folder]

    def run(self, command: Sequence[Any], *, env: Mapping[str, str], **options: Any) -> subprocess.CompletedProcess:
        """subprocess.run() with capture_output=True; `encoding` and what `EXCLUSIVE` does not name are understood."""
        command = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command]
        options = {name: value for name, value in options.items() if value is not None}
        if self.reason_for_a_process(command, options | {"env": env}):
            self.processes += 1
            pipes = {"capture_output": True} if not {"stdout", "stderr"} & options.keys() else {}
            return subprocess.run(command, env=env, **pipes, **options)
        self.forks += 1
        encoding, data = options.pop("encoding", None), options.pop("input", None)
        if isinstance(data, str):
            data = data.encode(encoding)
        zygote = self.drawing_zygote() if is_drawing(command) else self.zygote(Path(command[0]))
        done = zygote.run(command, env, input=data, **options)
        if encoding:
            done.stdout, done.stderr = (
                text.decode(encoding).replace("\r\n", "\n").replace("\r", "\n") for text in (done.stdout, done.stderr)
            )
        return done

    def close(self) -> None:
        for zygote in self.zygotes.values():
            zygote.close()


RUNNER = Runner()
