/* A command that tries to leave its tree, or to reach its supervisor: `hostile OUTSIDE ROUNDS [no-sockets]`. OUTSIDE is a directory of
   the machine that has a file `marker`; ROUNDS says how often each race is tried. Prints one line for each attempt that succeeded; the test looks at OUTSIDE and at these lines. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char outside[512], marker[600], made[600];
static volatile int stop;
static int count_outside; /* how often a race was won */
static char line[700];
static int rounds;
static struct { unsigned short family; char path[700]; } racing = {AF_UNIX, ""};
#define racing_path racing.path
static char good[700], bad[700];
static const char *o_path = "/inside/////////////////////////////////////////////////////////////////////////////////////////////marker";
static const char *long_directory = "/inside///////////////////////////////////////////////////////////////////////////////////////////////////";

static void report(const char *what) { printf("reached: %s\n", what); fflush(stdout); }
static void none(const char *what, long value) { if (value >= 0) report(what); }

/* 32-bit calls pass other numbers to the kernel. */
static long by_int80(long number, long one, long two, long three) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(one), "c"(two), "d"(three) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void refused_calls(int tracer) {
    char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(low, marker);
    none("open by int 0x80", by_int80(5, (long)low, O_RDWR, 0));
    none("open by an x32 number", syscall(0x40000000 | SYS_open, marker, O_RDWR));
    none("io_uring_setup", syscall(425, 4, low));
    none("userfaultfd", syscall(323, 0));
    none("mount", syscall(SYS_mount, outside, "/tmp", NULL, 4096, NULL));
    none("fsopen", syscall(430, "tmpfs", 0));
    none("open_tree", syscall(428, AT_FDCWD, outside, 0));
    none("setns", syscall(SYS_setns, 0, 0));
    none("unshare", syscall(SYS_unshare, CLONE_NEWUSER));
    none("clone3 with a user namespace", syscall(435, (unsigned long[11]){CLONE_NEWUSER}, 88));
    none("fanotify_mark", syscall(SYS_fanotify_mark, 0, 1, 1, AT_FDCWD, outside));
    none("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", low, low + 512, 0));
    none("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, low, O_RDONLY));
    none("ptrace of the tracer", ptrace(PTRACE_ATTACH, tracer, 0, 0));
    none("ptrace of the parent", ptrace(PTRACE_SEIZE, getppid(), 0, 0));
    struct iovec ours = {low, 16}, theirs = {low, 16};
    none("process_vm_writev", process_vm_writev(tracer, &ours, 1, &theirs, 1, 0));
    int pidfd = syscall(434, tracer, 0);
    none("pidfd_getfd", syscall(438, pidfd, 3, 0));
    none("pidfd_send_signal", syscall(424, pidfd, 0, NULL, 0));
    none("a new call with a path", syscall(463, AT_FDCWD, outside, 0, "user.x", low, 16));
}

static void the_supervisor(int tracer) {
    char path[64], data[64];
    static const char *files[] = {"mem", "environ", "maps", "fd/3", "root/etc/passwd", "cwd", "map_files", "fdinfo", "fd", "task"};
    for (unsigned i = 0; i < 9; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", tracer, files[i]);
        int fd = open(path, i == 0 ? O_RDWR : O_RDONLY);
        if (fd >= 0 && i != 4) report(path); /* root leads to the tree */
        snprintf(path, sizeof path, "/proc/self/../%d/./%s", tracer, files[i]);
        fd = open(path, O_RDONLY);
        if (fd >= 0 && i != 4) report(path);
    }
    none("signal 0 to the tracer", kill(tracer, 0));
    none("SIGSTOP to the tracer", kill(tracer, SIGSTOP));
    none("tgkill of the tracer", syscall(SYS_tgkill, tracer, tracer, SIGSTOP));
    siginfo_t info = {.si_code = SI_QUEUE, .si_signo = SIGSTOP};
    none("rt_sigqueueinfo to the tracer", syscall(SYS_rt_sigqueueinfo, tracer, SIGSTOP, &info));
    none("rt_tgsigqueueinfo to the tracer", syscall(SYS_rt_tgsigqueueinfo, tracer, tracer, SIGSTOP, &info));
    (void)data;
}

static void *flip(void *unused) {
    while (!stop) {
        memcpy(racing_path, bad, sizeof bad);
        memcpy(racing_path, good, sizeof good);
    }
    return unused;
}

/* The path that a tracer gives a call instead lies below the stack pointer of the thread: change that too. Calls with such paths are
   made on a stack of their own, as on the usual one the frames of other functions would be overwritten with it. */
static char *below; /* 8192 bytes, and what a string may exceed its place by; mapped, as the tracer writes below no stack in static data */
static long on_own_stack(long number, long one, long two, long three) {
    long result;
    __asm__ volatile("mov %%rsp, %%rbx; mov %[top], %%rsp; syscall; mov %%rbx, %%rsp"
                     : "=a"(result) : "a"(number), "D"(one), "S"(two), "d"(three), [top] "r"(below + 8192) : "memory", "rbx", "rcx", "r11");
    return result;
}
static void *overwrite(void *unused) {
    while (!stop)
        for (char *at = below; at < below + 8192; at += 8)
            if (at[0] == '/' && memchr(at, 0, 512) && strstr(at, "/inside") && strlen(at) >= strlen(bad)) strcpy(at, bad);
    return unused;
}

/* Another thread changes the path between the check of a call and its use. */
static void races(void) {
    pthread_t thread, other;
    struct stat s, wanted;
    char text[64] = "";
    snprintf(bad, sizeof bad, "%s", marker);
    memset(good, 0, sizeof good);
    snprintf(good, sizeof good, "/inside/////////////////////////marker");
    mkdir("/inside", 0755), close(open("/inside/marker", O_CREAT | O_RDWR, 0644));
    stat("/inside/marker", &wanted);
    pthread_create(&thread, NULL, flip, NULL);
    pthread_create(&other, NULL, overwrite, NULL);
    for (int i = 0; i < rounds; i++) {
        int fd = open(racing_path, O_RDWR);
        if (fd >= 0) {
            if (fstat(fd, &s) == 0 && s.st_ino != wanted.st_ino) report("a file by a path that changes (open)");
            close(fd);
        }
        fd = on_own_stack(SYS_open, (long)o_path, O_PATH, 0);
        if (fd >= 0) {
            if (fstat(fd, &s) == 0 && s.st_ino != wanted.st_ino) count_outside++;
            char link[64];
            int again;
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            if ((again = open(link, O_RDWR)) >= 0) {
                if (fstat(again, &s) == 0 && s.st_ino != wanted.st_ino) report("a file by O_PATH");
                if (read(again, text, 63) > 0 && strstr(text, "outside-marker")) report("the marker by O_PATH");
                close(again);
            }
            fchmod(fd, 0777), fchown(fd, 1, 1), fsetxattr(fd, "user.x", "x", 1, 0);
            syscall(452, fd, "", 0777, 0x1000), fchownat(fd, "", 1, 1, 0x1000);
            struct timespec times[2] = {{5, 5}, {5, 5}};
            utimensat(fd, "", times, 0x1000), linkat(fd, "", AT_FDCWD, "/linked", 0x1000), linkat(AT_FDCWD, link, AT_FDCWD, "/linked2", AT_SYMLINK_FOLLOW);
            truncate(link, 0);
            close(fd);
        }
        truncate(racing_path, 3), chmod(racing_path, 0755), rename(racing_path, "/inside/other"), rename("/inside/other", "/inside/marker");
        if (i % 50 == 0) {
            pid_t child = fork();
            if (child == 0) execl(racing_path, "x", NULL), _exit(0);
            waitpid(child, NULL, 0);
        }
    }
    stop = 1;
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
}

/* Names that are to be made outside, and changes of what is there, by a path that changes. The test looks at the directory outside. */
static void names(int binds) {
    pthread_t thread, other;
    char own[64] = "/inside/own";
    struct timespec times[2] = {{5, 5}, {5, 5}};
    stop = 0;
    memset(good, 0, sizeof good), memset(bad, 0, sizeof bad);
    snprintf(bad, sizeof bad, "%s", made), snprintf(good, sizeof good, "/inside////////////////////////////////////made");
    memcpy(racing_path, good, sizeof good);
    close(open(own, O_CREAT | O_RDWR, 0644));
    pthread_create(&thread, NULL, flip, NULL);
    pthread_create(&other, NULL, overwrite, NULL);
    for (int i = 0; i < rounds; i++) {
        struct sockaddr_un *address = (void *)&racing;
        int server;
        switch (i % 10) {
        case 0: mkdir(racing_path, 0777); break;
        case 1: symlinkat(own, AT_FDCWD, racing_path); break;
        case 2: mknodat(AT_FDCWD, racing_path, S_IFIFO | 0666, 0); break;
        case 3: linkat(AT_FDCWD, own, AT_FDCWD, racing_path, 0); break;
        case 4: renameat(AT_FDCWD, own, AT_FDCWD, racing_path), close(open(own, O_CREAT | O_RDWR, 0644)); break;
        case 5: close(open(racing_path, O_CREAT | O_EXCL | O_RDWR, 0666)); break;
        case 6: mknod(racing_path, S_IFCHR | 0666, 0x103); break;
        case 7: close(creat(racing_path, 0666)); break;
        case 8:
            if (!binds) break;
            server = socket(AF_UNIX, SOCK_STREAM, 0);
            on_own_stack(SYS_bind, server, (long)address, 100), listen(server, 1), close(server);
            break;
        default:
            utimensat(AT_FDCWD, racing_path, times, AT_SYMLINK_NOFOLLOW), setxattr(racing_path, "user.x", "x", 1, 0);
            lchown(racing_path, 1, 1), fchmodat(AT_FDCWD, racing_path, 0777, 0), removexattr(racing_path, "user.x");
            symlink(own, "/inside/link"), rename(racing_path, "/inside/link"), unlinkat(AT_FDCWD, "/inside/link", 0);
        }
        unlink(good), rmdir(good), unlink(own);
        close(open(own, O_CREAT | O_RDWR, 0644));
    }
    snprintf(bad, sizeof bad, "%s", marker);
    for (int i = 0; i < rounds; i++) {
        unlinkat(AT_FDCWD, racing_path, 0), utimensat(AT_FDCWD, racing_path, times, 0), setxattr(racing_path, "user.x", "x", 1, 0);
        lchown(racing_path, 1, 1), fchmodat(AT_FDCWD, racing_path, 0777, 0), truncate(racing_path, 1);
        linkat(AT_FDCWD, racing_path, AT_FDCWD, "/inside/other", 0), renameat2(AT_FDCWD, racing_path, AT_FDCWD, own, RENAME_EXCHANGE);
    }
    stop = 1;
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
}

/* A directory outside by a race of chdir: no path may begin there. */
static void directories(void) {
    pthread_t thread, other;
    stop = 0;
    memset(good, 0, sizeof good);
    snprintf(bad, sizeof bad, "%s", outside), snprintf(good, sizeof good, "/inside");
    pthread_create(&thread, NULL, flip, NULL);
    pthread_create(&other, NULL, overwrite, NULL);
    for (int i = 0; i < rounds; i++) {
        if (on_own_stack(SYS_chdir, (long)long_directory, 0, 0) == 0) {
            count_outside += !getcwd(line, sizeof line);
            char here[700], text[64] = "";
            if (!getcwd(here, sizeof here)) {
                int fd = open("marker", O_RDWR);
                if (fd >= 0) report("a file from a directory outside");
                close(open("made", O_CREAT | O_WRONLY, 0644)), mkdir("made", 0755), unlink("marker"), chmod("marker", 0777);
                chmod(".", 0777), symlink("x", "made"), mknod("made", S_IFREG | 0644, 0), rename("marker", "made");
                link("marker", "/linked3"), truncate("marker", 0), utimensat(AT_FDCWD, ".", NULL, 0), setxattr(".", "user.x", "x", 1, 0);
                fchmodat(AT_FDCWD, ".", 0777, 0), syscall(452, AT_FDCWD, "", 0777, 0x1000), fchownat(AT_FDCWD, "", 1, 1, 0x1000);
                struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "made"};
                bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address);
                pid_t child = fork();
                if (child == 0) abort(); /* the kernel dumps its memory here */
                waitpid(child, NULL, 0);
                if (open("/proc/self/cwd/marker", O_RDONLY) >= 0) report("a file by /proc/self/cwd");
                if (readlink("marker", text, 60) > 0) report("a link outside");
            }
        }
        chdir("/");
    }
    stop = 1;
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
}

static void descriptors(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/jail", 0755);
    pid_t child = fork();
    if (child == 0) {
        struct stat a, b;
        if (chroot("/jail") == 0 && fchdir(root) == 0) {
            for (int i = 0; i < 40; i++) chdir("..");
            fstat(root, &a);
            if (stat(".", &b) == 0 && a.st_ino != b.st_ino) report("a directory above the tree");
            if (stat("..", &b) == 0 && a.st_ino != b.st_ino) report("a directory above the tree by ..");
        }
        _exit(0);
    }
    waitpid(child, NULL, 0);
    int temporary = open("/", O_TMPFILE | O_RDWR, 0644);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", temporary);
    none("a link to a temporary file outside", linkat(AT_FDCWD, link, AT_FDCWD, made, AT_SYMLINK_FOLLOW));
    struct timespec times[2] = {{5, 5}, {5, 5}};
    utimensat(AT_FDCWD, "/..", times, AT_SYMLINK_NOFOLLOW);
    int file = memfd_create("x", 0);
    write(file, "#!/bin/sh\n", 10);
    struct rlimit limit = {3, 3};
    setrlimit(RLIMIT_NOFILE, &limit);
    none("a file with no descriptor left", open("/inside/marker", O_RDONLY));
}

int main(int argc, char **argv) {
    int tracer = 0;
    if (argc < 3) return 2;
    rounds = atoi(argv[2]);
    snprintf(outside, sizeof outside, "%s", argv[1]);
    snprintf(marker, sizeof marker, "%s/marker", outside);
    snprintf(made, sizeof made, "%s/made", outside);
    below = mmap(NULL, 8192 + sizeof bad, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "PPid:", 5)) tracer = atoi(line + 5);
    struct rlimit all;
    getrlimit(RLIMIT_CORE, &all), all.rlim_cur = all.rlim_max, setrlimit(RLIMIT_CORE, &all);
    none("the marker by its path", open(marker, O_RDONLY));
    refused_calls(tracer);
    the_supervisor(tracer);
    races();
    names(argc == 3);
    directories();
    descriptors();
    printf("%d races won\n", count_outside); /* on stdout, too: two streams come in any order */
    puts("done");
    return 0;
}
