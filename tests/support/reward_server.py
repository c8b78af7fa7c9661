"""A server of rewards in a thread, which answers as a test says."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

Answer = Callable[[dict[str, Any], int], Any]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Yield the address of a server.

    Args:
        answer: (the request, how many came before) -> what is sent: bytes as they are, a status number, or
            what is made JSON; None closes the connection without a word.
    """
    lock, count = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked["headers"] = dict(self.headers)
            with lock:
                number, count[0] = count[0], count[0] + 1
            told = answer(asked, number)
            if told is None:
                return
            status, body = (told, b"no\nnever") if isinstance(told, int) else (200, told)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ink(one: dict[str, Any]) -> float:
    """Return the mean brightness of an image of a request, and a hundred times its class."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
    return float(pixels.mean()) / 255 + 100 * int(one["condition"])


def all_right(asked: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """Answer a request as the protocol wants it."""
    return {"rewards": [{"id": one["id"], "reward": ink(one)} for one in asked["images"]]}
