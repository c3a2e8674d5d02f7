#include "service/ctl/output.h"
#include "service/ctl/torture.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

static const char *const read_names[TORTURE_READS] = {
    [TORTURE_READ_SHOWN] = "shown",           [TORTURE_READ_ABSENT] = "notYetKnown",
    [TORTURE_READ_REFUSED] = "refused",       [TORTURE_READ_NOTHING] = "withoutAnswer",
    [TORTURE_READ_UNEXPECTED] = "unexpected",
};

static json_t *faults_json(const struct torture_options *options,
                           const struct torture_report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < options->faults.count; i++) {
        const struct torture_fault_report *fault = &report->faults[i];
        const struct tally_latency *recovery = &fault->recovery;
        tally_ctl_json_append(
            &list,
            json_pack("{s:s,s:I,s:I,s:I,s:{s:f,s:f,s:f}}", "fault", options->faults.list[i].name,
                      "count", (json_int_t)fault->count, "failed", (json_int_t)fault->failed,
                      "unrecovered", (json_int_t)fault->unrecovered, "recovery", "p50Ms",
                      tally_load_milliseconds(tally_latency_percentile_us(recovery, 50)), "p95Ms",
                      tally_load_milliseconds(tally_latency_percentile_us(recovery, 95)), "maxMs",
                      tally_load_milliseconds(recovery->max_us)));
    }
    return list;
}

static int64_t listed(const struct torture_ledger *ledger)
{
    return ledger->violation_count < TORTURE_VIOLATIONS_LISTED ? ledger->violation_count
                                                               : TORTURE_VIOLATIONS_LISTED;
}

static json_t *violations_json(const struct torture_ledger *ledger)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < listed(ledger); i++) {
        const struct torture_violation *violation = &ledger->violations[i];
        char user[TALLY_NUMBER_BYTES];
        (void)snprintf(user, sizeof user, "%" PRId64, violation->user_id);
        tally_ctl_json_append(&list, json_pack("{s:s,s:s?,s:s?,s:f,s:s}", "kind", violation->kind,
                                               "user", violation->user_id != 0 ? user : NULL,
                                               "fault", violation->fault, "atSeconds",
                                               violation->at_s, "text", violation->text));
    }
    return list;
}

static json_t *writes_json(const struct torture_report *report)
{
    const struct tally_load_report *load = &report->load;
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "acknowledged",
        (json_int_t)report->ledger.acknowledged, "posts", (json_int_t)load->made[TALLY_LOAD_POST],
        "comments", (json_int_t)load->made[TALLY_LOAD_COMMENT], "postsDeleted",
        (json_int_t)load->made[TALLY_LOAD_DELETE_POST], "commentsDeleted",
        (json_int_t)load->made[TALLY_LOAD_DELETE_COMMENT], "ambiguous",
        (json_int_t)tally_load_repeated(load), "attemptsRepeated", (json_int_t)load->retries,
        "unknown", (json_int_t)report->ledger.unknown, "sentTwiceAtOnce", (json_int_t)load->twice,
        "readBack", (json_int_t)load->visibility.count + (json_int_t)load->reads_stale, "causes",
        tally_load_errors_json(&load->retry_causes));
}

json_t *torture_report_json(const struct torture_options *options,
                            const struct torture_report *report)
{
    json_t *reads = json_object();
    for (size_t i = 0; i < TORTURE_READS; i++)
        tally_ctl_json_set(&reads, read_names[i], json_integer((json_int_t)report->reads[i]));
    return json_pack(
        "{s:I,s:f,s:I,s:I,s:b,s:b,s:o,s:o,s:o,s:{s:I,s:I},s:s?,s:s?,s:I,s:o}", "seed",
        (json_int_t)options->seed, "seconds", report->seconds, "rounds", (json_int_t)report->rounds,
        "faultsDone", (json_int_t)report->steps, "interrupted", report->interrupted, "compared",
        report->verified, "faults", faults_json(options, report), "writes", writes_json(report),
        "reads", reads, "inPostgresql", "posts", (json_int_t)report->posts, "comments",
        (json_int_t)report->comments, "commandNamed",
        report->named[0] != '\0' ? report->named : NULL, "commandRun",
        report->mended[0] != '\0' ? report->mended : NULL, "violations",
        (json_int_t)report->ledger.violation_count, "listed", violations_json(&report->ledger));
}

static void print_faults(const struct torture_options *options, const struct torture_report *report)
{
    (void)printf("%-24s %6s %10s %10s %10s\n", "fault", "times", "p50", "p95", "max");
    for (size_t i = 0; i < options->faults.count; i++) {
        const struct torture_fault_report *fault = &report->faults[i];
        const struct tally_latency *recovery = &fault->recovery;
        char p50[TALLY_DURATION_BYTES] = "-", p95[TALLY_DURATION_BYTES] = "-",
             most[TALLY_DURATION_BYTES] = "-";
        if (recovery->count > 0) {
            tally_ctl_format_duration((double)tally_latency_percentile_us(recovery, 50) / 1e6, p50);
            tally_ctl_format_duration((double)tally_latency_percentile_us(recovery, 95) / 1e6, p95);
            tally_ctl_format_duration((double)recovery->max_us / 1e6, most);
        }
        (void)printf("%-24s %6" PRId64 " %10s %10s %10s", options->faults.list[i].name,
                     fault->count, p50, p95, most);
        if (fault->failed > 0)
            (void)printf("  %" PRId64 " commands failed", fault->failed);
        if (fault->unrecovered > 0)
            (void)printf("  %" PRId64 " not recovered", fault->unrecovered);
        (void)putchar('\n');
    }
}

static void print_violations(const struct torture_ledger *ledger)
{
    for (int64_t i = 0; i < listed(ledger); i++) {
        const struct torture_violation *violation = &ledger->violations[i];
        (void)printf("  %.1f s", violation->at_s);
        if (violation->fault != NULL)
            (void)printf(", %s", violation->fault);
        (void)printf(", %s: ", violation->kind);
        if (violation->user_id != 0)
            (void)printf("user %" PRId64 " ", violation->user_id);
        (void)printf("%s\n", violation->text);
    }
    if (ledger->violation_count > listed(ledger))
        (void)printf("  and %" PRId64 " more\n", ledger->violation_count - listed(ledger));
}

void torture_report_print(const struct torture_options *options,
                          const struct torture_report *report)
{
    const struct tally_load_report *load = &report->load;
    const struct torture_ledger *ledger = &report->ledger;
    char duration[TALLY_DURATION_BYTES], acknowledged[TALLY_NUMBER_BYTES];
    tally_ctl_format_duration(report->seconds, duration);
    (void)printf("%" PRId64 " faults in %s (seed %" PRIu64 ")%s; until a write is readable:\n",
                 report->steps, duration, options->seed,
                 report->interrupted ? ", interrupted" : "");
    print_faults(options, report);
    (void)printf("writes: %s acknowledged; %" PRId64
                 " were ambiguous and repeated until known (%" PRId64 " attempts), %" PRId64
                 " never became known\n",
                 tally_ctl_format_number(ledger->acknowledged, acknowledged),
                 tally_load_repeated(load), load->retries, ledger->unknown);
    (void)printf("%" PRId64 " of them were sent twice at once, %" PRId64 " read back at once\n",
                 load->twice, load->visibility.count + load->reads_stale);
    (void)printf("reads: %" PRId64 " shown, %" PRId64 " refused by 503, %" PRId64
                 " without an answer, %" PRId64 " of users not yet known\n",
                 report->reads[TORTURE_READ_SHOWN], report->reads[TORTURE_READ_REFUSED],
                 report->reads[TORTURE_READ_NOTHING], report->reads[TORTURE_READ_ABSENT]);
    if (report->mended[0] != '\0')
        (void)printf("run because the stack asked for it: %s\n", report->mended);
    else if (report->named[0] != '\0')
        (void)printf("the stack asks for: %s (--mend runs it)\n", report->named);
    if (ledger->violation_count > 0)
        (void)printf("%" PRId64 " violation%s:\n", ledger->violation_count,
                     ledger->violation_count == 1 ? "" : "s");
    print_violations(ledger);
    if (!report->verified)
        (void)puts("not compared: the end was not reached");
    else if (ledger->violation_count == 0)
        (void)printf("no violation: every acknowledged write was counted exactly once (%" PRId64
                     " posts and %" PRId64 " comments in PostgreSQL, and as read)\n",
                     report->posts, report->comments);
}
