/* Calls whose answers go to a part of the stack that the program has not used yet, and execve from its end. */
#define _GNU_SOURCE
#include <alloca.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 190000 /* arguments: nearly as many as the kernel takes */
#define ROOM 200000 /* more than what the kernel maps of a stack that is not used yet */

static inline __attribute__((always_inline)) long call(long number, long a, long b, long c, long d) {
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
    return result;
}

/* The lower end of a new part of the stack. Nothing touches it before the call, as that needs no function. */
#define NEW ((long)alloca(ROOM))
#define SHOW(what, number, a, b, c, d) do { long at = NEW, result = call(number, a, b, c, d); \
    printf("%s = %ld, %d\n", what, result, ((char *)at)[offsetof(struct stat, st_uid)]); } while (0)

int main(int count, char **arguments, char **environment) {
    static char *many[MANY + 1];
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count == MANY) return printf("executed with %d words\n", count), 0;
    if (count > 1) {
        printf("executed %s %s\n", arguments[1], arguments[2]);
        for (int i = 0; i < MANY; i++) many[i] = i ? "a" : arguments[0];
        return execve("/proc/self/exe", many, environment);
    }
    symlink("target", "link"), chown("link", 5, 6), mkdirat(AT_FDCWD, "d", 0700), chown("d", 7, 8);
    SHOW("stat", SYS_newfstatat, AT_FDCWD, (long)"d", at, 0);
    SHOW("lstat", SYS_newfstatat, AT_FDCWD, (long)"link", at, AT_SYMLINK_NOFOLLOW);
    SHOW("readlink", SYS_readlinkat, AT_FDCWD, (long)"link", at, 100);
    SHOW("getcwd", SYS_getcwd, at, 100, 0, 0);
    SHOW("uname", SYS_uname, at, 0, 0, 0);
    SHOW("getresuid", SYS_getresuid, at, at, at, 0);
    SHOW("statfs", SYS_statfs, (long)".", at + 8, 0, 0);
    SHOW("getxattr", SYS_lgetxattr, (long)"d", (long)"user.none", at, 100);
    SHOW("a bad address", SYS_newfstatat, AT_FDCWD, (long)"d", 16, 0 * at);
    struct sockaddr_un name = {AF_UNIX, "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW("bind", SYS_bind, fd, (long)&name, sizeof name, 0 * at);
    SHOW("chdir", SYS_chdir, (long)"d", 0 * at, 0, 0);
    char *words[] = {arguments[0], "with", "words", NULL};
    long at = NEW;
    call(SYS_execve, (long)"/proc/self/exe", (long)words, (long)environment, 0 * at);
    return 1;
}
