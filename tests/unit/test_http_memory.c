/* Linked with --wrap for malloc, calloc and realloc: each allocation of Tally's own code fails in
 * turn, and the server must answer or close, and serve again. */
#include "test_http_harness.h"

TestSuite(http_memory, .timeout = 300);

static long countdown = -1; /* allocations until one fails; < 0: none does */
static bool has_failed;

static bool fails(void)
{
    if (countdown < 0 || countdown-- > 0)
        return false;
    has_failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

/* A conversation that takes every kind of memory; false where the server closed early. */
static bool talk(struct harness *harness, int *answers)
{
    static const char bytes[] =
        "GET /items/1?q=2 HTTP/1.1\r\nHost: a\r\n\r\n"
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"
        "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Content-Length: 9000\r\n\r\n";
    static char body[9000];
    memset(body, ' ', sizeof body);
    body[0] = '{';
    body[1] = '}';
    int fd = harness_dial(harness);
    harness_forget(harness);
    harness_put_text(harness, fd, bytes);
    harness_put(harness, fd, body, sizeof body);
    harness_put_text(harness, fd, "DELETE /none HTTP/1.1\r\nHost: a\r\n\r\n");
    bool closed = false;
    HARNESS_WAIT(harness, (closed = harness_read(harness, fd)) || harness_answers(harness) == 4);
    *answers = harness_answers(harness);
    (void)close(fd);
    HARNESS_WAIT(harness, tally_http_server_connections(harness->server) == 0);
    return !closed;
}

Test(http_memory, any_allocation_may_fail_and_the_server_goes_on)
{
    int answers = 0;
    int failures = 0;
    for (long nth = 0;; nth++) {
        struct harness *harness = harness_start(NULL);
        has_failed = false;
        countdown = nth;
        (void)talk(harness, &answers);
        countdown = -1;
        failures += has_failed ? 1 : 0;
        cr_expect(talk(harness, &answers), "no service after failure %ld", nth);
        cr_expect_eq(answers, 4);
        harness_stop(harness);
        if (!has_failed)
            break;
    }
    cr_expect_gt(failures, 8, "the wrapped functions are not in use");
}

Test(http_memory, a_server_that_finds_no_memory_says_so)
{
    struct event_base *base = event_base_new();
    struct tally_http_server_options options = {.listen = "127.0.0.1:0"};
    struct tally_http_server *server = NULL;
    struct tally_error error = {0};
    for (long nth = 0; nth < 2; nth++) {
        countdown = nth;
        enum tally_status status =
            tally_http_server_new(base, &options, harness_routes, 1, NULL, &server, &error);
        countdown = -1;
        cr_expect_eq(status, TALLY_NO_MEMORY, "allocation %ld", nth);
        cr_expect_null(server);
    }
    event_base_free(base);
}
