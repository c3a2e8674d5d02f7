/*
 * Letter book: which dead letters are open, done, or the same record once more.
 *
 * A record can be written to the dead letters again: by a projector that died between the letter
 * and its position, or by a rebuild that applies the same part of the log. Letters of the same
 * source offset with the same key, value and headers are one: the first of them, by partition and
 * offset, is the letter, which is open or done, and the later ones are its repeats. Another record
 * at the same source offset, of a topic that was made anew, is a letter of its own. Repeats are
 * found among TALLY_LETTERS_REMEMBERED letters; one of a letter beyond those counts by itself.
 */
#ifndef TALLY_SERVICE_CTL_LETTER_BOOK_H
#define TALLY_SERVICE_CTL_LETTER_BOOK_H

#include "service/ctl/letter.h"

#define TALLY_LETTERS_REMEMBERED 1000000

struct tally_letter_seen {
    uint64_t fingerprint; /* 0: the slot is free */
    struct tally_letter_place first;
};

struct tally_letter_book {
    struct tally_closed_letters closed;
    struct tally_letter_seen *seen; /* owned hash table of `capacity`, a power of two */
    size_t count, capacity;
    int64_t open, done, repeats; /* letters taken so far */
};

/* What the book says of a letter. */
struct tally_letter_entry {
    bool repeat;                       /* of the letter at `first` */
    struct tally_letter_place first;   /* the letter's own place where it is no repeat */
    bool done;                         /* the first one is, and so are its repeats */
    struct tally_closed_letter closed; /* where done; borrowed from the book */
};

/* Reads which letters of `topic` are done. */
enum tally_status tally_letter_book_open(struct tally_letter_book *book, PGconn *connection,
                                         const char *topic,
                                         struct tally_error *error) TALLY_MUST_CHECK;
void tally_letter_book_close(struct tally_letter_book *book);

/* Takes in the letters of a walk, in its order. A zeroed book has no letter done. */
void tally_letter_book_take(struct tally_letter_book *book, const struct tally_letter *letter,
                            struct tally_letter_entry *entry);

#endif
