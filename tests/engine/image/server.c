/* A model server as small as one can be, for an image built from scratch: answers /ping, and
   /invocations with each line of the body followed by the content of /opt/ml/model/mark and
   $MARK. Says its arguments and environment, and that it is ended. $KNOWS_NO_PORT, $IGNORE_TERM and
   $HANG let it behave as the worst do. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

extern char **environ;
static char mark[256];

static void terminated(int signal) {
    (void)signal;
    if (getenv("IGNORE_TERM")) return;
    static const char said[] = "terminated\n";
    if (write(1, said, sizeof said - 1)) _exit(0);
    _exit(1);
}

static void reply(int to, int status, const char *body, size_t size) {
    char head[128];
    int length = sprintf(head, "HTTP/1.1 %d \r\nContent-Type: text/csv\r\nContent-Length: %zu\r\n\r\n",
                         status, size);
    if (write(to, head, length) < 0) _exit(0);
    for (ssize_t sent; size; body += sent, size -= sent)
        if ((sent = write(to, body, size)) <= 0) _exit(0);
}

/* Each line of the body, with the mark at its end. */
static void invocation(int from, const char *body, size_t size) {
    size_t lines = 1, length = strlen(mark), filled = 0;
    for (size_t at = 0; at < size; at++) lines += body[at] == '\n';
    char *out = malloc(size + lines * length + 1);
    for (size_t at = 0; at < size; at++) {
        if (body[at] == '\n') memcpy(out + filled, mark, length), filled += length;
        out[filled++] = body[at];
    }
    if (size && body[size - 1] != '\n') memcpy(out + filled, mark, length), filled += length;
    reply(from, 200, out, filled);
    free(out);
}

static void serve(int from) {
    static char head[65536];
    size_t have = 0;
    for (;;) {
        char *end;
        head[have] = 0;
        while (!(end = strstr(head, "\r\n\r\n"))) {
            ssize_t got = read(from, head + have, sizeof head - 1 - have);
            if (got <= 0) _exit(0);
            have += got, head[have] = 0;
        }
        size_t size = 0, begin = end + 4 - head, early = have - begin;
        for (char *line = strstr(head, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n"))
            if (!strncasecmp(line + 2, "content-length:", 15)) size = strtoul(line + 17, 0, 10);
        if (early > size) early = size;
        char *body = malloc(size + 1);
        memcpy(body, head + begin, early);
        for (size_t at = early; at < size;) {
            ssize_t got = read(from, body + at, size - at);
            if (got <= 0) _exit(0);
            at += got;
        }
        int post = !strncmp(head, "POST /invocations ", 18), ping = !strncmp(head, "GET /ping ", 10);
        if (post && getenv("HANG")) pause();
        if (post) invocation(from, body, size);
        else reply(from, ping ? 200 : 404, "", 0);
        free(body);
        have -= begin + early;
        memmove(head, head + begin + early, have);
    }
}

int main(int count, char **arguments) {
    const char *told = getenv("SAGEMAKER_BIND_TO_PORT"), *host = getenv("BIND_HOST");
    int port = told && !getenv("KNOWS_NO_PORT") ? atoi(told) : 8080, yes = 1;
    for (int at = 0; at < count; at++) printf("argument %s\n", arguments[at]);
    for (char **each = environ; *each; each++) printf("%s\n", *each);
    printf("listens on %d\n", port);
    fflush(stdout);
    if (count > 1 && strcmp(arguments[1], "serve")) return 0;
    FILE *file = fopen("/opt/ml/model/mark", "r");
    if (file && !fgets(mark, 128, file)) return 1;
    if (getenv("MARK")) strncat(mark, getenv("MARK"), 100);
    signal(SIGTERM, terminated);
    signal(SIGCHLD, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = host ? inet_addr(host) : INADDR_ANY;
    int door = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(door, (struct sockaddr *)&address, sizeof address) || listen(door, 64))
        return perror("cannot listen"), 1;
    for (;;) {
        int from = accept(door, 0, 0);
        if (from >= 0 && !fork()) close(door), signal(SIGTERM, SIG_DFL), serve(from);
        if (from >= 0) close(from);
    }
}
