"""tallyctl explain beside writers: what it says of everybody adds up at every moment."""
import json

from support.load import Load
from support.oracle import until_equal
from support.scale import scaled

FINE = 0
# Of many more: each is one of many at random.
LEAST = scaled(10_000, 300)
# About as many are picked, each by a chance of its own.
SAMPLE = LEAST + LEAST // 5
USERS = scaled(20_000, 600)


def test_for_random_users_the_sum_of_the_deltas_is_the_count_shown_under_load(own_stack, figures):
    stack = own_stack
    with Load(stack, users=USERS) as load:
        before = load.acknowledged()
        found = json.loads(stack.ctl("explain", "--sample", str(SAMPLE), "--json", timeout=1800).stdout)
        beside = load.acknowledged() - before
    figures.load("explain: load", load.per_second)
    figures.at_least("explain: writes acknowledged meanwhile", beside, 1)
    figures.at_least("explain: random users", found["usersSampled"], LEAST)
    figures.exactly("explain: users whose count is not the sum of their events",
                    found["usersSampled"] - found["usersExplained"])
    until_equal(stack)
    again = json.loads(stack.ctl("explain", "--sample", str(SAMPLE), "--json", check=FINE, timeout=1800).stdout)
    figures.at_least("explain: random users, at rest", again["usersSampled"], LEAST)
    figures.exactly("explain: of them, at rest", again["usersSampled"] - again["usersExplained"])
