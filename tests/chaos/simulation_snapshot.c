#include "simulation.h"

#include <stdlib.h>
#include <string.h>

int64_t simulated_snapshot_xmin(const char *snapshot)
{
    return strtoll(snapshot, NULL, 10);
}

/* "xmin:xmax:xip,xip,…"; https://www.postgresql.org/docs/15/functions-info.html, Snapshot
 * Components */
bool simulated_snapshot_visible(const char *snapshot, int64_t xid)
{
    char *rest = NULL;
    const int64_t xmin = strtoll(snapshot, &rest, 10);
    const int64_t xmax = strtoll(rest + 1, &rest, 10);
    if (xid < xmin)
        return true;
    if (xid >= xmax)
        return false;
    while (*rest != '\0' && rest[1] != '\0') {
        if (strtoll(rest + 1, &rest, 10) == xid)
            return false;
    }
    return true;
}
