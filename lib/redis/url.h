/*
 * Url: where a Redis is, from its text form redis://[[user]:password@]host[:port][/database].
 */
#ifndef TALLY_REDIS_URL_H
#define TALLY_REDIS_URL_H

#include "core/status.h"

#define TALLY_REDIS_HOST_BYTES 256
#define TALLY_REDIS_PASSWORD_BYTES 256

struct tally_redis_url {
    char host[TALLY_REDIS_HOST_BYTES];         /* name or address, IPv6 without brackets */
    int port;                                  /* 1 to 65535; 6379 where the text has none */
    int database;                              /* 0 to 65535; 0 where the text has none */
    char user[TALLY_REDIS_PASSWORD_BYTES];     /* "": the default user */
    char password[TALLY_REDIS_PASSWORD_BYTES]; /* "": no AUTH */
};

/* Reads `text`; user and password may be percent-encoded (RFC 3986 section 2.1). Fails with
 * TALLY_CONFIG and a reason that never repeats the password. Any thread. */
enum tally_status tally_redis_url_parse(const char *text, struct tally_redis_url *url,
                                        struct tally_error *error) TALLY_MUST_CHECK;

#endif
