"""The audit finds the users who differ, repairs these and nobody else, and goes on through restarts and outages."""
import json

from support.audit import Audit, corrupt, digests, make_quiet_users, until_applied
from support.notify import Notifications
from support.stack import PARTITIONS
from support.wait import until

FINE, DIFFERENT = 0, 1


def epochs(stack):
    generation = stack.redis.call("GET", "tally:generation")
    return [stack.redis.call("HGET", f"tally:{generation}:{{{partition}}}:position", "epoch")
            for partition in range(PARTITIONS)]


def once(stack, *arguments, check, rate="100000"):
    done = stack.ctl("audit", "--once", "--json", "--rate", rate, *arguments, check=check)
    return json.loads(done.stdout)


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
    # 20 s for a sweep: whatever the machine does meanwhile, the audit is stopped and killed before its end.
    audit = Audit(stack, "--rate", "30").start()
    until("a part of the users is checked", lambda: audit.metric("position_users") >= 150)
    started = audit.metric("sweep_started_timestamp_seconds")
    assert audit.terminate() == 0
    checked = audit_place(stack)["checked"]
    audit.start()
    until("it is there again", lambda: audit.metric("position_users") >= int(checked))
    assert audit.metric("sweep_started_timestamp_seconds") == started
    until("more are checked", lambda: audit.metric("position_users") >= 300)
    audit.kill()
    checked = int(audit_place(stack)["checked"])
    assert checked >= 150
    # Behind the place: found by the next sweep. Ahead of it: by this one.
    stack.redis.call("HSET", stack.user_key(users[-1]), "posts", "5")
    audit.command[-1] = "100000"
    audit.start()
    def swept():
        """All metrics of one moment: the next sweep counts on."""
        now = audit.metrics()
        return now["tally_audit_sweeps_total"] >= 1 and now
    now = until("the sweep has ended", swept)
    of_later_sweeps = 600 * (now["tally_audit_sweeps_total"] - 1)
    assert now["tally_audit_users_checked_total"] - of_later_sweeps <= 600 - checked + 30, "it began again"
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
    until("the audit is unready and says why", lambda: audit.is_unready("sweep"))
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
    until("the audit is unready and says why", lambda: audit.is_unready("PostgreSQL"))
    stack.redis.call("HSET", stack.user_key(user), "posts", "5")
    stack.server_sql(f"ALTER DATABASE {stack.database} WITH ALLOW_CONNECTIONS true")
    until("the user is repaired", lambda: user in audit.repaired())
    until("the audit is ready", audit.ready)
    assert audit.terminate() == 0


def test_systemd_is_told_ready_and_fed_while_the_audit_works(own_stack, tmp_path):
    stack = own_stack
    with Notifications(tmp_path) as notifications:
        audit = Audit(stack)
        audit.environment.update(NOTIFY_SOCKET=notifications.address, WATCHDOG_USEC="400000")
        audit.start()
        until("READY=1 and WATCHDOG=1 are told", lambda: {"READY=1", "WATCHDOG=1"} <= notifications.told)
        assert "STOPPING=1" not in notifications.told
        assert audit.terminate() == 0
        until("STOPPING=1 is told", lambda: "STOPPING=1" in notifications.told)


def test_repairs_of_one_sweep_are_bounded(own_stack):
    stack = own_stack
    users = make_quiet_users(stack, 1_000_000_000, 500)
    until_applied(stack, users)
    corrupt(stack, users[:300])
    done = stack.ctl("audit", "--once", "--json", "--rate", "100000", "--repairs-most", "130", check=DIFFERENT)
    result = json.loads(done.stdout)
    assert result["differing"] == 300 and result["repaired"] == 130, result
    assert "tallyctl rebuild" in done.stderr
