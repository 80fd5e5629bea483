/* The least that can pass a frame on: one read and one write each, nothing looked at. `relay PORT UPSTREAM_PORT` */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, DESCRIPTORS = 65536 };

static int other[DESCRIPTORS];
static char held[65536];

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static void watch(int epoll, int line) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = line};
    epoll_ctl(epoll, EPOLL_CTL_ADD, line, &event);
}

static void joined(int epoll, int listening, const struct sockaddr_in *upstream) {
    int one = 1, ends[2] = {accept(listening, 0, 0), socket(AF_INET, SOCK_STREAM, 0)};
    if (connect(ends[1], (const void *)upstream, sizeof *upstream) != 0) exit(1);
    for (int at = 0; at < 2; at++) {
        setsockopt(ends[at], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        other[ends[at]] = ends[1 - at];
        watch(epoll, ends[at]);
    }
}

static void passed_on(int line) {
    ssize_t length = other[line] < 0 ? -1 : recv(line, held, sizeof held, 0);
    if (length > 0) {
        send(other[line], held, length, MSG_NOSIGNAL);
    } else if (other[line] >= 0) {
        int last = other[line];
        other[line] = other[last] = -1;
        close(line);
        close(last);
    }
}

int main(int count, char **given) {
    if (count != 3) return 2;
    struct sockaddr_in here = loopback(given[1]), upstream = loopback(given[2]);
    int one = 1, listening = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (void *)&here, sizeof here) || listen(listening, 2048)) return 1;
    watch(epoll, listening);
    struct epoll_event events[EVENTS];
    for (;;) {
        int num = epoll_wait(epoll, events, EVENTS, -1);
        for (int at = 0; at < num; at++) {
            int line = events[at].data.fd;
            line == listening ? joined(epoll, listening, &upstream) : passed_on(line);
        }
    }
}
