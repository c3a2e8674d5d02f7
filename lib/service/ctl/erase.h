/*
 * Erase: removes the personal data of one user from everywhere Tally keeps it, part by part. Each
 * part may be repeated, so that an interrupted erasure is run again and goes on. Blocking.
 */
#ifndef TALLY_SERVICE_CTL_ERASE_H
#define TALLY_SERVICE_CTL_ERASE_H

#include "core/settings.h"
#include "service/ctl/erase_log.h"
#include "store/erasure.h"
#include "view/generation.h"

enum tally_erase_vacuum {
    TALLY_ERASE_VACUUM_PLAIN,
    TALLY_ERASE_VACUUM_FULL, /* tables are written anew, under a lock that stops their users */
    TALLY_ERASE_VACUUM_NONE, /* left to autovacuum */
};

/* X(name, text): in the order in which they are done. */
#define TALLY_ERASE_PART_LIST(X) \
    X(ROWS, "rows")              \
    X(RELAY, "relay")            \
    X(MODEL, "read-model")       \
    X(LETTERS, "dead-letters")   \
    X(LOG, "log")                \
    X(VACUUM, "vacuum")          \
    X(FILES, "redis-files")

enum tally_erase_part {
#define X(name, text) TALLY_ERASE_##name,
    TALLY_ERASE_PART_LIST(X)
#undef X
        TALLY_ERASE_PART_COUNT
};
const char *tally_erase_part_text(enum tally_erase_part part);

#define TALLY_ERASE_WHY_BYTES TALLY_ERROR_TEXT_BYTES

struct tally_erase_state {
    bool done;
    char why[TALLY_ERASE_WHY_BYTES]; /* what it waits for, and what to do about it */
};

struct tally_erase_generation {
    struct tally_generation_entry entry;
    const char
        *state; /* "deleted", "absent", "removed" (now, from one that is kept) or "pending" */
};

/* What became of one kind of Redis's files. */
enum tally_erase_file {
    TALLY_ERASE_FILE_NONE, /* Redis keeps none, or was not asked */
    TALLY_ERASE_FILE_WRITTEN,
    TALLY_ERASE_FILE_DENIED, /* Redis does not let us write it anew, or say whether there is one */
};

struct tally_erase_result {
    struct tally_erasure book;
    struct tally_erase_state parts[TALLY_ERASE_PART_COUNT];
    struct tally_erase_generation generations[TALLY_GENERATIONS_MOST];
    size_t generation_count;
    struct tally_erase_log log;
    enum tally_erase_file appends;  /* the append-only file */
    enum tally_erase_file snapshot; /* the RDB file */
    bool complete;                  /* every part is done */
};

struct tally_erase_options {
    const struct tally_settings *settings; /* borrowed */
    int64_t user_id;
    int64_t wait_ms; /* for what others do; what erase does itself is not cut off */
    enum tally_erase_vacuum vacuum;
    /* A part has to wait; may be NULL. */
    void (*on_wait)(void *context, enum tally_erase_part part, const char *why);
    void *context;
};

/* `result` is large: allocate it. A part that cannot be done is no failure. USER_NOT_FOUND: there
 * never was such a user. */
enum tally_status tally_erase_run(const struct tally_erase_options *options,
                                  struct tally_erase_result *result,
                                  struct tally_error *error) TALLY_MUST_CHECK;

/* The part READ-MODEL: every generation. What is not done yet says so in its state's `why`. */
enum tally_status tally_erase_model(const struct tally_erase_options *options, PGconn *connection,
                                    struct tally_erase_result *result,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* The part REDIS-FILES: has Redis write its files anew, and waits until `due_us` (monotonic). What
 * Redis denies is said in the result, and does not keep the part from being done. */
enum tally_status tally_erase_files(const struct tally_settings *settings, int64_t due_us,
                                    struct tally_erase_result *result,
                                    struct tally_error *error) TALLY_MUST_CHECK;

#endif
