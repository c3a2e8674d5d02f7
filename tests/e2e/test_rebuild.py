"""The read model is thrown away, built anew, switched, rolled back and repaired while it is written to and read."""
import json
import socket
import subprocess
from contextlib import contextmanager
from functools import partial

from support import kafka
from support.api import Client
from support.repeating import Repeating
from support.stack import PARTITIONS
from support.murmur2 import partition_of
from support.wait import away_from_midnight, until
from support.writers import Writers

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3


class Readers(Repeating):
    """Read all users without pause; keep every refusal and every version that went down."""

    def __init__(self, stack, users, threads=3):
        self.reads = 0
        self.refused = []
        self.backwards = []
        self._client = Client(stack.query.api)
        self._users = users
        super().__init__(*(partial(self._read, {}) for _ in range(threads)))

    def _read(self, seen):
        for user in self._users:
            answer = self._client.get(f"/v1/users/{user}")
            self.reads += 1
            if answer.status != 200:
                self.refused.append(answer)
                continue
            version = answer.json["version"]
            if version < seen.get(user, 0):
                self.backwards.append((user, seen[user], version))
            seen[user] = version

    def assert_undisturbed(self):
        assert self.reads > 100
        assert not self.refused, (len(self.refused), self.refused[:3])
        assert not self.backwards, self.backwards[:5]


def users_of(stack, count=40):
    return [stack.new_user() for _ in range(count)]


def some_writes(stack, users, most=300):
    with Writers([stack.command.api], users, most=most) as writers:
        pass
    return writers


def generation(stack):
    return int(stack.redis.call("GET", "tally:generation") or 0)


def generations(stack):
    """{number: role}"""
    done = stack.ctl("generations", "--json")
    return {row["generation"]: row["role"] for row in json.loads(done.stdout)["generations"]}


def rebuild(stack, *arguments, check=FINE):
    return json.loads(stack.ctl("rebuild", "--json", *arguments, check=check).stdout)


@contextmanager
def started(stack, *arguments):
    """`tallyctl rebuild` in the background."""
    environment = stack.environment(stack.settings_of("ctl"))
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", stack.program("tallyctl"), "rebuild", "--json",
                                *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def unfinished(stack):
    return next((number for number, role in generations(stack).items() if role == "building"), None)


def until_filling(stack, least=1):
    """The number of the generation that is being built, once it has users."""
    def looked():
        number = unfinished(stack)
        keys = stack.redis.call("KEYS", f"tally:{number}:*:user:*").split() if number else []
        return number if len(keys) >= least else None
    return until("a generation is being filled", looked)


def test_a_rebuild_under_load_fails_no_read_and_takes_no_count_back(own_stack):
    stack = own_stack
    away_from_midnight(300)
    users = users_of(stack)
    some_writes(stack, users)
    stack.until_equal()
    before = generation(stack)
    active = stack.stats()["activeUsers"]
    assert active["day"] > 0
    with Readers(stack, users) as readers, Writers([stack.command.api], users) as writers:
        first = rebuild(stack)
        second = rebuild(stack)
        third = rebuild(stack, "--from", "log")
        seen = writers.acknowledged
        until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
    readers.assert_undisturbed()
    assert first["switched"] and second["switched"] and third["switched"]
    assert first["previous"] == before and first["usersRead"] == len(users)
    assert third["usersRead"] == 0 and third["eventsApplied"] >= 300
    assert generations(stack) == {second["generation"]: "kept", third["generation"]: "live"}
    assert generation(stack) == third["generation"]
    stack.until_equal()
    assert stack.stats()["activeUsers"] == active
    assert not stack.redis.call("KEYS", f"tally:{before}:*"), "keys of a dropped generation are left"


def test_active_users_are_taken_over(own_stack):
    stack = own_stack
    away_from_midnight(120)
    users = users_of(stack, 12)
    stack.until_equal()
    before = stack.stats()
    assert before["activeUsers"] == dict.fromkeys(("day", "week", "month"), len(users))
    switched = rebuild(stack)
    # Nothing but the new generation can be read then.
    stack.ctl("generations", "drop", str(switched["previous"]), check=FINE)
    after = until("the stats are of the new generation", stack.stats)
    assert after["activeUsers"] == before["activeUsers"] and after["users"] == len(users)


def test_a_killed_rebuild_goes_on_where_it_was_and_two_at_once_are_refused(own_stack):
    stack = own_stack
    users = users_of(stack, 120)
    stack.until_equal()
    before = generation(stack)
    with Readers(stack, users) as readers, Writers([stack.command.api], users) as writers:
        # 15 s for all of them: what is done meanwhile is done midway.
        with started(stack, "--rate", "8") as process:
            number = until_filling(stack, 20)
            refused = stack.ctl("rebuild", check=FAILED)
            assert "another tallyctl" in refused.stderr
            process.kill()
        seen = writers.acknowledged
        until("50 more writes are acknowledged", lambda: writers.reached(seen + 50))
        assert generation(stack) == before
        result = rebuild(stack)
        seen = writers.acknowledged
        until("50 more writes are acknowledged", lambda: writers.reached(seen + 50))
    assert result["resumed"] and result["generation"] == number, result
    assert result["usersRead"] < len(users), "it began again"
    readers.assert_undisturbed()
    stack.until_equal()


def test_a_redis_that_is_full_says_what_to_do_and_once_it_has_room_the_rebuild_goes_on(own_stack):
    stack = own_stack
    users = users_of(stack, 120)
    stack.until_equal()
    with started(stack, "--rate", "8") as process:
        number = until_filling(stack, 20)
        stack.redis.call("CONFIG", "SET", "maxmemory", "1")
        _, said = process.communicate(timeout=60)
    assert process.returncode == FAILED
    assert "raise its maxmemory" in said and f"`tallyctl generations drop {number}`" in said
    said = stack.ctl("rebuild", check=FAILED).stderr
    assert "maxmemory" in said and "`tallyctl generations`" in said
    stack.redis.call("CONFIG", "SET", "maxmemory", "0")
    result = rebuild(stack)
    assert result["resumed"] and result["generation"] == number and result["usersRead"] < len(users), result
    stack.until_equal()


def test_a_rebuild_that_may_not_fit_below_maxmemory_says_so_before_it_is_full(own_stack):
    stack = own_stack
    stack.ctl("load", "--users", "4000", "--commands", "1", check=FINE)
    stack.until_equal()
    used = next(int(line.split(":")[1]) for line in stack.redis.call("INFO", "memory").splitlines()
                if line.startswith("used_memory:"))
    stack.redis.call("CONFIG", "SET", "maxmemory", str(used + 500_000))
    said = stack.ctl("rebuild", check=FAILED).stderr
    assert "may not fit" in said and said.index("may not fit") < said.index("Redis is full"), said
    stack.redis.call("CONFIG", "SET", "maxmemory", "0")
    assert rebuild(stack)["resumed"]
    stack.until_equal()


def test_a_seal_that_expires_before_the_switch_has_it_tried_again(own_stack):
    stack = own_stack
    users_of(stack, 10)
    stack.until_equal()
    before = generation(stack)
    done = []
    with socket.create_connection(("127.0.0.1", stack.redis.port)) as redis:
        def expire_once():
            if not done:
                redis.sendall(b"DEL {tally:generation}:seal\r\n")
                if redis.recv(16) == b":1\r\n":
                    done.append(True)
        with Repeating(expire_once):
            said = stack.ctl("rebuild", check=FINE).stderr
    assert done and "the seal has expired; trying again" in said
    assert generation(stack) != before
    stack.until_equal()


def test_restart_and_another_source_begin_again(own_stack):
    stack = own_stack
    users = users_of(stack, 60)
    stack.until_equal()
    with started(stack, "--rate", "4") as process:
        number = until_filling(stack, 5)
        process.kill()
    result = rebuild(stack, "--restart")
    assert not result["resumed"] and result["generation"] != number and result["usersRead"] == len(users)
    with started(stack, "--rate", "4") as process:
        number = until_filling(stack, 5)
        process.kill()
    result = rebuild(stack, "--from", "log")
    assert not result["resumed"] and result["generation"] != number
    assert number not in generations(stack)
    stack.until_equal()


def test_a_generation_that_differs_is_refused_with_the_list(own_stack):
    stack = own_stack
    users = users_of(stack, 80)
    stack.until_equal()
    before = generation(stack)
    with started(stack, "--rate", "8", "--grace", "1") as process:
        number = until_filling(stack, 10)
        key = stack.redis.call("KEYS", f"tally:{number}:*:user:*").split()[0]
        stack.redis.call("HINCRBY", key, "posts", "1")
        output, _ = process.communicate(timeout=300)
        assert process.returncode == DIFFERENT, output
    result = json.loads(output)
    assert not result["switched"] and generation(stack) == before
    assert [(row["user"], row["field"]) for row in result["listed"] if row["user"]] == [(key.rsplit(":", 1)[1], "posts")]
    # It stays refused, until it is accepted or built again.
    assert rebuild(stack, "--grace", "1", check=DIFFERENT)["resumed"]
    accepted = rebuild(stack, "--grace", "1", "--accept-differences")
    assert accepted["switched"] and accepted["resumed"] and generation(stack) == number
    stack.ctl("verify", "--grace", "1", check=DIFFERENT)
    assert rebuild(stack)["switched"]
    stack.until_equal()
    assert len(users) == 80


def test_a_rollback_shows_no_older_count_and_catches_up(own_stack):
    stack = own_stack
    users = users_of(stack)
    some_writes(stack, users)
    stack.until_equal()
    before = generation(stack)
    rebuild(stack)
    some_writes(stack, users)
    stack.until_equal()
    stack.projector.pause()
    with Readers(stack, users) as readers:
        done = json.loads(stack.ctl("generations", "rollback", "--json", check=FINE).stdout)
        assert done["generation"] == before and done["eventsBehind"] >= 300
        until("reads say that the model is incomplete", lambda: readers.refused)
        stack.projector.resume()
        until("reads go on", lambda: stack.read.get(f"/v1/users/{users[0]}").status == 200)
    assert all(answer.status == 503 and b"read-model-incomplete" in answer.body for answer in readers.refused)
    assert not readers.backwards, readers.backwards[:5]
    stack.until_equal()
    assert generation(stack) == before
    # And forward again.
    json.loads(stack.ctl("generations", "rollback", "--json", check=FINE).stdout)
    assert generation(stack) == done["previous"]
    stack.until_equal()


def test_a_generation_is_dropped_unless_it_is_live(own_stack):
    stack = own_stack
    users_of(stack, 10)
    stack.until_equal()
    before = generation(stack)
    assert stack.ctl("generations", "rollback").returncode == FAILED
    rebuild(stack)
    assert stack.ctl("generations", "drop", str(generation(stack))).returncode == FAILED
    assert stack.ctl("generations", "drop", "12345").returncode == FAILED
    assert stack.ctl("generations", "drop").returncode == USAGE
    stack.ctl("generations", "drop", str(before), check=FINE)
    assert generations(stack) == {generation(stack): "live"}
    assert not stack.redis.call("KEYS", f"tally:{before}:*")
    stack.until_equal()


def test_everything_lost_and_a_log_that_is_not_whole_is_mended_by_one_command(own_stack):
    stack = own_stack
    users = users_of(stack)
    some_writes(stack, users)
    counted = stack.until_equal()
    kafka.delete_all(stack.brokers, stack.topic, PARTITIONS)
    stack.redis.call("FLUSHALL")
    assert stack.projector.wait() != 0
    said = stack.projector.log_text()
    assert "tallyctl rebuild" in said and "no longer has its beginning" in said
    for user in users[:5]:
        answer = stack.read.get(f"/v1/users/{user}")
        assert answer.status == 503 and b"read-model-incomplete" in answer.body, answer
    refused = stack.ctl("rebuild", "--from", "log", check=FAILED)
    assert "--from database" in refused.stderr
    result = rebuild(stack)
    assert result["switched"] and result["previous"] == 0
    stack.projector.start()
    assert stack.until_equal() == counted
    some_writes(stack, users, 50)
    stack.until_equal()


def test_a_repair_clears_degraded_and_leaves_everyone_else_alone(own_stack):
    stack = own_stack
    users = users_of(stack, 20)
    some_writes(stack, users)
    stack.until_equal()
    others = {user: stack.redis.hash(stack.user_key(user)) for user in users[2:]}
    # What cannot be decoded flags its user.
    kafka.produce(stack.brokers, stack.topic, users[0], "no event", partition=partition_of(users[0], PARTITIONS))
    until("the user is degraded", lambda: stack.read.get(f"/v1/users/{users[0]}").json.get("degraded"))
    stack.redis.call("HSET", stack.user_key(users[1]), "comments", "999")
    done = json.loads(stack.ctl("repair", "--flagged", "--json", check=FINE).stdout)
    assert (done["repaired"], done["refused"]) == (1, 0)
    until("the user is whole again", lambda: "degraded" not in stack.read.get(f"/v1/users/{users[0]}").json)
    assert stack.redis.hash(stack.user_key(users[1]))["comments"] == "999"
    stack.ctl("repair", users[1], check=FINE)
    assert {user: stack.redis.hash(stack.user_key(user)) for user in users[2:]} == others
    stack.ctl("repair", "123", check=DIFFERENT)
    stack.until_equal()
    some_writes(stack, users, 100)
    stack.until_equal()


def test_all_that_differ_are_repaired_under_load(own_stack):
    stack = own_stack
    users = users_of(stack)
    quiet = users_of(stack, 1)[0]
    some_writes(stack, users)
    stack.until_equal()
    with Readers(stack, users[20:]) as readers, Writers([stack.command.api], users) as writers:
        for user in users[:5]:
            stack.redis.call("HSET", stack.user_key(user), "name", "Somebody else")
        stack.redis.call("DEL", stack.user_key(quiet))
        ghost = stack.user_key("1234567")
        stack.redis.call("HSET", ghost, "v", "1", "posts", "0", "comments", "0", "name", "G", "email", "g@x.test", "tl", "1")
        done = json.loads(stack.ctl("repair", "--all-differing", "--grace", "2", "--json", check=FINE).stdout)
        seen = writers.acknowledged
        until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
    readers.assert_undisturbed()
    assert done["removed"] == 1 and done["refused"] == 0 and done["repaired"] >= 5, done
    assert not stack.redis.call("EXISTS", ghost) == "1"
    stack.until_equal()
