#include "domain/partitioner.h"

#include <criterion/criterion.h>
#include <string.h>

/* Values computed by Kafka's own org.apache.kafka.common.utils.Utils (kafka-clients 4.4.0):
 * murmur2(bytes), and toPositive(murmur2(Long.toString(id))) % partitions. */

Test(partitioner, hashes_text_as_java_clients_do)
{
    static const struct {
        const char *text;
        int32_t hash;
    } rows[] = {
        {"", 275646681},
        {"1", -1993445489},
        {"12", 126087238},
        {"123", -267702483},
        {"1234", -1614185708},
        {"12345", -1188365604},
        {"a", -1563381124},
        {"abc", 479470107},
        {"abcd", -1323649548},
        {"hello, world", 853996457},
        {"9223372036854775807", -1221667907},
        {"1000000", -1399446429},
        {"7340238479237481", 82965216},
        {"ünïcode ✓", 1435552901},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect_eq(tally_murmur2(rows[i].text, strlen(rows[i].text)), rows[i].hash, "%s",
                     rows[i].text);
}

Test(partitioner, hashes_bytes_above_127_as_java_clients_do)
{
    static const int32_t hashes[] = {275646681,  -311467685, -1642832928, 1548199422, 644171429,
                                     -363838622, 28450676,   -71293549,   185950397};
    unsigned char ones[8];
    memset(ones, 0xff, sizeof ones);
    for (size_t length = 0; length <= sizeof ones; length++)
        cr_expect_eq(tally_murmur2(ones, length), hashes[length], "%zu bytes", length);
    unsigned char all[256];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (unsigned char)i;
    cr_expect_eq(tally_murmur2(all, sizeof all), -1948347274);
}

Test(partitioner, sends_a_user_where_java_clients_send_it)
{
    static const int32_t counts[] = {1, 3, 8, 64, 1024};
    static const struct {
        int64_t id;
        int32_t partitions[5];
    } rows[] = {
        {1, {0, 0, 7, 15, 911}},
        {2, {0, 2, 0, 40, 1000}},
        {3, {0, 2, 7, 63, 639}},
        {42, {0, 1, 4, 44, 108}},
        {1000000, {0, 2, 3, 35, 99}},
        {1000001, {0, 2, 0, 0, 768}},
        {123456789012345, {0, 2, 0, 0, 704}},
        {7340238479237481, {0, 0, 0, 32, 736}},
        {INT64_MAX, {0, 0, 5, 61, 957}},
        {4611686018427387904, {0, 0, 3, 11, 331}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
            cr_expect_eq(tally_partition_of(rows[i].id, counts[k]), rows[i].partitions[k],
                         "user %lld of %d", (long long)rows[i].id, counts[k]);
    }
}
