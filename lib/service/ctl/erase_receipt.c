#include "service/ctl/erase_receipt.h"

#include "core/clock.h"
#include "core/id.h"
#include "service/ctl/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, FILE_MODE = 0600, TEXT_BYTES = 1024 };

static json_t *moment(int64_t at_us)
{
    char text[TALLY_TIMESTAMP_BYTES];
    if (at_us <= 0)
        return json_null();
    tally_clock_format(at_us, text);
    return json_string(text);
}

/* --- removed -----------------------------------------------------------------------------------
 */

static json_t *removed_rows(const struct tally_erasure *book)
{
    return json_pack("{s:i,s:o,s:o,s:I,s:I,s:I,s:o,s:b}", "profiles", 1, "posts",
                     book->counted ? json_integer(book->posts) : json_null(), "comments",
                     book->counted ? json_integer(book->comments) : json_null(), "eventProfiles",
                     (json_int_t)book->events_redacted, "idempotencyKeys",
                     (json_int_t)book->keys_removed, "deadLetterReasons",
                     (json_int_t)book->reasons_redacted, "vacuumedAt", moment(book->vacuumed_at_us),
                     "tablesWrittenAnew", book->tables_written_at_us != 0);
}

static bool files_denied(const struct tally_erase_result *result)
{
    return result->appends == TALLY_ERASE_FILE_DENIED ||
           result->snapshot == TALLY_ERASE_FILE_DENIED;
}

/* null: Redis keeps no files. */
static json_t *files_written(const struct tally_erase_result *result)
{
    if (!result->parts[TALLY_ERASE_FILES].done || files_denied(result))
        return json_false();
    return result->book.files_written_at_us != 0 ? json_true() : json_null();
}

static json_t *removed_model(const struct tally_erase_result *result)
{
    json_t *list = json_array();
    for (size_t i = 0; i < result->generation_count; i++) {
        const struct tally_erase_generation *generation = &result->generations[i];
        tally_ctl_json_append(&list, json_pack("{s:I,s:s,s:s}", "generation",
                                               (json_int_t)generation->entry.number, "role",
                                               tally_generation_role_text(generation->entry.role),
                                               "state", generation->state));
    }
    return json_pack("{s:o,s:I,s:o}", "generations", list, "keptProfiles",
                     (json_int_t)result->book.profiles_removed, "filesWrittenAnew",
                     files_written(result));
}

/* --- what remains ------------------------------------------------------------------------------
 */

static void add_remaining(json_t **list, const char *where, const char *what, int64_t expires_ms)
{
    tally_ctl_json_append(list,
                          json_pack("{s:s,s:s,s:o}", "where", where, "what", what, "expiresAt",
                                    moment(expires_ms > 0 ? expires_ms * 1000 : 0)));
}

static void add_log(json_t **list, const struct tally_erase_options *options,
                    const struct tally_erase_result *result)
{
    const struct tally_erase_log *log = &result->log;
    const struct tally_erasure *book = &result->book;
    const bool gone = book->log_end >= 0 && log->low >= book->log_end;
    if (log->events.partitions == 0 || gone)
        return;
    char where[TEXT_BYTES], what[TEXT_BYTES];
    (void)snprintf(where, sizeof where, "Kafka topic %s", options->settings->topic);
    (void)snprintf(what, sizeof what,
                   "records with the profile, ended by a tombstone; the log cannot give up single "
                   "records, they go with their segments (retention.ms %" PRId64
                   ", segment.ms %" PRId64 ")",
                   log->events.retention_ms, log->events.segment_ms);
    /* Not published yet: the time runs from its publication, and is not known. */
    add_remaining(list, where, what,
                  book->published_at_us == 0
                      ? -1
                      : tally_erase_topic_expiry_ms(&log->events, book->published_at_us / 1000));
}

static void add_letters(json_t **list, const struct tally_erase_options *options,
                        const struct tally_erase_log *log)
{
    const struct {
        int64_t count;
        int64_t written_at_ms;
        const char *what;
    } kinds[] = {
        {log->count, log->written_at_ms, "dead letters of the user"},
        {log->nameless, log->nameless_at_ms,
         "dead letters whose key names nobody, and so perhaps this user"},
    };
    char where[TEXT_BYTES], what[TEXT_BYTES];
    (void)snprintf(where, sizeof where, "Kafka topic %s", options->settings->dlq_topic);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (kinds[i].count == 0)
            continue;
        (void)snprintf(what, sizeof what, "%" PRId64 " %s", kinds[i].count, kinds[i].what);
        add_remaining(list, where, what,
                      tally_erase_topic_expiry_ms(&log->letters, kinds[i].written_at_ms));
    }
}

static json_t *remains(const struct tally_erase_options *options,
                       const struct tally_erase_result *result)
{
    json_t *list = json_array();
    add_log(&list, options, result);
    add_letters(&list, options, &result->log);
    if (options->vacuum == TALLY_ERASE_VACUUM_NONE && result->book.vacuumed_at_us == 0)
        add_remaining(&list, "PostgreSQL",
                      "removed row versions and the planner's statistics, until autovacuum", -1);
    if (result->appends == TALLY_ERASE_FILE_DENIED)
        add_remaining(&list, "Redis",
                      "commands in its append-only file, until Redis writes it anew (BGREWRITEAOF "
                      "was refused)",
                      -1);
    if (result->snapshot == TALLY_ERASE_FILE_DENIED)
        add_remaining(
            &list, "Redis",
            "its snapshot, where it makes any, until Redis makes the next one (CONFIG GET "
            "save or BGSAVE was refused)",
            -1);
    return list;
}

/* --- the rest ----------------------------------------------------------------------------------
 */

static json_t *list_of(const char *const *texts)
{
    json_t *list = json_array();
    for (; *texts != NULL; texts++)
        tally_ctl_json_append(&list, json_string(*texts));
    return list;
}

static json_t *kept(void)
{
    static const char *const texts[] = {
        "PostgreSQL: id, version and the moments of creation and deletion, so that neither number "
        "comes again; events by number, version, type and time; this book-keeping",
        "read model: version and the mark of deletion; the HyperLogLogs of active users hold "
        "hashes of ids and no personal data",
        NULL,
    };
    return list_of(texts);
}

static json_t *not_covered(bool whole)
{
    static const char *const texts[] = {
        "backups of PostgreSQL and archived WAL made before: they hold the data until they "
        "expire; after restoring one, erase again",
        "PostgreSQL's own WAL until its segments are used again",
        "hashes of requests that were refused, in idempotency_keys: 24 hours",
        "copies of Redis's files made before, and the files of its replicas until they write them "
        "anew",
        "logs: they hold ids and trace ids, no bodies",
        "what clients were answered, and what other consumers took from the topic",
        NULL,
    };
    json_t *list = list_of(texts);
    if (!whole)
        tally_ctl_json_append(
            &list, json_string("free space inside PostgreSQL's files and the branches of its "
                               "indexes, which no query shows, until they are written over; "
                               "--vacuum=full leaves none"));
    return list;
}

static json_t *pending(const struct tally_erase_result *result)
{
    json_t *list = json_array();
    for (int part = 0; part < TALLY_ERASE_PART_COUNT; part++)
        if (!result->parts[part].done)
            tally_ctl_json_append(&list,
                                  json_pack("{s:s,s:s}", "part",
                                            tally_erase_part_text((enum tally_erase_part)part),
                                            "why", result->parts[part].why));
    return list;
}

json_t *tally_erase_receipt(const struct tally_erase_options *options,
                            const struct tally_erase_result *result, const char *again)
{
    const struct tally_erasure *book = &result->book;
    char user[TALLY_ID_TEXT_BYTES];
    (void)tally_id_format(options->user_id, user);
    return json_pack("{s:s,s:b,s:o,s:o,s:{s:o,s:o},s:o,s:o,s:o,s:o,s:s?}", "user", user, "complete",
                     result->complete, "begunAt", moment(book->begun_at_us), "completedAt",
                     moment(book->completed_at_us), "removed", "postgresql", removed_rows(book),
                     "readModel", removed_model(result), "remains", remains(options, result),
                     "kept", kept(), "notCovered", not_covered(book->tables_written_at_us != 0),
                     "pending", pending(result), "runAgain", result->complete ? NULL : again);
}

static const char *text_of(const json_t *object, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : otherwise;
}

static void print_counts(const json_t *object)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (json_is_integer(value))
            (void)printf("  %-20s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
        else if (json_is_null(value))
            (void)printf("  %-20s not known: it was deleted before, or is not done\n", name);
        else if (json_is_string(value))
            (void)printf("  %-20s %s\n", name, json_string_value(value));
    }
}

static void print_texts(const char *title, const json_t *list)
{
    size_t i = 0;
    json_t *row = NULL;
    if (json_array_size(list) > 0)
        (void)printf("%s\n", title);
    json_array_foreach(list, i, row)
    {
        if (json_is_string(row))
            (void)printf("  - %s\n", json_string_value(row));
        else if (json_object_get(row, "part") != NULL)
            (void)printf("  - %s: %s\n", text_of(row, "part", ""), text_of(row, "why", ""));
        else if (json_object_get(row, "where") != NULL)
            (void)printf("  - %s: %s; gone by %s\n", text_of(row, "where", ""),
                         text_of(row, "what", ""), text_of(row, "expiresAt", "a time not known"));
        else
            (void)printf("  - generation %" JSON_INTEGER_FORMAT " (%s): %s\n",
                         json_integer_value(json_object_get(row, "generation")),
                         text_of(row, "role", ""), text_of(row, "state", ""));
    }
}

void tally_erase_receipt_print(const json_t *receipt)
{
    const json_t *removed = json_object_get(receipt, "removed");
    const bool complete = json_is_true(json_object_get(receipt, "complete"));
    (void)printf("user %s: %s\n", text_of(receipt, "user", ""),
                 complete ? "erased" : "the erasure is not complete");
    (void)printf("begun %s, completed %s\n", text_of(receipt, "begunAt", "-"),
                 text_of(receipt, "completedAt", "-"));
    (void)puts("removed from PostgreSQL:");
    print_counts(json_object_get(removed, "postgresql"));
    print_texts("removed from the read model:",
                json_object_get(json_object_get(removed, "readModel"), "generations"));
    print_texts("remains for a time:", json_object_get(receipt, "remains"));
    print_texts("kept:", json_object_get(receipt, "kept"));
    print_texts("not covered:", json_object_get(receipt, "notCovered"));
    print_texts("pending:", json_object_get(receipt, "pending"));
    if (!complete)
        (void)printf("run again: %s\n", text_of(receipt, "runAgain", ""));
}

static bool write_all(int file, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        const ssize_t written = write(file, text, left);
        if (written <= 0)
            return false;
        text += written;
        left -= (size_t)written;
    }
    return write(file, "\n", 1) == 1 && fsync(file) == 0;
}

enum tally_status tally_erase_receipt_write(const json_t *receipt, const char *path,
                                            struct tally_error *error)
{
    char unfinished[PATH_BYTES];
    const int length = snprintf(unfinished, sizeof unfinished, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof unfinished)
        return tally_fail(error, TALLY_IO, "the receipt's path is too long");
    char *text = json_dumps(receipt, JSON_INDENT(2));
    if (text == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the receipt");
    const int file = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
    bool written = file >= 0 && write_all(file, text);
    if (file >= 0 && close(file) != 0)
        written = false;
    free(text);
    if (written && rename(unfinished, path) == 0)
        return TALLY_OK;
    enum tally_status status =
        tally_fail(error, TALLY_IO, "the receipt %s cannot be written: %s", path, strerror(errno));
    if (file >= 0)
        (void)unlink(unfinished);
    return status;
}
