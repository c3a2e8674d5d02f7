/*
 * Store fixture: a database and a batcher whose commands are waited for.
 */
#ifndef TALLY_TESTS_STORE_FIXTURE_H
#define TALLY_TESTS_STORE_FIXTURE_H

#include "database.h"
#include "store/batcher.h"

#include <event2/event.h>

struct writer {
    struct event_base *base;
    struct tally_batcher *batcher;
    struct event *tick; /* so that a bounded wait looks at the clock */
    size_t pending;
    int committed; /* calls of on_committed */
    int replayed;  /* batches run again one by one */
    char failure[TALLY_ERROR_TEXT_BYTES];
};

/* A command and its outcome; must stay where it is until writer_wait(). */
struct job {
    struct tally_command command;
    struct tally_command_outcome outcome;
    int calls;
    struct writer *writer;
};

/* Opens a batcher of `connections`; writer_open() waits until all are up. */
void writer_start(struct writer *writer, const char *dsn, size_t connections, int64_t timeout_ms);
void writer_open(struct writer *writer, const char *dsn, size_t connections, int64_t timeout_ms);
void writer_close(struct writer *writer);
/* Submits; a refusal at once becomes the outcome. */
void writer_submit(struct writer *writer, struct job *job);
/* Until all submitted have their outcome; fails the test after 120 s, or where one has two. */
void writer_wait(struct writer *writer);
/* Turns the loop until `done` says so; fails the test after 120 s. */
void writer_until(struct writer *writer, bool (*done)(void *context), void *context);
struct tally_command_outcome writer_run(struct writer *writer, struct tally_command command);

/* Shorthands that must succeed; return the id. */
int64_t make_user(struct writer *writer, const char *email);
int64_t make_post(struct writer *writer, int64_t author);
int64_t make_comment(struct writer *writer, int64_t post, int64_t author);

struct tally_command create_user(const char *email);
struct tally_command create_post(int64_t author);
struct tally_command create_comment(int64_t post, int64_t author);
struct tally_command delete_comment(int64_t comment);
struct tally_command delete_post(int64_t post);
struct tally_command delete_user(int64_t user);
struct tally_command update_email(int64_t user, const char *email);

/* Sweeps until there is nothing more to do; returns the rows. */
long long sweep_all(PGconn *connection);
/* Fails the test unless each user's events are numbered 1 … version in the order of seq, and add up
 * to a recount of posts and comments. */
void expect_sound(PGconn *connection);

#endif
