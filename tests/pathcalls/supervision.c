/* A command that tries to escape its supervisor: `supervision OUTSIDE`. OUTSIDE is a directory of the machine that has a
   file `marker`. It tries filters and processes of its own, calls of other architectures, and programs without a path.
   Prints a line for each attempt that succeeded, then `done`. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char outside[512], marker[600], made[600];
static volatile int stop;
extern char **environ;

static void report(const char *what, long detail) { printf("reached: %s (%ld)\n", what, detail), fflush(stdout); }

/* All that a process may try with paths outside. */
static void attack(const char *how) {
    struct stat s;
    char text[64] = "";
    int fd;
    if ((fd = open(marker, O_RDONLY)) >= 0) report(how, fd);
    if ((fd = open(marker, O_RDWR | O_TRUNC)) >= 0) report(how, fd);
    if ((fd = openat(AT_FDCWD, made, O_CREAT | O_WRONLY, 0644)) >= 0) report(how, fd);
    if (open(marker, O_PATH) >= 0 || stat(marker, &s) == 0 || access(marker, F_OK) == 0 || readlink(marker, text, 9) >= 0)
        report(how, 1);
    if (mkdir(made, 0755) == 0 || symlink("x", made) == 0 || mknod(made, S_IFREG | 0644, 0) == 0) report(how, 2);
    if (unlink(marker) == 0 || rename(marker, made) == 0 || link(marker, "/linked") == 0) report(how, 3);
    if (chmod(marker, 0) == 0 || chown(marker, 1, 1) == 0 || truncate(marker, 0) == 0 || chdir(outside) == 0) report(how, 4);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", made);
    if (bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address) == 0) report(how, 5);
    for (int up = 0; up < 40; up++) chdir("..");
    if (open(marker + 1, O_RDONLY) >= 0) report(how, 6);
}

/* Run `what` in a child with this name for its attempts. */
static void in_child(void (*what)(const char *), const char *how) {
    pid_t child = fork();
    if (child == 0) what(how), _exit(0);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("%s: signal %d\n", how, WTERMSIG(status)), fflush(stdout);
}

/* A filter of the command's own that returns `action` for the calls with paths, or for all but those it needs. */
static long filter(unsigned action, unsigned flags) {
    static const int numbers[] = {
        SYS_open, SYS_openat, SYS_stat, SYS_newfstatat, SYS_access, SYS_readlink, SYS_mkdir, SYS_symlink, SYS_mknod,
        SYS_unlink, SYS_rename, SYS_link, SYS_chmod, SYS_chown, SYS_truncate, SYS_chdir, SYS_bind, SYS_connect,
        SYS_execve, SYS_execveat, SYS_creat, 437, SYS_chroot, SYS_sendmsg, SYS_sendto, SYS_inotify_add_watch,
    };
    struct sock_filter rows[2 + 2 * sizeof numbers / sizeof *numbers];
    unsigned count = 0;
    rows[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        rows[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], 0, 1);
        rows[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
    }
    rows[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {count, rows};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static void with_filter_allow(const char *how) { filter(SECCOMP_RET_ALLOW, 0), attack(how); }
static void with_filter_log(const char *how) { filter(SECCOMP_RET_LOG, 0), attack(how); }
static void with_filter_trace(const char *how) { filter(SECCOMP_RET_TRACE | 59, 0), attack(how); }
static void with_filter_notify(const char *how) { filter(SECCOMP_RET_USER_NOTIF, 0), attack(how); }
static void with_filter_listener(const char *how) {
    long fd = filter(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (fd >= 0) report("a listener of its own", fd);
    attack(how);
}
static void with_filter_error(const char *how) { /* "success" is the filter's, not a file's */
    struct stat s;
    filter(SECCOMP_RET_ERRNO | 0, 0);
    mkdir(made, 0755), chdir(outside), open(made, O_CREAT | O_WRONLY, 0644);
    if (syscall(SYS_lstat, made, &s) == 0) report(how, 0);
}
static void with_strict_mode(const char *how) {
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL), attack(how);
}

/* Children that a tracer could miss. */
static int child_attacks(void *how) { return attack(how), 0; }
static void unseen_children(void) {
    static char stack[1 << 20];
    static const struct { int flags; const char *how; } kinds[] = {
        {CLONE_UNTRACED, "an untraced child"},
        {CLONE_UNTRACED | CLONE_VM, "an untraced child with the same memory"},
        {CLONE_UNTRACED | CLONE_PARENT, "an untraced sibling"},
        {CLONE_VM | CLONE_FS | CLONE_FILES, "a child that shares all"},
        {CLONE_VM | CLONE_VFORK, "a child of vfork"},
        {CLONE_PTRACE, "a child with its parent's tracer"},
        {CLONE_PARENT, "a sibling"},
    };
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int child = clone(child_attacks, stack + sizeof stack, kinds[i].flags | SIGCHLD, (void *)kinds[i].how);
        if (child < 0) continue;
        if (kinds[i].flags & CLONE_UNTRACED) report(kinds[i].how, child);
        if (kinds[i].flags & CLONE_PARENT) usleep(100000); /* its parent is the supervisor, which reaps it */
        else waitpid(child, NULL, __WALL);
    }
    long (*raw)(long, ...) = syscall;
    unsigned long many[11] = {CLONE_UNTRACED, 0, 0, 0, SIGCHLD};
    long child = raw(435, many, sizeof many);
    if (child == 0) _exit(0);
    if (child > 0) report("clone3", child);
}

/* Each number as an x32 call and by int 0x80, with a path outside in each register. */
static long by_int80(long number, long argument) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(argument), "c"(argument), "d"(argument)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}
static void other_architectures(const char *how) {
    char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(low, made);
    for (long number = 0; number < 600; number++) {
        if (syscall(0x40000000 | number, low, low, low) != -1 || (errno != ENOSYS && errno != EPERM)) report("x32", number);
        long result = by_int80(number, (long)low);
        if (result != -ENOSYS && result != -EPERM) report("int 0x80", number); /* EPERM: by the profile */
    }
    (void)how;
}

/* A directory of the tree that arrives as a descriptor, after chroot(2) and after it was moved. */
static void descriptors(const char *how) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    mkdir("/jail", 0755), mkdir("/sent", 0755), mkdir("/sent/deep", 0755);
    pid_t child = fork();
    char room[CMSG_SPACE(sizeof(int))] = "", byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (child == 0) {
        chroot("/jail"), chdir("/");
        if (recvmsg(pair[1], &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) _exit(1);
        int fd = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
        char path[1024] = "";
        for (int up = 0; up < 40; up++) strcat(path, "../");
        strcat(path, marker + 1);
        if (openat(fd, path, O_RDONLY) >= 0) report("a path above a sent directory", fd);
        fchdir(fd);
        for (int up = 0; up < 40; up++) chdir("..");
        if (open(marker + 1, O_RDONLY) >= 0) report("a path from a sent directory", fd);
        if (mkdir(made + 1, 0755) == 0) report("a directory from a sent directory", fd);
        attack(how);
        _exit(0);
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    *(int *)CMSG_DATA(header) = open("/sent/deep", O_RDONLY | O_DIRECTORY);
    rename("/sent/deep", "/moved");
    sendmsg(pair[0], &message, 0);
    waitpid(child, NULL, 0);
}

/* This program from a file in memory, and from one that was removed. */
static void without_path(const char *how) {
    int own = open("/proc/self/exe", O_RDONLY), file = memfd_create("x", 0);
    char data[65536];
    for (long size; (size = read(own, data, sizeof data)) > 0;) write(file, data, size);
    char *arguments[] = {"supervision", outside, "again", NULL}, writable[64];
    snprintf(writable, sizeof writable, "/proc/self/fd/%d", file);
    int only_read = open(writable, O_RDONLY | O_CLOEXEC);
    close(file), file = only_read; /* else ETXTBSY */
    pid_t child = fork();
    if (child == 0) fexecve(file, arguments, environ), printf("fexecve: %s\n", strerror(errno)), fflush(stdout), _exit(1);
    waitpid(child, NULL, 0);
    if ((child = fork()) == 0) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        execve(link, arguments, environ), printf("execve of a descriptor: %s\n", strerror(errno)), fflush(stdout), _exit(1);
    }
    waitpid(child, NULL, 0);
    (void)how;
}

/* Threads that execute while others are in the middle of calls, and that change the directory of all. */
static void *looks(void *unused) {
    struct stat s;
    while (!stop) {
        int fd = open("marker", O_RDWR);
        if (fd >= 0 && fstat(fd, &s) == 0 && s.st_size) report("a file by a directory that changes", fd);
        if (fd >= 0) close(fd);
        stat("/inside/marker", &s), mkdir("made", 0755), rmdir("made");
    }
    return unused;
}
static void *executes(void *unused) {
    usleep(2000);
    char *arguments[] = {"supervision", outside, "again", NULL};
    execve("/proc/self/exe", arguments, environ), printf("execve: %s\n", strerror(errno)), fflush(stdout);
    _exit(1); /* a program cannot be executed by /proc everywhere */
}
static void threads(const char *how) {
    pthread_t thread[3];
    mkdir("/inside", 0755), close(open("/inside/marker", O_CREAT | O_RDWR, 0644));
    for (int round = 0; round < 6; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 2; i++) pthread_create(&thread[i], NULL, looks, NULL);
            pthread_create(&thread[2], NULL, executes, NULL);
            for (;;) chdir("/inside"), chdir("/proc"), chdir("/"), chdir(outside), chdir("/proc/self");
        }
        waitpid(child, NULL, 0);
    }
    (void)how;
}

/* What a process may do to another of the same user: nothing to the supervisor. */
static void the_supervisor(const char *how) {
    int tracer = 0;
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "PPid:", 5)) tracer = atoi(line + 5);
    struct rlimit none = {0, 0};
    if (prlimit(tracer, RLIMIT_FSIZE, &none, NULL) == 0) report("prlimit of the supervisor", tracer);
    if (prlimit(tracer, RLIMIT_CORE, NULL, &none) == 0) report("limits of the supervisor", tracer);
    if (syscall(SYS_kcmp, getpid(), tracer, 1, 0, 0) >= 0) report("kcmp", tracer);
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair); /* a signal that a descriptor sends */
    fcntl(pair[0], F_SETFL, O_ASYNC), fcntl(pair[0], F_SETSIG, SIGKILL), fcntl(pair[0], F_SETOWN, tracer);
    write(pair[1], "x", 1);
    usleep(20000);
    if (getppid() == 1) report("SIGKILL by a descriptor", tracer);
    prlimit(0, RLIMIT_NOFILE, NULL, &none); /* its own are its own */
    if (!none.rlim_cur) report("no limits", 0);
    (void)how;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    snprintf(outside, sizeof outside, "%s", argv[1]);
    snprintf(marker, sizeof marker, "%s/marker", outside);
    snprintf(made, sizeof made, "%s/made", outside);
    if (argc > 2) return attack("an executed program"), 0;
    attack("no means");
    the_supervisor("");
    in_child(with_filter_allow, "a filter that allows");
    in_child(with_filter_log, "a filter that logs");
    in_child(with_filter_trace, "a filter for a tracer");
    in_child(with_filter_notify, "a filter for a listener that is missing");
    in_child(with_filter_listener, "a filter with a listener");
    in_child(with_filter_error, "a filter that lets calls succeed");
    in_child(with_strict_mode, "a mode of seccomp");
    unseen_children();
    in_child(other_architectures, "other architectures");
    in_child(descriptors, "a directory that was sent");
    in_child(without_path, "programs without a path");
    in_child(threads, "threads");
    puts("done");
    return 0;
}
