#include "service/ctl/letter_show.h"

#include "core/buffer.h"
#include "core/clock.h"
#include "core/id.h"
#include "service/ctl/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { HEADERS_MOST = 64 };

const char *tally_letter_place_text(const struct tally_letter_place *place,
                                    char text[TALLY_LETTER_PLACE_BYTES])
{
    (void)snprintf(text, TALLY_LETTER_PLACE_BYTES, "%" PRId32 ":%" PRId64, place->partition,
                   place->offset);
    return text;
}

json_t *tally_letter_json(const struct tally_letter *letter, const struct tally_letter_entry *entry)
{
    const struct tally_closed_letter *closed = entry->done ? &entry->closed : NULL;
    char first[TALLY_LETTER_PLACE_BYTES];
    char user[TALLY_ID_TEXT_BYTES] = "";
    if (letter->user_id != 0)
        (void)tally_id_format(letter->user_id, user);
    const double age_s =
        (double)tally_clock_wall_us() / 1e6 - (double)letter->place.written_at_ms / 1e3;
    return json_pack(
        "{s:i,s:I,s:s,s:f,s:s,s:{s:s,s:i,s:I},s:s?,s:s,s:I,s:s?,s:s?,s:s?}", "partition",
        (int)letter->place.partition, "offset", (json_int_t)letter->place.offset, "state",
        closed != NULL ? closed->action : "open", "ageSeconds", age_s, "reason", letter->reason,
        "source", "topic", letter->source_topic, "partition", (int)letter->source_partition,
        "offset", (json_int_t)letter->source_offset, "user", user[0] != '\0' ? user : NULL, "type",
        letter->type, "version", (json_int_t)letter->version, "closedReason",
        closed != NULL ? closed->reason : NULL, "closedAt",
        closed != NULL ? closed->closed_at : NULL, "repeatOf",
        entry->repeat ? tally_letter_place_text(&entry->first, first) : NULL);
}

void tally_letter_print_row(const struct tally_letter *letter,
                            const struct tally_letter_entry *entry)
{
    const struct tally_closed_letter *closed = entry->done ? &entry->closed : NULL;
    char age[TALLY_DURATION_BYTES], user[TALLY_ID_TEXT_BYTES] = "-";
    if (letter->user_id != 0)
        (void)tally_id_format(letter->user_id, user);
    tally_ctl_format_duration(
        (double)tally_clock_wall_us() / 1e6 - (double)letter->place.written_at_ms / 1e3, age);
    (void)printf("%d:%-8" PRId64 " %-9s %-12s from %s %d:%" PRId64 "  user %s  %s  %s%s%s%s\n",
                 letter->place.partition, letter->place.offset,
                 closed != NULL ? closed->action : "open", age, letter->source_topic,
                 letter->source_partition, letter->source_offset, user,
                 letter->type[0] != '\0' ? letter->type : "(no type)", letter->reason,
                 closed != NULL ? " (" : "", closed != NULL ? closed->reason : "",
                 closed != NULL ? ")" : "");
}

/* Bytes as JSON text, or as hexadecimal under another name where they are no UTF-8. */
static void set_bytes(json_t **object, const char *name, const char *hex_name, const char *bytes,
                      size_t length)
{
    json_t *text = bytes != NULL ? json_stringn(bytes, length) : json_null();
    if (text != NULL) {
        tally_ctl_json_set(object, name, text);
        return;
    }
    struct tally_buffer hex;
    tally_buffer_init(&hex, 2 * length + 1);
    for (size_t i = 0; bytes != NULL && i < length; i++)
        tally_buffer_format(&hex, "%02x", (unsigned)(unsigned char)bytes[i]);
    tally_ctl_json_set(object, hex_name, json_string(tally_buffer_text(&hex)));
    tally_buffer_release(&hex);
}

void tally_letter_add_whole(json_t **object, const struct tally_letter *letter)
{
    const struct tally_record *record = letter->record;
    struct tally_record_header headers[HEADERS_MOST];
    const size_t count = tally_record_headers(record, headers, HEADERS_MOST);
    json_t *list = json_object();
    for (size_t i = 0; i < count; i++)
        set_bytes(&list, headers[i].name, headers[i].name, headers[i].value, headers[i].length);
    tally_ctl_json_set(object, "headers", list);
    set_bytes(object, "key", "keyHex", record->key, record->key_length);
    set_bytes(object, "value", "valueHex", record->value, record->value_length);
}
