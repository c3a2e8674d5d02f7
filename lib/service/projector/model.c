#include "service/projector/model.h"

#include <stdlib.h>

struct tally_model *tally_model_new(int32_t partitions, size_t users_most)
{
    struct tally_model *model = calloc(1, sizeof *model);
    if (model == NULL)
        return NULL;
    model->partition_count = partitions;
    model->partitions = calloc((size_t)partitions, sizeof *model->partitions);
    model->chunks = calloc((size_t)partitions, sizeof *model->chunks);
    model->users = tally_users_new(partitions, users_most);
    if (model->partitions == NULL || model->chunks == NULL || model->users == NULL)
        tally_model_free(&model);
    return model;
}

void tally_model_free(struct tally_model **model)
{
    if (*model == NULL)
        return;
    if ((*model)->chunks != NULL) {
        for (int32_t i = 0; i < (*model)->partition_count; i++)
            tally_chunk_release(&(*model)->chunks[i]);
    }
    tally_users_free(&(*model)->users);
    free((*model)->chunks);
    free((*model)->partitions);
    free(*model);
    *model = NULL;
}

void tally_model_own(struct tally_model *model, const int32_t *owned, size_t count)
{
    for (int32_t i = 0; i < model->partition_count; i++) {
        model->partitions[i].standing = TALLY_PARTITION_FOREIGN;
        model->partitions[i].new_users = NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (owned[i] >= 0 && owned[i] < model->partition_count)
            model->partitions[owned[i]].standing = TALLY_PARTITION_LOST;
    }
}

void tally_model_lose(struct tally_model *model, int32_t partition)
{
    if (model->partitions[partition].standing == TALLY_PARTITION_CURRENT)
        model->partitions[partition].standing = TALLY_PARTITION_LOST;
}

void tally_model_lose_all(struct tally_model *model)
{
    for (int32_t i = 0; i < model->partition_count; i++)
        tally_model_lose(model, i);
}

bool tally_model_incomplete(const struct tally_model *model)
{
    for (int32_t i = 0; i < model->partition_count; i++) {
        if (model->partitions[i].standing == TALLY_PARTITION_LOST)
            return true;
    }
    return false;
}
