#include "service/ctl/differences.h"

#include <inttypes.h>
#include <stdio.h>

enum { LIMIT = 20 };

void tally_difference_list_init(struct tally_difference_list *list, const struct tally_ctl *ctl)
{
    *list = (struct tally_difference_list){.ctl = ctl, .limit = LIMIT, .json = json_array()};
}

void tally_difference_list_release(struct tally_difference_list *list)
{
    json_decref(list->json);
    list->json = NULL;
}

void tally_difference_list_add(struct tally_difference_list *list,
                               const struct tally_verify_difference *difference)
{
    if (list->listed >= list->limit)
        return;
    list->listed++;
    char user[TALLY_NUMBER_BYTES] = "";
    if (difference->user_id != 0)
        (void)snprintf(user, sizeof user, "%" PRId64, difference->user_id);
    if (list->ctl->json) {
        tally_ctl_json_append(
            &list->json, json_pack("{s:s?,s:s,s:s,s:s,s:I,s:I}", "user",
                                   user[0] != '\0' ? user : NULL, "field", difference->field,
                                   "expected", difference->expected, "found", difference->found,
                                   "expectedVersion", (json_int_t)difference->expected_version,
                                   "foundVersion", (json_int_t)difference->found_version));
        return;
    }
    (void)printf("%s%s%s%s: expected %s, found %s", user[0] != '\0' ? "user " : "", user,
                 user[0] != '\0' ? " " : "", difference->field, difference->expected,
                 difference->found);
    if (difference->expected_version != 0)
        (void)printf(" (version %" PRId64 ", in Redis %" PRId64 ")", difference->expected_version,
                     difference->found_version);
    (void)putchar('\n');
    (void)fflush(stdout);
}
