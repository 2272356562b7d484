"""A hub on this machine, which answers what huggingface_hub asks of one, for tests without a network."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_COMMIT = "c0ffee" * 6 + "c0ff"


class Hub:
    """The repositories of a hub, and what has been downloaded from it.

    Attributes:
        repositories: folders by id.
        address: for HF_ENDPOINT.
        sent: names of files, in order.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.sent: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Nobody is there any more."""
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        """What the interface of the Hub has for a path: a repository, its files, or one of them."""
        path = request.path.partition("?")[0].strip("/")
        for name, folder in self.repositories.items():
            files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
            if path == f"api/models/{name}/revision/main":
                return self.send(request, json.dumps({"id": name, "sha": _COMMIT}).encode(), body)
            if path == f"api/models/{name}/tree/{_COMMIT}":
                return self.send(request, json.dumps([*map(_listed, files, files.values())]).encode(), body)
            file_name = path.removeprefix(f"{name}/resolve/{_COMMIT}/")
            if file_name in files:
                self.sent += [file_name] if body else []
                return self.send(request, files[file_name].read_bytes(), body)
        request.send_response(404)
        request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Length", "0")
        return request.end_headers()

    def send(self, request: BaseHTTPRequestHandler, data: bytes, body: bool) -> None:
        """Data, under the headers by which a cache knows it."""
        request.send_response(200)
        request.send_header("X-Repo-Commit", _COMMIT)
        request.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if body:
            request.wfile.write(data)


def _listed(name: str, file: Path) -> dict[str, object]:
    data = file.read_bytes()
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def serving(repositories: dict[str, Path]) -> Iterator[Hub]:
    """A hub, while the block runs."""
    hub = Hub(repositories)
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.close()
