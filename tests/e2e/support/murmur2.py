"""Kafka's murmur2, written from org.apache.kafka.common.utils.Utils.murmur2, to check what Tally computes."""

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
MASK = 0xFFFFFFFF


def murmur2(data):
    length = len(data)
    value = (SEED ^ length) & MASK
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at:at + 4], "little")
        word = word * MULTIPLIER & MASK
        word ^= word >> 24
        word = word * MULTIPLIER & MASK
        value = (value * MULTIPLIER & MASK) ^ word
    rest = data[whole:]
    if len(rest) == 3:
        value ^= rest[2] << 16
    if len(rest) >= 2:
        value ^= rest[1] << 8
    if rest:
        value ^= rest[0]
        value = value * MULTIPLIER & MASK
    value ^= value >> 13
    value = value * MULTIPLIER & MASK
    value ^= value >> 15
    return value


def partition_of(key, partitions):
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
