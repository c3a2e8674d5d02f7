/* Erase log: when Kafka has let go of a record at the latest, by the topic's own settings. */
#include "service/ctl/erase_log.h"

#include <criterion/criterion.h>

enum { SECOND = 1000, CHECK = 5 * 60 * SECOND };

static struct tally_erase_topic topic_of(const char *policy, const char *retention,
                                         const char *segment, const char *compaction)
{
    struct tally_erase_topic topic = {.partitions = 8};
    tally_erase_topic_take(&topic, "cleanup.policy", policy);
    tally_erase_topic_take(&topic, "retention.ms", retention);
    tally_erase_topic_take(&topic, "segment.ms", segment);
    tally_erase_topic_take(&topic, "max.compaction.lag.ms", compaction);
    tally_erase_topic_take(&topic, "file.delete.delay.ms", "60000");
    tally_erase_topic_take(&topic, "segment.bytes", "1");
    return topic;
}

#define NO_LAG "9223372036854775807"

Test(erase_log, a_record_goes_when_its_segment_is_full_and_old_and_removed)
{
    const struct tally_erase_topic topic = topic_of("delete", "7000000", "100000", NO_LAG);
    cr_assert_eq(tally_erase_topic_expiry_ms(&topic, 5000),
                 5000 + 7000000 + 100000 + CHECK + 60 * SECOND);
    cr_assert(!tally_erase_topic_compacts(&topic));
}

Test(erase_log, without_a_retention_a_record_never_goes)
{
    const struct tally_erase_topic topic = topic_of("delete", "-1", "100000", NO_LAG);
    cr_assert_eq(tally_erase_topic_expiry_ms(&topic, 0), -1);
}

Test(erase_log, a_retention_beyond_all_time_is_none)
{
    const struct tally_erase_topic topic = topic_of("delete", NO_LAG, "100000", NO_LAG);
    cr_assert_eq(tally_erase_topic_expiry_ms(&topic, 5000), -1);
}

Test(erase_log, compaction_alone_lets_go_only_where_its_lag_is_bounded)
{
    const struct tally_erase_topic never = topic_of("compact", "1000", "1000", NO_LAG);
    const struct tally_erase_topic bounded = topic_of("compact", "1000", "1000", "90000");
    cr_assert(tally_erase_topic_compacts(&never));
    cr_assert_eq(tally_erase_topic_expiry_ms(&never, 5000), -1);
    cr_assert_eq(tally_erase_topic_expiry_ms(&bounded, 5000), 5000 + 90000 + CHECK + 60 * SECOND);
}

Test(erase_log, both_policies_let_go_by_age)
{
    const struct tally_erase_topic topic = topic_of("compact,delete", "1000", "2000", NO_LAG);
    cr_assert(tally_erase_topic_compacts(&topic));
    cr_assert_eq(tally_erase_topic_expiry_ms(&topic, 1), 1 + 3000 + CHECK + 60 * SECOND);
}
