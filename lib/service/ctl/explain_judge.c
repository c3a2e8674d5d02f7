#include "service/ctl/explain_judge.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { RANGE_BYTES = 64 };

static void say(struct tally_explain_verdict *verdict, bool explained, const char *format, ...)
    TALLY_PRINTF(3, 4);

static void say(struct tally_explain_verdict *verdict, bool explained, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(verdict->text, sizeof verdict->text, format, arguments);
    va_end(arguments);
    verdict->explained = explained;
}

static void append(struct tally_explain_verdict *verdict, const char *format, ...)
    TALLY_PRINTF(2, 3);

static void append(struct tally_explain_verdict *verdict, const char *format, ...)
{
    const size_t length = strlen(verdict->text);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(verdict->text + length, sizeof verdict->text - length, format, arguments);
    va_end(arguments);
}

/* "version 18 waits" or "versions 18-19 wait", with the verbs given. */
static void name_versions(char text[RANGE_BYTES], int64_t first, int64_t last, const char *one,
                          const char *many)
{
    if (first == last)
        (void)snprintf(text, RANGE_BYTES, "version %" PRId64 " %s", first, one);
    else
        (void)snprintf(text, RANGE_BYTES, "versions %" PRId64 "-%" PRId64 " %s", first, last, many);
}

/* Where the events after the shown version are. */
static void tell_missing(const struct tally_history *history, int64_t shown,
                         struct tally_explain_verdict *verdict)
{
    char range[RANGE_BYTES];
    const int64_t waiting =
        history->first_waiting > shown ? history->first_waiting : history->version + 1;
    if (waiting > shown + 1) {
        name_versions(range, shown + 1, waiting - 1, "is", "are");
        append(verdict, "%s published and not applied yet", range);
    }
    if (waiting <= history->version) {
        name_versions(range, waiting, history->version, "waits", "wait");
        append(verdict, "%s%s in the relay", waiting > shown + 1 ? ", " : "", range);
    }
}

/* True where the kept events themselves contradict the recount. */
static bool unsound(const struct tally_history *history, struct tally_explain_verdict *verdict)
{
    const int64_t expected = history->last_version - history->first_version + 1;
    if (history->kept > 0 && (history->distinct != expected || history->kept != expected ||
                              history->last_version != history->version)) {
        say(verdict, false,
            "PostgreSQL keeps %" PRId64 " events of versions %" PRId64 "-%" PRId64
            " for a user at version %" PRId64 ": its history has a hole or a repeat",
            history->kept, history->first_version, history->last_version, history->version);
        return true;
    }
    if (!history->deleted && history->first_version == 1 &&
        (history->posts_kept != history->posts || history->comments_kept != history->comments)) {
        say(verdict, false,
            "PostgreSQL's events add up to %" PRId64 " posts and %" PRId64
            " comments, and its recount is %" PRId64 " and %" PRId64,
            history->posts_kept, history->comments_kept, history->posts, history->comments);
        return true;
    }
    return false;
}

static void judge_deleted(const struct tally_history *history, const struct tally_user_state *shown,
                          struct tally_explain_verdict *verdict)
{
    if (shown->version == history->version) {
        if (shown->deleted)
            say(verdict, true, "the user was deleted by version %" PRId64 ", and reads as unknown",
                history->version);
        else
            say(verdict, false,
                "the user was deleted by version %" PRId64
                ", and the read model has that version without the mark",
                history->version);
        return;
    }
    say(verdict, true,
        "the user was deleted by version %" PRId64 ", and the read model is at version %" PRId64
        ": ",
        history->version, shown->version);
    tell_missing(history, shown->version, verdict);
}

static void judge_counts(const struct tally_history *history, const struct tally_user_state *shown,
                         struct tally_explain_verdict *verdict)
{
    if (shown->posts != verdict->posts || shown->comments != verdict->comments) {
        say(verdict, false,
            "the read model shows %" PRId64 " posts and %" PRId64 " comments at version %" PRId64
            ", and the events up to it add up to %" PRId64 " and %" PRId64,
            shown->posts, shown->comments, shown->version, verdict->posts, verdict->comments);
        return;
    }
    say(verdict, true, "the read model is at version %" PRId64 " of %" PRId64, shown->version,
        history->version);
    if (shown->version == history->version)
        append(verdict, ", and shows what the events add up to");
    else
        append(verdict, ": ");
    tell_missing(history, shown->version, verdict);
}

static void judge_state(int64_t user_id, const struct tally_history *history,
                        const struct tally_user_state *shown, struct tally_explain_verdict *verdict)
{
    const int64_t first_known = history->kept > 0 ? history->first_version : history->version + 1;
    if (!history->found && shown->version == 0)
        say(verdict, false, "there is no user %" PRId64, user_id);
    else if (!history->found)
        say(verdict, false,
            "the read model has a user at version %" PRId64 " that PostgreSQL does not know",
            shown->version);
    else if (shown->version > history->version)
        say(verdict, false,
            "the read model is at version %" PRId64 ", ahead of PostgreSQL at %" PRId64
            ": the database went back",
            shown->version, history->version);
    else if (unsound(history, verdict))
        return;
    else if (shown->version == 0) {
        say(verdict, history->first_version == 1, "the read model has nothing of the user: ");
        tell_missing(history, 0, verdict);
    } else if (shown->version < first_known - 1)
        say(verdict, false,
            "the read model is at version %" PRId64 ", and the events before version %" PRId64
            " are no longer kept",
            shown->version, first_known);
    else if (history->deleted)
        judge_deleted(history, shown, verdict);
    else
        judge_counts(history, shown, verdict);
}

void tally_explain_judge(int64_t user_id, const struct tally_history *history,
                         const struct tally_user_state *shown,
                         struct tally_explain_verdict *verdict)
{
    *verdict = (struct tally_explain_verdict){0};
    if (history->found && !history->deleted && history->first_version != 1) {
        verdict->base_posts = history->posts - history->posts_kept;
        verdict->base_comments = history->comments - history->comments_kept;
    }
    verdict->posts = verdict->base_posts + history->posts_through;
    verdict->comments = verdict->base_comments + history->comments_through;
    judge_state(user_id, history, shown, verdict);
    if (shown->flagged)
        append(verdict,
               "; it is flagged, and reads as degraded until `tallyctl repair %" PRId64 "`",
               user_id);
}
