/* Closes all descriptors as programs do, and opens files afterwards, also in children and after execve(2).
 * Prints what fails, and "done" at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(const char *when) {
    int fd = open("/tmp/one", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd != 3) printf("%s: open: %d %s\n", when, fd, fd < 0 ? strerror(errno) : "");
    if (fd >= 0 && fcntl(fd, F_GETFD) != FD_CLOEXEC) printf("%s: no FD_CLOEXEC\n", when);
    close(fd);
    fflush(stdout);
}

static void close_each(void) {
    for (int fd = 3; fd < 4096; fd++) close(fd);
}

int main(int argc, char **argv) {
    if (argc > 2) {
        check(argv[2]);
        return 0;
    }
    close_each();
    check("closed one by one");
    for (int fd = 3; fd < 4096; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (fork() == 0) execl(argv[0], argv[0], "0", "after FD_CLOEXEC", NULL), _exit(1);
    wait(NULL);
    if (syscall(SYS_close_range, 3, ~0U, 0) != 0) close_each();
    check("closed as a range");
    for (unsigned first = 998; first < 1003; first++)
        for (unsigned last = first; last < 1003; last++) {
            int one = dup2(0, 1002);
            if (syscall(SYS_close_range, first, last, 0) != 0) printf("close_range(%u, %u)\n", first, last);
            if (last < 1002) close(one);
            else if (fcntl(1002, F_GETFD) != -1) printf("close_range(%u, %u) left 1002\n", first, last);
            check("closed as a small range");
        }
    closefrom(3);
    check("closed from");
    for (int fd = 3; fd < 4096; fd++)
        if (dup2(0, fd) == fd) close(fd);
    check("replaced");
    if (fork() == 0) execl(argv[0], argv[0], "0", "in a child", NULL), _exit(1);
    wait(NULL);
    puts("done");
    return 0;
}
