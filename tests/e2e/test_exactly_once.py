"""An acknowledged write is never lost and is counted exactly once, whatever dies."""
import os
import subprocess

import pytest

from support.api import Client
from support.repeating import Repeating
from support.wait import until
from support.writers import Writers

PROCESS = os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "local", "process")


def users_of(stack, count=40):
    return [stack.new_user() for _ in range(count)]


def until_more_is_applied(stack, events=100):
    seen = stack.applied()

    def more():
        now = stack.applied()
        # Redis may have gone back.
        nonlocal seen
        seen = min(seen, now)
        assert now >= seen + events, f"{now - seen} events applied"
        return True
    until(f"{events} more events are applied", more)


def assert_exactly_once(stack, writers):
    counted = stack.until_equal()
    writers.assert_counted(counted)
    assert stack.totals() == (len(counted), sum(writers.posts.values()), sum(writers.comments.values()))


class Watcher(Repeating):
    """Reads one user without pause and keeps the versions it was shown."""

    def __init__(self, stack, user):
        self.versions = []
        self.refused = []
        self._client = Client(stack.query.api)
        self._path = f"/v1/users/{user}"
        super().__init__(self._look, pause_s=0.002)

    def _look(self):
        answer = self._client.get(self._path)
        if answer.status == 200:
            self.versions.append(answer.json["version"])
        else:
            self.refused.append(answer)


def test_a_projector_killed_in_the_middle_of_a_load_loses_and_doubles_nothing(own_stack):
    stack = own_stack
    users = users_of(stack)
    stack.user_at(users[0], 1)
    with Watcher(stack, users[0]) as watcher, Writers([stack.command.api], users) as writers:
        for _ in range(10):
            until_more_is_applied(stack)
            stack.projector.kill()
            stack.projector.start()
        until_more_is_applied(stack)
    assert_exactly_once(stack, writers)
    # Reads went on all the time, and no count went back.
    assert not watcher.refused, watcher.refused[:3]
    assert len(set(watcher.versions)) > 5 and watcher.versions == sorted(watcher.versions)


def test_a_killed_command_service_loses_nothing_that_was_acknowledged_and_repeats_double_nothing(own_stack):
    stack = own_stack
    with Writers([stack.command.api], users_of(stack)) as writers:
        for _ in range(10):
            seen = writers.acknowledged
            until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
            stack.command.kill()
            stack.command.start()
        seen = writers.acknowledged
        until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
    assert writers.repeated > 0, "no kill hit a write"
    assert_exactly_once(stack, writers)


def test_a_redis_that_lost_its_newest_data_is_made_whole_untouched_by_hand(own_stack):
    stack = own_stack
    with Writers([stack.command.api], users_of(stack)) as writers:
        for _ in range(5):
            until_more_is_applied(stack, 200)
            stack.redis.kill()
            stack.redis.forget_the_newest(share=0.3)
            stack.redis.start()
        until_more_is_applied(stack)
    assert_exactly_once(stack, writers)


def test_a_redis_that_lost_everything_never_shows_too_low_a_number_and_fills_again_from_the_log(own_stack):
    stack = own_stack
    with Writers([stack.command.api], users_of(stack), most=600) as writers:
        pass
    counted = stack.until_equal()
    stack.redis.kill()
    stack.redis.forget_all()
    stack.redis.start()

    def right_again():
        for user in counted:
            answer = stack.read.get(f"/v1/users/{user}")
            if answer.status == 503:
                raise ValueError(answer)
            document = answer.json
            if answer.status != 200 or counted[user] != (document["version"], document["postCount"],
                                                         document["commentCount"]):
                raise RuntimeError(f"{counted[user]} (version, posts, comments) of {user} are shown as {answer}")
        return True
    until("every user is read right again", right_again)
    assert_exactly_once(stack, writers)


def test_writes_go_on_while_kafka_hangs_and_are_all_counted_after_it(own_stack):
    if not os.environ.get("TALLY_LOCAL_DIR"):
        pytest.skip("TALLY_LOCAL_DIR does not tell which Kafka may be paused")
    stack = own_stack

    def kafka(action):
        subprocess.run([PROCESS, action, "kafka"], check=True, timeout=60, capture_output=True)
    with Writers([stack.command.api], users_of(stack)) as writers:
        until_more_is_applied(stack)
        kafka("pause")
        try:
            seen = writers.acknowledged
            until("300 writes are acknowledged while Kafka hangs", lambda: writers.reached(seen + 300))
        finally:
            kafka("resume")
        until_more_is_applied(stack, 300)
    assert_exactly_once(stack, writers)


def test_the_backlog_of_a_time_without_kafka_waits_in_postgresql(own_stack):
    stack = own_stack
    users = users_of(stack, 10)
    stack.command.kill()
    # Port 9, discard: nobody listens there.
    offline = stack.add("command", TALLY_KAFKA_BROKERS="127.0.0.1:9")
    offline.spawn()
    until("writes are taken without Kafka", lambda: stack.new_post(users[0], offline.client))
    with Writers([offline.api], users, most=300) as writers:
        pass
    writers.posts[users[0]] += 1
    offline.kill()
    stack.command.start()
    assert_exactly_once(stack, writers)
