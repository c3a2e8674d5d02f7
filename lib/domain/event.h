/*
 * Event: what happened to one user's counts, and its form on the wire: CloudEvents 1.0 in Kafka's
 * binary mode (https://github.com/cloudevents/spec, kafka-protocol-binding.md).
 *
 * Counting needs only the key and the headers; the value is parsed where the profile changes. Pure.
 */
#ifndef TALLY_DOMAIN_EVENT_H
#define TALLY_DOMAIN_EVENT_H

#include "core/buffer.h"
#include "core/trace.h"

#include <stdint.h>

/* X(name, ce_type, change of the post count, of the comment count). */
#define TALLY_EVENT_LIST(X)                     \
    X(USER_CREATED, "user.created", 0, 0)       \
    X(USER_UPDATED, "user.updated", 0, 0)       \
    X(USER_DELETED, "user.deleted", 0, 0)       \
    X(POST_CREATED, "post.created", 1, 0)       \
    X(POST_DELETED, "post.deleted", -1, 0)      \
    X(COMMENT_CREATED, "comment.created", 0, 1) \
    X(COMMENT_DELETED, "comment.deleted", 0, -1)

enum tally_event_type {
#define X(name, text, posts, comments) TALLY_EVENT_##name,
    TALLY_EVENT_LIST(X)
#undef X
        TALLY_EVENT_TYPE_COUNT
};

/* Bounds of a profile in bytes: 4 for each of the characters the write model allows. */
#define TALLY_NAME_BYTES (4 * 200 + 1)
#define TALLY_EMAIL_BYTES (4 * 254 + 1)
#define TALLY_AVATAR_BYTES (4 * 2048 + 1)

/* What one event says, for the fold. */
struct tally_event {
    enum tally_event_type type;
    int64_t user_id;
    int64_t version;   /* > 0 */
    int32_t timeline;  /* PostgreSQL timeline it was written on, > 0 */
    int64_t at_us;     /* wall clock of the write */
    const char *value; /* JSON, borrowed from the message; NULL for a tombstone */
    size_t value_length;
};

/* The part of a user that only user.created and user.updated carry. */
struct tally_profile {
    char *name;   /* owned, never NULL once parsed */
    char *email;  /* owned, never NULL once parsed */
    char *avatar; /* owned, or NULL */
};

const char *tally_event_type_text(enum tally_event_type type);
/* False where `text` (of `length` bytes) names no type. */
bool tally_event_type_parse(const char *text, size_t length, enum tally_event_type *type);
/* Change of the counts; 0 for the user.* types. */
int tally_event_posts_delta(enum tally_event_type type);
int tally_event_comments_delta(enum tally_event_type type);

/* One message header as bytes that need not be terminated. */
struct tally_header {
    const char *name;
    const char *value;
    size_t length;
};

/* Reads key and headers of a message into `event`, without looking into the value. Fails with
 * TALLY_INVALID and a reason a person can act on (unknown type, no version, key that is no id,
 * ce_id that contradicts the key, …). Where the key tells a user, event->user_id is set even so,
 * else it is 0: the one whose answer must say that it is degraded. */
enum tally_status tally_event_decode(struct tally_event *event, const void *key, size_t key_length,
                                     const void *value, size_t value_length,
                                     const struct tally_header *headers, size_t header_count,
                                     struct tally_error *error) TALLY_MUST_CHECK;

/* Parses the value of user.created or user.updated; the caller frees with tally_profile_clear().
 * INVALID: it is none; NO_MEMORY: nobody knows. */
enum tally_status tally_profile_parse(struct tally_profile *profile, const char *value,
                                      size_t length, struct tally_error *error) TALLY_MUST_CHECK;
void tally_profile_clear(struct tally_profile *profile);

/* The headers of an event about to be published; their texts live in the struct. */
#define TALLY_EVENT_HEADER_COUNT 10
struct tally_event_headers {
    struct tally_header list[TALLY_EVENT_HEADER_COUNT];
    size_t count; /* fewer than the bound where there is no traceparent, or no value */
    char id[48], subject[32], time[32], sequence[24], timeline[16];
    char parent[TALLY_TRACEPARENT_BYTES];
};
/* `source` must outlive the headers; `traceparent` may be NULL or invalid, and is then left out. */
void tally_event_encode_headers(struct tally_event_headers *headers,
                                const struct tally_event *event, const char *source,
                                const char *traceparent);

#endif
