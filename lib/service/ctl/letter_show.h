/*
 * Letter show: a dead letter as JSON and as a row for people.
 */
#ifndef TALLY_SERVICE_CTL_LETTER_SHOW_H
#define TALLY_SERVICE_CTL_LETTER_SHOW_H

#include "service/ctl/letter_book.h"

#include <jansson.h>

/* "PARTITION:OFFSET". */
#define TALLY_LETTER_PLACE_BYTES 48
const char *tally_letter_place_text(const struct tally_letter_place *place,
                                    char text[TALLY_LETTER_PLACE_BYTES]);

/* Owned by the caller. */
json_t *tally_letter_json(const struct tally_letter *letter,
                          const struct tally_letter_entry *entry);
/* Adds key, value and headers to the letter's `object`; bytes that are no UTF-8 as hexadecimal,
 * under "keyHex" and "valueHex". NULL where there is no memory. */
void tally_letter_add_whole(json_t **object, const struct tally_letter *letter);
void tally_letter_print_row(const struct tally_letter *letter,
                            const struct tally_letter_entry *entry);

#endif
