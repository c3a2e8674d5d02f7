/*
 * Letter: a dead letter as operators see it, and the walk over the topic that holds them. The
 * projector writes them (service/projector/dead_letters.h).
 */
#ifndef TALLY_SERVICE_CTL_LETTER_H
#define TALLY_SERVICE_CTL_LETTER_H

#include "core/settings.h"
#include "kafka/scan.h"
#include "store/closed_letters.h"

struct tally_letter {
    struct tally_letter_place place;
    const struct tally_record *record; /* borrowed during the walk; key, value and headers */
    int64_t user_id;                   /* that the key names; 0: none */
    int64_t version;                   /* the event's; 0: not known */
    char type[64];                     /* ce_type; "" where there is none */
    char reason[TALLY_ERROR_TEXT_BYTES];
    char source_topic[TALLY_SETTING_TEXT_BYTES];
    int32_t source_partition; /* -1: not known */
    int64_t source_offset;    /* -1: not known */
};

/* Reads a record of the topic. Pure; any record is a letter. */
void tally_letter_read(const struct tally_record *record, int64_t timestamp_ms,
                       struct tally_letter *letter);

/* "PARTITION:OFFSET", or "OFFSET" in partition 0; false for anything else. */
bool tally_letter_place_parse(const char *text, int32_t *partition, int64_t *offset);

struct tally_letter_walk {
    const struct tally_settings *settings;
    int64_t timeout_ms; /* of each partition */
    bool up_to_one;     /* alone those of `partition`, the letter at `offset` being the last */
    int32_t partition;
    int64_t offset;
    /* False ends the walk. */
    bool (*on_letter)(void *context, const struct tally_letter *letter);
    void *context;
};

/* Calls on_letter for all letters, by partition and offset. `*left` receives how many offsets were
 * not reached in time. NOT_FOUND: there is no topic. */
enum tally_status tally_letter_walk(const struct tally_letter_walk *walk, int64_t *left,
                                    struct tally_error *error) TALLY_MUST_CHECK;

#endif
