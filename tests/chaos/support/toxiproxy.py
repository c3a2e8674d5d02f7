"""toxiproxy (https://github.com/Shopify/toxiproxy): TCP proxies on loopback, made slow, deaf or dead while the test runs."""
import json
import os
import urllib.request
from contextlib import contextmanager

from support.process import Process, free_port
from support.stack import required
from support.wait import until


class Toxiproxy(Process):
    def __init__(self, folder):
        self._port = free_port()
        super().__init__("toxiproxy", [required("TALLY_TOXIPROXY"), "-host", "127.0.0.1", "-port", str(self._port)],
                         {**os.environ, "LOG_LEVEL": "error"}, os.path.join(folder, "toxiproxy.log"), folder)

    def start(self):
        self.spawn()
        until("toxiproxy answers", self._answers)
        return self

    def _answers(self):
        self.spawn_again_where_its_port_was_taken()
        return self._call("GET", "/version") is not None

    def add(self, name, upstream_port, port=None):
        """Passes a port of its own on to another; returns it."""
        port = port or free_port()
        self._call("POST", "/proxies", {"name": name, "listen": f"127.0.0.1:{port}",
                                        "upstream": f"127.0.0.1:{upstream_port}", "enabled": True})
        return port

    @contextmanager
    def poisoned(self, name, kind, streams, **attributes):
        """`streams`: downstream is what the server sends, upstream what it is sent."""
        toxics = f"/proxies/{name}/toxics"
        for stream in streams:
            self._call("POST", toxics, {"name": stream, "type": kind, "stream": stream, "toxicity": 1.0,
                                        "attributes": attributes})
        try:
            yield
        finally:
            for stream in streams:
                self._call("DELETE", f"{toxics}/{stream}")

    def _call(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read().decode()
