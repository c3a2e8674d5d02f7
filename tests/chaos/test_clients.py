"""What clients do to each other: equal requests at once, and reading what was just written."""
import json
import socket
import threading
import uuid
from collections import Counter

from support.api import Client
from support.load import Load
from support.oracle import assert_diff_0
from support.scale import scaled

KEYS = scaled(1000, 40)
AUTHORS = 50
EQUAL_REQUESTS = 20
WRITES = scaled(10000, 300)
WRITERS = 8


class Wire:
    """One connection on which requests are sent before any answer is read."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self._host = address
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._file = self._socket.makefile("rb")

    def send(self, path, body, key):
        head = (f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
                f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n")
        self._socket.sendall(head.encode() + body)

    def answer(self):
        """(status, body, was it replayed)"""
        status = int(self._file.readline().split()[1])
        headers = {}
        while (line := self._file.readline().strip()):
            name, value = line.decode().split(":", 1)
            headers[name.lower()] = value.strip()
        return status, self._file.read(int(headers["content-length"])), "idempotent-replayed" in headers

    def close(self):
        self._file.close()
        self._socket.close()


def test_f15_equal_requests_at_once_have_one_effect_and_one_answer(own_stack, figures):
    stack = own_stack
    second = stack.add("command").start()
    authors = [stack.new_user() for _ in range(AUTHORS)]
    addresses = [stack.command.api, second.api]
    wires = [Wire(addresses[number % 2]) for number in range(EQUAL_REQUESTS)]
    made, others, differing = {}, Counter(), 0
    with Load(stack) as load:
        for number in range(KEYS):
            author, text = authors[number % AUTHORS], f"Once, number {number}"
            body, key = json.dumps({"authorId": author, "body": text}).encode(), str(uuid.uuid4())
            for wire in wires:
                wire.send("/v1/posts", body, key)
            answers = [wire.answer() for wire in wires]
            others.update(status for status, _, _ in answers if status not in (201, 409))
            stored = {document for status, document, _ in answers if status == 201}
            first = sum(status == 201 and not replayed for status, _, replayed in answers)
            differing += len(stored) != 1 or first != 1
            made.update((json.loads(document)["id"], (author, text)) for document in stored)
    for wire in wires:
        wire.close()
    of_authors = f"SELECT id, author_id, body FROM posts WHERE author_id IN ({','.join(authors)})"
    rows = {row[0]: (row[1], row[2]) for row in stack.sql(of_authors)}
    figures.load("F15 load", load.per_second)
    figures.exactly("F15 effects", len(rows), KEYS)
    figures.exactly("F15 effects that are not what was answered", len(rows.items() ^ made.items()))
    figures.exactly("F15 keys with two answers, or two that were first", differing)
    figures.exactly("F15 answers other than 201 and 409", sum(others.values()))
    assert_diff_0(figures, "F15", stack)


class OwnReader:
    """Writes as one user, and reads each write back."""

    def __init__(self, stack, writes):
        self.user = stack.new_user()
        self.stale, self.wrong, self.refused = [], [], []
        self.reads = 0
        self._write, self._read = Client(stack.command.api), Client(stack.query.api)
        self.thread = threading.Thread(target=self._run, args=(writes,), daemon=True)

    def _run(self, writes):
        for number in range(1, writes + 1):
            written = self._write.post("/v1/posts", {"authorId": self.user, "body": "Mine"})
            if written.status != 201:
                self.refused.append(written)
                continue
            version = written.json["version"]
            answer = self._read.get(f"/v1/users/{self.user}", {"Prefer": "wait=30"}, {"minVersion": version})
            self.reads += 1
            if answer.status != 200:
                self.refused.append(answer)
            elif answer.json["version"] < version:
                self.stale.append(answer)
            # Nobody else writes as this user.
            elif (answer.json["version"], answer.json["postCount"]) != (number + 1, number):
                self.wrong.append(answer)


def test_f16_a_write_that_is_read_back_with_its_version_is_never_answered_by_an_older_one(own_stack, figures):
    stack = own_stack
    writers = [OwnReader(stack, WRITES // WRITERS) for _ in range(WRITERS)]
    with Load(stack) as load:
        for writer in writers:
            writer.thread.start()
        for writer in writers:
            writer.thread.join(timeout=1800)
            assert not writer.thread.is_alive(), "a writer does not end"
    refused = [answer for writer in writers for answer in writer.refused]
    assert not refused, refused[:3]
    figures.load("F16 load", load.per_second)
    figures.exactly("F16 writes read back", sum(writer.reads for writer in writers), WRITES // WRITERS * WRITERS)
    figures.exactly("F16 stale answers", sum(len(writer.stale) for writer in writers))
    figures.exactly("F16 answers with another count than the version's", sum(len(writer.wrong) for writer in writers))
    assert_diff_0(figures, "F16", stack)
