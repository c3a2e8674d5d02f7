"""A read model of many users, beside the same in PostgreSQL, and the memory that comparing the two takes."""
import json
import os
import socket
import subprocess
import sys

from support.murmur2 import partition_of
from support.stack import PARTITIONS

GENERATION = 1
# The peak of a run of verify, whatever the number of users and of differences.
PEAK_MOST_KIB = 32 * 1024
# A process counts the memory of the one that started it as its own until it has begun; this one is small.
STARTER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def resp(*words):
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def fill(stack, count, seconds=600):
    """Users 1 … count without posts, in PostgreSQL and, by one pipeline, in the read model."""
    stack.sql(f"""
        TRUNCATE users CASCADE;
        INSERT INTO users (id, name, email, version)
            SELECT n, 'Reader', n || '@example.org', 1 FROM generate_series(1, {count}) n""", timeout=seconds)
    stack.sql("ANALYZE users")
    stack.redis.call("FLUSHALL")
    users = [0] * PARTITIONS
    with socket.create_connection(("127.0.0.1", stack.redis.port), timeout=seconds) as pipe:
        batch = []
        for user in range(1, count + 1):
            partition = partition_of(str(user), PARTITIONS)
            users[partition] += 1
            batch.append(resp("HSET", f"tally:{GENERATION}:{{{partition}}}:user:{user}", "v", 1, "posts", 0, "comments",
                              0, "name", "Reader", "email", f"{user}@example.org", "tl", 1))
            if len(batch) == 1000 or user == count:
                pipe.sendall(b"".join(batch))
                replies = 0
                while replies < len(batch):
                    replies += pipe.recv(65536).count(b"\n")
                batch = []
    for partition in range(PARTITIONS):
        stack.redis.call("HSET", f"tally:{GENERATION}:{{{partition}}}:position", "epoch", "1", "offset", "1", "until",
                         "1", "cluster", "test", "partitions", str(PARTITIONS), "event_at_ms", "1", "fresh_at_ms", "1")
        stack.redis.call("HSET", f"tally:{GENERATION}:{{{partition}}}:totals", "users", str(users[partition]), "posts",
                         "0", "comments", "0")
    stack.redis.call("SET", "tally:generation", str(GENERATION))


def verify(stack, *arguments, seconds=900):
    """(exit code, result, peak of the resident memory in KiB)"""
    settings = {**stack.settings_of("ctl"), "TALLY_REDIS_TIMEOUT_MS": "60000"}
    done = subprocess.run([sys.executable, "-S", "-E", "-c", STARTER, stack.program("tallyctl"), "verify", "--json",
                           *arguments], env=stack.environment(settings), capture_output=True,
                          text=True, timeout=seconds, check=False)
    return done.returncode, json.loads(done.stdout), int(done.stderr.split()[-1])
