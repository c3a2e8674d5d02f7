"""HTTP by hand: sends bytes as they are and reads answers until the server closes."""
import socket
import time


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class Connection:
    """`head_only` answers (to HEAD) have no body whatever Content-Length says."""

    def __init__(self, address, timeout=30):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.rest = b""
        self.reset = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # The server may refuse and close while we still send; what it answered is read all the same.
            self.reset = True

    def _more(self):
        try:
            part = self.socket.recv(65536)
        except ConnectionResetError:
            self.reset = True
            part = b""
        self.rest += part
        return bool(part)

    def answer(self, head_only=False):
        """The next answer, or None at the end of the connection."""
        while b"\r\n\r\n" not in self.rest:
            if not self._more():
                assert not self.rest, f"an answer was cut off: {self.rest!r}"
                return None
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        status = int(lines[0].split(" ")[1])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        if head_only or status in (204, 304) or status < 200:
            length = 0
        while len(self.rest) < length:
            assert self._more(), "a body was cut off"
        body, self.rest = self.rest[:length], self.rest[length:]
        return Answer(status, headers, body)

    def closed(self, seconds=30):
        """Whether the server closes the connection, without sending anything more."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                if not self._more():
                    return not self.rest
            except TimeoutError:
                return False
        return False


def ask(address, data):
    """Sends `data` and returns all answers that came before the server closed, and whether it did close."""
    with Connection(address) as connection:
        connection.send(data)
        answers = []
        try:
            while (answer := connection.answer()) is not None:
                answers.append(answer)
        except TimeoutError:
            return answers, False
        return answers, True
