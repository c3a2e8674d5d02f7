"""tallyctl verify: what a sample says of everyone, and how little memory it takes for any number of users."""
import json
import os
import socket
import subprocess
import sys

import pytest

from support.murmur2 import partition_of
from support.stack import PARTITIONS, Stack

FINE, DIFFERENT, USAGE = 0, 1, 2
# The peak of a run, whatever the number of users and of differences.
PEAK_MOST_KIB = 32 * 1024
GENERATION = 1
# A process counts the memory of the one that started it as its own until it has begun; this one is small.
STARTER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def servers(log_folder, request):
    """A stack's servers without its services."""
    made = Stack(os.path.join(log_folder, request.node.name))
    try:
        made.prepare()
        yield made
    finally:
        made.stop()


def resp(*words):
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def fill(stack, count, name="Reader"):
    """Users 1 … count without posts, in PostgreSQL and, by one pipeline, in the read model."""
    stack.sql(f"""
        TRUNCATE users CASCADE;
        INSERT INTO users (id, name, email, version)
            SELECT n, 'Reader', n || '@example.org', 1 FROM generate_series(1, {count}) n""", timeout=600)
    stack.sql("ANALYZE users")
    stack.redis.call("FLUSHALL")
    users = [0] * PARTITIONS
    with socket.create_connection(("127.0.0.1", stack.redis.port), timeout=600) as pipe:
        batch = []
        for user in range(1, count + 1):
            partition = partition_of(str(user), PARTITIONS)
            users[partition] += 1
            batch.append(resp("HSET", f"tally:{GENERATION}:{{{partition}}}:user:{user}", "v", 1, "posts", 0, "comments",
                              0, "name", name, "email", f"{user}@example.org", "tl", 1))
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


def verify(stack, *arguments):
    """(exit code, result, peak of the resident memory in KiB)"""
    settings = {**stack.settings_of("ctl"), "TALLY_REDIS_TIMEOUT_MS": "60000"}
    done = subprocess.run([sys.executable, "-S", "-E", "-c", STARTER, stack.program("tallyctl"), "verify", "--json",
                           *arguments], env=stack.environment(settings), capture_output=True,
                          text=True, timeout=900, check=False)
    return done.returncode, json.loads(done.stdout), int(done.stderr.split()[-1])


def test_the_memory_of_a_run_does_not_grow_with_the_users_or_their_differences(servers):
    fill(servers, 300_000)
    code, result, peak_kib = verify(servers)
    assert code == FINE and result["usersChecked"] == result["keysScanned"] == 300_000, result
    assert peak_kib < PEAK_MOST_KIB, peak_kib
    print(f"300,000 equal users: peak {peak_kib} KiB")
    # Everybody differs: one half at once, and the other after it has been waited for.
    servers.sql("""UPDATE users SET name = 'Somebody else' WHERE id % 2 = 0;
                   UPDATE users SET version = 2 WHERE id % 2 = 1""", timeout=600)
    code, result, peak_kib = verify(servers, "--grace", "1")
    assert code == DIFFERENT and result["usersDiffering"] == 300_000 and len(result["listed"]) == 20, result
    assert peak_kib < PEAK_MOST_KIB, peak_kib
    print(f"300,000 differing users: peak {peak_kib} KiB")


def test_a_sample_is_random_and_says_how_many_may_differ(servers):
    fill(servers, 20_000)
    code, result, _ = verify(servers, "--sample", "2000")
    sample = result["sample"]
    # Six standard deviations of its size.
    assert code == FINE and abs(sample["users"] - 2000) < 260 and sample["of"] == 20_000, result
    assert sample["differingShareAtMost"] == pytest.approx(3 / sample["users"]) and sample["confidence"] == 0.95
    assert not result["totals"]["compared"] and result["keysScanned"] == 0
    code, result, _ = verify(servers, "--sample", "5%")
    assert code == FINE and abs(result["sample"]["users"] - 1000) < 200, result
    said = servers.ctl("verify", "--sample", "5%", check=FINE).stdout
    assert "with 95 % confidence at most 0." in said and "of 20,000 users" in said, said
    assert "no difference in the sample" in said and "the read model equals" not in said
    # Everyone: nothing is left to chance.
    assert verify(servers, "--sample", "100%")[1]["sample"]["differingShareAtMost"] == 0
    # Half of each end of the table differs, and so says each sample, of other users each time.
    servers.sql("UPDATE users SET name = 'Somebody else' WHERE id % 2 = 0")
    found = []
    for _ in range(3):
        code, result, _ = verify(servers, "--sample", "1000", "--limit-differences", "1000")
        assert code == DIFFERENT and result["sample"]["differingShareAtMost"] is None
        found.append({int(row["user"]) for row in result["listed"]})
    for users in found:
        assert 350 < len(users) < 650
        assert 0.3 < sum(user <= 10_000 for user in users) / len(users) < 0.7
    assert found[0] != found[1] != found[2]
    assert servers.ctl("verify", "--sample", "0%").returncode == USAGE
    assert servers.ctl("verify", "--sample", "half").returncode == USAGE
