"""Reads a topic from outside Tally: the records by kcat, the batches as they lie in the log by the Fetch protocol."""
import json
import socket
import struct
import subprocess
from collections import namedtuple

from support.wait import until

Record = namedtuple("Record", "partition offset key headers value")
Batch = namedtuple("Batch", "partition codec records bytes")

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

# A broker that is busy, or has only just started, answers with these for a while
# (https://kafka.apache.org/protocol#protocol_error_codes): no leader yet, not the leader, timed out, no replica yet, no
# coordinator yet, not the controller.
TRANSIENT = (5, 6, 7, 9, 14, 15, 16, 41)
UNKNOWN_TOPIC, INVALID_PARTITIONS = 3, 37


class KafkaError(RuntimeError):
    """A refusal for good."""


class Unsettled(OSError):
    """A refusal that passes."""


def _check(what, error, fine=()):
    if error in TRANSIENT:
        raise Unsettled(f"{what}: error {error}")
    if error != 0 and error not in fine:
        raise KafkaError(f"{what}: error {error}")


def _patiently(what, attempt):
    """The result of `attempt`, which is made again while Kafka is out of reach or unsettled."""
    return until(what, lambda: [attempt()])[0]


def consume(brokers, topic):
    """All records of the topic up to its present end, in the order of each partition."""
    def attempt():
        done = subprocess.run(
            ["kcat", "-b", brokers, "-C", "-t", topic, "-o", "beginning", "-e", "-J", "-q"],
            capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise Unsettled(done.stderr)
        return done.stdout
    records = []
    for line in _patiently(f"{topic} is read", attempt).splitlines():
        row = json.loads(line)
        pairs = row.get("headers") or []
        names = pairs[0::2]
        assert len(names) == len(set(names)), f"a header twice: {row}"
        records.append(Record(row["partition"], row["offset"], row["key"],
                              dict(zip(names, pairs[1::2])), row["payload"]))
    return sorted(records, key=lambda record: (record.partition, record.offset))


def produce(brokers, topic, key, value, headers=(), partition=-1):
    """One record, once; `value` None is a tombstone."""
    command = ["kcat", "-b", brokers, "-P", "-t", topic, "-p", str(partition), "-k", key, "-X", "enable.idempotence=true"]
    for name, text in headers:
        command += ["-H", f"{name}={text}"]
    if value is None:
        command.append("-Z")
    done = subprocess.run(command, input=value or "", capture_output=True, text=True, timeout=320, check=False)
    assert done.returncode == 0, done.stderr


def delete_all(brokers, topic, partitions):
    """Drops what the log holds, as retention does, by DeleteRecords version 0
    (https://kafka.apache.org/protocol#The_Messages_DeleteRecords) on a single broker."""
    name = topic.encode()
    body = struct.pack(">ih", 1, len(name)) + name + struct.pack(">i", partitions)
    for partition in range(partitions):
        body += struct.pack(">iq", partition, -1)  # -1: up to the end
    body += struct.pack(">i", 30000)

    def attempt():
        answer = _asked(brokers, 21, 0, body)
        at = 4 + 4 + 4 + 2 + len(name) + 4  # correlation, throttle, topics, name, partitions
        for _ in range(partitions):
            partition, _, error = struct.unpack_from(">iqh", answer, at)
            _check(f"deleting the records of {topic} [{partition}]", error)
            at += 14
    _patiently(f"the records of {topic} are deleted", attempt)


def alter_topic(brokers, topic, settings):
    """Sets settings of a topic, by IncrementalAlterConfigs version 0
    (https://kafka.apache.org/protocol#The_Messages_IncrementalAlterConfigs) on a single broker."""
    body = struct.pack(">ib", 1, 2) + _text(topic) + struct.pack(">i", len(settings))
    for name, value in settings.items():
        body += _text(name) + b"\0" + _text(str(value))

    def attempt():
        answer = _asked(brokers, 44, 0, body + b"\0")
        error = struct.unpack_from(">h", answer, 4 + 4 + 4)[0]  # correlation, throttle, resources
        _check(f"setting {settings} of {topic}", error)
    _patiently(f"{settings} of {topic} are set", attempt)
    until(f"{settings} of {topic} are in force", lambda: settings_of(brokers, topic, settings) == {
        name: str(value) for name, value in settings.items()})


def settings_of(brokers, topic, names):
    """{name: text}, by DescribeConfigs version 1 (https://kafka.apache.org/protocol#The_Messages_DescribeConfigs). An
    alteration is acknowledged by the controller; the broker shows it, and acts by it, a moment later."""
    body = struct.pack(">ib", 1, 2) + _text(topic) + struct.pack(">i", len(names))
    for name in names:
        body += _text(name)
    answer = _asked(brokers, 32, 1, body + b"\0")
    at = 4 + 4 + 4  # correlation, throttle, resources
    _check(f"the settings of {topic}", struct.unpack_from(">h", answer, at)[0])
    _, at = _text_at(answer, at + 2)  # what is wrong
    _, at = _text_at(answer, at + 1)  # type, name
    count, at = struct.unpack_from(">i", answer, at)[0], at + 4
    found = {}
    for _ in range(count):
        name, at = _text_at(answer, at)
        found[name], at = _text_at(answer, at)
        at += 3 + 4  # read-only, source, secret, no synonyms
    return found


def _text_at(answer, at):
    """The text, None where there is none, and where it ends."""
    length = struct.unpack_from(">h", answer, at)[0]
    if length < 0:
        return None, at + 2
    return answer[at + 2:at + 2 + length].decode(), at + 2 + length


def _text(text):
    return struct.pack(">h", len(text.encode())) + text.encode()


def delete_topics(brokers, topics):
    """By DeleteTopics version 1 (https://kafka.apache.org/protocol#The_Messages_DeleteTopics) on a single broker; one
    that is not there is fine. A broker that is killed looks through all it has when it starts again."""
    body = struct.pack(">i", len(topics))
    for topic in topics:
        body += struct.pack(">h", len(topic)) + topic.encode()

    def attempt():
        answer = _asked(brokers, 20, 1, body + struct.pack(">i", 30000))
        at = 4 + 4 + 4  # correlation, throttle, topics
        for _ in topics:
            _, at = _text_at(answer, at)
            _check(f"deleting {topics}", struct.unpack_from(">h", answer, at)[0], fine=(UNKNOWN_TOPIC,))
            at += 2
    _patiently(f"{topics} are deleted", attempt)


def add_partitions(brokers, topic, count):
    """To make `count`, by CreatePartitions version 0
    (https://kafka.apache.org/protocol#The_Messages_CreatePartitions) on a single broker."""
    name = topic.encode()
    body = struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiib", count, -1, 30000, 0)
    attempts = []

    def attempt():
        attempts.append(1)
        answer = _asked(brokers, 37, 0, body)
        error = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(name))[0]  # correlation, throttle, topics, name
        # The attempt before may have added them, and nobody was told.
        _check(f"adding partitions to {topic}", error, fine=(INVALID_PARTITIONS,) if len(attempts) > 1 else ())
    _patiently(f"partitions are added to {topic}", attempt)


def until_led(brokers, topic, partitions):
    """Until the broker leads every partition, by ListOffsets version 1
    (https://kafka.apache.org/protocol#The_Messages_ListOffsets) on a single broker. The controller tells of a topic that
    was made before the broker knows that it leads it."""
    body = struct.pack(">ii", -1, 1) + _text(topic) + struct.pack(">i", partitions)
    for partition in range(partitions):
        body += struct.pack(">iq", partition, -1)  # -1: the end

    def attempt():
        answer = _asked(brokers, 2, 1, body)
        _, at = _text_at(answer, 4 + 4)  # correlation, topics
        at += 4  # partitions
        for _ in range(partitions):
            partition, error, _, _ = struct.unpack_from(">ihqq", answer, at)
            if error == UNKNOWN_TOPIC:
                raise Unsettled(f"{topic} [{partition}] is not there yet")
            _check(f"the end of {topic} [{partition}]", error)
            at += 22
    _patiently(f"{topic} is led", attempt)


def _asked(brokers, api, version, body):
    """One request on a connection of its own."""
    host, port = brokers.split(",")[0].rsplit(":", 1)
    client = b"tally-e2e"
    head = struct.pack(">hhih", api, version, 7, len(client)) + client
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        return _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])


def batches(brokers, topic, partitions):
    """The record batches of a topic on a single broker, with the compression each is stored in."""
    return _patiently(f"the batches of {topic} are read", lambda: _batches(brokers, topic, partitions))


def _batches(brokers, topic, partitions):
    host, port = brokers.split(",")[0].rsplit(":", 1)
    found = []
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for partition in range(partitions):
            offset = 0
            while True:
                raw, end = _fetch(connection, topic, partition, offset)
                fresh = [batch for batch in _split(raw, partition) if batch[0] >= offset]
                found += [batch[2] for batch in fresh]
                if not fresh or fresh[-1][1] + 1 >= end:
                    break
                offset = fresh[-1][1] + 1
    return found


def _fetch(connection, topic, partition, offset):
    """Fetch version 4 (https://kafka.apache.org/protocol#The_Messages_Fetch), which every broker since 0.11 knows."""
    name = topic.encode()
    body = struct.pack(">iiiib", -1, 0, 0, 1 << 24, 0)
    body += struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiqi", 1, partition, offset, 1 << 22)
    client = b"tally-e2e"
    head = struct.pack(">hhih", 1, 4, 7, len(client)) + client
    connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
    at = 4 + 4 + 4  # correlation, throttle, topics
    at += 2 + struct.unpack_from(">h", answer, at)[0] + 4  # name, partitions
    _, error, end, _ = struct.unpack_from(">ihqq", answer, at)
    _check(f"fetch of {topic} [{partition}]", error)
    at += 22
    aborted = struct.unpack_from(">i", answer, at)[0]
    at += 4 + 16 * max(aborted, 0)
    length = struct.unpack_from(">i", answer, at)[0]
    return answer[at + 4:at + 4 + max(length, 0)], end


def _split(raw, partition):
    """Record batches of version 2; the last one of an answer may be cut off."""
    at = 0
    while at + 61 <= len(raw):
        base, length = struct.unpack_from(">qi", raw, at)
        if at + 12 + length > len(raw):
            return
        attributes, last_delta = struct.unpack_from(">hi", raw, at + 21)
        records = struct.unpack_from(">i", raw, at + 57)[0]
        yield base, base + last_delta, Batch(partition, CODECS[attributes & 7], records, 12 + length)
        at += 12 + length


def _exactly(connection, length):
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise Unsettled("the broker closed the connection")
        data += part
    return data
