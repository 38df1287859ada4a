/* The upstream of the benchmarks: one thread, epoll, HTTP/1.1 with keep-alive, loopback only.
 *
 *   mock_upstream [PORT]     binds PORT (0 or none: any free one) and prints "listening PORT"
 *
 * POST …/messages… is answered in Anthropic's shape, anything else in OpenAI's; a body with "stream":true gets
 * server-sent events, every other one a JSON body. The request steers its stream by headers, so that one running
 * mock serves every measurement:
 *   x-mock-tokens: N      text events before the closing ones   (32)
 *   x-mock-gap-us: N      time between two events               (10000; 0: all at once)
 *   x-mock-first-us: N    time before the first one             (0)
 * Each text event carries "sent_us", CLOCK_MONOTONIC when it was written: a reader on the same machine
 * subtracts it from its own clock and has the delay of that event.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_LIMIT = 4 << 20, MOST_CONNECTIONS = 8192, READY_AT_ONCE = 512 };

enum shape { OPENAI, ANTHROPIC };

struct connection {
    int socket;
    char *input;
    size_t input_used, input_room;
    char *output;
    size_t output_used, output_room, output_sent;
    bool wants_write;
    /* the stream in progress */
    bool streaming;
    int stream_slot;
    enum shape shape;
    int step, tokens;
    int64_t gap_us, due_us;
};

static struct connection *connections[MOST_CONNECTIONS];
static struct connection *streams[MOST_CONNECTIONS];
static int stream_count, poller, timer;
static char answers[2][2048];
static size_t answer_lengths[2];

static int64_t clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void *grown(void *block, size_t *room, size_t needed)
{
    if (needed <= *room)
        return block;
    size_t wanted = *room ? *room : 4096;
    while (wanted < needed)
        wanted *= 2;
    block = realloc(block, wanted);
    if (!block)
        abort();
    *room = wanted;
    return block;
}

static void watch(struct connection *connection, bool write_too)
{
    struct epoll_event event = {.events = EPOLLIN | (write_too ? EPOLLOUT : 0), .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_MOD, connection->socket, &event);
    connection->wants_write = write_too;
}

static void stop_stream(struct connection *connection)
{
    if (!connection->streaming)
        return;
    connection->streaming = false;
    streams[connection->stream_slot] = streams[--stream_count];
    streams[connection->stream_slot]->stream_slot = connection->stream_slot;
}

static void hang_up(struct connection *connection)
{
    stop_stream(connection);
    connections[connection->socket] = NULL;
    close(connection->socket);
    free(connection->input);
    free(connection->output);
    free(connection);
}

/* Writes what waits; false when the peer is gone. */
static bool flush(struct connection *connection)
{
    while (connection->output_sent < connection->output_used) {
        ssize_t count = send(connection->socket, connection->output + connection->output_sent,
                             connection->output_used - connection->output_sent, MSG_NOSIGNAL);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                return false;
            if (!connection->wants_write)
                watch(connection, true);
            return true;
        }
        connection->output_sent += (size_t)count;
    }
    connection->output_sent = connection->output_used = 0;
    if (connection->wants_write)
        watch(connection, false);
    return true;
}

static void say(struct connection *connection, const char *bytes, size_t length)
{
    connection->output = grown(connection->output, &connection->output_room, connection->output_used + length);
    memcpy(connection->output + connection->output_used, bytes, length);
    connection->output_used += length;
}

static void say_chunk(struct connection *connection, const char *bytes, int length)
{
    char head[16];
    say(connection, head, (size_t)snprintf(head, sizeof head, "%x\r\n", (unsigned)length));
    say(connection, bytes, (size_t)length);
    say(connection, "\r\n", 2);
}

#define OPENAI_CHUNK "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1735689600,\"model\":\"gpt-4o-mini\","

/* One event of an OpenAI stream; true when it was the last. */
static bool openai_event(struct connection *connection, char *event, int room, int *length)
{
    int step = connection->step, tokens = connection->tokens;
    if (step < tokens)
        *length = snprintf(event, (size_t)room,
                           OPENAI_CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word%d\"},\"finish_reason\":null}],\"sent_us\":%lld}\n\n",
                           step, (long long)clock_us());
    else if (step == tokens)
        *length = snprintf(event, (size_t)room,
                           OPENAI_CHUNK "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],"
                                        "\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
                           tokens, tokens + 21);
    else
        *length = snprintf(event, (size_t)room, "data: [DONE]\n\n");
    return step > tokens;
}

/* One event of an Anthropic stream; true when it was the last. */
static bool anthropic_event(struct connection *connection, char *event, int room, int *length)
{
    int step = connection->step - 2, tokens = connection->tokens;
    if (step == -2)
        *length = snprintf(event, (size_t)room,
                           "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_bench\",\"type\":\"message\","
                           "\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
                           "\"usage\":{\"input_tokens\":21,\"output_tokens\":1}}}\n\n");
    else if (step == -1)
        *length = snprintf(event, (size_t)room,
                           "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
                           "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
    else if (step < tokens)
        *length = snprintf(event, (size_t)room,
                           "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
                           "\"delta\":{\"type\":\"text_delta\",\"text\":\" word%d\"},\"sent_us\":%lld}\n\n",
                           step, (long long)clock_us());
    else if (step == tokens)
        *length = snprintf(event, (size_t)room, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    else if (step == tokens + 1)
        *length = snprintf(event, (size_t)room,
                           "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
                           "\"stop_sequence\":null},\"usage\":{\"output_tokens\":%d}}\n\n",
                           tokens);
    else
        *length = snprintf(event, (size_t)room, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    return step > tokens + 1;
}

/* The next event goes out on its own, as real upstreams send it. */
static void advance(struct connection *connection)
{
    char event[1024];
    int length;
    bool last = connection->shape == ANTHROPIC ? anthropic_event(connection, event, sizeof event, &length)
                                               : openai_event(connection, event, sizeof event, &length);
    say_chunk(connection, event, length);
    connection->step++;
    connection->due_us += connection->gap_us;
    if (last) {
        say(connection, "0\r\n\r\n", 5);
        stop_stream(connection);
    }
}

static long long header_number(const char *head, const char *end, const char *name, long long otherwise)
{
    size_t length = strlen(name);
    for (const char *line = head; line && line + length < end; line = memmem(line, (size_t)(end - line), "\r\n", 2), line = line ? line + 2 : NULL)
        if (!strncasecmp(line, name, length))
            return strtoll(line + length, NULL, 10);
    return otherwise;
}

static bool within(const char *bytes, size_t length, const char *wanted)
{
    return memmem(bytes, length, wanted, strlen(wanted)) != NULL;
}

/* Where a chunked body ends, or NULL while it has not. */
static const char *chunked_end(const char *at, const char *limit)
{
    for (;;) {
        const char *line = memmem(at, (size_t)(limit - at), "\r\n", 2);
        if (!line)
            return NULL;
        unsigned long size = strtoul(at, NULL, 16);
        at = line + 2 + size + 2;
        if (at > limit)
            return NULL;
        if (size == 0)
            return at;
    }
}

/* Answers one whole request from the front of the input; false when there is none. */
static bool take_request(struct connection *connection)
{
    char *head = connection->input;
    char *blank = connection->input_used ? memmem(head, connection->input_used, "\r\n\r\n", 4) : NULL;
    if (!blank)
        return false;
    char *body = blank + 4, *limit = head + connection->input_used;
    const char *end;
    if (header_number(head, blank + 2, "transfer-encoding: chunked", -1) != -1)
        end = chunked_end(body, limit);
    else
        end = body + header_number(head, blank + 2, "content-length:", 0);
    if (!end || end > limit)
        return false;

    char *first_line = memmem(head, (size_t)(body - head), "\r\n", 2);
    enum shape shape = within(head, (size_t)(first_line - head), "/messages") ? ANTHROPIC : OPENAI;
    bool stream = within(body, (size_t)(end - body), "\"stream\":true") || within(body, (size_t)(end - body), "\"stream\": true");
    if (stream) {
        static const char start[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                    "cache-control: no-cache\r\nx-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n";
        say(connection, start, sizeof start - 1);
        connection->shape = shape;
        connection->step = 0;
        connection->tokens = (int)header_number(head, blank + 2, "x-mock-tokens:", 32);
        connection->gap_us = header_number(head, blank + 2, "x-mock-gap-us:", 10000);
        connection->due_us = clock_us() + header_number(head, blank + 2, "x-mock-first-us:", 0);
        connection->streaming = true;
        connection->stream_slot = stream_count;
        streams[stream_count++] = connection;
    } else {
        say(connection, answers[shape], answer_lengths[shape]);
    }
    size_t used = (size_t)(end - head);
    memmove(head, end, connection->input_used - used);
    connection->input_used -= used;
    return true;
}

/* Takes requests while no stream is running; false when the peer is gone. */
static bool serve(struct connection *connection)
{
    while (!connection->streaming && take_request(connection))
        ;
    return flush(connection);
}

static bool receive(struct connection *connection)
{
    connection->input = grown(connection->input, &connection->input_room, connection->input_used + 16384);
    ssize_t count = recv(connection->socket, connection->input + connection->input_used,
                         connection->input_room - connection->input_used, 0);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    if (count == 0)
        return false;
    connection->input_used += (size_t)count;
    return connection->input_used <= INPUT_LIMIT && serve(connection);
}

static void send_what_is_due(void)
{
    int64_t now = clock_us();
    for (int index = stream_count - 1; index >= 0; index--) {
        struct connection *connection = streams[index];
        bool alive = true;
        while (alive && connection->streaming && connection->due_us <= now) {
            advance(connection);
            alive = flush(connection);
        }
        if (alive && !connection->streaming)
            alive = serve(connection);
        if (!alive)
            hang_up(connection);
    }
}

static void arm_timer(void)
{
    int64_t earliest = 0;
    for (int index = 0; index < stream_count; index++)
        if (!earliest || streams[index]->due_us < earliest)
            earliest = streams[index]->due_us;
    struct itimerspec alarm = {.it_value = {.tv_sec = earliest / 1000000, .tv_nsec = earliest % 1000000 * 1000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &alarm, NULL);
}

static void welcome(int listener)
{
    int socket, yes = 1;
    while ((socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (socket >= MOST_CONNECTIONS) {
            close(socket);
            continue;
        }
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            abort();
        connection->socket = socket;
        connections[socket] = connection;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event);
    }
}

static void prepare(enum shape shape, const char *body)
{
    answer_lengths[shape] = (size_t)snprintf(answers[shape], sizeof answers[shape],
                                             "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
                                             "content-length: %zu\r\n\r\n%s",
                                             strlen(body), body);
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    prepare(OPENAI, "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1735689600,\"model\":\"gpt-4o-mini\",\"choices\":[{"
                    "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A day's sail west of the harbour lies an island that no chart of "
                    "the company shows. The pilot knows it by the smell of pine and by the birds that leave it at dusk.\",\"refusal\":null},"
                    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":37,\"total_tokens\":58},"
                    "\"system_fingerprint\":\"fp_bench\"}");
    prepare(ANTHROPIC, "{\"id\":\"msg_bench\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\",\"content\":[{\"type\":\"text\","
                       "\"text\":\"A day's sail west of the harbour lies an island that no chart of the company shows.\"}],"
                       "\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":21,\"output_tokens\":37}}");

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)(count > 1 ? atoi(arguments[1]) : 0)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("mock_upstream: cannot listen");
        return 1;
    }
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);

    static int listener_mark, timer_mark;
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener_mark};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &timer_mark;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);

    struct epoll_event ready[READY_AT_ONCE];
    for (;;) {
        int events = epoll_wait(poller, ready, READY_AT_ONCE, -1);
        for (int index = 0; index < events; index++) {
            void *whom = ready[index].data.ptr;
            if (whom == &listener_mark) {
                welcome(listener);
            } else if (whom == &timer_mark) {
                uint64_t expirations;
                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                    return 1;
            } else {
                struct connection *connection = whom;
                bool alive = !(ready[index].events & EPOLLOUT) || flush(connection);
                if (alive && ready[index].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    alive = receive(connection);
                if (!alive)
                    hang_up(connection);
            }
        }
        if (stream_count) {
            send_what_is_due();
            arm_timer();
        }
    }
}
