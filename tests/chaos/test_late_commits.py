"""Transactions that commit long after they have taken their numbers."""
import os
import subprocess

from support.oracle import assert_diff_0, assert_published, rows_of
from support.scale import scaled

POSTGRES_BIN = "/usr/lib/postgresql/15/bin"
CLIENTS = 200
EVENTS_OF_ONE = 10
TRANSACTIONS = scaled(50, 4)  # of each client
USERS = 10000
FIRST_USER = 100000000000000000

USERS_SQL = f"""
WITH made AS (INSERT INTO users (id, name, email, version)
    SELECT {FIRST_USER} + n, 'User ' || n, 'user-' || n || '@example.org', 1 FROM generate_series(0, {USERS - 1}) AS n
    RETURNING id, name, email, avatar)
INSERT INTO events (user_id, version, type, data, timeline)
SELECT id, 1, 'user.created', profile_json(name, email, avatar), (current_batch_context()).timeline FROM made
"""

# What tally-command sends for a batch of posts, but that the transaction then takes its time.
LATE_COMMIT = f"""
BEGIN;
SELECT count(*) FROM apply_commands(
    array_fill(2::smallint, ARRAY[{EVENTS_OF_ONE}]),
    ARRAY(SELECT {FIRST_USER} + (random() * {USERS - 1})::bigint FROM generate_series(1, {EVENTS_OF_ONE})),
    array_fill(NULL::bigint, ARRAY[{EVENTS_OF_ONE}]), array_fill(NULL::bigint, ARRAY[{EVENTS_OF_ONE}]),
    array_fill(NULL::text, ARRAY[{EVENTS_OF_ONE}]), array_fill(NULL::text, ARRAY[{EVENTS_OF_ONE}]),
    array_fill(NULL::text, ARRAY[{EVENTS_OF_ONE}]), array_fill(NULL::text, ARRAY[{EVENTS_OF_ONE}]),
    array_fill('A post'::text, ARRAY[{EVENTS_OF_ONE}]), array_fill('f6'::text, ARRAY[{EVENTS_OF_ONE}]),
    array_fill(NULL::text, ARRAY[{EVENTS_OF_ONE}]), array_fill(NULL::bytea, ARRAY[{EVENTS_OF_ONE}]),
    array_fill(NULL::text, ARRAY[{EVENTS_OF_ONE}]));
SELECT pg_sleep(random() * 0.5);
COMMIT;
"""


def test_f6_events_of_200_transactions_that_commit_late_are_all_published_in_each_users_order(own_stack, figures):
    stack = own_stack
    stack.sql(USERS_SQL)
    script = os.path.join(stack.folder, "late_commit.sql")
    with open(script, "w", encoding="ascii") as file:
        file.write(" ".join(LATE_COMMIT.split()).replace("; ", ";\n"))
    done = subprocess.run(
        [f"{POSTGRES_BIN}/pgbench", "-n", "-c", str(CLIENTS), "-j", "2", "-t", str(TRANSACTIONS), "-f", script,
         stack.dsn],
        capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    written = CLIENTS * TRANSACTIONS * EVENTS_OF_ONE
    posts = int(next(rows_of(stack, "SELECT count(*) FROM posts"))[0])
    figures.exactly("F6 events of late transactions", posts, written)
    # The test is one only where numbers became visible out of their order.
    late = int(next(rows_of(stack, "SELECT count(*) FROM (SELECT xid, lag(xid) OVER (ORDER BY seq) AS before "
                                   "FROM events) AS e WHERE xid < before"))[0])
    figures.at_least("F6 numbers taken out of the order of their transactions", late, scaled(1000, 10))
    assert_diff_0(figures, "F6", stack, seconds=300)
    log = assert_published(figures, "F6", stack)
    figures.exactly("F6 events in Kafka, without repeats", log.records - log.duplicates, written + USERS)
