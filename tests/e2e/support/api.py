"""A client of Tally's HTTP APIs: one keep-alive connection a thread, JSON in and out."""
import http.client
import json
import select
import threading
from urllib.parse import urlencode


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name):
        return self.headers.get(name)

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:500]!r}>"


class Client:
    def __init__(self, address):
        self.address = address
        self._local = threading.local()

    def request(self, method, path, body=None, headers=None, timeout=90):
        """Sends once. OSError or http.client.HTTPException where no whole answer came."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection = self._connection(timeout)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        except BaseException:
            self.close()
            raise

    def get(self, path, headers=None, query=None, **more):
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path, None, headers, **more)

    def post(self, path, body, headers=None, **more):
        return self.request("POST", path, body, headers, **more)

    def patch(self, path, body, headers=None, **more):
        return self.request("PATCH", path, body, headers, **more)

    def delete(self, path, headers=None, **more):
        return self.request("DELETE", path, None, headers, **more)

    def close(self):
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()

    def _connection(self, timeout):
        connection = getattr(self._local, "connection", None)
        if connection is not None and connection.sock is not None:
            # Readable between requests: the server has closed it, a request would be lost on it.
            if select.select([connection.sock], [], [], 0)[0]:
                connection.close()
                connection = None
        if connection is None:
            host, port = self.address.rsplit(":", 1)
            connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
            self._local.connection = connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection


NO_ANSWER = (OSError, http.client.HTTPException)


def assert_success(answer, status):
    """A success of the write API, with all that DESIGN.md says every success carries."""
    assert answer.status == status, answer
    document = answer.json
    assert {"id", "userId", "version"} <= set(document), answer
    assert isinstance(document["id"], str) and document["id"].isdigit(), answer
    assert isinstance(document["userId"], str) and document["userId"].isdigit(), answer
    assert isinstance(document["version"], int) and document["version"] > 0, answer
    assert answer.header("ETag") == f'"{document["version"]}"', answer
    if status == 201:
        assert answer.header("Location"), answer
    return document


def assert_problem(answer, status, slug=None):
    """An RFC 9457 problem of the documented type."""
    assert answer.status == status, answer
    assert answer.header("Content-Type").split(";")[0].strip() == "application/problem+json", answer
    document = answer.json
    assert document["status"] == status, answer
    assert document["title"], answer
    assert document["type"].startswith("urn:tally:problem:"), answer
    if slug is not None:
        assert document["type"] == f"urn:tally:problem:{slug}", answer
    return document
