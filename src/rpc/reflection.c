/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/reflection.h"

#include "reflection.pb-c.h"

/* One file of the set: slices of the descriptors given. */
struct rpc_reflection_file {
    struct str name, package, encoded;
};

struct rpc_reflection {
    const struct rpc_services *services;
    struct rpc_reflection_file *files; /* owned */
    size_t file_count;
    struct rpc_service v1, v1alpha;
};

/* ---- a walk over encoded descriptors (google/protobuf/descriptor.proto) ---- */

/* Field numbers, by message. */
enum {
    RPC_DESCRIPTOR_NAME = 1, /* of every kind of descriptor */
    RPC_SET_FILE = 1,
    RPC_FILE_PACKAGE = 2,
    RPC_FILE_DEPENDENCY = 3,
    RPC_FILE_MESSAGE = 4,
    RPC_FILE_ENUM = 5,
    RPC_FILE_SERVICE = 6,
    RPC_FILE_EXTENSION = 7,
    RPC_MESSAGE_NESTED = 3,
    RPC_MESSAGE_ENUM = 4,
    RPC_MESSAGE_EXTENSION = 6,
    RPC_SERVICE_METHOD = 2,
};

static bool rpc_descriptor_varint(struct str *in, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && in->n > 0; shift += 7) {
        uint8_t byte = (uint8_t)*in->p++;
        in->n--;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* The next field that has a length; numbers are passed over. False at the end, and on what is malformed (*bad). */
static bool rpc_descriptor_next(struct str *in, unsigned *number, struct str *content, bool *bad)
{
    uint64_t tag, n;

    while (in->n > 0) {
        *bad = true;
        if (!rpc_descriptor_varint(in, &tag) || (tag & 7) > 2)
            return false;
        if ((tag & 7) == 1)
            n = 8;
        else if (!rpc_descriptor_varint(in, &n))
            return false;
        if ((tag & 7) == 0)
            n = 0; /* that was the number */
        if (n > in->n)
            return false;
        *bad = false;
        *number = (unsigned)(tag >> 3);
        *content = (struct str){ in->p, (size_t)n };
        in->p += n;
        in->n -= (size_t)n;
        if ((tag & 7) == 2)
            return true;
    }
    *bad = false;
    return false;
}

/* The first field with this number; empty when there is none. */
static struct str rpc_descriptor_field(struct str in, unsigned wanted)
{
    struct str content;
    unsigned number;
    bool bad;

    while (rpc_descriptor_next(&in, &number, &content, &bad))
        if (number == wanted)
            return content;
    return STR("");
}

/* Takes "name." (or all of "name") off the front of a symbol. */
static bool rpc_symbol_strip(struct str *symbol, struct str name)
{
    if (name.n == 0 || symbol->n < name.n || memcmp(symbol->p, name.p, name.n) != 0)
        return false;
    if (symbol->n > name.n && symbol->p[name.n] != '.')
        return false;
    size_t n = symbol->n > name.n ? name.n + 1 : name.n;
    symbol->p += n;
    symbol->n -= n;
    return true;
}

enum rpc_symbol_scope { RPC_SCOPE_FILE, RPC_SCOPE_MESSAGE, RPC_SCOPE_SERVICE, RPC_SCOPE_LEAF };

/* What a field of a scope declares; RPC_SCOPE_FILE: nothing with a name. */
static enum rpc_symbol_scope rpc_symbol_declared(enum rpc_symbol_scope in, unsigned number)
{
    if (in == RPC_SCOPE_FILE && number == RPC_FILE_MESSAGE)
        return RPC_SCOPE_MESSAGE;
    if (in == RPC_SCOPE_FILE && number == RPC_FILE_SERVICE)
        return RPC_SCOPE_SERVICE;
    if (in == RPC_SCOPE_FILE && (number == RPC_FILE_ENUM || number == RPC_FILE_EXTENSION))
        return RPC_SCOPE_LEAF;
    if (in == RPC_SCOPE_MESSAGE && number == RPC_MESSAGE_NESTED)
        return RPC_SCOPE_MESSAGE;
    if (in == RPC_SCOPE_MESSAGE && (number == RPC_MESSAGE_ENUM || number == RPC_MESSAGE_EXTENSION))
        return RPC_SCOPE_LEAF;
    if (in == RPC_SCOPE_SERVICE && number == RPC_SERVICE_METHOD)
        return RPC_SCOPE_LEAF;
    return RPC_SCOPE_FILE;
}

/* Whether `symbol`, relative to the descriptor, is declared in it. Messages are nested as deep as the symbol has dots. */
static bool rpc_symbol_declared_in(struct str descriptor, enum rpc_symbol_scope scope, struct str symbol,
                                   bool message_only)
{
    struct str content;
    unsigned number;
    bool bad;

    while (rpc_descriptor_next(&descriptor, &number, &content, &bad)) {
        enum rpc_symbol_scope declared = rpc_symbol_declared(scope, number);
        struct str rest = symbol;
        if (declared == RPC_SCOPE_FILE || !rpc_symbol_strip(&rest, rpc_descriptor_field(content, RPC_DESCRIPTOR_NAME)))
            continue;
        if (rest.n == 0) {
            if (!message_only || declared == RPC_SCOPE_MESSAGE)
                return true;
        } else if (declared != RPC_SCOPE_LEAF && rpc_symbol_declared_in(content, declared, rest, message_only)) {
            return true;
        }
    }
    return false;
}

static const struct rpc_reflection_file *rpc_reflection_by_symbol(const struct rpc_reflection *r, const char *symbol,
                                                                  bool message_only)
{
    for (size_t i = 0; i < r->file_count; i++) {
        struct str rest = str_of(symbol);
        if (r->files[i].package.n > 0 && !rpc_symbol_strip(&rest, r->files[i].package))
            continue;
        if (rest.n > 0 && rpc_symbol_declared_in(r->files[i].encoded, RPC_SCOPE_FILE, rest, message_only))
            return &r->files[i];
    }
    return NULL;
}

static const struct rpc_reflection_file *rpc_reflection_by_name(const struct rpc_reflection *r, struct str name)
{
    for (size_t i = 0; i < r->file_count; i++)
        if (r->files[i].name.n == name.n && memcmp(r->files[i].name.p, name.p, name.n) == 0)
            return &r->files[i];
    return NULL;
}

/* ---- answers ---- */

typedef Grpc__Reflection__V1__ServerReflectionRequest rpc_reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse rpc_reflection_response;

static void rpc_reflection_error(rpc_reflection_response *out, struct arena *arena, enum status_code code, const char *text)
{
    Grpc__Reflection__V1__ErrorResponse *error = ARENA_NEW(arena, Grpc__Reflection__V1__ErrorResponse);

    grpc__reflection__v1__error_response__init(error);
    error->error_code = (int32_t)code;
    error->error_message = arena_strdup(arena, text);
    out->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    out->error_response = error;
}

static void rpc_reflection_not_found(rpc_reflection_response *out, struct arena *arena, const char *what, const char *name)
{
    rpc_reflection_error(out, arena, STATUS_NOT_FOUND, arena_printf(arena, "%s %.200s is not known here", what, name));
}

/* The file, then those it imports, and theirs: each once. */
static void rpc_reflection_files(const struct rpc_reflection *r, const struct rpc_reflection_file *file,
                                 rpc_reflection_response *out, struct arena *arena)
{
    Grpc__Reflection__V1__FileDescriptorResponse *answer = ARENA_NEW(arena, Grpc__Reflection__V1__FileDescriptorResponse);
    const struct rpc_reflection_file **chosen = ARENA_ARRAY(arena, const struct rpc_reflection_file *, r->file_count);
    size_t count = 0;

    chosen[count++] = file;
    for (size_t i = 0; i < count; i++) {
        struct str in = chosen[i]->encoded, content;
        unsigned number;
        bool bad;
        while (rpc_descriptor_next(&in, &number, &content, &bad)) {
            const struct rpc_reflection_file *import =
                number == RPC_FILE_DEPENDENCY ? rpc_reflection_by_name(r, content) : NULL;
            size_t k = 0;
            while (k < count && chosen[k] != import)
                k++;
            if (import != NULL && k == count)
                chosen[count++] = import;
        }
    }
    grpc__reflection__v1__file_descriptor_response__init(answer);
    answer->file_descriptor_proto = ARENA_ARRAY(arena, ProtobufCBinaryData, count);
    answer->n_file_descriptor_proto = count;
    for (size_t i = 0; i < count; i++)
        answer->file_descriptor_proto[i] =
            (ProtobufCBinaryData){ chosen[i]->encoded.n, (uint8_t *)(uintptr_t)chosen[i]->encoded.p };
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    out->file_descriptor_response = answer;
}

static void rpc_reflection_list(const struct rpc_reflection *r, rpc_reflection_response *out, struct arena *arena)
{
    Grpc__Reflection__V1__ListServiceResponse *list = ARENA_NEW(arena, Grpc__Reflection__V1__ListServiceResponse);

    grpc__reflection__v1__list_service_response__init(list);
    list->service = ARENA_ARRAY(arena, Grpc__Reflection__V1__ServiceResponse *, r->services->count);
    for (size_t i = 0; i < r->services->count; i++) {
        Grpc__Reflection__V1__ServiceResponse *service = ARENA_NEW(arena, Grpc__Reflection__V1__ServiceResponse);
        grpc__reflection__v1__service_response__init(service);
        service->name = arena_strdup(arena, r->services->services[i]->name);
        list->service[list->n_service++] = service;
    }
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    out->list_services_response = list;
}

/* Nothing of ours extends anything: a type that exists has no extensions. */
static void rpc_reflection_extensions(const struct rpc_reflection *r, const char *type, rpc_reflection_response *out,
                                      struct arena *arena)
{
    Grpc__Reflection__V1__ExtensionNumberResponse *answer;

    if (rpc_reflection_by_symbol(r, type, true) == NULL) {
        rpc_reflection_not_found(out, arena, "message", type);
        return;
    }
    answer = ARENA_NEW(arena, Grpc__Reflection__V1__ExtensionNumberResponse);
    grpc__reflection__v1__extension_number_response__init(answer);
    answer->base_type_name = arena_strdup(arena, type);
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    out->all_extension_numbers_response = answer;
}

static void rpc_reflection_answer(const struct rpc_reflection *r, const rpc_reflection_request *request,
                                  rpc_reflection_response *out, struct arena *arena)
{
    const struct rpc_reflection_file *file;

    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        file = rpc_reflection_by_name(r, str_of(request->file_by_filename));
        if (file != NULL)
            rpc_reflection_files(r, file, out, arena);
        else
            rpc_reflection_not_found(out, arena, "file", request->file_by_filename);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        file = rpc_reflection_by_symbol(r, request->file_containing_symbol, false);
        if (file != NULL)
            rpc_reflection_files(r, file, out, arena);
        else
            rpc_reflection_not_found(out, arena, "symbol", request->file_containing_symbol);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        rpc_reflection_not_found(out, arena, "an extension of", request->file_containing_extension->containing_type);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        rpc_reflection_extensions(r, request->all_extension_numbers_of_type, out, arena);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        rpc_reflection_list(r, out, arena);
        break;
    default:
        rpc_reflection_error(out, arena, STATUS_INVALID_ARGUMENT, "the request asks for nothing that is known here");
        break;
    }
}

/* One stream of questions, in its call's arena. */
struct rpc_reflection_stream {
    const struct rpc_reflection *reflection;
    struct rpc_call *call;
};

static void rpc_reflection_on_writable(void *arg)
{
    struct rpc_reflection_stream *stream = arg;

    rpc_call_pause(stream->call, false);
}

static void rpc_reflection_on_message(void *arg, const ProtobufCMessage *message)
{
    struct rpc_reflection_stream *stream = arg;
    struct arena arena cleanup_arena = ARENA_INIT;
    rpc_reflection_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

    if (message == NULL) {
        rpc_finish(stream->call, NULL);
        return;
    }
    const rpc_reflection_request *request = (const void *)message;
    response.valid_host = request->host;
    response.original_request = (rpc_reflection_request *)(uintptr_t)request;
    rpc_reflection_answer(stream->reflection, request, &response, &arena);
    if (!rpc_send(stream->call, &response.base))
        rpc_call_pause(stream->call, true); /* until the client has read what it asked for */
}

static void rpc_reflection_on_cancel(void *arg)
{
    (void)arg; /* nothing but the arena to let go */
}

static void rpc_reflection_on_info(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct rpc_reflection_stream *stream = ARENA_NEW(rpc_call_arena(call), struct rpc_reflection_stream);

    (void)message;
    stream->reflection = context;
    stream->call = call;
    rpc_call_on_message(call, rpc_reflection_on_message, stream);
    rpc_call_on_writable(call, rpc_reflection_on_writable, stream);
    rpc_call_on_cancel(call, rpc_reflection_on_cancel, stream);
}

/* v1alpha differs from v1 in the service's name alone; the messages' encoding is the same. */
static const struct rpc_method rpc_reflection_methods[] = {
    { "ServerReflectionInfo", RPC_BIDI_STREAMING, &grpc__reflection__v1__server_reflection_request__descriptor,
      &grpc__reflection__v1__server_reflection_response__descriptor, rpc_reflection_on_info },
};

/* ---- the set of files ---- */

struct rpc_reflection *rpc_reflection_new(const struct rpc_services *services, struct str descriptors,
                                          struct status *err)
{
    struct rpc_reflection *r = xcalloc(1, sizeof *r);
    struct str in = descriptors, content;
    unsigned number;
    bool bad = false;

    while (rpc_descriptor_next(&in, &number, &content, &bad)) {
        if (number != RPC_SET_FILE)
            continue;
        r->files = xrealloc(r->files, (r->file_count + 1) * sizeof *r->files);
        r->files[r->file_count++] =
            (struct rpc_reflection_file){ rpc_descriptor_field(content, RPC_DESCRIPTOR_NAME),
                                          rpc_descriptor_field(content, RPC_FILE_PACKAGE), content };
    }
    if (bad) {
        status_set(err, STATUS_INTERNAL, "the descriptors for gRPC reflection are malformed");
        rpc_reflection_free(r);
        return NULL;
    }
    r->services = services;
    r->v1 = (struct rpc_service){ "grpc.reflection.v1.ServerReflection", rpc_reflection_methods,
                                  COUNT_OF(rpc_reflection_methods), r };
    r->v1alpha = r->v1;
    r->v1alpha.name = "grpc.reflection.v1alpha.ServerReflection";
    return r;
}

const struct rpc_service *rpc_reflection_v1(struct rpc_reflection *reflection)
{
    return &reflection->v1;
}

const struct rpc_service *rpc_reflection_v1alpha(struct rpc_reflection *reflection)
{
    return &reflection->v1alpha;
}

void rpc_reflection_free(struct rpc_reflection *reflection)
{
    if (reflection == NULL)
        return;
    free(reflection->files);
    free(reflection);
}
