/* What is not clearly one request gets one answer, `Connection: close`, and the end. */
#include "test_http_harness.h"

TestSuite(http_reject, .timeout = 300);

struct rejected {
    const char *name;
    const char *bytes;
    size_t length;
    int http_status;
};

#define ROW(name, status, text)             \
    {                                       \
        name, text, sizeof text - 1, status \
    }
#define GET(fields) "GET /hello HTTP/1.1\r\n" fields "\r\n"
#define POST(fields) "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" fields
#define CHUNKED(body) POST("Transfer-Encoding: chunked\r\n\r\n" body)

static const struct rejected rows[] = {
    ROW("transfer-encoding other than chunked", 400, POST("Transfer-Encoding: gzip\r\n\r\n")),
    ROW("transfer-encoding list", 400, POST("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
    ROW("chunked twice", 400, POST("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
    ROW("two transfer-encodings", 400,
        POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ROW("identity and chunked", 400,
        POST("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ROW("chunked with a parameter", 400, POST("Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n")),
    ROW("chunked behind a vertical tab", 400,
        POST("Transfer-Encoding: \x0b"
             "chunked\r\n\r\n0\r\n\r\n")),
    ROW("empty transfer-encoding", 400, POST("Transfer-Encoding:\r\n\r\n")),
    ROW("transfer-encoding with content-length", 400,
        POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")),
    ROW("content-length with transfer-encoding", 400,
        POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ROW("transfer-encoding in HTTP/1.0", 400,
        "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ROW("two content-lengths", 400, POST("Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde")),
    ROW("two different content-lengths", 400,
        POST("Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde")),
    ROW("content-length list", 400, POST("Content-Length: 5,5\r\n\r\nabcde")),
    ROW("content-length with blank", 400, POST("Content-Length: 5 5\r\n\r\nabcde")),
    ROW("content-length with plus", 400, POST("Content-Length: +5\r\n\r\nabcde")),
    ROW("content-length with minus", 400, POST("Content-Length: -5\r\n\r\nabcde")),
    ROW("content-length hexadecimal", 400, POST("Content-Length: 0x5\r\n\r\nabcde")),
    ROW("content-length empty", 400, POST("Content-Length:\r\n\r\n")),
    ROW("content-length overflow", 400, POST("Content-Length: 18446744073709551617\r\n\r\na")),
    ROW("content-length beyond 63 bits", 400, POST("Content-Length: 9223372036854775808\r\n\r\na")),
    ROW("blank before content-length's colon", 400, POST("Content-Length : 5\r\n\r\nabcde")),
    ROW("folded line", 400, GET("Host: a\r\nX: b\r\n c\r\n")),
    ROW("folded line with tab", 400, GET("Host: a\r\nX: b\r\n\tc\r\n")),
    ROW("blank before the first header", 400, GET(" Host: a\r\n")),
    ROW("bare LF behind the request line", 400, "GET /hello HTTP/1.1\nHost: a\r\n\r\n"),
    ROW("bare LF behind a header", 400, "GET /hello HTTP/1.1\r\nHost: a\n\r\n"),
    ROW("bare LF as the empty line", 400, "GET /hello HTTP/1.1\r\nHost: a\r\n\n"),
    ROW("bare CR in a header", 400, GET("Host: a\r\nX: b\rc\r\n")),
    ROW("header after a bare CR", 400, GET("Host: a\r\nX: b\rTransfer-Encoding: chunked\r\n")),
    ROW("bare CR before the CRLF", 400, GET("Host: a\r\r\n")),
    ROW("bare CR in the request line", 400, "GET /hello\rHTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("NUL in the request line", 400, "GET /he\0llo HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("NUL in a header name", 400, GET("Host: a\r\nX\0Y: b\r\n")),
    ROW("NUL in a header value", 400, GET("Host: a\r\nX: b\0c\r\n")),
    ROW("control in a header value", 400,
        GET("Host: a\r\nX: b\x01"
            "c\r\n")),
    ROW("DEL in a header value", 400, GET("Host: a\r\nX: b\x7f\r\n")),
    ROW("header name with a blank", 400, GET("Host: a\r\nX Y: b\r\n")),
    ROW("header name with a slash", 400, GET("Host: a\r\nX/Y: b\r\n")),
    ROW("header name beyond ASCII", 400, GET("Host: a\r\nX\xc3\xa9: b\r\n")),
    ROW("empty header name", 400, GET("Host: a\r\n: b\r\n")),
    ROW("header without colon", 400, GET("Host: a\r\nX\r\n")),
    ROW("blank before the colon", 400, GET("Host : a\r\n")),
    ROW("tab before the colon", 400, GET("Host\t: a\r\n")),
    ROW("no host", 400, GET("X: b\r\n")),
    ROW("two hosts", 400, GET("Host: a\r\nHost: a\r\n")),
    ROW("no host in HTTP/1.0", 400, "GET /hello HTTP/1.0\r\n\r\n"),
    ROW("two hosts in HTTP/1.0", 400, "GET /hello HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ROW("empty host", 400, GET("Host:\r\n")),
    ROW("host with a path", 400, GET("Host: a/b\r\n")),
    ROW("host with user information", 400, GET("Host: u@a\r\n")),
    ROW("host list", 400, GET("Host: a, b\r\n")),
    ROW("host port that is no number", 400, GET("Host: a:x\r\n")),
    ROW("host port too large", 400, GET("Host: a:65536\r\n")),
    ROW("HTTP/2.0", 505, "GET /hello HTTP/2.0\r\nHost: a\r\n\r\n"),
    ROW("HTTP/1.2", 505, "GET /hello HTTP/1.2\r\nHost: a\r\n\r\n"),
    ROW("HTTP/0.9", 505, "GET /hello HTTP/0.9\r\nHost: a\r\n\r\n"),
    ROW("HTTP/2 preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ROW("HTTP/1.10", 400, "GET /hello HTTP/1.10\r\nHost: a\r\n\r\n"),
    ROW("HTTP/11", 400, "GET /hello HTTP/11\r\nHost: a\r\n\r\n"),
    ROW("lower-case http", 400, "GET /hello http/1.1\r\nHost: a\r\n\r\n"),
    ROW("no version", 400, "GET /hello\r\nHost: a\r\n\r\n"),
    ROW("blank behind the version", 400, "GET /hello HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ROW("two blanks behind the method", 400, "GET  /hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("two blanks behind the target", 400, "GET /hello  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("tab behind the method", 400, "GET\t/hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("blank before the method", 400, " GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("two empty lines before the request", 400, "\r\n\r\n" GET("Host: a\r\n")),
    ROW("TLS client hello", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ROW("fragment in the target", 400, "GET /hello#a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("control in the target", 400, "GET /hel\x01lo HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("bytes beyond ASCII in the target", 400, "GET /h\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("quote in the target", 400, "GET /\"hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("backslash in the target", 400, "GET /\\hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("target without slash", 400, "GET hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("asterisk without OPTIONS", 400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("authority-form", 400, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("absolute-form of another host", 400, "GET http://b/hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("absolute-form with user information", 400,
        "GET http://u@a/hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("absolute-form of another scheme", 400, "GET ftp://a/hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("broken escape in the path", 400, "GET /items/%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("cut escape in the path", 400, "GET /items/%4 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("NUL in the path", 400, "GET /items/%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("no UTF-8 in the path", 400, "GET /items/%ff HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("broken escape in the query", 400, "GET /items/1?q=%g0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("no UTF-8 in the query", 400, "GET /items/1?q=%c0%80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("repeated parameter", 400, "GET /items/1?q=1&q=2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("parameter repeated in escapes", 400, "GET /items/1?q=1&%71=2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("CONNECT", 405, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("TRACE", 405, "TRACE /hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("lower-case method", 400, "get /hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("unknown method", 400, "FETCH /hello HTTP/1.1\r\nHost: a\r\n\r\n"),
    ROW("body where none is taken", 400, GET("Host: a\r\nContent-Length: 5\r\n") "abcde"),
    ROW("chunked body where none is taken", 400,
        GET("Host: a\r\nTransfer-Encoding: chunked\r\n") "0\r\n\r\n"),
    ROW("body to a path that is not there", 404,
        "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"),
    ROW("body too large", 413, POST("Content-Length: 65537\r\n\r\nabc")),
    ROW("body too large for its route", 413,
        "POST /lines HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
        "Content-Length: 11\r\n\r\nabcdefghijk"),
    ROW("chunked body too large", 413, CHUNKED("10001\r\n")),
    ROW("chunks too large together", 413,
        "POST /lines HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n6\r\nabcdef\r\n0\r\n\r\n"),
    ROW("no media type", 415, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"),
    ROW("wrong media type", 415,
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: "
        "2\r\n\r\n{}"),
    ROW("wrong charset", 415,
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=latin1\r\n"
        "Content-Length: 2\r\n\r\n{}"),
    ROW("media type twice", 415,
        POST("Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")),
    ROW("encoded body", 415, POST("Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")),
    ROW("unknown expectation", 417, POST("Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}")),
    ROW("two expectations", 400,
        POST("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")),
    ROW("chunk size ends in LF", 400, CHUNKED("5\nabcde\r\n0\r\n\r\n")),
    ROW("chunk size ends in CR", 400, CHUNKED("5\rabcde\r\n0\r\n\r\n")),
    ROW("chunk ends in LF", 400, CHUNKED("5\r\nabcde\n0\r\n\r\n")),
    ROW("chunk longer than its size", 400, CHUNKED("5\r\nabcdef\r\n0\r\n\r\n")),
    ROW("chunk size with prefix", 400, CHUNKED("0x5\r\nabcde\r\n0\r\n\r\n")),
    ROW("chunk size with sign", 400, CHUNKED("+5\r\nabcde\r\n0\r\n\r\n")),
    ROW("chunk size with a blank before it", 400, CHUNKED(" 5\r\nabcde\r\n0\r\n\r\n")),
    ROW("chunk size with a blank behind it", 400, CHUNKED("5 \r\nabcde\r\n0\r\n\r\n")),
    ROW("chunk size empty", 400, CHUNKED("\r\nabcde\r\n0\r\n\r\n")),
    ROW("chunk size that wraps", 400, CHUNKED("10000000000000005\r\nabcde\r\n0\r\n\r\n")),
    ROW("chunk extension with LF", 400, CHUNKED("5;a\nabcde\r\n0\r\n\r\n")),
    ROW("chunk extension with NUL", 400, CHUNKED("5;a\0\r\nabcde\r\n0\r\n\r\n")),
    ROW("trailer field", 400, CHUNKED("0\r\nX: y\r\n\r\n")),
    ROW("trailer that smuggles", 400, CHUNKED("0\r\nContent-Length: 50\r\n\r\n")),
    ROW("last chunk ends in LF", 400, CHUNKED("0\r\n\n")),
};

static void expect_one_answer(const struct rejected *row, const char *reply)
{
    char line[32];
    (void)snprintf(line, sizeof line, "HTTP/1.1 %d ", row->http_status);
    cr_expect_eq(strncmp(reply, line, strlen(line)), 0, "%s: %.60s", row->name, reply);
    cr_expect_not_null(strstr(reply, "\r\nConnection: close\r\n"), "%s stays open", row->name);
    cr_expect_not_null(strstr(reply, "\r\nContent-Type: application/problem+json\r\n"), "%s",
                       row->name);
    const char *end = strchr(reply, '}');
    cr_expect(end != NULL && end[1] == '\0', "%s: more than one answer: %s", row->name, reply);
}

Test(http_reject, ambiguous_requests_get_one_answer_and_the_end_however_they_are_cut)
{
    struct harness *harness = harness_start(NULL);
    char *whole = malloc(HARNESS_REPLY_BYTES);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        /* What follows must never be taken for a request of its own. */
        char bytes[1024];
        memcpy(bytes, rows[i].bytes, rows[i].length);
        strcpy(bytes + rows[i].length, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        size_t length = rows[i].length + strlen(bytes + rows[i].length);
        strcpy(whole, harness_ask_to_close(harness, bytes, length, length));
        expect_one_answer(&rows[i], whole);
        const char *cut = harness_ask_to_close(harness, bytes, length, 1);
        cr_expect_str_eq(cut, whole, "%s differs byte by byte: %s", rows[i].name, cut);
    }
    cr_expect_eq(harness->handled, 0, "a rejected request reached a handler");
    cr_expect_eq(harness->observed, 2 * (int)(sizeof rows / sizeof rows[0]));
    free(whole);
    harness_stop(harness);
}

static size_t long_head(char *bytes, size_t length)
{
    size_t used = (size_t)sprintf(bytes, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ");
    memset(bytes + used, 'x', length - used - 4);
    memcpy(bytes + length - 4, "\r\n\r\n", 4);
    return length;
}

Test(http_reject, a_head_of_exactly_the_limit_passes_and_one_byte_more_gets_431)
{
    struct harness *harness = harness_start(NULL);
    static char bytes[16385];
    struct rejected row = {.name = "long head", .http_status = 431};
    expect_one_answer(&row, harness_ask_to_close(harness, bytes, long_head(bytes, 16385), 16385));
    int fd = harness_dial(harness);
    harness_forget(harness);
    harness_put(harness, fd, bytes, long_head(bytes, 16384));
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) == 1));
    cr_expect_not_null(strstr(harness->reply, "HTTP/1.1 200 OK"));
    (void)close(fd);
    harness_stop(harness);
}

Test(http_reject, more_than_100_headers_get_431)
{
    struct harness *harness = harness_start(NULL);
    struct rejected row = {.name = "many headers", .http_status = 431};
    char bytes[2048];
    size_t length = (size_t)sprintf(bytes, "GET /hello HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 100; i++)
        length += (size_t)sprintf(bytes + length, "A: b\r\n");
    length += (size_t)sprintf(bytes + length, "\r\n");
    expect_one_answer(&row, harness_ask_to_close(harness, bytes, length, length));
    harness_stop(harness);
}

Test(http_reject, endless_chunk_extensions_are_cut)
{
    struct harness *harness = harness_start(NULL);
    struct rejected row = {.name = "chunk extensions", .http_status = 400};
    char bytes[4096];
    size_t length = (size_t)sprintf(bytes, CHUNKED("1;"));
    memset(bytes + length, 'x', 1025);
    length += 1025;
    expect_one_answer(&row, harness_ask_to_close(harness, bytes, length, length));
    harness_stop(harness);
}
