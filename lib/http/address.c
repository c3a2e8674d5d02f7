#include "http/address.h"

#include "core/config.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

enum tally_status tally_http_resolve(const char *text, bool passive,
                                     struct sockaddr_storage *address, socklen_t *length,
                                     struct tally_error *error)
{
    struct tally_address parsed;
    enum tally_status status = tally_address_parse(text != NULL ? text : "", &parsed, error);
    if (status != TALLY_OK)
        return status;
    char port[8];
    (void)snprintf(port, sizeof port, "%d", parsed.port);
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0),
    };
    struct addrinfo *found = NULL;
    int code = getaddrinfo(parsed.host, port, &hints, &found);
    if (code != 0)
        return tally_fail(error, TALLY_UNAVAILABLE, "%s: %s", text, gai_strerror(code));
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return TALLY_OK;
}
