"""A small S3 server on 127.0.0.1 for tests: objects can be listed and read, by one key alone."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS_KEY = "known"


@contextmanager
def s3_server(objects: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a server that holds objects by 'BUCKET/KEY', until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._object(is_head=True)

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            if "list-type" in query:
                self._list(query)
            else:
                self._object(is_head=False)

        def log_message(self, *_: object) -> None:
            pass

        def _object(self, *, is_head: bool) -> None:
            content = objects.get(unquote(urlsplit(self.path).path).strip("/"))
            if f"Credential={ACCESS_KEY}/" not in self.headers.get("Authorization", ""):
                self._answer(403, _error("AccessDenied"), is_head=is_head)
            elif content is None:
                self._answer(404, _error("NoSuchKey"), is_head=is_head)
            elif found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                first, last = int(found[1]), min(int(found[2]), len(content) - 1)
                range_ = f"bytes {first}-{last}/{len(content)}"
                self._answer(206, content[first : last + 1], is_head=is_head, **{"Content-Range": range_})
            else:
                self._answer(200, content, is_head=is_head)

        def _list(self, query: Mapping[str, list[str]]) -> None:
            bucket = unquote(urlsplit(self.path).path).strip("/")
            prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
            entries = []
            for name, content in objects.items():
                key = name.removeprefix(f"{bucket}/")
                if name != key and key.startswith(prefix) and not (delimiter and delimiter in key[len(prefix) :]):
                    entries.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                    )
            text = f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(entries)}</KeyCount>{''.join(entries)}"
            self._answer(200, f"{text}<IsTruncated>false</IsTruncated></ListBucketResult>".encode(), is_head=False)

        def _answer(self, status: int, content: bytes, *, is_head: bool, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if not is_head:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
