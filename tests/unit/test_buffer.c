#include "core/arena.h"
#include "core/buffer.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

static const char *json_of(struct tally_buffer *buffer, const char *text, size_t length)
{
    tally_buffer_clear(buffer);
    tally_buffer_append_json(buffer, text, length);
    return tally_buffer_text(buffer);
}

Test(buffer, never_grows_past_its_limit_and_remembers_that_it_was_asked_to)
{
    struct tally_buffer buffer;
    tally_buffer_init(&buffer, 4);
    tally_buffer_append(&buffer, "abcd", 4);
    cr_assert_not(buffer.failed);
    tally_buffer_append_char(&buffer, 'e');
    cr_assert(buffer.failed);
    buffer.length = 0;
    tally_buffer_append_char(&buffer, 'f');
    cr_assert_eq(buffer.length, 0, "an append after a failed one must do nothing");
    tally_buffer_clear(&buffer);
    tally_buffer_append_char(&buffer, 'f');
    cr_assert_eq(buffer.length, 1);
    tally_buffer_release(&buffer);
}

Test(buffer, writes_every_integer_exactly)
{
    struct tally_buffer buffer;
    tally_buffer_init(&buffer, 256);
    tally_buffer_append_integer(&buffer, INT64_MIN);
    tally_buffer_append_char(&buffer, ' ');
    tally_buffer_append_integer(&buffer, 0);
    tally_buffer_append_char(&buffer, ' ');
    tally_buffer_append_integer(&buffer, INT64_MAX);
    cr_assert_str_eq(tally_buffer_text(&buffer), "-9223372036854775808 0 9223372036854775807");
    tally_buffer_release(&buffer);
}

Test(buffer, json_strings_are_valid_whatever_the_bytes_are)
{
    struct tally_buffer buffer;
    tally_buffer_init(&buffer, 4096);
    cr_assert_str_eq(json_of(&buffer, "a\"b\\c", 5), "\"a\\\"b\\\\c\"");
    cr_assert_str_eq(json_of(&buffer, "\n\x01\x1f", 3), "\"\\n\\u0001\\u001f\"");
    cr_assert_str_eq(json_of(&buffer, "\0", 1), "\"\\u0000\"");
    cr_assert_str_eq(json_of(&buffer, "é€😀", 9), "\"é€😀\"");
    cr_assert_str_eq(json_of(&buffer, "\xC0\xAF", 2), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"", "overlong");
    cr_assert_str_eq(json_of(&buffer, "\xED\xA0\x80", 3),
                     "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"", "surrogate");
    cr_assert_str_eq(json_of(&buffer, "\xE2\x82", 2), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"", "cut off");
    tally_buffer_release(&buffer);
}

Test(arena, gives_zeroed_aligned_memory_up_to_its_limit_and_no_further)
{
    struct tally_arena arena;
    tally_arena_init(&arena, 3 * 4096);
    for (int i = 0; i < 3; i++) {
        unsigned char *memory = tally_arena_allocate(&arena, 3001);
        cr_assert_not_null(memory);
        cr_assert_eq((uintptr_t)memory % 16, 0);
        cr_assert_eq(memory[0] | memory[3000], 0);
        memset(memory, 0xff, 3001);
    }
    cr_assert_null(tally_arena_allocate(&arena, 3001));
    cr_assert_null(tally_arena_allocate(&arena, SIZE_MAX));
    tally_arena_reset(&arena);
    cr_assert_leq(arena.used, 4096, "a reset keeps one block");
    for (int i = 0; i < 2; i++)
        cr_assert_not_null(tally_arena_allocate(&arena, 3001));
    tally_arena_release(&arena);
    cr_assert_str_eq(tally_arena_copy(&arena, "texts", 4), "text");
    tally_arena_release(&arena);
}
