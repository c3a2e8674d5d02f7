/*
 * Address: from "host:port" to a socket address, for listening and connecting.
 */
#ifndef TALLY_HTTP_ADDRESS_H
#define TALLY_HTTP_ADDRESS_H

#include "core/status.h"

#include <sys/socket.h>

/* Takes what tally_address_parse() does. `passive`: to listen. May block on DNS. CONFIG: not of
 * this form; UNAVAILABLE: the host is unknown. */
enum tally_status tally_http_resolve(const char *text, bool passive,
                                     struct sockaddr_storage *address, socklen_t *length,
                                     struct tally_error *error) TALLY_MUST_CHECK;

#endif
