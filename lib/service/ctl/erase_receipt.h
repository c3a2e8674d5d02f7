/*
 * Erase receipt: what an erasure has removed, what remains and until when, and what it does not
 * reach; as JSON for the file and machines, as text for people.
 */
#ifndef TALLY_SERVICE_CTL_ERASE_RECEIPT_H
#define TALLY_SERVICE_CTL_ERASE_RECEIPT_H

#include "service/ctl/erase.h"

#include <jansson.h>

/* `again` is the command that goes on where parts are pending. NULL: no memory. The caller
 * releases. */
json_t *tally_erase_receipt(const struct tally_erase_options *options,
                            const struct tally_erase_result *result, const char *again);
/* Prints a receipt for people to standard output. */
void tally_erase_receipt_print(const json_t *receipt);
/* Writes a receipt to a new file that takes the place of `path` at once. IO: with errno's text. */
enum tally_status tally_erase_receipt_write(const json_t *receipt, const char *path,
                                            struct tally_error *error) TALLY_MUST_CHECK;

#endif
