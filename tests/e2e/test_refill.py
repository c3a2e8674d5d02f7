"""tallyctl refill: what PostgreSQL keeps is published again, and nobody counts it twice."""
import json
from collections import Counter

from support.kafka import consume
from support.wait import until

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3


def kept(stack):
    return int(stack.sql("SELECT count(*) FROM events")[0][0])


def test_a_refill_doubles_the_log_and_changes_no_count(own_stack):
    stack = own_stack
    stack.ctl("load", "--users", "100", "--commands", "3000", "--connections", "16", check=FINE)
    before = stack.until_equal()
    result = json.loads(stack.ctl("refill", "--yes", "--json", check=FINE).stdout)
    assert result == {"events": kept(stack), "begun": True, "published": True}
    copies = Counter(record.headers["ce_id"] for record in consume(stack.brokers, stack.topic))
    assert len(copies) == kept(stack) and set(copies.values()) == {2}, copies.most_common(3)
    assert stack.until_equal() == before
    stack.new_post(next(iter(before)))
    stack.until_equal()


def test_a_refill_goes_beside_writes(own_stack):
    stack = own_stack
    stack.ctl("load", "--users", "100", "--commands", "3000", "--connections", "16", check=FINE)
    before = {f"{row[0]}-{row[1]}" for row in stack.sql("SELECT user_id, version FROM events")}
    stack.ctl("refill", "--yes", "--wait", "0", check=FINE)
    stack.ctl("load", "--users", "100", "--commands", "3000", "--connections", "16", check=FINE)
    stack.until_equal()

    def all_again():
        copies = Counter(record.headers["ce_id"] for record in consume(stack.brokers, stack.topic))
        once = [event for event in before if copies[event] < 2]
        assert not once, (len(once), once[:3])
        return copies
    # What was written meanwhile may be among it.
    copies = until("everything from before is published again", all_again, pause_s=0.5)
    assert len(copies) == kept(stack) > len(before) > 1000
    stack.until_equal()


def test_a_log_that_is_gone_is_filled_again_and_a_new_read_model_is_built_from_it(own_stack):
    stack = own_stack
    stack.ctl("load", "--users", "100", "--commands", "2000", "--connections", "16", check=FINE)
    source = stack.until_equal()
    # Another topic stands for one that was made anew: to both services it is a log without the past.
    for service in (stack.projector, stack.command):
        service.terminate()
        service.environment["TALLY_TOPIC"] = stack.topic + ".anew"
    stack.topic += ".anew"
    stack.make_topics()
    stack.command.start()
    assert len(consume(stack.brokers, stack.topic)) == 0
    stack.ctl("refill", "--yes", check=FINE)
    assert len(consume(stack.brokers, stack.topic)) == kept(stack)
    stack.redis.call("FLUSHALL")
    stack.projector.start()
    assert stack.until_equal() == source


def test_a_refill_asks_first_and_says_so_where_it_cannot(stack):
    assert stack.ctl("refill").returncode == USAGE
    assert stack.ctl("refill", "--yes", "--all", "--hours", "2").returncode == USAGE
    stack.new_user()
    until("all is published", lambda: "backlog 0" in stack.ctl("status").stdout)


def test_a_refill_that_nobody_serves_ends_in_time(own_stack):
    stack = own_stack
    stack.new_user()
    stack.command.terminate()
    done = stack.ctl("refill", "--yes", "--wait", "2", check=DIFFERENT)
    assert "not published" in done.stdout
    stack.command.start()
    stack.until_equal()
