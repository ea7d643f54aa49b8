"""The scripts that draw, with matplotlib imported once: what tests/zygote.cpp is for the executable, one run at a time.

tests/python/zygote.py starts it, with one end of a pair of sockets as its stdin; zygote.cpp says what a request is. The
arguments are a Python's: its name, the script, the script's own.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import traceback

import matplotlib.backends.backend_agg
import matplotlib.backends.backend_pdf
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401


def be_the_script(request: bytes, descriptors: list[int]) -> int:
    """What a Python that was started for the script does; gives its exit status."""
    folder, count, *words = request.decode("utf-8", "surrogateescape").split("\0")[:-1]
    arguments, variables = words[: int(count)], words[int(count) :]
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
    for descriptor in descriptors:
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variable.split("=", 1) for variable in variables)
    sys.argv = arguments[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    asked = socket.socket(fileno=0)
    while True:
        request, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 4)
        if not request:
            return
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = be_the_script(request, descriptors)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        *theirs, answer = descriptors
        for descriptor in theirs:
            os.close(descriptor)
        os.write(answer, b"%d\n" % child)
        os.write(answer, b"%d\n" % os.waitpid(child, 0)[1])
        os.close(answer)


if __name__ == "__main__":
    main()
