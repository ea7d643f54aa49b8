"""A hub of models on this machine, as far as fetching needs one, that fails as it is told to.

The hub answers on 127.0.0.1; large files lie on a second server, which it redirects to as the real one does to its
content network, under the name localhost: another host.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import struct
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 8192  # bytes from which on a file lies on the second server


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git_hash(content)


def tree_entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": etag_of(content), "size": len(content), "pointerSize": 130}
    return entry


@dataclass
class Request:
    server: str  # "hub" or "store"
    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0  # bytes of the body


@dataclass
class Fault:
    """What happens to one answer."""

    status: int = 0  # this status instead
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None  # bytes of the body, then the connection is cut
    reset: bool = False  # cut before any answer
    body: bytes | None = None  # another content
    stall: float = 0  # seconds of silence in the middle
    gate: threading.Event | None = None  # waited for in the middle
    no_range: bool = False
    slow: float = 0  # seconds a block of 64 KiB
    drip: float = 0  # seconds a piece of 20 bytes
    endless: bool = False  # a body that goes on until the other side has enough


class Hub:
    """`faults[file]` are used up by GETs of a file's content, `head_faults` by HEADs, `info_faults` by look-ups of the
    model; the last of a list stays if it is repeated with `forever`."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.moved: dict[str, str] = {}
        self.requests: list[Request] = []
        self.faults: dict[str, list[Fault]] = {}
        self.head_faults: dict[str, list[Fault]] = {}
        self.info_faults: list[Fault] = []
        self.forever = False
        self.head_headers: dict[str, dict[str, str]] = {}  # of a file, in place of the true ones
        self.lock = threading.Lock()
        self.servers = {name: self._start(name) for name in ("hub", "store")}
        self.url = f"http://127.0.0.1:{self.servers['hub'].server_address[1]}"
        self.store_url = f"http://localhost:{self.servers['store'].server_address[1]}"

    def _start(self, name: str) -> http.server.ThreadingHTTPServer:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub, Handler.name = hub, name
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def next_fault(self, faults: list[Fault] | None) -> Fault:
        with self.lock:
            if not faults:
                return Fault()
            return faults[0] if self.forever and len(faults) == 1 else faults.pop(0)

    def gets(self, file: str) -> list[Request]:
        """Requests for a file's content, where it lies."""
        gets = [each for each in self.requests if each.method == "GET"]
        found = [each for each in gets if each.path.split("?")[0].endswith("/" + file)]
        stored = [each for each in found if each.server == "store"]
        return stored or found


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    name: str

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.hub
        if self.path.startswith("http://"):  # asked as a proxy
            self.path = "/" + self.path.split("/", 3)[3]
        self.request_record = Request(self.name, self.command, self.path, dict(self.headers))
        with hub.lock:
            hub.requests.append(self.request_record)
        path = urllib.parse.unquote(self.path.split("?")[0]).strip("/")
        try:
            if self.name == "store":
                model, _, file = path.rpartition("/")
                self.send_file(hub.models[model][file], hub.faults.get(file))
            elif path.startswith("api/models/"):
                self.answer_api(path.removeprefix("api/models/"))
            else:
                self.answer_file(path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def redirect_if_moved(self, model: str) -> bool:
        if model not in self.hub.moved:
            return False
        self.send_headers(307, {"Location": self.path.replace(model, self.hub.moved[model], 1), "Content-Length": "0"})
        return True

    def answer_api(self, path: str) -> None:
        hub = self.hub
        model, what, revision = path.partition("/revision/")
        if not what:
            model, what, revision = path.partition("/tree/")
        if self.redirect_if_moved(model):
            return
        fault = hub.next_fault(hub.info_faults)
        if self.fails(fault):
            return
        if model not in hub.models:
            self.send_headers(401, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})
            return
        if revision not in ("main", "refs/pr/1", COMMIT):
            self.send_headers(404, {"X-Error-Code": "RevisionNotFound", "Content-Length": "0"})
            return
        files = hub.models[model]
        if what == "/tree/":
            answer: Any = [tree_entry(name, content) for name, content in files.items()]
        else:
            answer = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        body = fault.body if fault.body is not None else json.dumps(answer).encode()
        self.send_headers(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.send_body(body, fault)

    def answer_file(self, path: str) -> None:
        hub = self.hub
        model, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        if self.redirect_if_moved(model):
            return
        content = hub.models.get(model, {}).get(file)
        if content is None or revision not in ("main", COMMIT):
            self.send_headers(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})
            return
        head = self.command == "HEAD"
        if head and self.fails(hub.next_fault(hub.head_faults.get(file))):
            return
        headers = {"X-Repo-Commit": COMMIT}
        if len(content) >= LARGE:
            location = f"{hub.store_url}/{model}/{file}?Signature=secret"
            headers |= {"Location": location, "X-Linked-Etag": f'"{etag_of(content)}"',
                        "X-Linked-Size": str(len(content)), "ETag": '"of-the-pointer"', "Content-Length": "0"}
            self.send_headers(302, headers | hub.head_headers.get(file, {}))
        elif head:
            headers |= {"ETag": f'W/"{etag_of(content)}"', "Content-Length": str(len(content))}
            self.send_headers(200, headers | hub.head_headers.get(file, {}))
        else:
            self.send_file(content, hub.faults.get(file), headers | {"ETag": f'W/"{etag_of(content)}"'})

    def send_file(self, content: bytes, faults: list[Fault] | None, headers: dict[str, str] | None = None) -> None:
        fault = self.hub.next_fault(faults)
        if self.fails(fault):
            return
        content = fault.body if fault.body is not None else content
        status, headers = 200, dict(headers or {})
        wanted = self.headers.get("Range")
        if wanted and not fault.no_range:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(content):
                self.send_headers(416, {"Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[first:]
        self.send_headers(status, headers | {"Content-Length": str(len(content))} | fault.headers)
        if self.command == "HEAD":
            return
        self.send_body(content, fault)

    def send_body(self, content: bytes, fault: Fault) -> None:
        end = len(content) if fault.drop_after is None else min(fault.drop_after, len(content))
        block = 20 if fault.drip else 65536
        for begin in range(0, end, block):
            if fault.slow or fault.drip:
                time.sleep(fault.slow or fault.drip)
            if fault.stall and begin >= end // 2:
                time.sleep(fault.stall)
            if fault.gate and begin >= end // 2:
                fault.gate.wait(300)
            piece = content[begin : min(begin + block, end)]
            self.wfile.write(piece)
            self.request_record.sent += len(piece)
        if end < len(content):
            self.cut()

    def fails(self, fault: Fault) -> bool:
        if fault.reset:
            # With this option closing sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.cut()
            return True
        if fault.status and fault.endless:
            self.send_headers(fault.status, {"Content-Length": str(2**60)} | fault.headers)
            while True:
                self.wfile.write(b"x" * 65536)
                self.request_record.sent += 65536
        if fault.status:
            self.send_headers(fault.status, {"Content-Length": "0"} | fault.headers)
            return True
        return False

    def cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was faster

    def send_headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
