#include "service/query/document.h"

#include <string.h>

#define APPEND(out, literal) tally_buffer_append((out), (literal), sizeof(literal) - 1)

static void append_text(struct tally_buffer *out, struct tally_lookup_text text)
{
    if (text.bytes != NULL)
        tally_buffer_append_json(out, text.bytes, text.length);
    else
        APPEND(out, "null");
}

void tally_query_append_user(struct tally_buffer *out, const struct tally_lookup_user *user)
{
    APPEND(out, "{\"user\":{\"id\":\"");
    tally_buffer_append_integer(out, user->id);
    APPEND(out, "\",\"name\":");
    append_text(out, user->name);
    APPEND(out, ",\"email\":");
    append_text(out, user->email);
    APPEND(out, ",\"avatar\":");
    append_text(out, user->avatar);
    APPEND(out, "},\"postCount\":");
    tally_buffer_append_integer(out, user->posts);
    APPEND(out, ",\"commentCount\":");
    tally_buffer_append_integer(out, user->comments);
    APPEND(out, ",\"version\":");
    tally_buffer_append_integer(out, user->version);
    if (user->degraded)
        APPEND(out, ",\"degraded\":true");
    tally_buffer_append_char(out, '}');
}

int64_t tally_query_lag_ms(int64_t fresh_at_ms, int64_t now_ms)
{
    if (fresh_at_ms <= 0)
        return -1;
    return now_ms > fresh_at_ms ? now_ms - fresh_at_ms : 0;
}

static void append_seconds(struct tally_buffer *out, int64_t lag_ms)
{
    if (lag_ms < 0)
        APPEND(out, "null");
    else
        tally_buffer_format(out, "%lld.%03d", (long long)(lag_ms / 1000), (int)(lag_ms % 1000));
}

/* The oldest partition's lag: the whole is as fresh as its stalest part. */
static int64_t worst_lag_ms(const struct tally_lookup_stats *stats, int64_t now_ms)
{
    int64_t worst = 0;
    for (int32_t i = 0; i < stats->partition_count; i++) {
        int64_t lag_ms = tally_query_lag_ms(stats->partitions[i].fresh_at_ms, now_ms);
        if (lag_ms < 0)
            return -1;
        if (lag_ms > worst)
            worst = lag_ms;
    }
    return worst;
}

void tally_query_append_stats(struct tally_buffer *out, const struct tally_lookup_stats *stats,
                              int64_t now_ms)
{
    tally_buffer_format(out, "{\"users\":%lld,\"posts\":%lld,\"comments\":%lld",
                        (long long)stats->users, (long long)stats->posts,
                        (long long)stats->comments);
    tally_buffer_format(out, ",\"activeUsers\":{\"day\":%lld,\"week\":%lld,\"month\":%lld}",
                        (long long)stats->active_day, (long long)stats->active_week,
                        (long long)stats->active_month);
    APPEND(out, ",\"freshnessSeconds\":");
    append_seconds(out, worst_lag_ms(stats, now_ms));
    tally_buffer_format(out, ",\"generation\":\"%lld\",\"partitions\":[",
                        (long long)stats->generation);
    for (int32_t i = 0; i < stats->partition_count; i++) {
        const struct tally_lookup_partition *partition = &stats->partitions[i];
        tally_buffer_format(out, "%s{\"partition\":%d,\"offset\":\"%lld\",\"lagSeconds\":",
                            i > 0 ? "," : "", (int)i, (long long)partition->offset);
        append_seconds(out, tally_query_lag_ms(partition->fresh_at_ms, now_ms));
        tally_buffer_append_char(out, '}');
    }
    APPEND(out, "]}");
}
