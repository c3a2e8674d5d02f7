"""What is refused, and that a refusal says what and changes nothing."""
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.api import assert_problem
from support.raw import ask

NOBODY = "4611686018427387904"


def nested(depth):
    return '{"name":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


@pytest.fixture(scope="module")
def user(stack):
    return stack.new_user()


@pytest.fixture(scope="module")
def post(stack, user):
    return stack.new_post(user)


@pytest.fixture
def nothing_changes(stack):
    stack.until_swept()
    before = stack.recount()
    yield
    assert stack.recount() == before


def test_what_is_not_there_is_not_found(stack, user, post, nothing_changes):
    write, read = stack.write, stack.read
    assert_problem(write.post("/v1/posts", {"authorId": NOBODY, "body": "A post"}), 404, "user-not-found")
    assert_problem(write.post(f"/v1/posts/{post}/comments", {"authorId": NOBODY, "body": "x"}), 404, "user-not-found")
    assert_problem(write.post(f"/v1/posts/{NOBODY}/comments", {"authorId": user, "body": "x"}), 404, "post-not-found")
    assert_problem(write.patch(f"/v1/users/{NOBODY}", {"name": "Nobody"}), 404, "user-not-found")
    assert_problem(write.delete(f"/v1/users/{NOBODY}"), 404, "user-not-found")
    assert_problem(write.delete(f"/v1/posts/{NOBODY}"), 404, "post-not-found")
    assert_problem(write.delete(f"/v1/comments/{NOBODY}"), 404, "comment-not-found")
    assert_problem(read.get(f"/v1/users/{NOBODY}"), 404, "user-not-found")
    for client in (write, read):
        assert_problem(client.get("/v1/nothing"), 404, "not-found")


def test_an_address_that_is_in_use_is_refused_in_any_case_of_letters(stack, user, nothing_changes):
    email = stack.sql(f"SELECT email FROM users WHERE id = {user}")[0][0]
    assert_problem(stack.write.post("/v1/users", {"name": "Twin", "email": email}), 409, "email-taken")
    assert_problem(stack.write.post("/v1/users", {"name": "Twin", "email": email.upper()}), 409, "email-taken")


def test_two_who_want_one_address_at_once_get_one_user(stack):
    profile = stack.new_profile()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: stack.write.post("/v1/users", profile), range(12)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 11


BAD_USERS = {
    "no name": {"email": "a@example.org"},
    "no e-mail": {"name": "A"},
    "an empty name": {"name": "", "email": "a@example.org"},
    "a name that is a number": {"name": 7, "email": "a@example.org"},
    "a name that is null": {"name": None, "email": "a@example.org"},
    "a name that is too long": {"name": "n" * 201, "email": "a@example.org"},
    "an e-mail without @": {"name": "A", "email": "nobody"},
    "an e-mail that is too long": {"name": "A", "email": "a" * 250 + "@example.org"},
    "an empty avatar": {"name": "A", "email": "a@example.org", "avatar": ""},
    "an avatar that is an object": {"name": "A", "email": "a@example.org", "avatar": {}},
    "a NUL in the name": {"name": "A\0B", "email": "a@example.org"},
}


@pytest.mark.parametrize("what", BAD_USERS)
def test_a_user_that_does_not_fit_is_refused(stack, nothing_changes, what):
    assert_problem(stack.write.post("/v1/users", BAD_USERS[what]), 400, "invalid-request")


BAD_BODIES = {
    "nothing": "",
    "no JSON": "{name:1}",
    "half a document": '{"name":"A","email":"a@example.org"',
    "an array": "[]",
    "a string": '"text"',
    "something after it": '{"name":"A","email":"a@example.org"} x',
    "a member twice": '{"name":"A","name":"B","email":"a@example.org"}',
    "a lone surrogate": '{"name":"\\ud800","email":"a@example.org"}',
    "broken UTF-8": b'{"name":"\xff","email":"a@example.org"}',
    "65 levels": nested(65),
    "20,000 levels": nested(20000),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_body_that_is_no_proper_json_object_is_refused(stack, nothing_changes, what):
    answer = stack.write.post("/v1/users", BAD_BODIES[what], {"Content-Type": "application/json"})
    assert_problem(answer, 400, "invalid-request")


def test_a_post_or_comment_that_does_not_fit_is_refused(stack, user, post, nothing_changes):
    for body in ({"authorId": user}, {"body": "A post"}, {"authorId": user, "body": ""},
                 {"authorId": int(user), "body": "A post"}, {"authorId": "12x", "body": "A post"},
                 {"authorId": "-1", "body": "A post"}, {"authorId": "9223372036854775808", "body": "A post"},
                 {"authorId": user, "body": "A post", "title": "t" * 201}):
        assert_problem(stack.write.post("/v1/posts", body), 400, "invalid-request")
    for body in ({"authorId": user}, {"body": "A comment"}, {"authorId": user, "body": ""},
                 {"authorId": user, "body": "c" * 10001}):
        assert_problem(stack.write.post(f"/v1/posts/{post}/comments", body), 400, "invalid-request")


def test_a_change_that_changes_nothing_or_does_not_fit_is_refused(stack, user, nothing_changes):
    for body in ({}, {"name": ""}, {"name": None}, {"email": "nobody"}, {"email": None}):
        assert_problem(stack.write.patch(f"/v1/users/{user}", body), 400, "invalid-request")


def test_a_version_that_is_none_is_refused(stack, user, nothing_changes):
    for field in ("nonsense", '"x"', '""'):
        answer = stack.write.patch(f"/v1/users/{user}", {"name": "New"}, {"If-Match": field})
        assert answer.status in (400, 412), answer
        assert_problem(answer, answer.status)
    for value in ("x", "-1", "9223372036854775808", ""):
        assert_problem(stack.read.get(f"/v1/users/{user}", query={"minVersion": value}), 400, "invalid-request")


def test_a_list_of_ids_that_is_none_is_refused(stack):
    for ids in ("", "x", "1,,2", "1;2", "-1", "9223372036854775808"):
        assert_problem(stack.read.get("/v1/users", query={"ids": ids}), 400, "invalid-request")
    assert_problem(stack.read.get("/v1/users"), 400, "invalid-request")


def test_an_id_that_is_none_is_refused(stack, nothing_changes):
    for path in ("/v1/users/x", "/v1/users/-1", "/v1/users/9223372036854775808", "/v1/users/1%2f2"):
        for answer in (stack.read.get(path), stack.write.delete(path)):
            assert answer.status in (400, 404), (path, answer)
            assert_problem(answer, answer.status)


def test_a_method_that_is_not_served_is_refused_with_those_that_are(stack, user, post):
    cases = ((stack.write, "GET", "/v1/users", {"POST"}),
             (stack.write, "PUT", f"/v1/users/{user}", {"PATCH", "DELETE"}),
             (stack.write, "DELETE", "/v1/posts", {"POST"}),
             (stack.write, "POST", f"/v1/posts/{post}", {"DELETE"}),
             (stack.read, "POST", "/v1/stats", {"GET", "HEAD"}),
             (stack.read, "DELETE", f"/v1/users/{user}", {"GET", "HEAD"}))
    for client, method, path, served in cases:
        answer = client.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        allowed = {name.strip() for name in answer.header("Allow").split(",")}
        assert served <= allowed and method not in allowed, (method, path, allowed)


def test_a_body_of_another_media_type_is_refused(stack, nothing_changes):
    body = json.dumps({"name": "A", "email": "a@example.org"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"):
        assert_problem(stack.write.post("/v1/users", body, {"Content-Type": kind}), 415, "unsupported-media-type")
    assert_problem(stack.write.post("/v1/users", body), 415, "unsupported-media-type")


def test_a_body_above_64_kib_is_refused(stack, nothing_changes):
    # The largest that is taken in is read and refused for what it says, not for its size.
    fits = json.dumps({"name": "n" * 65000, "email": "a@example.org"})
    assert_problem(stack.write.post("/v1/users", fits, {"Content-Type": "application/json"}), 400)
    address = stack.command.api.encode()
    head = b"POST /v1/users HTTP/1.1\r\nHost: " + address + b"\r\nContent-Type: application/json\r\n"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    for rest in (b"Content-Length: 65537\r\n\r\n" + b"x" * 65537,
                 b"Content-Length: 99999999999999\r\n\r\n{",
                 b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3 + b"0\r\n\r\n"):
        answers, closed = ask(stack.command.api, head + rest)
        assert [answer.status for answer in answers] == [413] and closed, answers
        assert json.loads(answers[0].body)["type"] == "urn:tally:problem:body-too-large"


def test_a_head_above_16_kib_is_refused(stack):
    for service in (stack.command, stack.query):
        start = b"GET /v1/stats HTTP/1.1\r\nHost: x\r\n"
        for head in (start + b"X-Long: " + b"x" * 20000 + b"\r\n\r\n",
                     start + b"".join(b"X-%d: x\r\n" % number for number in range(3000)) + b"\r\n",
                     b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
            answers, closed = ask(service.api, head)
            assert [answer.status for answer in answers] == [431] and closed, answers
            assert json.loads(answers[0].body)["type"] == "urn:tally:problem:head-too-large"
