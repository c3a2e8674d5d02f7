#include "service/ctl/drop.h"

#include <string.h>

enum tally_status tally_drop_run(const struct tally_drop *drop, int64_t *removed,
                                 struct tally_error *error)
{
    char cursor[TALLY_SCAN_CURSOR_BYTES] = "0";
    *removed = 0;
    enum tally_status status =
        tally_generation_note(drop->redis, drop->generation, TALLY_GENERATION_DROPPING, error);
    if (status != TALLY_OK)
        return status;
    do {
        status = tally_ctl_lease_check(drop->lease, error);
        if (status == TALLY_OK)
            status = tally_generation_remove(drop->redis, drop->generation, cursor, removed, error);
        if (drop->on_progress != NULL)
            drop->on_progress(drop->context, *removed);
    } while (status == TALLY_OK && strcmp(cursor, "0") != 0);
    return status == TALLY_OK ? tally_generation_forget(drop->redis, drop->generation, error)
                              : status;
}
