/*
 * Connection: one blocking connection to Redis with bounded waits, for the projector and the tools.
 *
 * Commands may be pipelined: append any number, then read as many replies, in order. Any failure of
 * the transport breaks the connection for good; the owner closes it and opens another, because
 * which replies are still to come is not known any more. One thread at a time.
 */
#ifndef TALLY_REDIS_CONNECTION_H
#define TALLY_REDIS_CONNECTION_H

#include "core/status.h"
#include "redis/url.h"

#include <hiredis/hiredis.h>
#include <stdint.h>

struct tally_redis;

/* Connects, authenticates and selects the database; each step waits at most `timeout_ms`, and so
 * does every later read and write. TALLY_UNAVAILABLE where the server does not answer or is still
 * loading, TALLY_CONFIG where it refuses the password or the database. */
enum tally_status tally_redis_open(const struct tally_redis_url *url, int64_t timeout_ms,
                                   struct tally_redis **redis,
                                   struct tally_error *error) TALLY_MUST_CHECK;
/* The same from the text of url.h. */
enum tally_status tally_redis_open_text(const char *url, int64_t timeout_ms,
                                        struct tally_redis **redis,
                                        struct tally_error *error) TALLY_MUST_CHECK;
void tally_redis_close(struct tally_redis **redis);
/* Whether a transport failure has happened. */
bool tally_redis_broken(const struct tally_redis *redis);

/* Appends one command as hiredis formats it (%s, %b, %lld); nothing is sent yet. */
enum tally_status tally_redis_append(struct tally_redis *redis, struct tally_error *error,
                                     const char *format, ...) TALLY_MUST_CHECK;
/* Appends bytes that already are whole commands in RESP, copied; nothing is sent yet. */
enum tally_status tally_redis_append_raw(struct tally_redis *redis, const char *bytes,
                                         size_t length, struct tally_error *error) TALLY_MUST_CHECK;
/* Sends what is appended and returns without waiting for replies. */
enum tally_status tally_redis_flush(struct tally_redis *redis,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Sends what is appended and waits for the next reply, which the caller frees with
 * freeReplyObject(). An error reply is a reply (REDIS_REPLY_ERROR), except that -LOADING, -READONLY
 * and -MASTERDOWN are failures (TALLY_UNAVAILABLE): this is no server to write to. */
enum tally_status tally_redis_receive(struct tally_redis *redis, redisReply **reply,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* One command and its reply; no replies may be outstanding. An error reply is a failure
 * with the server's text: TALLY_UNAVAILABLE where it passes by itself, else TALLY_PROTOCOL. */
enum tally_status tally_redis_call(struct tally_redis *redis, redisReply **reply,
                                   struct tally_error *error, const char *format,
                                   ...) TALLY_MUST_CHECK;

/* Copies the value of `name` out of INFO's lines "name:value"; false, and nothing is copied, where
 * it is not there or longer than `bytes` less one. */
bool tally_redis_info_value(const char *info, const char *name, char *value, size_t bytes);

/* Whether this server may hold the read model: it must be a master, and must not evict keys, or
 * counts would vanish without a trace. TALLY_UNAVAILABLE for a replica, which a failover may
 * promote; TALLY_CONFIG, with what to set, for the eviction policy. */
enum tally_status tally_redis_check_server(struct tally_redis *redis,
                                           struct tally_error *error) TALLY_MUST_CHECK;

/* Whether an error reply is one that passes by itself: a server that starts, is full, fails over or
 * has lost its replicas (also NOSCRIPT, after which the script is loaded anew). `text` is the
 * reply's. */
bool tally_redis_error_passes(const char *text);

#endif
