/*
 * Model: everything that a projector knows of the read model it writes: the generation, where each
 * partition stands, the users it remembers, the chunk each partition is filling. Pure; one thread.
 */
#ifndef TALLY_SERVICE_PROJECTOR_MODEL_H
#define TALLY_SERVICE_PROJECTOR_MODEL_H

#include "service/projector/chunk.h"
#include "service/projector/partition.h"

struct tally_model {
    int64_t generation; /* 0: none read yet */
    int32_t partition_count;
    struct tally_partition *partitions; /* owned */
    struct tally_chunk *chunks;         /* owned, parallel; made when first needed */
    struct tally_users *users;          /* owned */
    uint64_t serials;                   /* of chunks */
};

/* `partitions` > 0; `users_most` > 0 states are remembered. NULL where there is no memory. */
struct tally_model *tally_model_new(int32_t partitions, size_t users_most);
void tally_model_free(struct tally_model **model);

/* These partitions are owned and no others: each that was not, or was lost, is lost now. */
void tally_model_own(struct tally_model *model, const int32_t *owned, size_t count);
/* What Redis holds of an owned partition is not known any more. */
void tally_model_lose(struct tally_model *model, int32_t partition);
void tally_model_lose_all(struct tally_model *model);
/* Whether any partition is lost. */
bool tally_model_incomplete(const struct tally_model *model);

#endif
