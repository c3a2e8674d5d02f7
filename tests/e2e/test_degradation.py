"""Each side degrades alone, says so, and recovers by itself."""
import pytest

from support.api import assert_problem
from support.wait import until


@pytest.fixture
def own_stack(make_stack, request):
    """The side that degrades waits no longer than it does in production."""
    with make_stack(request.node.name, impatient=(request.param,)) as made:
        yield made


@pytest.mark.parametrize("own_stack", ["command"], indirect=True)
def test_reads_go_on_without_postgresql_writes_are_refused_and_come_back_by_themselves(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.new_post(user)
    document = stack.user_at(user, 2).json
    stack.server_sql(f"ALTER DATABASE {stack.database} ALLOW_CONNECTIONS false")
    stack.server_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{stack.database}'")

    until("a write is refused", lambda: stack.write.post("/v1/users", stack.new_profile()).status == 503)
    for _ in range(20):
        refused = stack.write.post("/v1/posts", {"authorId": user, "body": "Refused"})
        assert_problem(refused, 503)
        assert int(refused.header("Retry-After")) >= 1
        assert stack.read.get(f"/v1/users/{user}").json == document
        assert stack.read.get("/v1/stats").status == 200
    until("tally-command is unready", lambda: not stack.command.ready())
    until("the others are ready", lambda: stack.query.ready() and stack.projector.ready())
    assert stack.command.look("/livez").status == 200

    stack.server_sql(f"ALTER DATABASE {stack.database} ALLOW_CONNECTIONS true")
    stack.command.until_ready()
    until("a write is taken", lambda: stack.write.post("/v1/posts", {"authorId": user, "body": "Taken"}).status == 201)
    source = stack.until_equal()
    assert source[user][1] >= 2


def assert_reads_are_refused_and_writes_go_on(stack, user):
    until("a read is refused", lambda: stack.read.get(f"/v1/users/{user}", timeout=10).status == 503)
    for _ in range(10):
        # The bound of the answer is the client's patience; without one it would hang with Redis.
        refused = stack.read.get(f"/v1/users/{user}", timeout=10)
        assert_problem(refused, 503)
        assert int(refused.header("Retry-After")) >= 1
        assert_problem(stack.read.get("/v1/stats", timeout=10), 503)
        assert_problem(stack.read.get("/v1/users", query={"ids": user}, timeout=10), 503)
        stack.new_post(user)
    until("tally-query is unready", lambda: not stack.query.ready())
    until("tally-command is ready", lambda: stack.command.ready())
    assert stack.query.look("/livez").status == 200


@pytest.mark.parametrize("own_stack", ["query"], indirect=True)
def test_writes_go_on_without_redis_reads_are_refused_and_all_is_counted_after_it(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.redis.kill()
    assert_reads_are_refused_and_writes_go_on(stack, user)
    stack.redis.start()
    stack.query.until_ready()
    assert stack.user_at(user, 11).json["postCount"] == 10
    stack.until_equal()


@pytest.mark.parametrize("own_stack", ["query"], indirect=True)
def test_a_redis_that_hangs_holds_up_neither_reads_nor_writes(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.redis.pause()
    assert_reads_are_refused_and_writes_go_on(stack, user)
    stack.redis.resume()
    stack.query.until_ready()
    assert stack.user_at(user, 11).json["postCount"] == 10
    stack.until_equal()
