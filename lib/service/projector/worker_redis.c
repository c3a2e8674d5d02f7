#include "service/projector/worker.h"

#include "core/clock.h"
#include "view/pause.h"

#include <stdio.h>

enum { SWITCH_RETRY_MS = 50 };

enum tally_status tally_worker_read_pause(struct tally_worker *worker, struct tally_error *error)
{
    struct tally_view_pause pause;
    char note[TALLY_REPORT_REASON_BYTES];
    char since[TALLY_TIMESTAMP_BYTES];
    enum tally_status status = tally_view_pause_read(worker->redis, &pause, error);
    if (status != TALLY_OK)
        return status;
    tally_clock_format(pause.at_ms * 1000, since);
    (void)snprintf(note, sizeof note, "paused since %s%s%.200s", since,
                   pause.reason[0] != '\0' ? ": " : "", pause.reason);
    tally_report_pause(worker->report, pause.paused ? note : NULL);
    if (pause.paused == worker->paused)
        return TALLY_OK;
    worker->paused = pause.paused;
    tally_log(TALLY_LOG_WARNING, pause.paused ? "projector.paused" : "projector.resumed",
              TALLY_TEXT("reason", pause.reason));
    worker->reassign = true;
    /* At once: the next turn would fetch before it comes to assign anew. */
    return pause.paused ? tally_consumer_assign(worker->consumer, NULL, 0, error) : TALLY_OK;
}

void tally_worker_back_off(struct tally_worker *worker, const struct tally_error *error)
{
    /* A switch is a matter of moments, and no server is spared by waiting longer each time. */
    const int64_t pause_ms = error->status == TALLY_FENCED
                                 ? SWITCH_RETRY_MS
                                 : tally_backoff_next_ms(&worker->backoff, &worker->random);
    worker->retry_us = tally_clock_monotonic_us() + pause_ms * 1000;
    worker->trouble = *error;
}

void tally_worker_connect(struct tally_worker *worker)
{
    if (worker->redis != NULL || tally_clock_monotonic_us() < worker->retry_us)
        return;
    struct tally_error error = {0};
    struct tally_redis *redis = NULL;
    enum tally_status status =
        tally_redis_open(&worker->url, worker->options->settings->redis_timeout_ms, &redis, &error);
    if (status == TALLY_OK)
        status = tally_redis_check_server(redis, &error);
    if (status == TALLY_OK)
        status = tally_script_load(redis, tally_script_apply, worker->encoder.sha, &error);
    if (status == TALLY_OK) {
        worker->redis = redis;
        status = tally_worker_read_pause(worker, &error);
        worker->redis = NULL;
    }
    if (status == TALLY_OK) {
        worker->redis = redis;
        worker->retry_us = 0;
        tally_metric_add(worker->metrics->redis_connects, 1);
        tally_report_say(worker->report, TALLY_REPORT_REDIS, NULL);
        tally_log(TALLY_LOG_INFO, "projector.redis_connected", TALLY_TEXT("host", worker->url.host),
                  TALLY_INTEGER("port", worker->url.port));
        return;
    }
    tally_redis_close(&redis);
    tally_worker_disconnect(worker, &error);
    if (status == TALLY_CONFIG)
        tally_worker_fail(worker, &error);
}

void tally_worker_disconnect(struct tally_worker *worker, const struct tally_error *error)
{
    int64_t suppressed = 0;
    if (tally_log_news(&worker->redis_losses, error->text, &suppressed))
        tally_log(TALLY_LOG_WARNING, "projector.redis_lost", TALLY_TEXT("reason", error->text),
                  TALLY_INTEGER("suppressed", suppressed));
    tally_redis_close(&worker->redis);
    tally_report_say(worker->report, TALLY_REPORT_REDIS, error->text);
    for (size_t i = 0; i < TALLY_WORKER_ROUNDS; i++) {
        if (worker->flights[i].sent)
            tally_round_clear(&worker->flights[i].round);
        worker->flights[i].sent = false;
    }
    tally_model_lose_all(worker->model);
    /* Nothing is fetched meanwhile, but the consumer is polled on, so that the group keeps it. */
    struct tally_error ignored;
    if (worker->consumer != NULL)
        (void)!tally_consumer_assign(worker->consumer, NULL, 0, &ignored);
    tally_worker_back_off(worker, error);
}
