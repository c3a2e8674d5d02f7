#include "domain/partitioner.h"

#include "core/id.h"

int32_t tally_murmur2(const void *bytes, size_t length)
{
    const unsigned char *data = bytes;
    const uint32_t multiplier = 0x5bd1e995;
    uint32_t hash = 0x9747b28cU ^ (uint32_t)length;
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++, data += 4) {
        uint32_t word = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
                        (uint32_t)data[3] << 24;
        word *= multiplier;
        word ^= word >> 24;
        word *= multiplier;
        hash *= multiplier;
        hash ^= word;
    }
    size_t rest = length % 4;
    for (size_t i = rest; i > 0; i--)
        hash ^= (uint32_t)data[i - 1] << (8 * (i - 1));
    if (rest > 0)
        hash *= multiplier;
    hash ^= hash >> 13;
    hash *= multiplier;
    hash ^= hash >> 15;
    return (int32_t)hash;
}

int32_t tally_partition_of(int64_t user_id, int32_t partitions)
{
    char key[TALLY_ID_TEXT_BYTES];
    size_t length = tally_id_format(user_id, key);
    return (tally_murmur2(key, length) & 0x7fffffff) % partitions;
}
