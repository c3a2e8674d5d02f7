/*
 * Rebuild: makes another generation of the read model beside the live one, proves it equal to the
 * source, and makes it live, while writes and reads go on.
 *
 * From PostgreSQL: the ends of Kafka's partitions are captured first, then every user is read in
 * one snapshot and written with its version, then the log is applied from the captured offsets.
 * Whatever Kafka held before them was committed before the snapshot, so nothing is missed; what the
 * snapshot holds beyond them comes a second time, and its version says so. That is also why an
 * interrupted reading may go on with another, later snapshot: each user is as good as the snapshot
 * it is from, and the log since the first captured offsets brings all of them to the same end.
 *
 * From the log: the log is applied from its beginning, if it is still whole.
 *
 * From a restored database: as from PostgreSQL. Then nothing is kept that could bring back what the
 * restore took away: neither the generation that was live, nor the part of the log that the new one
 * does not need. A log that has lost its beginning is no source any more, for anybody.
 */
#ifndef TALLY_SERVICE_CTL_REBUILD_H
#define TALLY_SERVICE_CTL_REBUILD_H

#include "core/settings.h"
#include "service/ctl/verify.h"

enum tally_rebuild_source { TALLY_REBUILD_DATABASE, TALLY_REBUILD_LOG, TALLY_REBUILD_RESTORED };

struct tally_rebuild_progress {
    const char *what; /* "reading", "catching up", "verifying", "dropping" */
    const char *unit;
    int64_t done;
    int64_t total; /* 0: not known */
    const char *more;
};

struct tally_rebuild_options {
    const struct tally_settings *settings; /* borrowed */
    enum tally_rebuild_source source;
    bool restart;            /* an unfinished generation is dropped, not continued */
    bool accept_differences; /* switch all the same */
    int64_t rate_s;          /* users read a second at most; 0: as fast as it goes */
    int64_t grace_ms;        /* of the verification */
    /* From the calling thread; each may be NULL. */
    void (*on_progress)(void *context, const struct tally_rebuild_progress *progress);
    void (*on_difference)(void *context, const struct tally_verify_difference *difference);
    void (*on_note)(void *context, const char *text); /* a step begins or is skipped */
    void *context;
};

struct tally_rebuild_result {
    int64_t generation; /* the one that was built */
    int64_t previous;   /* live before; 0: none */
    bool resumed;       /* an unfinished one was continued */
    bool switched;      /* false: differences were found, and it stays unfinished */
    int64_t users;      /* written by this run */
    int64_t events;     /* taken from the log by this run */
    int64_t dropped;    /* keys of generations that are not kept any more */
    int64_t forgotten;  /* records cut off the log, from a restored database */
    int64_t switch_us;  /* for which the live generation stood still */
    struct tally_verify_result verified;
};

/* Blocks. KEY_IN_USE: another one is at work; FENCED: another writer came in between; CONFIG: the
 * log does not hold what is needed; otherwise as the servers fail. After any failure, and after a
 * kill, the next call continues what is not live yet. Once it is live (`result->switched`) only
 * older generations, or from a restored database a part of the log, may be left: the next call
 * builds another generation, and removes what was left with what has become old by then. It does
 * not go on with the log alone: the database may have been restored again meanwhile. */
enum tally_status tally_rebuild_run(const struct tally_rebuild_options *options,
                                    struct tally_rebuild_result *result,
                                    struct tally_error *error) TALLY_MUST_CHECK;

/* Makes the generation that was live before the present one live again. Its projectors bring it up
 * to date; until then reads of it answer read-model-incomplete. NOT_FOUND: none is kept; CONFIG:
 * the log does not hold what it lacks. */
struct tally_rollback_result {
    int64_t generation; /* live now */
    int64_t previous;   /* live before, kept now */
    int64_t behind;     /* events to be applied until it is complete */
    int64_t switch_us;
};
enum tally_status tally_rebuild_rollback(const struct tally_settings *settings,
                                         struct tally_rollback_result *result,
                                         struct tally_error *error) TALLY_MUST_CHECK;

#endif
