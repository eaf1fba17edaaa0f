"""A small Google Cloud Storage on 127.0.0.1 for tests: objects can be listed and read, by whoever comes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKETS = "/storage/v1/b/"
TIME = "2026-01-01T00:00:00Z"


@contextmanager
def gs_server(objects: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a server that holds objects by 'BUCKET/KEY', until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            bucket, _, key = parts.path.removeprefix(BUCKETS).partition("/o")
            name = f"{bucket}/{unquote(key.lstrip('/'))}"
            if not key:
                self._answer_json({"items": self._listed(bucket, query)})
            elif name not in objects:
                self._answer(404, json.dumps({"error": {"code": 404, "message": "Not Found"}}).encode())
            elif query.get("alt") == ["media"]:
                self._answer(200, objects[name])
            else:
                self._answer_json(_described(name, objects[name]))

        def log_message(self, *_: object) -> None:
            pass

        def _listed(self, bucket: str, query: Mapping[str, list[str]]) -> list[dict[str, Any]]:
            prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
            return [
                _described(name, content)
                for name, content in objects.items()
                if name.startswith(prefix) and not ("delimiter" in query and "/" in name[len(prefix) :])
            ]

        def _answer_json(self, value: object) -> None:
            self._answer(200, json.dumps(value).encode())

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _described(name: str, content: bytes) -> dict[str, Any]:
    bucket, _, key = name.partition("/")
    fixed = {"kind": "storage#object", "generation": "1", "metageneration": "1", "timeCreated": TIME, "updated": TIME}
    return {**fixed, "name": key, "bucket": bucket, "size": str(len(content))}
