/*
 * Differences: how tallyctl lists what verify finds: a line each, or an array of the JSON result.
 */
#ifndef TALLY_SERVICE_CTL_DIFFERENCES_H
#define TALLY_SERVICE_CTL_DIFFERENCES_H

#include "service/ctl/output.h"
#include "service/ctl/verify.h"

struct tally_difference_list {
    const struct tally_ctl *ctl;
    int64_t limit;  /* to be listed; 20 unless changed */
    int64_t listed; /* so far */
    json_t *json;   /* owned; the array, empty without --json */
};

void tally_difference_list_init(struct tally_difference_list *list, const struct tally_ctl *ctl);
void tally_difference_list_release(struct tally_difference_list *list);
/* Prints it, or adds it to the array, below the limit. */
void tally_difference_list_add(struct tally_difference_list *list,
                               const struct tally_verify_difference *difference);

#endif
