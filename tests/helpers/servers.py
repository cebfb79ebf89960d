"""A web server on this machine."""

import functools
import http.server
import threading
from contextlib import contextmanager


@contextmanager
def web_server(folder, handler=http.server.SimpleHTTPRequestHandler):
    """Its address, and the paths it was asked for."""
    asked = []

    class Quiet(handler):
        def log_message(self, text, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
