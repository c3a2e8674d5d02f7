"""The main path: a write over HTTP becomes a count over HTTP."""
from concurrent.futures import ThreadPoolExecutor

from support.api import assert_problem, assert_success
from support.stack import RowLock
from support.wait import away_from_midnight


def counts(answer):
    return answer.json["postCount"], answer.json["commentCount"]


def test_a_write_over_http_becomes_a_count_over_http(stack):
    ada, grace = stack.new_user(), stack.new_user()
    first, second = stack.new_post(ada), stack.new_post(ada)
    for _ in range(3):
        stack.new_comment(first, grace)
    own = stack.new_comment(second, ada)
    assert counts(stack.user_at(ada, 4)) == (2, 1)
    assert counts(stack.user_at(grace, 4)) == (0, 3)

    assert_success(stack.write.delete(f"/v1/comments/{own}"), 200)
    assert counts(stack.user_at(ada, 5)) == (2, 0)
    assert_success(stack.write.delete(f"/v1/posts/{first}"), 200)
    assert counts(stack.user_at(ada, 6)) == (1, 0)
    assert counts(stack.user_at(grace, 7)) == (0, 0)


def test_every_success_carries_what_was_made_whose_count_moved_and_the_version_after_it(stack):
    profile = stack.new_profile()
    made = stack.write.post("/v1/users", profile)
    user = assert_success(made, 201)
    assert user["id"] == user["userId"] and user["version"] == 1
    assert made.header("Location").endswith(f"/v1/users/{user['id']}")
    author, commenter = user["id"], stack.new_user()

    answer = stack.write.post("/v1/posts", {"authorId": author, "title": "A title", "body": "A post"})
    post = assert_success(answer, 201)
    assert (post["userId"], post["version"]) == (author, 2)
    assert post["id"] in answer.header("Location")
    comment = assert_success(stack.write.post(f"/v1/posts/{post['id']}/comments",
                                              {"authorId": commenter, "body": "A comment"}), 201)
    assert (comment["userId"], comment["version"]) == (commenter, 2)

    removed = assert_success(stack.write.delete(f"/v1/comments/{comment['id']}"), 200)
    assert removed == {"id": comment["id"], "userId": commenter, "version": 3}
    removed = assert_success(stack.write.delete(f"/v1/posts/{post['id']}"), 200)
    assert removed == {"id": post["id"], "userId": author, "version": 3}
    changed = assert_success(stack.write.patch(f"/v1/users/{author}", {"name": "Another name"}), 200)
    assert changed == {"id": author, "userId": author, "version": 4}
    removed = assert_success(stack.write.delete(f"/v1/users/{author}"), 202)
    assert removed == {"id": author, "userId": author, "version": 5}


def test_the_profile_is_read_as_it_was_written(stack):
    email = f"Zoë+tag.{stack.id}@example.org"
    profile = {"name": 'Zoë "Ŵ" \\ 𝄞 </script>', "email": email, "avatar": "https://example.org/zoë.png"}
    user = assert_success(stack.write.post("/v1/users", profile), 201)["id"]
    answer = stack.user_at(user, 1)
    assert answer.json == {"user": {"id": user, **profile}, "postCount": 0, "commentCount": 0, "version": 1}

    assert_success(stack.write.patch(f"/v1/users/{user}", {"name": "Zoe"}), 200)
    assert stack.user_at(user, 2).json["user"] == {"id": user, **profile, "name": "Zoe"}
    assert_success(stack.write.patch(f"/v1/users/{user}", {"avatar": None}), 200)
    assert stack.user_at(user, 3).json["user"] == {"id": user, "name": "Zoe", "email": email, "avatar": None}


def test_an_address_is_free_again_once_its_user_has_another(stack):
    profile = stack.new_profile()
    user = assert_success(stack.write.post("/v1/users", profile), 201)["id"]
    assert_success(stack.write.patch(f"/v1/users/{user}", {"email": f"moved.{stack.id}@example.org"}), 200)
    assert_success(stack.write.post("/v1/users", profile), 201)


def test_one_reads_ones_own_write_every_time(stack):
    user = stack.new_user()
    stale = []
    for number in range(1, 301):
        version = assert_success(stack.write.post("/v1/posts", {"authorId": user, "body": "A post"}), 201)["version"]
        answer = stack.read.get(f"/v1/users/{user}", {"Prefer": "wait=10"}, {"minVersion": version})
        assert answer.status == 200, answer
        if answer.json["version"] < version or counts(answer) != (number, 0):
            stale.append((number, answer))
    assert not stale, stale[:3]


def test_a_version_that_does_not_come_is_refused_and_never_answered_with_an_older_one(stack):
    user = stack.new_user()
    stack.user_at(user, 1)
    for headers in ({}, {"Prefer": "wait=1"}):
        answer = stack.read.get(f"/v1/users/{user}", headers, {"minVersion": 1000})
        assert_problem(answer, 503, "read-model-behind")
        assert int(answer.header("Retry-After")) >= 1


def test_concurrent_writes_to_one_user_get_distinct_versions_and_are_all_counted(stack):
    user = stack.new_user()
    body = {"authorId": user, "body": "A post"}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: stack.write.post("/v1/posts", body), range(160)))
    versions = sorted(assert_success(answer, 201)["version"] for answer in answers)
    assert versions == list(range(2, 162))
    assert len({answer.json["id"] for answer in answers}) == 160
    assert counts(stack.user_at(user, 161)) == (160, 0)


def test_a_read_carries_its_version_as_etag_and_how_long_it_may_be_kept(stack):
    user = stack.new_user()
    answer = stack.user_at(user, 1)
    assert answer.header("ETag") == '"1"'
    assert answer.header("Cache-Control") == "private, max-age=0, stale-while-revalidate=5, stale-if-error=60"
    assert int(answer.header("Tally-Lag-Ms")) >= 0
    assert answer.header("Content-Type").split(";")[0] == "application/json"


def test_an_unchanged_user_is_not_sent_again(stack):
    user = stack.new_user()
    tag = stack.user_at(user, 1).header("ETag")
    for field in (tag, f"W/{tag}", f'"77", {tag}', "*"):
        answer = stack.read.get(f"/v1/users/{user}", {"If-None-Match": field})
        assert (answer.status, answer.body) == (304, b""), (field, answer)
        assert answer.header("ETag") == tag
    stack.new_post(user)
    stack.user_at(user, 2)
    answer = stack.read.get(f"/v1/users/{user}", {"If-None-Match": tag})
    assert (answer.status, answer.header("ETag"), counts(answer)) == (200, '"2"', (1, 0))


def test_many_users_are_read_at_once_and_the_unknown_ones_named(stack):
    users = [stack.new_user() for _ in range(5)]
    for user in users:
        stack.new_post(user)
        stack.user_at(user, 2)
    unknown = ["1", "9223372036854775807"]
    answer = stack.read.get("/v1/users", query={"ids": ",".join([unknown[0], *users, unknown[1]])})
    assert answer.status == 200, answer
    assert [row["user"]["id"] for row in answer.json["users"]] == users
    assert sorted(answer.json["missing"]) == sorted(unknown)
    for row in answer.json["users"]:
        assert row == stack.read.get(f"/v1/users/{row['user']['id']}").json
    assert_problem(stack.read.get("/v1/users", query={"ids": ",".join(map(str, range(1, 102)))}), 400)
    assert stack.read.get("/v1/users", query={"ids": ",".join(map(str, range(1, 101)))}).status == 200


def test_the_totals_are_those_of_all_users(own_stack):
    stack = own_stack
    away_from_midnight(120)
    for _ in range(5):
        stack.new_user()
    user = stack.new_user()
    post = stack.new_post(user)
    stack.new_comment(post, user)
    stack.until_equal()
    stats = stack.stats()
    # Exact, as a HyperLogLog is for numbers as small as these.
    assert (stats["users"], stats["posts"], stats["comments"]) == (6, 1, 1)
    assert stats["activeUsers"] == {"day": 6, "week": 6, "month": 6}
    assert stats["freshnessSeconds"] >= 0


def test_a_head_is_answered_like_its_get_without_the_body(stack):
    user = stack.new_user()
    got = stack.user_at(user, 1)
    answer = stack.read.request("HEAD", f"/v1/users/{user}")
    assert (answer.status, answer.body) == (200, b"")
    for name in ("ETag", "Content-Type", "Content-Length", "Cache-Control"):
        assert answer.header(name) == got.header(name), name


def test_a_repeated_request_with_the_same_key_is_done_once_and_answered_alike(stack):
    user = stack.new_user()
    post = stack.new_post(user)
    calls = (("/v1/users", stack.new_profile()),
             ("/v1/posts", {"authorId": user, "body": "A post"}),
             (f"/v1/posts/{post}/comments", {"authorId": user, "body": "A comment"}))
    for number, (path, body) in enumerate(calls):
        headers = {"Idempotency-Key": f"key-{number}.{stack.id}"}
        first = stack.write.post(path, body, headers)
        assert_success(first, 201)
        assert first.header("Idempotent-Replayed") is None
        for _ in range(3):
            again = stack.write.post(path, body, headers)
            assert (again.status, again.body, again.header("ETag"), again.header("Location")) == (
                first.status, first.body, first.header("ETag"), first.header("Location"))
            assert again.header("Idempotent-Replayed") == "true"
        field = "name" if "name" in body else "body"
        assert_problem(stack.write.post(path, {**body, field: "Another"}, headers), 422, "idempotency-key-reused")
    assert counts(stack.user_at(user, 4)) == (2, 1)
    assert stack.write.post("/v1/posts", {"authorId": user, "body": "A post"}).json["version"] == 5


def test_a_key_whose_first_request_is_still_running_is_refused(stack):
    user = stack.new_user()
    headers = {"Idempotency-Key": f"running.{stack.id}"}
    body = {"authorId": user, "body": "A post"}
    with ThreadPoolExecutor(1) as pool, RowLock(stack, user) as lock:
        first = pool.submit(stack.write.post, "/v1/posts", body, headers)
        lock.until_awaited()
        second = stack.write.post("/v1/posts", body, headers)
        lock.release()
        first = first.result()
    assert_problem(second, 409, "idempotency-key-in-use")
    assert_success(first, 201)
    replayed = stack.write.post("/v1/posts", body, headers)
    assert (replayed.status, replayed.body) == (201, first.body)
    assert counts(stack.user_at(user, 2)) == (1, 0)


def test_equal_requests_at_the_same_time_have_one_effect(stack):
    user = stack.new_user()

    def post(number):
        return stack.write.post("/v1/posts", {"authorId": user, "body": "A post"},
                                {"Idempotency-Key": f"together-{number}.{stack.id}"})
    with ThreadPoolExecutor(20) as pool:
        for number in range(20):
            answers = list(pool.map(post, [number] * 20))
            assert {answer.status for answer in answers} <= {201, 409}, answers
            assert len({answer.body for answer in answers if answer.status == 201}) == 1, answers
            for answer in answers:
                if answer.status == 409:
                    assert_problem(answer, 409, "idempotency-key-in-use")
    assert stack.user_at(user, 21).json["version"] == 21
    assert counts(stack.user_at(user, 21)) == (20, 0)


def test_a_write_that_names_a_version_is_made_at_that_version_alone(stack):
    user = stack.new_user()
    stack.new_post(user)
    old = {"If-Match": '"1"'}
    assert_problem(stack.write.patch(f"/v1/users/{user}", {"name": "Late"}, old), 412, "version-mismatch")
    assert_problem(stack.write.delete(f"/v1/users/{user}", old), 412, "version-mismatch")
    assert_success(stack.write.patch(f"/v1/users/{user}", {"name": "In time"}, {"If-Match": '"2"'}), 200)
    assert stack.user_at(user, 3).json["user"]["name"] == "In time"
    assert assert_success(stack.write.delete(f"/v1/users/{user}", {"If-Match": '"3"'}), 202)["version"] == 4
