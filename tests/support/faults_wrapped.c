#include "faults.h"

#include <errno.h>
#include <event2/event.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <jansson.h>
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a wrapped function does: `failure` is what it does instead, where it is its turn. */
#define WRAP(type, name, parameters, arguments, failure)      \
    type __real_##name parameters;                            \
    type __wrap_##name parameters;                            \
    type __wrap_##name parameters                             \
    {                                                         \
        if (faults_due(#name, __builtin_return_address(0))) { \
            failure;                                          \
        }                                                     \
        return __real_##name arguments;                       \
    }

#define FAIL(number, result) \
    errno = (number);        \
    return (result)

/* libc */
WRAP(void *, malloc, (size_t size), (size), FAIL(ENOMEM, NULL))
WRAP(void *, calloc, (size_t count, size_t size), (count, size), FAIL(ENOMEM, NULL))
WRAP(void *, realloc, (void *memory, size_t size), (memory, size), FAIL(ENOMEM, NULL))
WRAP(char *, strdup, (const char *text), (text), FAIL(ENOMEM, NULL))
WRAP(char *, strndup, (const char *text, size_t most), (text, most), FAIL(ENOMEM, NULL))
WRAP(int, socket, (int domain, int type, int protocol), (domain, type, protocol), FAIL(EMFILE, -1))
WRAP(int, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags),
     (fd, address, length, flags), FAIL(EMFILE, -1))
WRAP(int, bind, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length),
     FAIL(EADDRINUSE, -1))
WRAP(int, listen, (int fd, int backlog), (fd, backlog), FAIL(EADDRINUSE, -1))
WRAP(int, connect, (int fd, const struct sockaddr *address, socklen_t length),
     (fd, address, length), FAIL(ENETUNREACH, -1))
WRAP(int, getsockname, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length),
     FAIL(ENOBUFS, -1))
WRAP(int, setsockopt, (int fd, int level, int option, const void *value, socklen_t length),
     (fd, level, option, value, length), FAIL(ENOBUFS, -1))
WRAP(int, getaddrinfo,
     (const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list),
     (host, port, hints, list), return EAI_MEMORY)
WRAP(int, eventfd, (unsigned count, int flags), (count, flags), FAIL(EMFILE, -1))
WRAP(ssize_t, recv, (int fd, void *bytes, size_t size, int flags), (fd, bytes, size, flags),
     FAIL(ECONNRESET, -1))
WRAP(ssize_t, send, (int fd, const void *bytes, size_t size, int flags), (fd, bytes, size, flags),
     FAIL(ECONNRESET, -1))
WRAP(ssize_t, getrandom, (void *bytes, size_t size, unsigned flags), (bytes, size, flags),
     FAIL(EINTR, -1))
/* What fopen() and open() are called where files are large. */
WRAP(FILE *, fopen64, (const char *path, const char *mode), (path, mode), FAIL(EMFILE, NULL))
WRAP(int, open64, (const char *path, int flags, mode_t mode), (path, flags, mode), FAIL(EMFILE, -1))
WRAP(ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size), FAIL(ENOSPC, -1))
WRAP(ssize_t, read, (int fd, void *bytes, size_t size), (fd, bytes, size), FAIL(EIO, -1))
WRAP(int, poll, (struct pollfd * list, nfds_t count, int timeout_ms), (list, count, timeout_ms),
     FAIL(ENOMEM, -1))
WRAP(int, fsync, (int fd), (fd), FAIL(EIO, -1))
WRAP(int, rename, (const char *from, const char *to), (from, to), FAIL(EACCES, -1))
WRAP(int, pthread_create,
     (pthread_t * made, const pthread_attr_t *attributes, void *(*body)(void *), void *argument),
     (made, attributes, body, argument), return EAGAIN)

/* libevent; event_assign() fails for nothing but a wrong call */
WRAP(struct event *, event_new,
     (struct event_base * base, evutil_socket_t fd, short what, event_callback_fn call,
      void *argument),
     (base, fd, what, call, argument), return NULL)
WRAP(int, event_add, (struct event * event, const struct timeval *timeout), (event, timeout),
     return -1)
WRAP(struct event_config *, event_config_new, (void), (), return NULL)
WRAP(struct event_base *, event_base_new_with_config, (const struct event_config *config), (config),
     return NULL)

/* jansson, which takes over what is put into something also where it fails */
WRAP(json_t *, json_object, (void), (), return NULL)
WRAP(json_t *, json_array, (void), (), return NULL)
WRAP(json_t *, json_string, (const char *text), (text), return NULL)
WRAP(json_t *, json_stringn, (const char *text, size_t length), (text, length), return NULL)
WRAP(json_t *, json_real, (double number), (number), return NULL)
WRAP(int, json_dumpf, (const json_t *value, FILE *file, size_t flags), (value, file, flags),
     return -1)
WRAP(char *, json_dumps, (const json_t *value, size_t flags), (value, flags), return NULL)
WRAP(json_t *, json_integer, (json_int_t number), (number), return NULL)
WRAP(json_t *, json_loadb, (const char *text, size_t length, size_t flags, json_error_t *error),
     (text, length, flags, error), {
         if (error != NULL)
             *error = (json_error_t){0};
         return NULL;
     })
WRAP(int, json_object_set_new, (json_t * object, const char *name, json_t *value),
     (object, name, value), {
         json_decref(value);
         return -1;
     })
WRAP(int, json_array_append_new, (json_t * array, json_t *value), (array, value), {
    json_decref(value);
    return -1;
})

json_t *__wrap_json_pack(const char *format, ...);
json_t *__wrap_json_pack(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    json_t *made = json_vpack_ex(NULL, 0, format, arguments);
    va_end(arguments);
    if (!faults_due("json_pack", __builtin_return_address(0)))
        return made;
    json_decref(made);
    return NULL;
}

/* libpq */
WRAP(PGconn *, PQconnectStartParams,
     (const char *const *names, const char *const *values, int expand), (names, values, expand),
     return NULL)
WRAP(PGconn *, PQconnectdbParams, (const char *const *names, const char *const *values, int expand),
     (names, values, expand), return NULL)
WRAP(PostgresPollingStatusType, PQconnectPoll, (PGconn * connection), (connection),
     return PGRES_POLLING_FAILED)
WRAP(int, PQsetnonblocking, (PGconn * connection, int wanted), (connection, wanted), return -1)
WRAP(PGresult *, PQexec, (PGconn * connection, const char *sql), (connection, sql), return NULL)
WRAP(PGresult *, PQexecParams,
     (PGconn * connection, const char *sql, int count, const Oid *types, const char *const *values,
      const int *lengths, const int *formats, int format),
     (connection, sql, count, types, values, lengths, formats, format), return NULL)
WRAP(PGresult *, PQprepare,
     (PGconn * connection, const char *name, const char *sql, int count, const Oid *types),
     (connection, name, sql, count, types), return NULL)
WRAP(PGresult *, PQexecPrepared,
     (PGconn * connection, const char *name, int count, const char *const *values,
      const int *lengths, const int *formats, int format),
     (connection, name, count, values, lengths, formats, format), return NULL)
WRAP(int, PQsendQuery, (PGconn * connection, const char *sql), (connection, sql), return 0)
WRAP(int, PQsendPrepare,
     (PGconn * connection, const char *name, const char *sql, int count, const Oid *types),
     (connection, name, sql, count, types), return 0)
WRAP(int, PQsendQueryPrepared,
     (PGconn * connection, const char *name, int count, const char *const *values,
      const int *lengths, const int *formats, int format),
     (connection, name, count, values, lengths, formats, format), return 0)
WRAP(int, PQflush, (PGconn * connection), (connection), return -1)
WRAP(int, PQconsumeInput, (PGconn * connection), (connection), return 0)
WRAP(PQconninfoOption *, PQconninfoParse, (const char *text, char **failure), (text, failure), {
    if (failure != NULL)
        *failure = NULL; /* as where there is no memory */
    return NULL;
})

/* hiredis */
static int fail_redis(redisContext *context)
{
    context->err = REDIS_ERR_OOM;
    (void)snprintf(context->errstr, sizeof context->errstr, "Out of memory");
    return REDIS_ERR;
}
WRAP(redisContext *, redisConnectWithTimeout, (const char *host, int port, struct timeval most),
     (host, port, most), return NULL)
WRAP(int, redisSetTimeout, (redisContext * context, struct timeval most), (context, most),
     return fail_redis(context))
WRAP(int, redisGetReply, (redisContext * context, void **reply), (context, reply), {
    *reply = NULL;
    return fail_redis(context);
})
WRAP(int, redisBufferWrite, (redisContext * context, int *done), (context, done),
     return fail_redis(context))
WRAP(int, redisAppendFormattedCommand, (redisContext * context, const char *text, size_t length),
     (context, text, length), return fail_redis(context))
WRAP(int, redisvAppendCommand, (redisContext * context, const char *format, va_list arguments),
     (context, format, arguments), return fail_redis(context))
WRAP(redisAsyncContext *, redisAsyncConnect, (const char *host, int port), (host, port),
     return NULL)
WRAP(int, redisAsyncSetConnectCallback, (redisAsyncContext * context, redisConnectCallback *call),
     (context, call), return REDIS_ERR)
WRAP(int, redisAsyncFormattedCommand,
     (redisAsyncContext * context, redisCallbackFn *call, void *data, const char *text,
      size_t length),
     (context, call, data, text, length), return REDIS_ERR)

/* librdkafka */
static void explain(char *text, size_t bytes)
{
    if (text != NULL && bytes > 0)
        (void)snprintf(text, bytes, "out of memory");
}
WRAP(rd_kafka_t *, rd_kafka_new,
     (rd_kafka_type_t type, rd_kafka_conf_t *conf, char *text, size_t bytes),
     (type, conf, text, bytes), {
         explain(text, bytes);
         return NULL;
     })
WRAP(rd_kafka_conf_t *, rd_kafka_conf_new, (void), (), return NULL)
WRAP(rd_kafka_conf_res_t, rd_kafka_conf_set,
     (rd_kafka_conf_t * conf, const char *name, const char *value, char *text, size_t bytes),
     (conf, name, value, text, bytes), {
         explain(text, bytes);
         return RD_KAFKA_CONF_INVALID;
     })
WRAP(rd_kafka_topic_t *, rd_kafka_topic_new,
     (rd_kafka_t * handle, const char *name, rd_kafka_topic_conf_t *conf), (handle, name, conf),
     return NULL)
WRAP(rd_kafka_resp_err_t, rd_kafka_metadata,
     (rd_kafka_t * handle, int all, rd_kafka_topic_t *topic, const struct rd_kafka_metadata **found,
      int timeout_ms),
     (handle, all, topic, found, timeout_ms), return RD_KAFKA_RESP_ERR__TIMED_OUT)
WRAP(rd_kafka_resp_err_t, rd_kafka_offsets_for_times,
     (rd_kafka_t * handle, rd_kafka_topic_partition_list_t *list, int timeout_ms),
     (handle, list, timeout_ms), return RD_KAFKA_RESP_ERR__TIMED_OUT)
WRAP(char *, rd_kafka_clusterid, (rd_kafka_t * handle, int timeout_ms), (handle, timeout_ms),
     return NULL)
WRAP(rd_kafka_resp_err_t, rd_kafka_subscribe,
     (rd_kafka_t * handle, const rd_kafka_topic_partition_list_t *topics), (handle, topics),
     return RD_KAFKA_RESP_ERR__FAIL)
WRAP(rd_kafka_resp_err_t, rd_kafka_assign,
     (rd_kafka_t * handle, const rd_kafka_topic_partition_list_t *list), (handle, list),
     return RD_KAFKA_RESP_ERR__FAIL)
WRAP(rd_kafka_message_t *, rd_kafka_consumer_poll, (rd_kafka_t * handle, int timeout_ms),
     (handle, timeout_ms), return NULL)
WRAP(rd_kafka_resp_err_t, rd_kafka_offsets_store,
     (rd_kafka_t * handle, rd_kafka_topic_partition_list_t *list), (handle, list),
     return RD_KAFKA_RESP_ERR__STATE)
WRAP(rd_kafka_resp_err_t, rd_kafka_message_headers,
     (const rd_kafka_message_t *message, rd_kafka_headers_t **headers), (message, headers),
     return RD_KAFKA_RESP_ERR__BAD_MSG)
WRAP(rd_kafka_resp_err_t, rd_kafka_header_add,
     (rd_kafka_headers_t * headers, const char *name, ssize_t name_length, const void *value,
      ssize_t length),
     (headers, name, name_length, value, length), return RD_KAFKA_RESP_ERR__READ_ONLY)
WRAP(rd_kafka_headers_t *, rd_kafka_headers_new, (size_t count), (count), return NULL)
WRAP(rd_kafka_resp_err_t, rd_kafka_header_get_all,
     (const rd_kafka_headers_t *headers, size_t index, const char **name, const void **value,
      size_t *length),
     (headers, index, name, value, length), return RD_KAFKA_RESP_ERR__NOENT)
WRAP(rd_kafka_resp_err_t, rd_kafka_message_detach_headers,
     (rd_kafka_message_t * message, rd_kafka_headers_t **headers), (message, headers),
     return RD_KAFKA_RESP_ERR__NOENT)
WRAP(rd_kafka_resp_err_t, rd_kafka_consumer_close, (rd_kafka_t * handle), (handle),
     return RD_KAFKA_RESP_ERR__TIMED_OUT)
WRAP(rd_kafka_resp_err_t, rd_kafka_purge, (rd_kafka_t * handle, int flags), (handle, flags),
     return RD_KAFKA_RESP_ERR__STATE)
WRAP(rd_kafka_event_t *, rd_kafka_queue_poll, (rd_kafka_queue_t * queue, int timeout_ms),
     (queue, timeout_ms), return NULL)
WRAP(rd_kafka_queue_t *, rd_kafka_queue_get_main, (rd_kafka_t * handle), (handle), return NULL)
WRAP(rd_kafka_NewTopic_t *, rd_kafka_NewTopic_new,
     (const char *name, int partitions, int replicas, char *text, size_t bytes),
     (name, partitions, replicas, text, bytes), {
         explain(text, bytes);
         return NULL;
     })
WRAP(rd_kafka_resp_err_t, rd_kafka_NewTopic_set_config,
     (rd_kafka_NewTopic_t * topic, const char *name, const char *value), (topic, name, value),
     return RD_KAFKA_RESP_ERR__INVALID_ARG)
WRAP(rd_kafka_AdminOptions_t *, rd_kafka_AdminOptions_new,
     (rd_kafka_t * handle, rd_kafka_admin_op_t operation), (handle, operation), return NULL)
WRAP(rd_kafka_resp_err_t, rd_kafka_AdminOptions_set_request_timeout,
     (rd_kafka_AdminOptions_t * options, int timeout_ms, char *text, size_t bytes),
     (options, timeout_ms, text, bytes), {
         explain(text, bytes);
         return RD_KAFKA_RESP_ERR__INVALID_ARG;
     })

/* One argument after the other, as the header's RD_KAFKA_V_ macros lay them out. */
static rd_kafka_vu_t next_argument(rd_kafka_vtype_t type, va_list *arguments)
{
    rd_kafka_vu_t unit = {.vtype = type};
    switch (type) {
    case RD_KAFKA_VTYPE_RKT:
        unit.u.rkt = va_arg(*arguments, rd_kafka_topic_t *);
        break;
    case RD_KAFKA_VTYPE_TOPIC:
        unit.u.cstr = va_arg(*arguments, const char *);
        break;
    case RD_KAFKA_VTYPE_PARTITION:
        unit.u.i32 = va_arg(*arguments, int32_t);
        break;
    case RD_KAFKA_VTYPE_MSGFLAGS:
        unit.u.i = va_arg(*arguments, int);
        break;
    case RD_KAFKA_VTYPE_KEY:
    case RD_KAFKA_VTYPE_VALUE:
        unit.u.mem.ptr = va_arg(*arguments, void *);
        unit.u.mem.size = va_arg(*arguments, size_t);
        break;
    case RD_KAFKA_VTYPE_HEADERS:
        unit.u.headers = va_arg(*arguments, rd_kafka_headers_t *);
        break;
    case RD_KAFKA_VTYPE_OPAQUE:
        unit.u.ptr = va_arg(*arguments, void *);
        break;
    default:
        abort(); /* of a kind that no caller passes */
    }
    return unit;
}

rd_kafka_resp_err_t __wrap_rd_kafka_producev(rd_kafka_t *handle, ...);
rd_kafka_resp_err_t __wrap_rd_kafka_producev(rd_kafka_t *handle, ...)
{
    rd_kafka_vu_t units[16];
    size_t count = 0;
    va_list arguments;
    if (faults_due("rd_kafka_producev", __builtin_return_address(0)))
        return RD_KAFKA_RESP_ERR__QUEUE_FULL;
    va_start(arguments, handle);
    for (int type = va_arg(arguments, int); type != RD_KAFKA_VTYPE_END && count < 16;
         type = va_arg(arguments, int))
        units[count++] = next_argument((rd_kafka_vtype_t)type, &arguments);
    va_end(arguments);
    rd_kafka_error_t *error = rd_kafka_produceva(handle, units, count);
    const rd_kafka_resp_err_t code =
        error != NULL ? rd_kafka_error_code(error) : RD_KAFKA_RESP_ERR_NO_ERROR;
    if (error != NULL)
        rd_kafka_error_destroy(error);
    return code;
}

/* OpenSSL */
WRAP(EVP_MD_CTX *, EVP_MD_CTX_new, (void), (), return NULL)
WRAP(int, EVP_DigestInit_ex, (EVP_MD_CTX * context, const EVP_MD *type, ENGINE *engine),
     (context, type, engine), return 0)
WRAP(int, EVP_DigestUpdate, (EVP_MD_CTX * context, const void *bytes, size_t length),
     (context, bytes, length), return 0)
WRAP(int, EVP_DigestFinal_ex, (EVP_MD_CTX * context, unsigned char *digest, unsigned *length),
     (context, digest, length), return 0)
