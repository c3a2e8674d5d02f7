"""`tallyctl audit` as a worker, and users for it to look at."""
import os
import subprocess

from support.murmur2 import partition_of
from support.process import Process, free_port
from support.stack import PARTITIONS, Service
from support.wait import PATIENCE_S, until

# Of each live user's key: the key, a digest of its fields in their order, and one of them sorted, without what a repair
# says of itself.
DIGESTS = """
local out = {}
local prefix = 'tally:' .. redis.call('GET', 'tally:generation') .. ':{' .. ARGV[1] .. '}:user:'
for _, key in ipairs(redis.call('KEYS', prefix .. '*')) do
    local all, pairs = redis.call('HGETALL', key), {}
    for i = 1, #all, 2 do
        pairs[#pairs + 1] = all[i] .. '=' .. all[i + 1]
    end
    out[#out + 1] = key .. ' ' .. redis.sha1hex(table.concat(pairs, '|'))
    table.sort(pairs)
    local fields = string.gsub(table.concat(pairs, '|'), 'corrected=%d+|', '')
    out[#out] = out[#out] .. ' ' .. redis.sha1hex(fields)
end
return out
"""


class Audit(Service):
    """`tallyctl audit` as a worker."""

    def __init__(self, stack, *arguments):
        self.kind = "audit"
        self.admin = f"127.0.0.1:{free_port()}"
        self.api = self.client = None
        self.settings = {"TALLY_ADMIN_LISTEN": self.admin, **stack.settings_of("ctl")}
        Process.__init__(self, "audit-1", [stack.program("tallyctl"), "audit", *arguments],
                         stack.environment(self.settings), os.path.join(stack.folder, "audit-1.log"), stack.folder)
        stack.services.append(self)

    def metric(self, name):
        return self.metrics().get(f"tally_audit_{name}", 0)

    def differences(self):
        return sum(value for name, value in self.metrics().items()
                   if name.startswith("tally_audit_differences_total"))

    def is_unready(self, phrase):
        answer = self.look("/readyz?verbose")
        return answer.status == 503 and phrase in answer.body.decode()

    def repaired(self):
        """The log lines of repaired users, by user."""
        return {line["user"]: line for line in self.log_lines() if line["event"] == "audit.repaired"}

    def until_swept(self, sweeps=1, seconds=PATIENCE_S):
        until(f"{sweeps} sweeps have ended", lambda: self.metric("sweeps_total") >= sweeps, seconds)


def make_quiet_users(stack, first, count, seconds=PATIENCE_S):
    """Users with two posts each, written into PostgreSQL as the write API does."""
    last = first + count - 1
    stack.sql(f"""
        INSERT INTO users (id, name, email, version)
            SELECT n, 'Quiet ' || n, n || '.quiet@example.org', 3 FROM generate_series({first}::bigint, {last}) n;
        INSERT INTO posts (id, author_id, body)
            SELECT n * 10 + k, n, 'x' FROM generate_series({first}::bigint, {last}) n, generate_series(1, 2) k;
        INSERT INTO events (user_id, version, type, data, timeline)
            SELECT n, v, CASE v WHEN 1 THEN 'user.created' ELSE 'post.created' END,
                   CASE v WHEN 1 THEN profile_json('Quiet ' || n, n || '.quiet@example.org', NULL)
                          ELSE json_build_object('postId', (n * 10 + v - 1)::text)::text END, 1
            FROM generate_series({first}::bigint, {last}) n, generate_series(1, 3) v ORDER BY n, v""",
              timeout=seconds)
    return [str(number) for number in range(first, first + count)]


def digests(stack):
    """{user: (digest of the fields as they lie in the key, digest of the sorted fields but `corrected`)}"""
    found = {}
    for partition in range(PARTITIONS):
        for line in stack.redis.call("EVAL", DIGESTS, "0", str(partition)).splitlines():
            key, *both = line.split(" ")
            found[key.rsplit(":", 1)[1]] = tuple(both)
    return found


def until_applied(stack, users, seconds=PATIENCE_S):
    """Until the totals hold both posts of each quiet user."""
    def posts():
        generation = stack.redis.call("GET", "tally:generation")
        return sum(int(stack.redis.call("HGET", f"tally:{generation}:{{{partition}}}:totals", "posts") or 0)
                   for partition in range(PARTITIONS))
    until("all users are in the read model", lambda: posts() >= 2 * len(users), seconds, pause_s=0.5)


def corrupt(stack, users):
    """A quarter of them each: another count, no key at all, a version ahead, another profile."""
    generation = stack.redis.call("GET", "tally:generation")
    kinds = ("HINCRBY {} posts 1", "DEL {}", "HINCRBY {} v 1000", "HSET {} name Eve",
             "HINCRBY {} comments -1", "DEL {}", "HINCRBY {} v 1", "HSET {} email eve@example.org")
    keys = [f"tally:{generation}:{{{partition_of(user, PARTITIONS)}}}:user:{user}" for user in users]
    commands(stack, [kinds[number % len(kinds)].format(key) for number, key in enumerate(keys)])


def commands(stack, lines):
    """By one redis-cli."""
    done = subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", str(stack.redis.port)], input="\n".join(lines) + "\n",
                          capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == len(lines) and "ERR" not in done.stdout, done.stdout[:500]
