"""Deleting: what goes with what, whose counts it lowers, and that personal data is gone."""
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.api import assert_problem, assert_success
from support.kafka import consume
from support.wait import until


def comment_often(stack, post, authors, each):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda author: stack.new_comment(post, author), authors * each))


# 600 is more than goes in the command's own transaction; the rest is done in the background.
@pytest.mark.parametrize("each", [8, 150])
def test_a_deleted_post_takes_its_comments_from_the_counts_of_all_their_authors(stack, each):
    owner = stack.new_user()
    authors = [stack.new_user() for _ in range(3)] + [owner]
    doomed, kept = stack.new_post(owner), stack.new_post(owner)
    comment_often(stack, doomed, authors, each)
    comment_often(stack, kept, authors, 2)
    before = stack.until_equal()
    assert [before[user][1:] for user in authors] == [(0, each + 2)] * 3 + [(2, each + 2)]

    assert_success(stack.write.delete(f"/v1/posts/{doomed}"), 200)
    assert_problem(stack.write.delete(f"/v1/posts/{doomed}"), 404, "post-not-found")
    assert_problem(stack.write.post(f"/v1/posts/{doomed}/comments", {"authorId": owner, "body": "Late"}), 404,
                   "post-not-found")
    after = stack.until_equal()
    assert [after[user][1:] for user in authors] == [(0, 2)] * 3 + [(1, 2)]
    # One event, and so one version, for each comment that went, and one for the post.
    assert [after[user][0] - before[user][0] for user in authors] == [each] * 3 + [each + 1]


def test_a_deleted_comment_is_counted_no_more_and_gone(stack):
    user = stack.new_user()
    comment = stack.new_comment(stack.new_post(user), user)
    assert_success(stack.write.delete(f"/v1/comments/{comment}"), 200)
    assert_problem(stack.write.delete(f"/v1/comments/{comment}"), 404, "comment-not-found")
    assert stack.user_at(user, 4).json["commentCount"] == 0


def test_a_deleted_user_is_gone_for_everyone(stack):
    user, other = stack.new_user(), stack.new_user()
    post, others_post = stack.new_post(user), stack.new_post(other)
    stack.new_comment(post, other)
    mine = stack.new_comment(others_post, user)
    stack.user_at(user, 3)

    gone = assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    assert gone["version"] == 4
    assert_problem(stack.write.delete(f"/v1/users/{user}"), 404, "user-not-found")
    assert_problem(stack.write.patch(f"/v1/users/{user}", {"name": "Back"}), 404, "user-not-found")
    assert_problem(stack.write.post("/v1/posts", {"authorId": user, "body": "Late"}), 404, "user-not-found")
    assert_problem(stack.write.post(f"/v1/posts/{post}/comments", {"authorId": other, "body": "Late"}), 404,
                   "post-not-found")

    source = stack.until_equal()
    assert user not in source
    assert_problem(stack.read.get(f"/v1/users/{user}"), 404, "user-not-found")
    assert stack.read.get("/v1/users", query={"ids": f"{user},{other}"}).json["missing"] == [user]
    # The comment on the deleted user's post went with it.
    assert source[other][1:] == (1, 0)
    assert_problem(stack.write.delete(f"/v1/comments/{mine}"), 404, "comment-not-found")


def test_personal_data_of_a_deleted_user_is_in_no_row_of_users_and_nowhere_in_redis(stack):
    marker = f"secret{stack.id}"
    profile = {"name": f"Name {marker}", "email": f"{marker}@example.org", "avatar": f"https://example.org/{marker}"}
    user = assert_success(stack.write.post("/v1/users", profile), 201)["id"]
    stack.user_at(user, 1)
    find = """
    local found = {}
    for _, key in ipairs(redis.call('KEYS', '*')) do
        if redis.call('TYPE', key).ok == 'hash' then
            for _, value in ipairs(redis.call('HVALS', key)) do
                if string.find(value, ARGV[1], 1, true) then found[#found + 1] = key end
            end
        end
    end
    return found"""
    assert stack.redis.call("EVAL", find, "0", marker).split("\n") == [stack.user_key(user)] * 3
    assert stack.sql(f"SELECT id FROM users WHERE users::text LIKE '%{marker}%'") == [[user]]

    assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    stack.until_equal()
    assert stack.redis.call("EVAL", find, "0", marker) == ""
    assert stack.sql(f"SELECT id FROM users WHERE users::text LIKE '%{marker}%'") == []
    # The version and the mark stay, so that a late duplicate cannot bring the user back.
    remains = stack.redis.hash(stack.user_key(user))
    assert remains["v"] == "2" and "deleted" in remains and not {"name", "email", "avatar"} & set(remains)
    # And the address is free again.
    assert_success(stack.write.post("/v1/users", profile), 201)


# Most rows that one transaction of the background deletion takes, and so most events that it writes.
PIECE = 500


def comment_in_bulk(stack, post, authors, each):
    """Through the same function of the database that serves the API, since there are thousands."""
    many = f"ARRAY(SELECT unnest(ARRAY[{','.join(authors)}]) FROM generate_series(1, {each}))"
    count = len(authors) * each
    no_number, no_text = f"array_fill(NULL::bigint, ARRAY[{count}])", f"array_fill(NULL::text, ARRAY[{count}])"
    made = stack.sql(
        f"SELECT count(*) FROM apply_commands(array_fill(3::smallint, ARRAY[{count}]), {many}, "
        f"array_fill({post}::bigint, ARRAY[{count}]), {no_number}, {no_text}, {no_text}, {no_text}, {no_text}, "
        f"array_fill('A comment'::text, ARRAY[{count}]), {no_text}, {no_text}, "
        f"array_fill(NULL::bytea, ARRAY[{count}]), {no_text}) WHERE outcome = 0")
    assert made == [[str(count)]]


class Gate:
    """While it is shut, a transaction that deletes comments stands still before its end."""

    MINE = "datname = current_database() AND application_name = 'tally-janitor'"

    def __init__(self, stack):
        self.stack = stack
        stack.sql("CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$")
        stack.sql("CREATE TRIGGER gate AFTER DELETE ON comments FOR EACH ROW EXECUTE FUNCTION pass_gate()")

    def shut(self):
        self.session = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", self.stack.dsn], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.session.stdin.write("SELECT pg_advisory_lock(4711); SELECT 'shut';\n")
        self.session.stdin.flush()
        until("the gate is shut", lambda: self.session.stdout.readline().strip() == "shut")

    def open(self):
        self.session.communicate("\n", timeout=30)

    def until_somebody_waits(self):
        until("a piece is in the middle", lambda: self.stack.sql(
            f"SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND {self.MINE}"))

    def until_nobody_is_left(self, roll_back):
        """The server's side of killed clients, which would commit what it is at, unless it is ended too."""
        if roll_back:
            self.stack.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {self.MINE}")
        else:
            self.open()
        until("the piece has ended", lambda: not self.stack.sql(
            f"SELECT pid FROM pg_stat_activity WHERE {self.MINE}"))
        if roll_back:
            self.open()


def count_of(stack, comments):
    return int(stack.sql(f"SELECT count(*) FROM comments WHERE {comments}")[0][0])


@pytest.mark.parametrize("what", ["post", "user"])
def test_a_large_deletion_that_is_killed_again_and_again_is_finished_once(own_stack, what):
    stack = own_stack
    owner, host = stack.new_user(), stack.new_user()
    authors = [stack.new_user() for _ in range(40)]
    doomed, kept = stack.new_post(owner), stack.new_post(host)
    comment_in_bulk(stack, doomed, authors, 100)
    comment_in_bulk(stack, kept, [*authors, owner], 50)
    if what == "user":
        comment_in_bulk(stack, kept, [owner], 1500)
    before = stack.until_equal()
    gone = {row[0] for row in stack.sql(f"SELECT id FROM comments WHERE post_id = {doomed}")}
    gate = Gate(stack)
    gate.shut()

    path, status = (f"/v1/posts/{doomed}", 200) if what == "post" else (f"/v1/users/{owner}", 202)
    mine = f"post_id = {doomed}" if what == "post" else f"post_id = {doomed} OR author_id = {owner}"
    assert_success(stack.write.delete(path), status)
    left = [count_of(stack, mine)]
    for kill in range(5):
        gate.until_somebody_waits()
        stack.command.kill()
        gate.until_nobody_is_left(roll_back=kill % 2 == 0)
        left.append(count_of(stack, mine))
        gate.shut()
        stack.command.spawn()
    gate.open()
    stack.command.until_ready()
    # Each kill came in the middle: what was rolled back was all there again, and what committed was one piece.
    assert [former - latter for former, latter in zip(left, left[1:])] == [0, PIECE] * 2 + [0] and left[-1] > 0

    after = stack.until_equal()
    assert stack.sql(f"SELECT count(*) FROM posts WHERE id = {doomed}") == [["0"]]
    assert [after[author][1:] for author in authors] == [(0, 50)] * len(authors)
    # One event, and so one version, for each comment that went.
    assert [after[author][0] - before[author][0] for author in authors] == [100] * len(authors)
    told = [row[0] for row in stack.sql("SELECT data::json->>'commentId' FROM events WHERE type = 'comment.deleted'")]
    assert len(told) == len(gone) and set(told) == gone
    sent = {record.headers["ce_id"]: record.value for record in consume(stack.brokers, stack.topic)
            if record.headers["ce_type"] == "comment.deleted"}
    assert len(sent) == len(gone), "every one of them is published, under an id of its own"
    if what == "user":
        assert owner not in after
        # Nothing is told of the deleted user after its deletion.
        assert stack.sql(f"SELECT type FROM events WHERE user_id = {owner} ORDER BY version DESC LIMIT 1") == [
            ["user.deleted"]]
    largest = stack.sql("SELECT max(events) FROM (SELECT count(*) AS events FROM events "
                        "WHERE type LIKE '%.deleted' GROUP BY xid) AS transactions")
    assert 0 < int(largest[0][0]) <= PIECE
