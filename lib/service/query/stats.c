#include "core/clock.h"
#include "service/query/document.h"
#include "service/query/thread.h"

struct stats_request {
    struct tally_query_thread *thread;
    struct tally_http_exchange *exchange;
};

static void answer_stats(struct tally_query_thread *thread, struct tally_http_exchange *exchange,
                         const struct tally_lookup_stats *stats)
{
    int64_t stalest_ms = stats->partitions[0].fresh_at_ms;
    for (int32_t i = 1; i < stats->partition_count; i++) {
        if (stats->partitions[i].fresh_at_ms < stalest_ms)
            stalest_ms = stats->partitions[i].fresh_at_ms;
    }
    tally_buffer_clear(&thread->scratch);
    tally_query_append_stats(&thread->scratch, stats, tally_clock_wall_us() / 1000);
    tally_query_answer_freshness(exchange, stalest_ms);
    tally_query_answer_scratch(thread, exchange);
}

static void on_counted(enum tally_status status, const struct tally_lookup_stats *stats,
                       void *context)
{
    const struct stats_request *request = context;
    if (status == TALLY_OK)
        answer_stats(request->thread, request->exchange, stats);
    else
        tally_query_answer_problem(request->exchange, status, NULL);
}

void tally_query_serve_stats(struct tally_http_exchange *exchange, void *context)
{
    struct tally_query_thread *thread = context;
    const struct tally_lookup_stats *lately = tally_lookup_counted_lately(thread->lookup);
    if (lately != NULL) {
        answer_stats(thread, exchange, lately);
        return;
    }
    struct stats_request *request =
        tally_arena_allocate(tally_http_arena(exchange), sizeof *request);
    if (request == NULL) {
        tally_query_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
        return;
    }
    *request = (struct stats_request){.thread = thread, .exchange = exchange};
    struct tally_error error = {0};
    enum tally_status status = tally_lookup_count(thread->lookup, on_counted, request, &error);
    if (status != TALLY_OK)
        tally_query_answer_problem(exchange, status, NULL);
}
