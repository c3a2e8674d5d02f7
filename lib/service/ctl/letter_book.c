#include "service/ctl/letter_book.h"

#include <stdlib.h>
#include <string.h>

enum { HEADERS_MOST = 64, CAPACITY_FIRST = 1024 };

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
static const uint64_t FNV_BASIS = 14695981039346656037ULL, FNV_PRIME = 1099511628211ULL;

static uint64_t add_bytes(uint64_t hash, const void *bytes, size_t length)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ byte[i]) * FNV_PRIME;
    return hash;
}

/* With its length, so that what ends one field cannot begin the next. */
static uint64_t add_field(uint64_t hash, const void *bytes, size_t length)
{
    const uint64_t present = bytes != NULL ? length + 1 : 0;
    hash = add_bytes(hash, &present, sizeof present);
    return bytes != NULL ? add_bytes(hash, bytes, length) : hash;
}

/* Of everything but the reason, which another version may word otherwise. */
static uint64_t fingerprint(const struct tally_record *record)
{
    struct tally_record_header headers[HEADERS_MOST];
    const size_t count = tally_record_headers(record, headers, HEADERS_MOST);
    uint64_t hash = add_field(FNV_BASIS, record->key, record->key_length);
    hash = add_field(hash, record->value, record->value_length);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(headers[i].name, "tally_reason") == 0)
            continue;
        hash = add_field(hash, headers[i].name, strlen(headers[i].name));
        hash = add_field(hash, headers[i].value, headers[i].length);
    }
    return hash != 0 ? hash : 1;
}

static struct tally_letter_seen *find_slot(struct tally_letter_seen *seen, size_t capacity,
                                           uint64_t wanted)
{
    size_t slot = (size_t)wanted & (capacity - 1);
    while (seen[slot].fingerprint != 0 && seen[slot].fingerprint != wanted)
        slot = (slot + 1) & (capacity - 1);
    return &seen[slot];
}

/* At most half of the table is used. */
static bool make_room(struct tally_letter_book *book)
{
    if (book->count >= TALLY_LETTERS_REMEMBERED)
        return false;
    if (2 * (book->count + 1) <= book->capacity)
        return true;
    const size_t capacity = book->capacity > 0 ? 2 * book->capacity : CAPACITY_FIRST;
    struct tally_letter_seen *seen = calloc(capacity, sizeof *seen);
    if (seen == NULL)
        return false;
    for (size_t i = 0; i < book->capacity; i++)
        if (book->seen[i].fingerprint != 0)
            *find_slot(seen, capacity, book->seen[i].fingerprint) = book->seen[i];
    free(book->seen);
    book->seen = seen;
    book->capacity = capacity;
    return true;
}

/* Whether the letter was seen before, at `first`; else it is remembered. */
static bool seen_before(struct tally_letter_book *book, const struct tally_letter *letter,
                        struct tally_letter_place *first)
{
    /* Without a source it is nobody's copy. */
    if (letter->source_offset < 0 || letter->source_partition < 0)
        return false;
    const uint64_t own = fingerprint(letter->record);
    if (book->capacity > 0) {
        const struct tally_letter_seen *slot = find_slot(book->seen, book->capacity, own);
        if (slot->fingerprint == own) {
            *first = slot->first;
            return true;
        }
    }
    if (make_room(book)) {
        *find_slot(book->seen, book->capacity, own) =
            (struct tally_letter_seen){own, letter->place};
        book->count++;
    }
    return false;
}

enum tally_status tally_letter_book_open(struct tally_letter_book *book, PGconn *connection,
                                         const char *topic, struct tally_error *error)
{
    *book = (struct tally_letter_book){0};
    return tally_closed_letters_read(connection, topic, &book->closed, error);
}

void tally_letter_book_close(struct tally_letter_book *book)
{
    tally_closed_letters_clear(&book->closed);
    free(book->seen);
    *book = (struct tally_letter_book){0};
}

void tally_letter_book_take(struct tally_letter_book *book, const struct tally_letter *letter,
                            struct tally_letter_entry *entry)
{
    *entry = (struct tally_letter_entry){.first = letter->place};
    entry->repeat = seen_before(book, letter, &entry->first);
    entry->done = tally_closed_letters_find(&book->closed, &entry->first, &entry->closed);
    book->repeats += entry->repeat;
    book->open += !entry->repeat && !entry->done;
    book->done += !entry->repeat && entry->done;
}
