"""Events that cannot be decoded, among many that can."""
import json
import random
import subprocess

from support.load import Load
from support.oracle import assert_diff_0, until_equal
from support.readers import users_of
from support.scale import scaled
from support.wait import until

FINE, DIFFERENT = 0, 1
POISON = 100
EVENTS = scaled(1_000_000, 20_000)
RATE_S = scaled(10_000, 1_000)

HEADERS = {"ce_specversion": "1.0", "ce_source": "/elsewhere", "ce_time": "2026-01-01T00:00:00Z", "ce_timeline": "1",
           "ce_type": "post.created", "ce_sequence": "7", "ce_id": "x-7", "content-type": "application/json"}
# Each is wrong in another way: (headers that differ, None for one that is missing; value)
WRONG = (
    ({"ce_type": "planet.created"}, "{}"),
    ({"ce_type": None}, "{}"),
    ({"ce_specversion": "7.0"}, "{}"),
    ({"ce_sequence": "many"}, "{}"),
    ({"ce_sequence": None}, "{}"),
    ({"ce_sequence": "-1"}, "{}"),
    ({"ce_timeline": "x"}, "{}"),
    ({"ce_type": "user.updated"}, "no JSON"),
    ({"ce_type": "user.updated"}, '{"name":7}'),
    (dict.fromkeys(HEADERS), "\\x00\\xff"),
)


def produce(stack, user, wrong):
    changes, value = wrong
    command = ["kcat", "-b", stack.brokers, "-P", "-t", stack.topic, "-X", "topic.partitioner=murmur2", "-k", str(user)]
    for name, text in {**HEADERS, "ce_subject": str(user), **changes}.items():
        if text is not None:
            command += ["-H", f"{name}={text}"]
    done = subprocess.run(command, input=value, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def until_applied(stack, events):
    until(f"{events} events are applied", lambda: stack.applied() >= events, max(120, EVENTS / 40), pause_s=0.1)


def letters(stack):
    """Of each event one: a letter that was written may be written again after a crash."""
    done = stack.ctl("dlq", "list", "--limit", "1000", "--json")
    assert done.returncode in (FINE, DIFFERENT), done
    found = {(letter["source"]["partition"], letter["source"]["offset"]): letter
             for letter in json.loads(done.stdout)["letters"]}
    return list(found.values())


def test_f13_undecodable_events_are_set_aside_with_reasons_and_cost_only_their_own_users_anything(own_stack, figures):
    stack, chance = own_stack, random.Random(13)
    with Load(stack, rate_s=RATE_S) as load:
        victims = users_of(load, 50)
        # From the first of the events to the last.
        for number in range(POISON):
            until_applied(stack, EVENTS * number // (POISON - 1))
            produce(stack, chance.choice(victims), WRONG[number % len(WRONG)])
        until_applied(stack, EVENTS)

    def all_letters():
        found = letters(stack)
        return len(found) >= POISON and found
    found = until("all are in the dead letters", all_letters)
    # Whoever was hit is flagged; who was chosen by nobody is not.
    hit = {letter["user"] for letter in found}
    figures.load("F13 load", load.per_second)
    figures.at_least("F13 events", stack.applied(), EVENTS)
    places = sorted(letter["source"]["offset"] for letter in found)
    figures.told("F13 offsets of the first and the last undecodable event", f"{places[0]:,} and {places[-1]:,}")
    figures.exactly("F13 undecodable events in the dead letters", len(found), POISON)
    figures.exactly("F13 of them without a reason", sum(not letter["reason"] for letter in found))
    figures.at_least("F13 reasons", len({letter["reason"] for letter in found}), 5)
    # The counts of those who were hit are right all the same: nothing of theirs was lost.
    source = until_equal(stack, flagged=hit)
    for user in sorted(hit)[:10]:
        assert stack.read.get(f"/v1/users/{user}").json["degraded"] is True
    others = [user for user in sorted(source) if user not in hit][:200]
    figures.exactly("F13 others that read as degraded",
                    sum("degraded" in stack.read.get(f"/v1/users/{user}").json for user in others))
    figures.at_least("F13 of them in the metrics", int(
        stack.projector.metrics()['tally_projector_events_total{outcome="poison"}']), POISON)
    stack.ctl("dlq", "retry", "--all", check=FINE, timeout=600)
    figures.exactly("F13 open letters after a retry", sum(letter["state"] == "open" for letter in letters(stack)))
    assert_diff_0(figures, "F13", stack, [load])
