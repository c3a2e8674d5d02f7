#include "service/ctl/load_internal.h"
#include "service/ctl/torture_internal.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct tally_faults faults;
static struct tally_error error;

Test(torture, a_faults_file_is_read_as_it_says)
{
    const char *text = "# a comment\n"
                       "logs = tail -n 5 log\n"
                       "\n"
                       "[projector-kill]\n"
                       "inject = kill -9 $(cat pid) # no comment here\r\n"
                       "heal=start projector\n"
                       "lasts = 500ms-3s\n"
                       "recovers = 1m\n"
                       "  [flush]  \n"
                       "\tinject = redis-cli flushall";
    cr_assert_eq(tally_faults_parse(text, "test", &faults, &error), TALLY_OK, "%s", error.text);
    cr_assert_eq(faults.count, 2);
    cr_assert_str_eq(faults.logs, "tail -n 5 log");
    cr_assert_str_eq(faults.list[0].name, "projector-kill");
    cr_assert_str_eq(faults.list[0].inject, "kill -9 $(cat pid) # no comment here");
    cr_assert_str_eq(faults.list[0].heal, "start projector");
    cr_assert_eq(faults.list[0].lasts_least_ms, 500);
    cr_assert_eq(faults.list[0].lasts_most_ms, 3000);
    cr_assert_eq(faults.list[0].recovers_ms, 60000);
    cr_assert_str_eq(faults.list[1].name, "flush");
    cr_assert_str_eq(faults.list[1].heal, "");
    cr_assert_eq(faults.list[1].lasts_most_ms, 0);
}

Test(torture, a_faults_file_that_is_not_understood_is_refused_with_its_line)
{
    static const struct {
        const char *text, *told;
    } cases[] = {
        {"", "there is no fault"},
        {"[a]\nheal = x\n", "[a] has no inject"},
        {"[a]\ninject = x\ninject = y\n", "test:3: inject is given twice"},
        {"[a]\ninject =\n", "test:2: inject has no value"},
        {"[a]\ninject = x\n[a]\ninject = y\n", "test:3: there are two faults [a]"},
        {"[a b]\n", "test:1: a fault's name"},
        {"[a\n", "test:1: a fault begins by"},
        {"inject = x\n", "test:1: inject is no key of the file's head"},
        {"[a]\ninject = x\nlasts = 3s-1s\n", "test:3: lasts 3s-1s: the second time"},
        {"[a]\ninject = x\nlasts = 3\n", "test:3: lasts \"3\" is no time"},
        {"[a]\ninject = x\nlasts = 9999999999999h\n", "is no time"},
        {"[a]\ninject = x\nrecovers = soon\n", "test:3: recovers \"soon\" is no time"},
        {"[a]\ninject = x\nwhen = now\n", "test:3: when is no key of a fault"},
        {"[a]\nnothing\n", "test:2: neither [name] nor key = value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(tally_faults_parse(cases[i].text, "test", &faults, &error), TALLY_INVALID,
                     "%s", cases[i].text);
        cr_assert(strstr(error.text, cases[i].told) != NULL, "%s", error.text);
    }
}

Test(torture, the_faults_of_a_local_stack_that_are_built_in_are_valid)
{
    cr_assert_eq(tally_faults_parse(tally_faults_local, "built in", &faults, &error), TALLY_OK,
                 "%s", error.text);
    cr_assert(faults.count >= 10);
}

static void parse_three(void)
{
    cr_assert_eq(tally_faults_parse("[a]\ninject=x\nlasts=0s-9s\n[b]\ninject=x\nlasts=0s-9s\n[c]\n"
                                    "inject=x\nlasts=0s-9s\n",
                                    "test", &faults, &error),
                 TALLY_OK);
}

Test(torture, a_seed_repeats_order_times_and_pauses_and_another_one_does_not)
{
    parse_three();
    struct tally_fault_plan first, second, other;
    tally_fault_plan_init(&first, &faults, 7, 1000);
    tally_fault_plan_init(&second, &faults, 7, 1000);
    tally_fault_plan_init(&other, &faults, 8, 1000);
    int different = 0;
    for (int i = 0; i < 60; i++) {
        struct tally_fault_step one, two, three;
        tally_fault_plan_next(&first, &one);
        tally_fault_plan_next(&second, &two);
        tally_fault_plan_next(&other, &three);
        cr_assert_eq(one.fault, two.fault);
        cr_assert_eq(one.lasts_ms, two.lasts_ms);
        cr_assert_eq(one.pause_ms, two.pause_ms);
        cr_assert(one.lasts_ms >= 0 && one.lasts_ms <= 9000);
        cr_assert(one.pause_ms >= 500 && one.pause_ms <= 1500);
        different += one.lasts_ms != three.lasts_ms;
    }
    cr_assert(different > 0);
}

Test(torture, every_fault_comes_once_in_each_round)
{
    parse_three();
    struct tally_fault_plan plan;
    tally_fault_plan_init(&plan, &faults, 1, 0);
    for (int64_t round = 1; round <= 20; round++) {
        int seen[3] = {0};
        for (int i = 0; i < 3; i++) {
            struct tally_fault_step step;
            tally_fault_plan_next(&plan, &step);
            cr_assert_eq(step.round, round);
            cr_assert_eq(step.pause_ms, 0);
            seen[step.fault - faults.list]++;
        }
        cr_assert(seen[0] == 1 && seen[1] == 1 && seen[2] == 1);
    }
}

Test(torture, only_the_faults_that_are_named_are_kept)
{
    parse_three();
    const char *const names[] = {"c", "a", "c"};
    cr_assert_eq(tally_faults_choose(&faults, names, 3, &error), TALLY_OK);
    cr_assert_eq(faults.count, 2);
    cr_assert_str_eq(faults.list[0].name, "a");
    cr_assert_str_eq(faults.list[1].name, "c");
    const char *const unknown[] = {"d"};
    cr_assert_eq(tally_faults_choose(&faults, unknown, 1, &error), TALLY_INVALID);
}

Test(torture, the_command_that_a_message_asks_for_is_found_and_nothing_else_is)
{
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"", ""},
        {"all is well; see `tallyctl status`", ""},
        {"lost; `tallyctl rebuild` builds it anew", "tallyctl rebuild"},
        {"run `tallyctl refill`, then `tallyctl rebuild`", "tallyctl refill && tallyctl rebuild"},
        {"`tallyctl repair --flagged` restores them", "tallyctl repair --flagged"},
        {"old: `tallyctl refill`\nnew: `tallyctl rebuild`\nmore\n", "tallyctl rebuild"},
        {"`tallyctl rebuild`: `tallyctl rebuild`", "tallyctl rebuild"},
        {"`tallyctl rebuild; rm -r x`", ""},
        {"`tallyctl rebuilding`", ""},
        {"`tallyctl rebuild", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char named[TORTURE_NAMED_BYTES];
        torture_named_in(cases[i].text, named);
        cr_assert_str_eq(named, cases[i].named, "%s: %s", cases[i].text, named);
    }
}

/* Stands for tallyctl: refuses what the real one refuses without a terminal, and prints the rest.
 */
static const char stand_in[] = "#!/bin/sh\n"
                               "case \"$*\" in refill*--yes*) ;; refill*) exit 2 ;; esac\n"
                               "echo \"$*\" >>\"$0.said\"\n";

static void write_program(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    cr_assert_eq(chmod(path, S_IRWXU), 0);
}

Test(torture, the_command_that_is_named_is_run_with_nobody_to_ask)
{
    char folder[] = "/tmp/tally-torture-XXXXXX", path[64], said_path[80], said[256] = "";
    cr_assert(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof path, "%s/tallyctl", folder);
    (void)snprintf(said_path, sizeof said_path, "%s.said", path);
    write_program(path, stand_in);
    cr_assert_eq(setenv("TALLYCTL", path, 1), 0);
    static struct torture_options options;
    cr_assert_eq(torture_mend(&options, "tallyctl refill && tallyctl rebuild", &error), TALLY_OK,
                 "%s", error.text);
    FILE *file = fopen(said_path, "r");
    cr_assert(file != NULL);
    said[fread(said, 1, sizeof said - 1, file)] = '\0';
    (void)fclose(file);
    cr_assert_str_eq(said, "refill --yes\nrebuild\n");
    (void)unlink(path);
    (void)unlink(said_path);
    (void)rmdir(folder);
}

/* Two posts and a comment, of which the comment was deleted. */
static struct torture_ledger *make_ledger(void)
{
    struct torture_ledger *ledger = calloc(1, sizeof *ledger);
    cr_assert_eq(torture_ledger_init(ledger, 1, &error), TALLY_OK);
    ledger->accounts[0].id = 77;
    torture_ledger_acknowledge(ledger, 0, TALLY_LOAD_POST, 2);
    torture_ledger_acknowledge(ledger, 0, TALLY_LOAD_POST, 4);
    torture_ledger_acknowledge(ledger, 0, TALLY_LOAD_COMMENT, 3);
    torture_ledger_acknowledge(ledger, 0, TALLY_LOAD_DELETE_COMMENT, 0);
    return ledger;
}

static void release_ledger(struct torture_ledger *ledger)
{
    torture_ledger_release(ledger);
    free(ledger);
}

Test(torture, acknowledged_writes_that_were_counted_once_are_no_violation)
{
    struct torture_ledger *ledger = make_ledger();
    torture_ledger_compare(ledger, 0, 5, 2, 0);
    cr_assert_eq(torture_ledger_violations(ledger), 0);
    release_ledger(ledger);
}

Test(torture, a_write_that_was_lost_or_counted_twice_is_a_violation_of_its_user)
{
    static const struct {
        int64_t version, posts, comments;
        const char *kind;
    } cases[] = {
        {5, 1, 0, "lost"},  /* one post less */
        {5, 3, 0, "twice"}, /* one more */
        {4, 2, 0, "lost"},  /* a change less, though the counts agree */
        {6, 2, 0, "twice"},
        {5, 2, 1, "twice"}, /* the deletion was lost, so that there is one too many */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct torture_ledger *ledger = make_ledger();
        torture_ledger_compare(ledger, 0, cases[i].version, cases[i].posts, cases[i].comments);
        cr_assert_eq(torture_ledger_violations(ledger), 1, "case %zu", i);
        cr_assert_str_eq(ledger->violations[0].kind, cases[i].kind);
        cr_assert_eq(ledger->violations[0].user_id, 77);
        release_ledger(ledger);
    }
}

Test(torture, a_write_whose_outcome_is_unknown_may_be_there_or_not)
{
    for (int64_t there = 0; there <= 2; there++) {
        struct torture_ledger *ledger = make_ledger();
        torture_ledger_doubt(ledger, 0, TALLY_LOAD_POST);
        torture_ledger_compare(ledger, 0, 5 + there, 2 + there, 0);
        cr_assert_eq(torture_ledger_violations(ledger) > 0, there > 1);
        release_ledger(ledger);
    }
}

Test(torture, violations_beyond_the_list_are_counted)
{
    struct torture_ledger *ledger = make_ledger();
    torture_ledger_fault(ledger, "a-fault");
    for (int i = 0; i < TORTURE_VIOLATIONS_LISTED + 10; i++)
        torture_violate(ledger, "lost", i, "number %d", i);
    cr_assert_eq(torture_ledger_violations(ledger), TORTURE_VIOLATIONS_LISTED + 10);
    cr_assert_str_eq(ledger->violations[TORTURE_VIOLATIONS_LISTED - 1].fault, "a-fault");
    release_ledger(ledger);
}

static struct load_answer answer(int http, bool replayed, const char *body)
{
    struct load_answer made = {.http = http, .replayed = replayed};
    tally_buffer_init(&made.body, 64);
    tally_buffer_append_text(&made.body, body);
    return made;
}

Test(torture, equal_requests_at_once_have_one_answer_that_one_of_them_gets_first)
{
    enum { FIRST = 0, REPLAYED = 1 };
    static const struct {
        int own_http, own_replayed;
        const char *own;
        int twin_http, twin_replayed;
        const char *twin;
        bool differs;
    } cases[] = {
        {201, FIRST, "1", 201, REPLAYED, "1", false},
        {201, REPLAYED, "1", 201, FIRST, "1", false},
        {201, REPLAYED, "1", 201, REPLAYED, "1", false}, /* the first answer was lost */
        {201, REPLAYED, "1", 0, FIRST, "", false},       /* the other one was told to wait */
        {0, FIRST, "", 201, FIRST, "1", false},
        {0, FIRST, "", 0, FIRST, "", false},
        {404, FIRST, "a", 404, FIRST, "b", false}, /* documents of a refusal name their request */
        {201, FIRST, "1", 201, FIRST, "1", true},
        {201, FIRST, "1", 201, FIRST, "2", true},
        {201, FIRST, "1", 201, REPLAYED, "2", true},
        {201, FIRST, "1", 201, REPLAYED, "12", true},
        {201, FIRST, "1", 404, FIRST, "", true},
        {422, FIRST, "", 201, FIRST, "1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct load_answer own = answer(cases[i].own_http, cases[i].own_replayed, cases[i].own);
        struct load_answer twin = answer(cases[i].twin_http, cases[i].twin_replayed, cases[i].twin);
        cr_assert_eq(load_answers_differ(&own, &twin), cases[i].differs, "case %zu", i);
        tally_buffer_release(&own.body);
        tally_buffer_release(&twin.body);
    }
}
