"""The audit finds the users who differ, repairs these and nobody else, and goes on through restarts and outages."""
import json
import os
import socket
import subprocess

from support.murmur2 import partition_of
from support.process import Process, free_port
from support.stack import PARTITIONS, Service
from support.wait import until
from support.writers import Writers

FINE, DIFFERENT = 0, 1
FULL = os.environ.get("TALLY_CHAOS_FULL") == "1"
QUIET_USERS = 1_000_000 if FULL else 20_000
CORRUPTED = 100
PATIENCE_S = 1800 if FULL else 120
# Of each live user's key: the key, a digest of its fields in their order, and one of them sorted.
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
    out[#out] = out[#out] .. ' ' .. redis.sha1hex(table.concat(pairs, '|'))
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

    def repaired(self):
        """The log lines of repaired users, by user."""
        return {line["user"]: line for line in self.log_lines() if line["event"] == "audit.repaired"}

    def until_swept(self, sweeps=1, seconds=PATIENCE_S):
        until(f"{sweeps} sweeps have ended", lambda: self.metric("sweeps_total") >= sweeps, seconds)


def make_quiet_users(stack, first, count):
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
              timeout=PATIENCE_S)
    return [str(number) for number in range(first, first + count)]


def digests(stack):
    """{user: (digest of the fields as they lie in the key, digest of the sorted fields)}"""
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


def epochs(stack):
    generation = stack.redis.call("GET", "tally:generation")
    return [stack.redis.call("HGET", f"tally:{generation}:{{{partition}}}:position", "epoch")
            for partition in range(PARTITIONS)]


def once(stack, *arguments, check, rate="100000"):
    done = stack.ctl("audit", "--once", "--json", "--rate", rate, *arguments, check=check)
    return json.loads(done.stdout)


def test_corrupted_users_are_repaired_within_one_sweep_and_nobody_else_is_touched(own_stack):
    stack = own_stack
    quiet = make_quiet_users(stack, 1_000_000_000, QUIET_USERS)
    busy = [stack.new_user() for _ in range(40)]
    until_applied(stack, quiet)
    step = QUIET_USERS // CORRUPTED
    corrupted = quiet[7::step]
    assert len(corrupted) == CORRUPTED
    before = digests(stack)
    with Writers([stack.command.api], busy) as writers:
        corrupt(stack, corrupted)
        audit = Audit(stack, "--rate", str(QUIET_USERS // 4)).start()
        audit.until_swept()
        metrics = audit.metrics()
        seen = writers.acknowledged
        until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
    repaired = audit.repaired()
    assert set(repaired) == set(corrupted), (len(repaired), set(repaired) ^ set(corrupted))
    assert metrics["tally_audit_repaired_total"] == CORRUPTED
    assert metrics["tally_audit_repair_failures_total"] == 0
    for kind in ("counts", "missing", "ahead", "profile"):
        assert metrics[f'tally_audit_differences_total{{kind="{kind}"}}'] == CORRUPTED / 4, metrics
    assert audit.differences() == CORRUPTED
    after = digests(stack)
    assert [after[user][1] for user in corrupted] == [before[user][1] for user in corrupted]
    touched = [user for user in quiet if user not in repaired and before[user] != after[user]]
    assert not touched, (len(touched), touched[:5])
    assert audit.terminate() == 0
    stack.ctl("verify", check=FINE, timeout=PATIENCE_S)


def test_the_log_says_of_each_repair_what_was_expected_and_found_and_no_personal_data(own_stack):
    stack = own_stack
    user, other = stack.new_user(), stack.new_user()
    version = stack.write.post("/v1/posts", {"authorId": user, "body": "A post"}).json["version"]
    stack.until_equal()
    stack.redis.call("HSET", stack.user_key(user), "posts", "7")
    stack.redis.call("HSET", stack.user_key(other), "email", "eve@example.org")
    audit = Audit(stack).start()
    until("both are repaired", lambda: len(audit.repaired()) == 2)
    line = audit.repaired()[user]
    assert (line["kind"], line["expected"], line["found"]) == ("counts", "posts 1", "posts 7")
    assert line["expected_version"] == line["found_version"] == version
    assert audit.repaired()[other]["kind"] == "profile"
    assert "eve@" not in audit.log_text() and "example.org" not in audit.log_text()
    assert stack.read.get(f"/v1/users/{user}").json["postCount"] == 1
    stack.until_equal()


def test_users_who_lost_writes_and_wrote_nothing_since_follow_the_database_that_went_back(own_stack):
    stack = own_stack
    users = [stack.new_user() for _ in range(10)]
    for user in users:
        stack.new_post(user)
        stack.new_comment(stack.new_post(user), user)
    counted = stack.until_equal()
    lost, created_later = users[:3], users[3]
    # What a restore to an earlier moment leaves: neither the last writes nor the one user are there.
    stack.sql(f"""
        DELETE FROM comments WHERE author_id IN ({",".join([*lost, created_later])});
        DELETE FROM posts WHERE author_id = {created_later};
        DELETE FROM events WHERE user_id IN ({",".join(lost)}) AND version = 4 OR user_id = {created_later};
        DELETE FROM users WHERE id = {created_later};
        UPDATE users SET version = 3 WHERE id IN ({",".join(lost)})""")
    # A restored database writes on a later timeline than the read model has seen.
    for user in users:
        stack.redis.call("HSET", stack.user_key(user), "tl", "0")
    stack.ctl("verify", "--grace", "1", check=DIFFERENT)
    audit = Audit(stack).start()
    until("all four are repaired", lambda: set(audit.repaired()) == {*lost, created_later})
    kinds = {user: line["kind"] for user, line in audit.repaired().items()}
    assert kinds == {**{user: "ahead" for user in lost}, created_later: "ghost"}
    assert stack.read.get(f"/v1/users/{created_later}").status == 404
    for user in lost:
        assert stack.read.get(f"/v1/users/{user}").json["commentCount"] == 0
    # The totals have followed too, and the users go on counting.
    stack.new_post(lost[0])
    assert stack.until_equal()[users[9]] == counted[users[9]]


def test_users_whose_events_are_under_way_are_left_alone(own_stack):
    stack = own_stack
    users = [stack.new_user() for _ in range(20)]
    stack.until_equal()
    before = epochs(stack)
    stack.projector.pause()
    users += [stack.new_user() for _ in range(5)]
    for user in users[:5]:
        stack.new_post(user)
    result = once(stack, "--grace", "1", check=DIFFERENT)
    assert (result["differing"], result["repaired"], result["unconfirmed"]) == (0, 0, 10), result
    assert epochs(stack) == before
    stack.projector.resume()
    stack.until_equal()
    assert once(stack, check=FINE)["differing"] == 0


def test_a_dry_run_repairs_nothing_and_a_single_sweep_repairs_all(own_stack):
    stack = own_stack
    users = [stack.new_user() for _ in range(20)]
    stack.until_equal()
    stack.redis.call("HSET", stack.user_key(users[0]), "flagged", "1")
    stack.redis.call("HSET", stack.user_key(users[1]), "posts", "5")
    ghost = stack.user_key("1234567")
    stack.redis.call("HSET", ghost, "v", "1", "posts", "0", "comments", "0", "name", "G", "tl", "1")
    before = digests(stack)
    found = once(stack, "--dry-run", check=DIFFERENT)
    assert (found["differing"], found["repaired"]) == (3, 0), found
    assert digests(stack) == before
    assert stack.redis.call("EXISTS", f"tally:{stack.redis.call('GET', 'tally:generation')}:audit") == "0"
    found = once(stack, check=FINE)
    assert (found["differing"], found["repaired"], found["usersChecked"]) == (3, 3, 20), found
    assert stack.redis.call("EXISTS", ghost) == "0"
    stack.until_equal()


def test_a_sweep_goes_on_where_it_was_when_the_audit_is_stopped_or_killed(own_stack):
    stack = own_stack
    users = make_quiet_users(stack, 1_000_000_000, 600)
    until_applied(stack, users)
    audit = Audit(stack, "--rate", "60").start()
    until("a part of the users is checked", lambda: audit.metric("position_users") >= 150)
    started = audit.metric("sweep_started_timestamp_seconds")
    assert audit.terminate() == 0
    checked = audit_place(stack)["checked"]
    audit.start()
    assert audit.metric("position_users") >= int(checked)
    assert audit.metric("sweep_started_timestamp_seconds") == started
    until("more are checked", lambda: audit.metric("position_users") >= 300)
    audit.kill()
    checked = int(audit_place(stack)["checked"])
    assert checked >= 150
    # Behind the place: found by the next sweep. Ahead of it: by this one.
    stack.redis.call("HSET", stack.user_key(users[-1]), "posts", "5")
    audit.command[-1] = "100000"
    audit.start()
    audit.until_swept()
    assert audit.metric("users_checked_total") <= 600 - checked + 60, "it began again"
    assert set(audit.repaired()) == {users[-1]}
    assert [line["event"] for line in audit.log_lines()].count("audit.resumed") == 2


def audit_place(stack):
    return stack.redis.hash(f"tally:{stack.redis.call('GET', 'tally:generation')}:audit")


def test_an_outage_of_redis_turns_readiness_red_and_the_sweep_goes_on_afterwards(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.until_equal()
    audit = Audit(stack).start()
    audit.until_swept()
    stack.redis.kill()
    until("the audit is unready", lambda: audit.look("/readyz?verbose").status == 503)
    assert "sweep" in audit.look("/readyz?verbose").body.decode()
    assert audit.look("/livez").status == 200
    stack.redis.start()
    audit.until_ready()
    until("the read model is served", lambda: stack.read.get(f"/v1/users/{user}").status == 200)
    stack.redis.call("HSET", stack.user_key(user), "posts", "5")
    until("the user is repaired", lambda: user in audit.repaired())
    assert "audit.interrupted" in audit.log_text()


def test_an_outage_of_postgresql_is_waited_out(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.until_equal()
    audit = Audit(stack).start()
    audit.until_swept()
    stack.server_sql(f"ALTER DATABASE {stack.database} WITH ALLOW_CONNECTIONS false")
    stack.server_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{stack.database}'")
    until("the audit is unready", lambda: audit.look("/readyz?verbose").status == 503)
    assert "PostgreSQL" in audit.look("/readyz?verbose").body.decode()
    stack.redis.call("HSET", stack.user_key(user), "posts", "5")
    stack.server_sql(f"ALTER DATABASE {stack.database} WITH ALLOW_CONNECTIONS true")
    until("the user is repaired", lambda: user in audit.repaired())
    assert audit.ready()
    assert audit.terminate() == 0


def test_systemd_is_told_ready_and_fed_while_the_audit_works(own_stack, tmp_path):
    stack = own_stack

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        audit = Audit(stack)
        audit.environment.update(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        audit.start()
        told = set()
        while not {"READY=1", "WATCHDOG=1"} <= told:
            told.add(listener.recv(100).decode())
        assert audit.terminate() == 0
        while "STOPPING=1" not in told:
            told.add(listener.recv(100).decode())


def test_repairs_of_one_sweep_are_bounded(own_stack):
    stack = own_stack
    users = make_quiet_users(stack, 1_000_000_000, 500)
    until_applied(stack, users)
    corrupt(stack, users[:300])
    done = stack.ctl("audit", "--once", "--json", "--rate", "100000", "--repairs-most", "130", check=DIFFERENT)
    result = json.loads(done.stdout)
    assert result["differing"] == 300 and result["repaired"] == 130, result
    assert "tallyctl rebuild" in done.stderr
