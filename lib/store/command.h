/*
 * Command: one write as the write model takes it, and what became of it.
 */
#ifndef TALLY_STORE_COMMAND_H
#define TALLY_STORE_COMMAND_H

#include "core/status.h"

#include <stdint.h>

/* X(name, text for metrics and logs). The number is the `op` of apply_commands() in
 * schema/postgres, which runs a batch in this order. */
#define TALLY_COMMAND_LIST(X)           \
    X(CREATE_USER, "create_user")       \
    X(UPDATE_USER, "update_user")       \
    X(CREATE_POST, "create_post")       \
    X(CREATE_COMMENT, "create_comment") \
    X(DELETE_COMMENT, "delete_comment") \
    X(DELETE_POST, "delete_post")       \
    X(DELETE_USER, "delete_user")

enum tally_command_kind {
#define X(name, text) TALLY_COMMAND_##name,
    TALLY_COMMAND_LIST(X)
#undef X
        TALLY_COMMAND_KIND_COUNT
};

const char *tally_command_kind_text(enum tally_command_kind kind);

#define TALLY_REQUEST_HASH_BYTES 32

/* All texts are borrowed, valid UTF-8, and NULL where the kind does not use them. */
struct tally_command {
    enum tally_command_kind kind;
    int64_t user_id;   /* the author, or the user to change or delete; 0: none */
    int64_t target_id; /* the post or comment; 0: none */
    int64_t if_match;  /* version the user must have; 0: any */
    const char *name;  /* of an update: NULL keeps it, as for the next two */
    const char *email;
    const char *avatar; /* of an update: "" removes it */
    const char *title;
    const char *body;
    const char *caller;          /* whose keys they are; never NULL where there is a key */
    const char *idempotency_key; /* NULL: none */
    unsigned char request_hash[TALLY_REQUEST_HASH_BYTES]; /* meaningful with a key */
    const char *traceparent;
};

struct tally_command_outcome {
    enum tally_status status;
    bool replayed;   /* the stored outcome of an earlier request with this key */
    int64_t id;      /* what was made or removed; 0 unless OK, as the next two */
    int64_t user_id; /* whose version moved */
    int64_t version; /* theirs after it */
};

/* Bytes a command takes in a batch, about. */
size_t tally_command_bytes(const struct tally_command *command);

#endif
