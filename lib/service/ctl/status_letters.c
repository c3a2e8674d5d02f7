#include "pg/blocking.h"
#include "service/ctl/letter_book.h"
#include "service/ctl/status_probe.h"

#include <inttypes.h>
#include <stdio.h>

/* Of a partition; about a million letters are read in it. */
enum { WALK_MS = TALLY_PROBE_MS * 2 / 3 };

static bool on_letter(void *context, const struct tally_letter *letter)
{
    struct tally_letter_entry entry;
    tally_letter_book_take(context, letter, &entry);
    return true;
}

/* What was not read in time is not called well: any of it may be open. */
static void add_count(json_t *components, const struct tally_letter_book *book, int64_t unread)
{
    const int64_t kept = book->open + book->done + book->repeats + unread;
    char unread_text[TALLY_PROBE_SUMMARY_BYTES] = "", repeats[TALLY_PROBE_SUMMARY_BYTES] = "";
    if (book->repeats > 0)
        (void)snprintf(repeats, sizeof repeats, ", %" PRId64 " of them repeats", book->repeats);
    if (unread > 0)
        (void)snprintf(unread_text, sizeof unread_text, ", %" PRId64 " not read in time", unread);
    const bool well = book->open == 0 && unread == 0;
    tally_probe_add(components, "dead-letters", well ? "up" : "unhealthy",
                    json_pack("{s:I,s:I,s:I,s:I}", "open", (json_int_t)book->open, "kept",
                              (json_int_t)kept, "repeats", (json_int_t)book->repeats, "unread",
                              (json_int_t)unread),
                    "%" PRId64 " open of %" PRId64 " kept%s%s%s", book->open, kept, repeats,
                    unread_text, well ? "" : "; see `tallyctl dlq list`");
}

void tally_probe_letters(const struct tally_settings *settings, json_t *components)
{
    struct tally_error error;
    struct tally_letter_book book = {0};
    const struct tally_letter_walk walk = {
        .settings = settings, .timeout_ms = WALK_MS, .on_letter = on_letter, .context = &book};
    PGconn *connection = NULL;
    int64_t unread = 0;
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl status", &connection, &error);
    if (status == TALLY_OK)
        status = tally_letter_book_open(&book, connection, settings->dlq_topic, &error);
    PQfinish(connection);
    if (status == TALLY_OK)
        status = tally_letter_walk(&walk, &unread, &error);
    if (status == TALLY_OK)
        add_count(components, &book, unread);
    else
        tally_probe_add(components, "dead-letters",
                        status == TALLY_UNAVAILABLE ? "down" : "unhealthy", json_object(),
                        "not known: %s", error.text);
    tally_letter_book_close(&book);
}
