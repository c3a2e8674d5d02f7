"""Traces: where the bytes of certain texts lie on the disks of a stack's servers, whatever any query would say."""
import glob
import os
import subprocess
from urllib.parse import urlsplit, urlunsplit

from support.kafka import alter_topic, settings_of
from support.stack import psql, required
from support.wait import until

PG_DUMP = "/usr/lib/postgresql/15/bin/pg_dump"


def superuser(stack):
    """The DSN of the local server's superuser, who alone may ask for a checkpoint."""
    with open(os.path.join(required("TALLY_LOCAL_DIR"), "pg-password"), encoding="ascii") as file:
        password = file.read().strip()
    host = urlsplit(stack.dsn).netloc.rsplit("@", 1)[1]
    return urlunsplit(urlsplit(stack.dsn)._replace(netloc=f"postgres:{password}@{host}"))


def dump_of_postgres(stack):
    done = subprocess.run([PG_DUMP, "--format=plain", "-d", stack.dsn], capture_output=True, timeout=120, check=True)
    assert b"CREATE TABLE" in done.stdout
    return done.stdout


def files_of_postgres(stack):
    """The data files of the stack's database, as a checkpoint leaves them; not the WAL."""
    psql(superuser(stack), "CHECKPOINT")
    number = stack.sql("SELECT oid FROM pg_database WHERE datname = current_database()")[0][0]
    return contents(os.path.join(required("TALLY_LOCAL_DIR"), "pg", "base", number))


def file_of_relation(stack, name):
    """The first file of a table or an index, as a checkpoint leaves it."""
    psql(superuser(stack), "CHECKPOINT")
    path = stack.sql(f"SELECT pg_relation_filepath('{name}')")[0][0]
    with open(os.path.join(required("TALLY_LOCAL_DIR"), "pg", path), "rb") as file:
        return file.read()


def files_of_topic(stack, topic):
    folders = glob.glob(os.path.join(required("TALLY_LOCAL_DIR"), "kafka", "data", f"{topic}-*"))
    assert folders, f"there is no folder of {topic}"
    return b"".join(contents(folder) for folder in folders)


def files_of_redis(stack):
    """A snapshot made for this, without compression, and whatever else lies in the folder."""
    stack.redis.call("CONFIG", "SET", "rdbcompression", "no")
    assert stack.redis.call("SAVE") == "OK"
    return contents(stack.redis.data)


def contents(folder):
    """All files below, one after the other. A file that goes while we look was not there."""
    parts = []
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                with open(os.path.join(root, name), "rb") as file:
                    parts.append(file.read())
            except FileNotFoundError:
                continue
    return b"\n".join(parts)


PLACES = {
    "a dump of PostgreSQL": dump_of_postgres,
    "the files of PostgreSQL": files_of_postgres,
    "the segments of the events": lambda stack: files_of_topic(stack, stack.topic),
    "the segments of the dead letters": lambda stack: files_of_topic(stack, stack.dlq_topic),
    "the files of Redis": files_of_redis,
}


def found(stack, texts, places=tuple(PLACES)):
    """{place: which of the texts, by name, are in it}"""
    result = {}
    for place in places:
        bytes_of_place = PLACES[place](stack)
        result[place] = {name for name, text in texts.items() if text.encode() in bytes_of_place}
    return result


def until_expired(stack, topic):
    """Has the topic's retention end at once until no segment holds a record; then it is as before."""
    at_once = {"retention.ms": 1, "segment.ms": 1, "file.delete.delay.ms": 1}
    before = settings_of(stack.brokers, topic, at_once)
    alter_topic(stack.brokers, topic, at_once)
    folder = os.path.join(required("TALLY_LOCAL_DIR"), "kafka", "data", f"{topic}-*")
    until(f"the segments of {topic} are gone", lambda: not any(
        os.path.getsize(path) for path in glob.glob(os.path.join(folder, "*.log*"))), 120, 0.5)
    alter_topic(stack.brokers, topic, before)


