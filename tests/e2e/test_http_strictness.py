"""HTTP by the letter, on both APIs: what is not clearly one request gets one answer, and the connection is closed."""
import json
import threading
import time

import pytest

from support.raw import Connection, ask

APIS = ("command", "query")
# If the server took any part of what it refused for a request, or went on behind it, this would be answered.
NEXT = b"GET /v1/stats HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"

REFUSED = {
    "Content-Length and Transfer-Encoding": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "Transfer-Encoding and Content-Length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKED,
    "two Content-Lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "one Content-Length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "Content-Length as a list": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "Content-Length with a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "a negative Content-Length": POST + b"Content-Length: -2\r\n\r\n{}",
    "Content-Length in hex": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "Content-Length with a blank inside": POST + b"Content-Length: 2 0\r\n\r\n{}",
    "an empty Content-Length": POST + b"Content-Length: \r\n\r\n",
    "Content-Length beyond 64 bits": POST + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "Transfer-Encoding xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "Transfer-Encoding gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "Transfer-Encoding chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "Transfer-Encoding chunked twice":
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "Transfer-Encoding identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "an empty Transfer-Encoding": POST + b"Transfer-Encoding:\r\n\r\n",
    "Transfer-Encoding with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED,
    "Transfer-Encoding in HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "a blank before the first name": b"GET /v1/stats HTTP/1.1\r\n Host: x\r\n\r\n",
    "a folded header": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
    "a folded Transfer-Encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "bare LF after the request line": b"GET /v1/stats HTTP/1.1\nHost: x\r\n\r\n",
    "bare LF after a header": b"GET /v1/stats HTTP/1.1\r\nHost: x\nX-A: a\r\n\r\n",
    "bare LF at the end of the head": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\n\n",
    "bare CR in a value": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX-A: a\rb\r\n\r\n",
    "NUL in a value": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
    "NUL in a name": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX\0A: a\r\n\r\n",
    "a name that is no token": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX(A): a\r\n\r\n",
    "an empty name": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
    "a line without a colon": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n",
    "no Host": b"GET /v1/stats HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "a Host that is none": b"GET /v1/stats HTTP/1.1\r\nHost: a b\r\n\r\n",
    "another authority than Host": b"GET http://y/v1/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET v1/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "two blanks in the request line": b"GET  /v1/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the request line": b"GET\t/v1/stats\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /v1/stats\r\nHost: x\r\n\r\n",
    "a version that is none": b"GET /v1/stats HTTP/1.x\r\nHost: x\r\n\r\n",
    "a chunk size that is no number": POST + b"Transfer-Encoding: chunked\r\n\r\nxx\r\n{}\r\n0\r\n\r\n",
    "a chunk size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with 0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer than its size": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n",
    "a chunk size that ends in bare LF": POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    "a path with an encoded NUL": b"GET /v1/users/1%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_clearly_one_request_gets_one_400_and_the_connection_is_closed(stack, api, what):
    answers, closed = ask(stack.service(api).api, REFUSED[what] + NEXT * 2)
    # The read API takes no body: it refuses the method before it comes to the chunks.
    refusals = {400, 405} if api == "query" and what.startswith("a chunk") else {400}
    assert len(answers) == 1 and answers[0].status in refusals, answers
    assert closed
    assert answers[0].headers["connection"] == "close"
    assert answers[0].headers["content-type"].startswith("application/problem+json")
    assert json.loads(answers[0].body)["status"] == answers[0].status


@pytest.mark.parametrize("api", APIS)
def test_an_unknown_version_gets_505_and_the_connection_is_closed(stack, api):
    for version in (b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9"):
        answers, closed = ask(stack.service(api).api, b"GET /v1/stats " + version + b"\r\nHost: x\r\n\r\n" + NEXT)
        # 505 where the number is understood, 400 where the line is not a request line at all.
        assert len(answers) == 1 and answers[0].status in (400, 505) and closed, (version, answers)
    assert ask(stack.service(api).api, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[1]


@pytest.mark.parametrize("api", APIS)
def test_a_request_in_many_pieces_is_the_same_request(stack, api):
    request = b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nX-A:   a  \r\nConnection: close\r\n\r\n"
    whole, _ = ask(stack.service(api).api, request)
    with Connection(stack.service(api).api) as connection:
        for byte in request:
            connection.send(bytes([byte]))
        answer = connection.answer()
        assert (answer.status, answer.body) == (whole[0].status, whole[0].body) and answer.status == 404
        assert connection.closed()


def test_pipelined_requests_are_answered_in_their_order(stack):
    users = [stack.new_user() for _ in range(5)]
    for user in users:
        stack.user_at(user, 1)
    order = [user for _ in range(40) for user in users]
    with Connection(stack.query.api) as connection:
        connection.send(b"".join(b"GET /v1/users/%s HTTP/1.1\r\nHost: x\r\n\r\n" % user.encode() for user in order))
        assert [json.loads(connection.answer().body)["user"]["id"] for _ in order] == order
    author = stack.new_user()
    body = json.dumps({"authorId": author, "body": "A post"}).encode()
    with Connection(stack.command.api) as connection:
        connection.send((b"POST /v1/posts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(body), body)) * 40)
        versions = [json.loads(connection.answer().body)["version"] for _ in range(40)]
    assert sorted(versions) == list(range(2, 42))
    assert stack.user_at(author, 41).json["postCount"] == 40


def test_a_chunked_body_is_the_same_body(stack):
    profile = stack.new_profile()
    body = json.dumps(profile).encode()
    pieces = [body[at:at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    answers, closed = ask(stack.command.api, POST + b"Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n"
                          + chunks + b"0\r\n\r\n")
    assert [answer.status for answer in answers] == [201] and closed, answers
    user = json.loads(answers[0].body)["id"]
    assert stack.user_at(user, 1).json["user"]["email"] == profile["email"]


def test_a_client_that_expects_100_is_told_to_go_on(stack):
    body = json.dumps(stack.new_profile()).encode()
    with Connection(stack.command.api) as connection:
        connection.send(POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body))
        assert connection.answer().status == 100
        connection.send(body)
        assert connection.answer().status == 201
    with Connection(stack.command.api) as connection:
        connection.send(POST + b"Content-Length: 70000\r\nExpect: 100-continue\r\n\r\n")
        assert connection.answer().status == 413
        assert connection.closed()
    answers, closed = ask(stack.command.api, POST + b"Content-Length: 2\r\nExpect: miracles\r\n\r\n{}")
    assert [answer.status for answer in answers] == [417] and closed


@pytest.mark.parametrize("api", APIS)
def test_a_connection_is_kept_as_the_client_asks(stack, api):
    address = stack.service(api).api
    request = b"GET /v1/nothing HTTP/1.%d\r\nHost: x\r\n%s\r\n"
    with Connection(address) as connection:
        for _ in range(3):
            connection.send(request % (1, b""))
            assert connection.answer().headers.get("connection") != "close"
        connection.send(request % (1, b"Connection: close\r\n"))
        assert connection.answer().headers["connection"] == "close"
        assert connection.closed()
    with Connection(address) as connection:
        connection.send(request % (0, b""))
        assert connection.answer().status == 404
        assert connection.closed()


def test_a_head_or_body_that_does_not_end_is_cut_at_its_deadline_however_busy_the_client_is(stack):
    """All at the same time: the head's deadline is 10 s and the body's 30 s, whatever arrives meanwhile."""
    results, took_s = {}, {}

    def drip(api, what, start, piece):
        with Connection(stack.service(api).api, timeout=0.25) as connection:
            began = time.monotonic()
            connection.send(start)
            while time.monotonic() < began + 120:
                connection.send(piece)
                try:
                    answer = connection.answer()
                    took_s[what] = min(time.monotonic() - began, took_s.get(what, 120))
                    results[api, what] = answer.status if answer else "closed"
                    return
                except TimeoutError:
                    pass
    cases = [(api, "head", b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX-A: ", b"a") for api in APIS]
    cases.append(("command", "body", POST + b"Content-Length: 60000\r\n\r\n", b" "))
    threads = [threading.Thread(target=drip, args=case, daemon=True) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=150)
    assert set(results) == {(api, what) for api, what, _, _ in cases}, results
    assert set(results.values()) <= {408, "closed"}, results
    # And no sooner, or a slow client would be cut off that keeps its deadline.
    assert took_s["head"] >= 9.5 and took_s["body"] >= 29.5, took_s
