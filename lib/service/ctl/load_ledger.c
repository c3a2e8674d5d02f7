#include "service/ctl/load_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void load_ledger_note(const struct load_lane *lane, int64_t id, int64_t user_id, int64_t version)
{
    if (lane->load->ledger == NULL)
        return;
    bool writing = lane->load->phase == LOAD_WRITING;
    bool comment = writing && lane->kind == TALLY_LOAD_COMMENT;
    (void)fprintf(lane->load->ledger, "%s\t%" PRId64 "\t%" PRId64 "\t%" PRId64 "\t%" PRId64 "\n",
                  writing ? tally_load_kind_text(lane->kind) : "user", id, user_id, version,
                  comment ? lane->subject : 0);
}

enum tally_status load_ledger_open(struct load *load, struct tally_error *error)
{
    const char *path = load->options->ledger_path;
    if (path == NULL)
        return TALLY_OK;
    load->ledger = fopen(path, "we");
    if (load->ledger == NULL)
        return tally_fail(error, TALLY_IO, "ledger %s: %s", path, strerror(errno));
    /* Whole lines at once, for whoever reads along, and for what is left by a load that is killed.
     */
    (void)setvbuf(load->ledger, NULL, _IOLBF, 0);
    return TALLY_OK;
}

enum tally_status load_ledger_close(struct load *load, struct tally_error *error)
{
    if (load->ledger == NULL)
        return TALLY_OK;
    bool failed = ferror(load->ledger) != 0;
    errno = 0;
    failed |= fclose(load->ledger) != 0;
    load->ledger = NULL;
    if (failed)
        return tally_fail(error, TALLY_IO, "ledger %s is not whole: %s", load->options->ledger_path,
                          errno != 0 ? strerror(errno) : "a write failed");
    return TALLY_OK;
}
