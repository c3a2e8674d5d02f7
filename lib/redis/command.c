#include "redis/command.h"

#include <string.h>

void tally_redis_command(struct tally_buffer *out, size_t arguments)
{
    tally_buffer_append_char(out, '*');
    tally_buffer_append_integer(out, (int64_t)arguments);
    tally_buffer_append(out, "\r\n", 2);
}

void tally_redis_part(struct tally_buffer *out, const char *bytes, size_t length)
{
    tally_buffer_append_char(out, '$');
    tally_buffer_append_integer(out, (int64_t)length);
    tally_buffer_append(out, "\r\n", 2);
    tally_buffer_append(out, bytes, length);
    tally_buffer_append(out, "\r\n", 2);
}

void tally_redis_part_text(struct tally_buffer *out, const char *text)
{
    tally_redis_part(out, text, strlen(text));
}
