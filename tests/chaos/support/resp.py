"""Redis read by a client of our own: RESP2 (https://redis.io/docs/reference/protocol-spec/), pipelined."""
import socket


class Resp:
    def __init__(self, port, timeout=60):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._socket.close()

    def call(self, *words):
        return self.pipeline([words])[0]

    def pipeline(self, commands):
        """The replies of all of them; an error reply is raised."""
        self._socket.sendall(b"".join(_encoded(words) for words in commands))
        return [self._reply() for _ in commands]

    def scan(self, pattern):
        """All keys of this pattern."""
        cursor, found = "0", set()
        while True:
            cursor, keys = self.call("SCAN", cursor, "MATCH", pattern, "COUNT", "5000")
            found.update(keys)
            if cursor == "0":
                return sorted(found)

    def hashes(self, keys, chunk=1000):
        """[(key, {field: value})]"""
        for at in range(0, len(keys), chunk):
            some = keys[at:at + chunk]
            for key, flat in zip(some, self.pipeline([("HGETALL", key) for key in some])):
                yield key, dict(zip(flat[0::2], flat[1::2]))

    def _reply(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise OSError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))] if int(rest) >= 0 else None
        assert kind == b"$", line
        if int(rest) < 0:
            return None
        text = self._file.read(int(rest) + 2)
        return text[:-2].decode()


def _encoded(words):
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
