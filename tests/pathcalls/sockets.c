/* Names of sockets in buffers of every size, and messages with paths and credentials: `sockets` prints a line for each call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <unistd.h>

#define NOWHERE ((void *)-1L)
static const char *name_of(int n) { return strerrorname_np(n) ? strerrorname_np(n) : "E?"; }
static char long_name[60], long_directory[40];

static struct sockaddr_un *address_of(const char *path) {
    static struct sockaddr_un address;
    memset(&address, 0, sizeof address), address.sun_family = AF_UNIX, strcpy(address.sun_path, path);
    return &address;
}
static int bound(int type, const char *path) {
    int fd = socket(AF_UNIX, type, 0);
    unlink(path);
    if (bind(fd, (void *)address_of(path), sizeof(struct sockaddr_un))) printf("bind %s: %s\n", path, name_of(errno));
    return fd;
}

static void show(const char *what, long call, int fd, void *at, socklen_t *length, socklen_t given) {
    unsigned char buffer[200];
    socklen_t size = given;
    memset(buffer, 0xee, sizeof buffer);
    errno = 0;
    long result = syscall(call, fd, at ? at : buffer, length ? length : &size);
    printf("%s %d = %s %d ", what, (int)given, result < 0 ? name_of(errno) : "0", (int)size);
    for (int i = 0; i < 130; i++) buffer[i] >= ' ' && buffer[i] < 127 ? printf("%c", buffer[i]) : buffer[i] == 0xee ? 0 : printf("\\%d", buffer[i]);
    int written = 200;
    while (written && buffer[written - 1] == 0xee) written--;
    printf(" %d\n", written);
}
static void names_of(const char *what, int fd) {
    char line[200];
    for (int peer = 0; peer < 2; peer++) {
        long call = peer ? SYS_getpeername : SYS_getsockname;
        snprintf(line, sizeof line, "%s of %s", peer ? "peer" : "name", what);
        for (int size = 0; size < 131; size++) if (size < 20 || size > 105 || size % 7 == 0) show(line, call, fd, NULL, NULL, size);
        show(line, call, fd, NULL, NULL, -1), show(line, call, fd, NULL, NULL, 1 << 31);
        show(line, call, fd, NOWHERE, NULL, 0), show(line, call, fd, NOWHERE, NULL, 16), show(line, call, fd, NOWHERE, NULL, 128);
        show(line, call, fd, NULL, NOWHERE, 16);
        void *closed = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        show(line, call, fd, closed, NULL, 16), show(line, call, fd, NULL, closed, 0);
        munmap(closed, 4096);
    }
}

static struct { struct cmsghdr head; struct { int pid; unsigned uid, gid; } ids; } claims[8];
static struct iovec vector = {"x", 1};
static int receiver, sender;

static void message(struct mmsghdr *to, int at, const char *path, long uid, long gid) {
    static struct sockaddr_un names[8];
    memset(to, 0, sizeof *to);
    to->msg_hdr.msg_iov = &vector, to->msg_hdr.msg_iovlen = 1, to->msg_len = 77;
    if (path) names[at] = *address_of(path), to->msg_hdr.msg_name = names + at, to->msg_hdr.msg_namelen = sizeof *names;
    if (uid < 0) return;
    claims[at].head.cmsg_len = CMSG_LEN(12), claims[at].head.cmsg_level = SOL_SOCKET, claims[at].head.cmsg_type = SCM_CREDENTIALS;
    claims[at].ids.pid = getpid(), claims[at].ids.uid = uid, claims[at].ids.gid = gid;
    to->msg_hdr.msg_control = claims + at, to->msg_hdr.msg_controllen = sizeof *claims;
}
static void send_all(const char *what, int fd, struct mmsghdr *messages, unsigned count) {
    struct mmsghdr before[8];
    memcpy(before, messages, sizeof before);
    errno = 0;
    long result = syscall(SYS_sendmmsg, fd, messages, count, MSG_DONTWAIT);
    int error = errno, got = 0, same = 1;
    char byte;
    while (recv(receiver, &byte, 1, MSG_DONTWAIT) == 1) got++;
    printf("%s %u = ", what, count), result < 0 ? printf("%s", name_of(error)) : printf("%ld", result);
    for (int i = 0; i < 8; i++) {
        printf(" %u", messages[i].msg_len);
        same &= messages[i].msg_hdr.msg_name == before[i].msg_hdr.msg_name && messages[i].msg_hdr.msg_namelen == before[i].msg_hdr.msg_namelen
            && messages[i].msg_hdr.msg_control == before[i].msg_hdr.msg_control && messages[i].msg_hdr.msg_controllen == before[i].msg_hdr.msg_controllen;
    }
    printf(" received %d%s\n", got, same ? "" : ", headers changed");
}
static void messages_as(const char *who) {
    static const long ids[][2] = {{0, 0}, {33, 4}, {4, 33}, {33, 33}, {-2, 0}};
    struct mmsghdr many[8];
    char line[200];
    for (int paths = 0; paths < 3; paths++)
        for (int refused = 0; refused < 6; refused++)
            for (unsigned each = 0; each < 5; each++) {
                for (int i = 0; i < 8; i++)
                    message(many + i, i, paths == 0 ? NULL : refused == i + 1 && paths == 2 ? "/none" : i % 2 ? "receiver" : "/s/receiver",
                        i % 3 == 2 ? -1 : ids[refused == i + 1 && paths < 2 ? each : 3][0], ids[refused == i + 1 && paths < 2 ? each : 3][1]);
                snprintf(line, sizeof line, "%s, paths %d, the odd one %d with %ld:%ld, messages", who, paths, refused, ids[each][0], ids[each][1]);
                send_all(line, paths ? socket(AF_UNIX, SOCK_DGRAM, 0) : sender, many, 8);
                if (!refused) send_all(line, sender, many, each);
                close(20);
                for (int fd = 8; fd < 40; fd++) close(fd);
            }
    send_all("no socket", 0, many, 2), send_all("not open", 900, many, 2), send_all("too many at nothing", sender, many, 0);
    errno = 0;
    long result = syscall(SYS_sendmmsg, sender, NOWHERE, 2, 0);
    printf("nowhere %ld %s\n", result, name_of(errno));
}

int main(void) {
    memset(long_name, 'n', sizeof long_name - 1), memset(long_directory, 'd', sizeof long_directory - 1);
    umask(0), mkdir("/s", 0777), chdir("/s"), mkdir(long_directory, 0777);
    close(0), open("/s", O_RDONLY | O_DIRECTORY);
    char path[120];
    snprintf(path, sizeof path, "%s/../%s", long_directory, long_name);
    const char *paths[] = {"a", "/s/b", "./../s/c", path};
    for (unsigned i = 0; i < 4; i++) {
        int listener = bound(SOCK_STREAM, paths[i]), client = socket(AF_UNIX, SOCK_STREAM, 0);
        listen(listener, 1);
        if (connect(client, (void *)address_of(paths[i]), sizeof(struct sockaddr_un))) puts(name_of(errno));
        names_of(paths[i], listener), names_of("its client", client);
        int accepted = accept(listener, NULL, NULL);
        names_of("the accepted", accepted);
        close(listener), close(client), close(accepted);
    }
    int pair[2], internet = socket(AF_INET, SOCK_DGRAM, 0);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), names_of("a pair", pair[0]), names_of("a datagram socket", internet), names_of("a directory", 0), names_of("nothing", 900);
    close(pair[0]), close(pair[1]), close(internet);
    receiver = bound(SOCK_DGRAM, "/s/receiver"), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (connect(sender, (void *)address_of("/s/receiver"), sizeof(struct sockaddr_un))) puts(name_of(errno));
    messages_as("root");
    if (syscall(SYS_setresgid, -1, 33, -1) || syscall(SYS_setresuid, -1, 33, -1)) puts("no other user");
    messages_as("user 33");
}
