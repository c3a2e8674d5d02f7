#include "http/address.h"

#include <netdb.h>
#include <string.h>

enum tally_status tally_http_resolve(const char *text, bool passive,
                                     struct sockaddr_storage *address, socklen_t *length,
                                     struct tally_error *error)
{
    char host[256];
    const char *colon = text != NULL ? strrchr(text, ':') : NULL;
    if (colon == NULL || colon[1] == '\0')
        return tally_fail(error, TALLY_INVALID, "\"%s\" is not host:port",
                          text != NULL ? text : "");
    const char *start = text;
    size_t host_length = (size_t)(colon - text);
    if (host_length >= 2 && text[0] == '[' && colon[-1] == ']') {
        start++;
        host_length -= 2;
    }
    if (host_length >= sizeof host || (host_length == 0 && !passive))
        return tally_fail(error, TALLY_INVALID, "\"%s\" is not host:port", text);
    memcpy(host, start, host_length);
    host[host_length] = '\0';
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0),
    };
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host_length > 0 ? host : NULL, colon + 1, &hints, &found);
    if (code != 0)
        return tally_fail(error, code == EAI_SERVICE ? TALLY_INVALID : TALLY_UNAVAILABLE, "%s: %s",
                          text, gai_strerror(code));
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return TALLY_OK;
}
