"""What an operator may do to a topic, by Kafka's own protocol on a single broker: delete it, add partitions, drop records."""
import json
import socket
import struct
import subprocess

from support.kafka import delete_all
from support.stack import PARTITIONS
from support.wait import until

TIMEOUT_MS = 30000


def delete(stack):
    """DeleteTopics version 1 (https://kafka.apache.org/protocol#The_Messages_DeleteTopics), and waits until it is gone."""
    name = stack.topic.encode()
    answer = _ask(stack.brokers, 20, 1, struct.pack(">ih", 1, len(name)) + name + struct.pack(">i", TIMEOUT_MS))
    assert struct.unpack_from(">h", answer, len(answer) - 2)[0] == 0, answer
    until("the topic is gone", lambda: partitions(stack) == 0)


def add_partitions(stack, count):
    """CreatePartitions version 0 (https://kafka.apache.org/protocol#The_Messages_CreatePartitions)."""
    name = stack.topic.encode()
    _ask(stack.brokers, 37, 0, struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiib", count, -1, TIMEOUT_MS, 0))
    until("the topic has more partitions", lambda: partitions(stack) == count)
    stack.partitions = count


def drop_records(stack):
    """All that the log holds, as retention does."""
    delete_all(stack.brokers, stack.topic, PARTITIONS)


def recreate(stack):
    delete(stack)
    # The broker removes what it held a moment after it has said so.
    until("the topic is made anew",
          lambda: stack.ctl("topics", "create", "--partitions", str(PARTITIONS)).returncode == 0)


def partitions(stack):
    done = subprocess.run(["kcat", "-b", stack.brokers, "-L", "-J", "-t", stack.topic], capture_output=True, text=True,
                          timeout=60, check=True)
    return len(json.loads(done.stdout)["topics"][0]["partitions"])


def _ask(brokers, key, version, body):
    """The answer's bytes after the correlation id."""
    host, port = brokers.split(",")[0].rsplit(":", 1)
    client = b"tally-chaos"
    head = struct.pack(">hhih", key, version, 7, len(client)) + client
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        file = connection.makefile("rb")
        return file.read(struct.unpack(">i", file.read(4))[0])[4:]
