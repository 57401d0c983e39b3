/* Random calls with paths, and what each returned: the same seed makes the same calls in any root directory.

   pathcalls RUN...                  print the results of each run: SEED:COUNT makes the calls 1 to COUNT of a seed,
                                     SEED=N,N,... those calls only (after `o` without paths of /proc and /dev), and any other text the calls that it names
   pathcalls race FIRST SEEDS CALLS OUTSIDE   the same while another process swaps names with links that lead to OUTSIDE;
                                     prints only what was read of the marker there
   pathcalls x                       exit with 42: the program that the calls execute

   A call depends on seed and number alone, not on the calls before it. Each run has a directory /s<SEED> of its own and finds
   the root directory as it was: this program lies in /root, with a copy for each run, /program. Results are errno or what a program can see; inodes are numbered as they
   are first met, and descriptors, umask and directory are those of the process, so that a difference shows where it is. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define AT_EMPTY 0x1000
#define SLOTS 6
#define MARKER "outside-marker"

static uint64_t state, seed_of_all;
static int racing, only_owners, waits_never, plain; /* `plain`: no path of /dev or /proc itself */
static char *outside;
static char home[32];
static int slots[SLOTS];
static char line[1 << 16];
static size_t used;
static unsigned long number;

static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 2685821657736338717ULL;
}
static unsigned below(unsigned n) { return (random64() >> 33) % n; }
static int chance(unsigned in) { return below(in) == 0; }

static void flush_all(void) {
    size_t at = 0;
    while (at < used) {
        ssize_t n = syscall(SYS_write, 1, line + at, used - at);
        if (n <= 0) _exit(3);
        at += n;
    }
    used = 0;
}
static void say(const char *format, ...) {
    va_list list;
    if (racing) return;
    if (used > sizeof line - 8192) flush_all();
    va_start(list, format);
    used += vsnprintf(line + used, 8000, format, list);
    va_end(list);
    if (used > sizeof line - 8192) flush_all();
}

static const char *error_name(int n) { return strerrorname_np(n) ? strerrorname_np(n) : "E?"; }

/* Inodes in the order in which they are met. */
static struct { dev_t dev; ino_t ino; } met[1 << 15];
static unsigned count_met;
static unsigned met_as(dev_t dev, ino_t ino) {
    for (unsigned i = count_met; i-- > 0;)
        if (met[i].dev == dev && met[i].ino == ino) return i;
    if (count_met < sizeof met / sizeof *met) {
        met[count_met].dev = dev;
        met[count_met].ino = ino;
    }
    return count_met++;
}

/* Words of paths. */
static const char *names[] = {"a", "b", "c", "d", "e", "f", "l", "m", "n", "s", "p", "x"};
#define NAMES (sizeof names / sizeof *names)
static const char *name(void) { return names[below(NAMES)]; }

static void add(char *path, const char *text) {
    if (strlen(path) + strlen(text) < 7000) strcat(path, text);
}
static void some_names(char *path, int most) {
    int n = below(most + 1);
    for (int i = 0; i <= n; i++) {
        switch (below(14)) {
        case 0: add(path, ".."); break;
        case 1: add(path, "."); break;
        case 2: add(path, "/"); break;
        default: add(path, name());
        }
        if (i < n) add(path, chance(12) ? "//" : "/");
    }
    if (chance(8)) add(path, "/");
    else if (chance(30)) add(path, "/.");
    else if (chance(30)) add(path, "/..");
}
static int slot(void) { return slots[below(SLOTS)]; }

static char buffers[3][8192];
static const char *a_path(int which) {
    char *path = buffers[which], text[64];
    path[0] = 0;
    unsigned kind = below(100);
    if (only_owners && kind >= 76 && (kind < 90 || kind >= 97)) kind = 60;
    if (kind < 52) {
        some_names(path, 3);
    } else if (kind < 72) {
        strcpy(path, home);
        if (!chance(15)) add(path, "/"), some_names(path, 3);
    } else if (kind < 76) {
        strcpy(path, "/");
        if (chance(3)) add(path, "../../");
        some_names(path, 2);
    } else if (kind < 88 && plain < 2) {
        static const char *magic[] = {"/proc/self/cwd", "/proc/self/root", "/proc/thread-self/cwd", "/proc/self/exe",
                                      "/proc/self", "/proc/self/task/../cwd", "/proc/../proc/self/root",
                                      "/proc/thread-self/root", "/./proc//self/./cwd"};
        switch (below(3)) {
        case 0:
            strcpy(path, magic[below(9)]);
            break;
        case 1:
            snprintf(text, sizeof text, "/proc/self/fd/%d", slot());
            strcpy(path, text);
            break;
        default:
            snprintf(text, sizeof text, chance(2) ? "/dev/fd/%d" : "/proc/thread-self/fd/%d", slot());
            strcpy(path, text);
        }
        if (chance(2) || plain == 3) {
            add(path, "/");
            if (strstr(path, "root") && chance(2)) add(path, home);
            if (chance(4) && plain != 3) add(path, "..");
            else if (!chance(6) || plain == 3) some_names(path, 2);
        }
    } else if (kind < 90 && !plain) {
        strcpy(path, chance(2) ? "/dev/null" : chance(2) ? "/dev/../dev/zero" : "/dev/./null/");
    } else if (kind < 92) {
        strcpy(path, "/program");
    } else if (kind < 93) {
        memset(path, 'y', 255 + below(3));
        path[255 + below(2)] = 0;
    } else if (kind < 94 && !only_owners) {
        int n = chance(2) ? 4095 : 4096 + (int)below(3) - 1;
        for (int i = 0; i < n; i++) path[i] = i % 2 ? '/' : '.';
        path[n] = 0;
    } else if (kind < 96) {
        strcpy(path, "");
    } else if (kind < 97) {
        return chance(2) ? NULL : (const char *)8;
    } else {
        static const char *odd[] = {".", "..", "/", "//", "/.", "/..", "./", "../", "/proc", "/proc/", "/dev", "/proc/self/"};
        strcpy(path, odd[below(plain ? 8 : 12)]);
    }
    return path;
}
static int directory(void) {
    switch (below(6)) {
    case 0: case 1: case 2: return AT_FDCWD;
    case 3: return chance(4) ? 777 : chance(6) ? -1 : slot();
    default: return slot();
    }
}
static const char *shown(const char *path) {
    static char text[3][90];
    static int turn;
    if (!path) return "NULL";
    if (path == (const char *)8) return "BAD";
    turn = (turn + 1) % 3;
    snprintf(text[turn], sizeof text[turn], "%.80s", path);
    return text[turn];
}
static const char *at_name(int fd) {
    static char text[3][16];
    static int turn;
    turn = (turn + 1) % 3;
    if (fd == AT_FDCWD) return "CWD";
    snprintf(text[turn], sizeof text[turn], "%d", fd);
    return text[turn];
}

static long result(long value) {
    if (value < 0) say(" = %s\n", error_name(errno));
    else say(" = %ld\n", value);
    return value;
}

static int is_special(mode_t mode) { return !S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode); }

static void say_stat(const struct stat *s, int in_proc) {
    if (in_proc || S_ISCHR(s->st_mode)) {
        say(" type=%o", s->st_mode & S_IFMT);
        return;
    }
    int each_name_has_its_own = s->st_nlink > 1 && !S_ISREG(s->st_mode) && !S_ISDIR(s->st_mode);
    say(" #%u mode=%o", met_as(s->st_dev, s->st_ino), s->st_mode);
    if (!each_name_has_its_own) say(" uid=%u gid=%u", s->st_uid, s->st_gid);
    say(" nlink=%lu", (unsigned long)s->st_nlink);
    if (!S_ISDIR(s->st_mode) && !is_special(s->st_mode)) say(" size=%ld", (long)s->st_size);
    if (s->st_mtime < 1000000) say(" mtime=%ld", (long)s->st_mtime);
}
/* Whether an inode is one of the tree's: what is in /proc differs. */
static dev_t tree_device;

static void put(int fd) {
    int i = below(SLOTS);
    if (slots[i] >= 0) close(slots[i]);
    slots[i] = fd;
    struct stat s;
    if (syscall(SYS_fstat, fd, &s) == 0) {
        say("    fd %d flags=%o", fd, fcntl(fd, F_GETFL) & ~0100000);
        say_stat(&s, s.st_dev != tree_device);
        say(" cloexec=%d\n", fcntl(fd, F_GETFD));
    } else say("    fd %d fstat %s\n", fd, error_name(errno));
}

static void check_marker(int fd) {
    char text[64];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n > 0) {
        text[n] = 0;
        if (strstr(text, MARKER)) {
            static const char said[] = "LEAK: the marker was read\n";
            (void)!write(1, said, sizeof said - 1);
        }
    }
}

static int open_flags(void) {
    static const int access[] = {O_RDONLY, O_RDONLY, O_WRONLY, O_RDWR};
    int flags = access[below(4)];
    if (chance(3)) flags |= O_CREAT;
    if (chance(8)) flags |= O_EXCL;
    if (chance(8)) flags |= O_TRUNC;
    if (chance(8)) flags |= O_APPEND;
    if (chance(6)) flags |= O_DIRECTORY;
    if (chance(6)) flags |= O_NOFOLLOW;
    if (chance(5)) flags |= O_PATH;
    if (chance(3)) flags |= O_CLOEXEC;
    if (chance(40)) flags |= O_TMPFILE;
    if (waits_never) flags |= O_NONBLOCK;
    if (chance(60)) flags |= O_NOATIME;
    return flags;
}

/* Says that a path leads to a file of /proc, which mode traced does not change. */
static int is_in_proc(int directory, const char *path) {
    struct stat s, proc;
    if (!path || path == (char *)8 || syscall(SYS_stat, "/proc", &proc) < 0) return 0;
    if (syscall(SYS_newfstatat, directory, path, &s, AT_EMPTY) < 0 &&
        syscall(SYS_newfstatat, directory, path, &s, AT_EMPTY | AT_SYMLINK_NOFOLLOW) < 0) return 0;
    return s.st_dev == proc.st_dev;
}

static void do_open(void) {
    int flags = open_flags(), dir = directory(), mode = below(2) ? 0644 : below(1024);
    const char *path = a_path(0);
    long fd;
    switch (below(4)) {
    case 0:
        say("%lu open(%s, %o, %o)", number, shown(path), flags, mode);
        fd = syscall(SYS_open, path, flags, mode);
        break;
    case 1: case 2:
        say("%lu openat(%s, %s, %o, %o)", number, at_name(dir), shown(path), flags, mode);
        fd = syscall(SYS_openat, dir, path, flags, mode);
        break;
    default: {
        plain = 2;
        path = a_path(0);
        if (dir == 777 || dir == -1) dir = AT_FDCWD;
        struct { uint64_t flags, mode, resolve, more; } how = {flags, 0, 0, 0};
        static const int resolve[] = {0, 1, 2, 4, 8, 16, 32, 8 | 2, 16 | 2, 0x18, 0x100};
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) how.mode = mode;
        if (chance(30)) how.mode = 0644;
        how.flags &= ~O_PATH; /* answered with ENOSYS in mode traced */
        how.resolve = resolve[below(chance(20) ? 11 : 9)];
        if (how.resolve & 33) how.resolve = 0; /* RESOLVE_CACHED: EAGAIN as the cache has it */
        if (is_in_proc(dir, "")) how.resolve = 0; /* EXDEV in mode traced */
        size_t size = chance(40) ? 32 : chance(60) ? 16 : 24;
        if (chance(60)) how.more = 1, size = 32;
        say("%lu openat2(%s, %s, %lo, %lo, %lx, %zu)", number, at_name(dir), shown(path), how.flags, how.mode, how.resolve, size);
        do fd = syscall(SYS_openat2, dir, path, &how, size);
        while (fd < 0 && errno == EAGAIN); /* another process of the machine renamed something meanwhile */
    }
    }
    if (result(fd) >= 0) {
        if (racing) check_marker(fd);
        put(fd);
    }
}

static void do_creat(void) {
    if (waits_never) return; /* it would wait at a FIFO */
    const char *path = a_path(0);
    int mode = below(1024);
    say("%lu creat(%s, %o)", number, shown(path), mode);
    long fd = syscall(SYS_creat, path, mode);
    if (result(fd) >= 0) put(fd);
}

static void do_stat(void) {
    const char *path = a_path(0);
    struct stat s;
    struct statx x;
    int dir = directory(), flags = 0;
    long r;
    switch (below(4)) {
    case 0:
        say("%lu stat(%s)", number, shown(path));
        r = syscall(SYS_stat, path, &s);
        break;
    case 1:
        say("%lu lstat(%s)", number, shown(path));
        r = syscall(SYS_lstat, path, &s);
        break;
    case 2:
        flags = (chance(3) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(4) ? AT_EMPTY : 0) | (chance(10) ? AT_NO_AUTOMOUNT : 0) | (chance(40) ? 0x8 : 0);
        if (flags & 8) flags &= ~AT_EMPTY; /* whether they are looked at together depends on the kernel's version */
        say("%lu newfstatat(%s, %s, %x)", number, at_name(dir), shown(path), flags);
        r = syscall(SYS_newfstatat, dir, path, &s, flags);
        break;
    default:
        flags = (chance(3) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(4) ? AT_EMPTY : 0) | (chance(40) ? 0x8 : 0) | (chance(20) ? 0x4000 : 0);
        if (flags & 8) flags &= ~AT_EMPTY;
        say("%lu statx(%s, %s, %x)", number, at_name(dir), shown(path), flags);
        unsigned mask = chance(30) ? 0x80000000 : STATX_BASIC_STATS;
        r = syscall(SYS_statx, dir, path, flags, mask, &x);
        if (r == 0) {
            s.st_dev = makedev(x.stx_dev_major, x.stx_dev_minor), s.st_ino = x.stx_ino, s.st_mode = x.stx_mode;
            s.st_uid = x.stx_uid, s.st_gid = x.stx_gid, s.st_nlink = x.stx_nlink, s.st_size = x.stx_size;
            s.st_mtime = x.stx_mtime.tv_sec;
        }
    }
    if (r < 0) say(" = %s", error_name(errno));
    else say_stat(&s, s.st_dev != tree_device);
    say("\n");
}

static void say_if_in_proc(int directory, const char *path) {
    if (is_in_proc(directory, path)) say(" in /proc");
}

static void do_access(void) {
    plain = 3;
    const char *path = a_path(0);
    int dir = directory(), mode = below(8), flags = 0;
    if (chance(30)) mode = 8;
    switch (below(3)) {
    case 0:
        say("%lu access(%s, %d)", number, shown(path), mode); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_access, path, mode));
        break;
    case 1:
        say("%lu faccessat(%s, %s, %d)", number, at_name(dir), shown(path), mode); say_if_in_proc(dir, path);
        result(syscall(SYS_faccessat, dir, path, mode));
        break;
    default:
        flags = (chance(3) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(4) ? AT_EMPTY : 0) | (chance(3) ? AT_EACCESS : 0) | (chance(40) ? 8 : 0);
        say("%lu faccessat2(%s, %s, %d, %x)", number, at_name(dir), shown(path), mode, flags); say_if_in_proc(dir, path);
        result(syscall(SYS_faccessat2, dir, path, mode, flags));
    }
}

static void do_readlink(void) {
    const char *path = a_path(0);
    char text[4200];
    int dir = directory(), size = chance(5) ? (int)below(6) - 1 : 4100;
    long r;
    memset(text, 0, sizeof text);
    if (chance(2)) {
        say("%lu readlink(%s, %d)", number, shown(path), size);
        r = syscall(SYS_readlink, path, text, size);
    } else {
        say("%lu readlinkat(%s, %s, %d)", number, at_name(dir), shown(path), size);
        r = syscall(SYS_readlinkat, dir, path, text, size);
    }
    if (r >= 0) {
        if (path && path != (char *)8 && (!strcmp(path, "/proc/self") || !strcmp(path, "/proc/self/task/.."))) say(" is a number\n");
        else if (strstr(text, ":[")) say(" = %.6s\n", text);
        else say(" = %ld %.200s\n", r, text);
    } else result(r);
}

static void do_link(void) {
    plain = 1;
    const char *from = a_path(0), *to = a_path(1);
    int old = directory(), new = directory();
    int flags = (chance(3) ? AT_SYMLINK_FOLLOW : 0) | (chance(5) ? AT_EMPTY : 0) | (chance(40) ? 8 : 0);
    if (chance(3)) {
        say("%lu link(%s, %s)", number, shown(from), shown(to));
        result(syscall(SYS_link, from, to));
    } else {
        say("%lu linkat(%s, %s, %s, %s, %x)", number, at_name(old), shown(from), at_name(new), shown(to), flags);
        result(syscall(SYS_linkat, old, from, new, to, flags));
    }
}

static void do_symlink(void) {
    const char *to = a_path(1), *target = a_path(0);
    int dir = directory();
    if (chance(2)) {
        say("%lu symlink(%s, %s)", number, shown(target), shown(to));
        result(syscall(SYS_symlink, target, to));
    } else {
        say("%lu symlinkat(%s, %s, %s)", number, shown(target), at_name(dir), shown(to));
        result(syscall(SYS_symlinkat, target, dir, to));
    }
}

static void do_rename(void) {
    plain = 1;
    const char *from = a_path(0), *to = a_path(1);
    int old = directory(), new = directory();
    static const int flags[] = {0, 0, 1, 2, 3, 4, 8};
    int flag = flags[below(7)];
    if (flag == 4) flag = chance(4) ? 4 : 0; /* whiteouts need a right that both have not */
    switch (below(3)) {
    case 0:
        say("%lu rename(%s, %s)", number, shown(from), shown(to));
        result(syscall(SYS_rename, from, to));
        break;
    case 1:
        say("%lu renameat(%s, %s, %s, %s)", number, at_name(old), shown(from), at_name(new), shown(to));
        result(syscall(SYS_renameat, old, from, new, to));
        break;
    default:
        say("%lu renameat2(%s, %s, %s, %s, %x)", number, at_name(old), shown(from), at_name(new), shown(to), flag);
        result(syscall(SYS_renameat2, old, from, new, to, flag));
    }
}

/* In a sticky directory in which others may write, the kernel looks at the owners of files (fs.protected_regular). */
static int a_mode(int mode) { return mode & 01000 ? mode & ~022 : mode; }

static void do_mkdir(void) {
    const char *path = a_path(0);
    int dir = directory(), mode = a_mode(chance(2) ? 0755 : below(65536));
    if (chance(2)) {
        say("%lu mkdir(%s, %o)", number, shown(path), mode);
        result(syscall(SYS_mkdir, path, mode));
    } else {
        say("%lu mkdirat(%s, %s, %o)", number, at_name(dir), shown(path), mode);
        result(syscall(SYS_mkdirat, dir, path, mode));
    }
}

static void do_mknod(void) {
    const char *path = a_path(0);
    int dir = directory();
    static const int kinds[] = {0, S_IFREG, S_IFIFO, S_IFSOCK, S_IFDIR, S_IFLNK, S_IFCHR};
    int kind = kinds[below(chance(4) ? 7 : 2)];
    if (kind == S_IFIFO && !waits_never) kind = S_IFSOCK;
    if (kind == S_IFCHR) kind = 0030000;
    int mode = kind | below(1024);
    if (kind == S_IFIFO || kind == S_IFSOCK) mode |= 0600;
    say("%lu mknodat(%s, %s, %o)", number, at_name(dir), shown(path), mode);
    result(syscall(SYS_mknodat, dir, path, mode, 0));
}

static void do_unlink(void) {
    plain = 1;
    const char *path = a_path(0);
    int dir = directory(), flags = chance(3) ? AT_REMOVEDIR : chance(40) ? 8 : 0;
    if (path && path != (char *)8 && !strcmp(path, home)) return;
    switch (below(3)) {
    case 0:
        say("%lu unlink(%s)", number, shown(path));
        result(syscall(SYS_unlink, path));
        break;
    case 1:
        say("%lu rmdir(%s)", number, shown(path));
        result(syscall(SYS_rmdir, path));
        break;
    default:
        say("%lu unlinkat(%s, %s, %x)", number, at_name(dir), shown(path), flags);
        result(syscall(SYS_unlinkat, dir, path, flags));
    }
}

static void do_getcwd(void) {
    char text[4200];
    int size = chance(5) ? below(12) : 4200;
    say("%lu getcwd(%d)", number, size);
    long r = syscall(SYS_getcwd, text, size);
    if (r < 0) result(r);
    else if (!strncmp(text, "/proc/", 6)) say(" = %s\n", text); /* its length is that of a process's number */
    else say(" = %ld %s\n", r, text);
}

static void do_chdir(void) {
    const char *path = a_path(0);
    int fd = slot();
    if (chance(3)) {
        say("%lu fchdir(%d)", number, fd);
        result(syscall(SYS_fchdir, fd));
    } else {
        say("%lu chdir(%s)", number, shown(path));
        result(syscall(SYS_chdir, path));
    }
    if (chance(2)) do_getcwd();
}

/* In mode traced not even root may open a FIFO or socket whose mode denies its owner. */
static int for_its_owner(int mode, int directory, const char *path) {
    struct stat s;
    int found = path && path != (char *)8 && syscall(SYS_newfstatat, directory, path, &s, AT_EMPTY) == 0;
    if (found && S_ISCHR(s.st_mode)) return 0666; /* which changes nothing there, but here until the last run */
    return found && is_special(s.st_mode) ? mode | 0600 : mode;
}

static void do_chmod(void) {
    plain = 3;
    const char *path = a_path(0);
    int dir = directory(), mode = a_mode(below(1024)), fd = slot();
    int flags = (chance(4) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(4) ? AT_EMPTY : 0) | (chance(40) ? 8 : 0);
    int which = below(4);
    mode = which == 1 ? for_its_owner(mode, fd, "") : for_its_owner(mode, which ? dir : AT_FDCWD, path);
    switch (which) {
    case 0:
        say("%lu chmod(%s, %o)", number, shown(path), mode); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_chmod, path, mode));
        break;
    case 1:
        say("%lu fchmod(%d, %o)", number, fd, mode); say_if_in_proc(fd, "");
        result(syscall(SYS_fchmod, fd, mode));
        break;
    case 2:
        say("%lu fchmodat(%s, %s, %o)", number, at_name(dir), shown(path), mode); say_if_in_proc(dir, path);
        result(syscall(SYS_fchmodat, dir, path, mode));
        break;
    default:
        say("%lu fchmodat2(%s, %s, %o, %x)", number, at_name(dir), shown(path), mode, flags); say_if_in_proc(dir, path);
        result(syscall(SYS_fchmodat2, dir, path, mode, flags));
    }
}

static void do_chown(void) {
    plain = 3;
    const char *path = a_path(0);
    int dir = directory(), uid = (int)below(5) - 1, gid = (int)below(5) - 1, fd = slot();
    int flags = (chance(3) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(4) ? AT_EMPTY : 0) | (chance(40) ? 8 : 0);
    switch (below(4)) {
    case 0:
        say("%lu chown(%s, %d, %d)", number, shown(path), uid, gid); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_chown, path, uid, gid));
        break;
    case 1:
        say("%lu lchown(%s, %d, %d)", number, shown(path), uid, gid); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_lchown, path, uid, gid));
        break;
    case 2:
        say("%lu fchown(%d, %d, %d)", number, fd, uid, gid); say_if_in_proc(fd, "");
        result(syscall(SYS_fchown, fd, uid, gid));
        break;
    default:
        say("%lu fchownat(%s, %s, %d, %d, %x)", number, at_name(dir), shown(path), uid, gid, flags); say_if_in_proc(dir, path);
        result(syscall(SYS_fchownat, dir, path, uid, gid, flags));
    }
}

static void do_truncate(void) {
    plain = 3;
    const char *path = a_path(0);
    long size = chance(10) ? -1L : (long)below(5000);
    say("%lu truncate(%s, %ld)", number, shown(path), size); say_if_in_proc(AT_FDCWD, path);
    result(syscall(SYS_truncate, path, size));
}

static void do_times(void) {
    plain = 3;
    const char *path = a_path(0);
    int dir = directory(), flags = (chance(3) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(4) ? AT_EMPTY : 0) | (chance(40) ? 8 : 0);
    long a = below(1000), b = below(1000);
    switch (below(4)) {
    case 0: {
        long times[2] = {a, b};
        say("%lu utime(%s, %ld)", number, shown(path), b); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_utime, path, chance(8) ? NULL : times));
        break;
    }
    case 1: {
        long times[4] = {a, 0, b, chance(20) ? 2000000 : 5};
        say("%lu utimes(%s, %ld, %ld)", number, shown(path), b, times[3]); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_utimes, path, times));
        break;
    }
    case 2: {
        long times[4] = {a, 0, b, chance(20) ? 2000000 : 5};
        say("%lu futimesat(%s, %s, %ld, %ld)", number, at_name(dir), shown(path), b, times[3]); say_if_in_proc(dir, path);
        result(syscall(SYS_futimesat, dir, path, times));
        break;
    }
    default: {
        static const long nanoseconds[] = {0, 5, 0x3fffffff, 0x3ffffffe, 1000000000, -1};
        long times[4] = {a, nanoseconds[below(chance(4) ? 6 : 2)], b, nanoseconds[below(chance(4) ? 6 : 2)]};
        say("%lu utimensat(%s, %s, %ld.%ld, %ld.%ld, %x)", number, at_name(dir), shown(path), a, times[1], b, times[3], flags); say_if_in_proc(dir, path);
        result(syscall(SYS_utimensat, dir, path, times, flags));
    }
    }
}

static void do_xattr(void) {
    plain = 3;
    const char *path = a_path(0);
    static const char *attributes[] = {"user.a", "user.b", "user.c", "trusted.a", "user.", "a", "", "security.a", "system.a",
                                       "user.builda.owner", "security.capability"};
    const char *attribute = attributes[below(chance(3) ? 11 : 3)];
    char value[256], caps[20] = {1, 0, 0, 2, 1};
    int fd = slot(), size = chance(6) ? 0 : below(20), flags = chance(4) ? below(4) : 0, room = chance(4) ? below(8) : 200;
    long r;
    memset(value, 'v', sizeof value);
    struct stat s;
    if (!strcmp(attribute, "security.capability") &&
        (!path || path == (char *)8 || syscall(SYS_lstat, path, &s) < 0 || !S_ISREG(s.st_mode) || syscall(SYS_fstat, fd, &s) < 0 || !S_ISREG(s.st_mode)))
        attribute = "user.d"; /* only files can have it in mode traced */
    if (!strcmp(attribute, "security.capability")) memcpy(value, caps, 20), size = 20;
    if (!strcmp(attribute, "security.a")) attribute = "user.d"; /* needs a right that both have not, but with other errors */
    switch (below(12)) {
    case 0:
        say("%lu setxattr(%s, %s, %d, %d)", number, shown(path), attribute, size, flags); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_setxattr, path, attribute, value, size, flags));
        return;
    case 1:
        say("%lu lsetxattr(%s, %s, %d, %d)", number, shown(path), attribute, size, flags); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_lsetxattr, path, attribute, value, size, flags));
        return;
    case 2:
        say("%lu fsetxattr(%d, %s, %d, %d)", number, fd, attribute, size, flags); say_if_in_proc(fd, "");
        result(syscall(SYS_fsetxattr, fd, attribute, value, size, flags));
        return;
    case 3:
        say("%lu getxattr(%s, %s, %d)", number, shown(path), attribute, room); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_getxattr, path, attribute, value, room));
        return;
    case 4:
        say("%lu lgetxattr(%s, %s, %d)", number, shown(path), attribute, room); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_lgetxattr, path, attribute, value, room));
        return;
    case 5:
        say("%lu fgetxattr(%d, %s, %d)", number, fd, attribute, room); say_if_in_proc(fd, "");
        result(syscall(SYS_fgetxattr, fd, attribute, value, room));
        return;
    case 6:
        say("%lu listxattr(%s, %d)", number, shown(path), room); say_if_in_proc(AT_FDCWD, path);
        r = syscall(SYS_listxattr, path, value, room);
        break;
    case 7:
        say("%lu llistxattr(%s, %d)", number, shown(path), room); say_if_in_proc(AT_FDCWD, path);
        r = syscall(SYS_llistxattr, path, value, room);
        break;
    case 8:
        say("%lu flistxattr(%d, %d)", number, fd, room); say_if_in_proc(fd, "");
        r = syscall(SYS_flistxattr, fd, value, room);
        break;
    case 9:
        say("%lu removexattr(%s, %s)", number, shown(path), attribute); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_removexattr, path, attribute));
        return;
    case 10:
        say("%lu lremovexattr(%s, %s)", number, shown(path), attribute); say_if_in_proc(AT_FDCWD, path);
        result(syscall(SYS_lremovexattr, path, attribute));
        return;
    default:
        say("%lu fremovexattr(%d, %s)", number, fd, attribute); say_if_in_proc(fd, "");
        result(syscall(SYS_fremovexattr, fd, attribute));
        return;
    }
    result(r);
}

static void do_statfs(void) {
    const char *path = a_path(0);
    struct statfs s;
    say("%lu statfs(%s)", number, shown(path));
    result(syscall(SYS_statfs, path, &s));
}

static void do_inotify(void) {
    const char *path = a_path(0);
    int fd = inotify_init1(IN_CLOEXEC), mask = IN_MODIFY | (chance(3) ? IN_DONT_FOLLOW : 0) | (chance(3) ? IN_ONLYDIR : 0);
    say("%lu inotify_add_watch(%s, %x)", number, shown(path), mask);
    result(syscall(SYS_inotify_add_watch, fd, path, mask));
    close(fd);
}

static void do_execute(void) {
    const char *path = a_path(0);
    int dir = directory(), flags = (chance(3) ? AT_SYMLINK_NOFOLLOW : 0) | (chance(3) ? AT_EMPTY : 0);
    int by_name = chance(2), status;
    char *arguments[] = {"pathcalls", "x", NULL};
    if (by_name) say("%lu execve(%s)", number, shown(path));
    else say("%lu execveat(%s, %s, %x)", number, at_name(dir), shown(path), flags);
    int *failed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) {
        if (by_name) syscall(SYS_execve, path, arguments, NULL);
        else syscall(SYS_execveat, dir, path, arguments, NULL, flags);
        *failed = errno;
        _exit(1);
    }
    waitpid(child, &status, 0);
    if (*failed) say(" = %s\n", error_name(*failed));
    else say(" status=%x\n", status);
    munmap(failed, 4096);
}

static void do_socket(void) {
    plain = 3;
    const char *path = a_path(0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof address;
    if (!path || path == (char *)8) return;
    strncpy(address.sun_path, path, 60);
    if (!address.sun_path[0]) return;
    if (chance(3)) length = 2 + strlen(address.sun_path) + (chance(2) ? 1 : 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (chance(2)) {
        say("%lu bind(%s)", number, shown(path));
        if (result(syscall(SYS_bind, fd, &address, length)) == 0) {
            listen(fd, 4);
            say("    connect");
            result(syscall(SYS_connect, other, &address, length));
        }
    } else {
        say("%lu connect(%s)", number, shown(path));
        result(syscall(SYS_connect, other, &address, length));
    }
    if (chance(3)) {
        int datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        say("    sendto");
        result(syscall(SYS_sendto, datagram, "x", 1, MSG_DONTWAIT, &address, length));
        close(datagram);
    }
    close(fd);
    close(other);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void do_list(void) {
    const char *path = a_path(0);
    static char data[1 << 16];
    char *found[2048];
    int n = 0;
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), got;
    struct stat s;
    say("%lu list(%s)", number, shown(path));
    if (fd < 0) { result(fd); return; }
    if (syscall(SYS_fstat, (int)fd, &s) < 0 || s.st_dev != tree_device) { say(" elsewhere\n"); close(fd); return; }
    while ((got = syscall(SYS_getdents64, (int)fd, data + 0, sizeof data)) > 0)
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (void *)(data + at);
            char *text = entry->d_name;
            if (n < 2048 && strcmp(text, ".") && strcmp(text, "..")) found[n++] = strdup(text);
            at += entry->d_reclen;
        }
    close(fd);
    qsort(found, n, sizeof *found, by_name);
    for (int i = 0; i < n; i++) {
        if (found[i][0] != 's' || !found[i][1]) say(" %.20s", found[i]); /* other seeds' directories are not shown */
        free(found[i]);
    }
    say(" (%d)\n", strcmp(path ? path : "", "/") && n < 40 ? n : 0);
}

static void do_file(void) {
    int fd = slot();
    char text[32];
    switch (below(4)) {
    case 0:
        say("%lu write(%d)", number, fd);
        result(write(fd, "word", 4));
        break;
    case 1:
        say("%lu pread(%d)", number, fd);
        {
            struct stat s;
            if (syscall(SYS_fstat, fd, &s) < 0) { result(-1); break; }
            if (!S_ISREG(s.st_mode) || s.st_dev != tree_device) { say(" not\n"); break; }
        }
        if (racing) check_marker(fd);
        result(pread(fd, text, sizeof text, 0));
        break;
    case 2:
        say("%lu ftruncate(%d)", number, fd);
        result(ftruncate(fd, below(100)));
        break;
    default: {
        struct stat s;
        say("%lu fstat(%d)", number, fd);
        if (syscall(SYS_fstat, fd, &s) < 0) result(-1);
        else say_stat(&s, s.st_dev != tree_device), say("\n");
    }
    }
}

static void do_umask(void) {
    int mask = below(2) ? 022 : below(64); /* else a socket would deny its owner */
    say("%lu umask(%o)", number, mask);
    result(syscall(SYS_umask, mask));
}

static void calls(unsigned count);

static void do_chroot(void) {
    plain = 2;
    const char *path = a_path(0);
    int status;
    static int inside;
    if (inside || is_in_proc(AT_FDCWD, path)) return;
    say("%lu chroot(%s)", number, shown(path));
    flush_all();
    pid_t child = fork();
    if (child == 0) {
        inside = 1;
        if (result(syscall(SYS_chroot, path)) == 0) {
            do_getcwd(); /* from a directory outside of its root a process could go anywhere */
            say("    chdir"), result(chdir("/"));
            for (int i = 0; i < SLOTS; i++) close(slots[i]), slots[i] = -1;
            calls(12);
        }
        flush_all();
        _exit(0);
    }
    waitpid(child, &status, 0);
    say("    status=%x\n", status);
}

/* A process becomes another user and makes, looks at and gives away files in a directory that all may search: mode
   `single` lets a user open, replace and remove what it may not. */
static void do_become(void) {
    static int inside;
    static const char *found[] = {".", "f", "l", "d", "g", "d/h", "missing"}, *made[] = {"1", "2", "3", "d/4", "d/5", "f"};
    char place[32];
    int status;
    if (inside) return;
    snprintf(place, sizeof place, "/w%lu", number);
    say("%lu become\n", number);
    flush_all();
    pid_t child = fork();
    if (child == 0) {
        inside = 1;
        umask(0);
        if (mkdir(place, 0755) < 0 || chdir(place) < 0) _exit(8);
        close(open("f", O_CREAT | O_WRONLY, 0644)), close(open("g", O_CREAT | O_WRONLY, 0644));
        (void)!symlink("f", "l"), mkdir("d", 0755), close(open("d/h", O_CREAT | O_WRONLY, 0644));
        for (int i = 0; i < 6; i++) {
            int mode = below(512) | (i == 0 || i == 3 ? 0111 : 0) | (chance(4) ? 02000 : 0) | (chance(8) && i ? 04000 : 0);
            (void)!lchown(found[i], below(4), below(4));
            if (i != 2) chmod(found[i], mode);
        }
        umask(chance(2) ? 022 : below(64));
        gid_t groups[] = {below(4), below(4)};
        say("    setgroups"), result(syscall(SYS_setgroups, below(3), groups));
        int turns = 3 + below(12);
        for (int turn = 0; turn < turns; turn++) {
            const char *path = found[below(7)], *new = made[below(6)];
            uid_t u[3] = {0};
            int one = (int)below(5) - 1, other = (int)below(5) - 1, third = (int)below(5) - 1, wanted = below(8), mode = below(512);
            struct stat s;
            switch (below(16)) {
            case 0: say("    setresuid %d %d %d", one, other, third), result(syscall(SYS_setresuid, one, other, third)); break;
            case 1: say("    setresgid %d %d %d", one, other, third), result(syscall(SYS_setresgid, one, other, third)); break;
            case 2: say("    setreuid %d %d", one, other), result(syscall(SYS_setreuid, one, other)); break;
            case 3: say("    setuid %d", one), result(syscall(SYS_setuid, one)); break;
            case 4: say("    setgid %d", one), result(syscall(SYS_setgid, one)); break;
            case 5: say("    setfsuid %d", one), result(syscall(SYS_setfsuid, one)); break;
            case 6: say("    access %s %d", path, wanted), result(syscall(SYS_access, path, wanted)); break;
            case 7: say("    faccessat2 %s %d", path, wanted), result(syscall(SYS_faccessat2, AT_FDCWD, path, wanted, AT_EACCESS)); break;
            case 8: say("    chown %s %d %d", path, one, other), result(syscall(SYS_chown, path, one, other)); break;
            case 9: say("    lchown %s %d %d", path, one, other), result(syscall(SYS_lchown, path, one, other)); break;
            case 10: say("    mkdir %s", new), result(syscall(SYS_mkdir, new, mode | 0111)); break;
            case 11: say("    symlink %s", new), result(syscall(SYS_symlink, "f", new)); break;
            case 12: say("    mknod %s", new), result(syscall(SYS_mknod, new, S_IFIFO | mode, 0)); break;
            case 13: say("    mknod %s c", new), result(syscall(SYS_mknod, new, S_IFCHR | mode, makedev(1, 3))); break;
            case 14: {
                int fd = syscall(SYS_open, new, O_CREAT | O_EXCL | O_WRONLY, mode);
                say("    create %s = %s\n", new, fd < 0 ? error_name(errno) : "made");
                if (fd >= 0) close(fd);
                break;
            }
            default:
                syscall(SYS_getresuid, u, u + 1, u + 2), say("    uids %u %u %u", u[0], u[1], u[2]);
                syscall(SYS_getresgid, u, u + 1, u + 2), say(" gids %u %u %u", u[0], u[1], u[2]);
                say(" groups %ld\n", syscall(SYS_getgroups, 0, NULL));
            }
            for (int i = 0; i < 7; i++)
                if (syscall(SYS_lstat, i < 6 ? made[i] : path, &s) == 0) say("      %d %o %u:%u %lx\n", i, s.st_mode, s.st_uid, s.st_gid, (long)s.st_rdev);
        }
        flush_all();
        _exit(0);
    }
    waitpid(child, &status, 0);
    say("    status=%x\n", status);
}

static void (*const kinds[])(void) = {
    do_open, do_open, do_open, do_open, do_open, do_creat, do_stat, do_stat, do_stat, do_access, do_readlink,
    do_readlink, do_link, do_link, do_symlink, do_symlink, do_symlink, do_rename, do_rename, do_mkdir, do_mkdir, do_mkdir,
    do_mknod, do_unlink, do_getcwd, do_chdir, do_chdir, do_chmod, do_chown, do_truncate, do_times, do_xattr, do_xattr,
    do_statfs, do_inotify, do_execute, do_socket, do_list, do_file, do_file, do_umask,
};

static void calls(unsigned count) {
    while (count--) {
        number++;
        plain = 0;
        state = (seed_of_all + number) * 0x9E3779B97F4A7C15ULL ^ 0xD1B54A32D192ED03ULL; /* whatever went before */
        for (int i = 0; i < 4; i++) random64();
        if (chance(150)) do_chroot();
        else if (only_owners && chance(10)) do_become();
        else kinds[below(sizeof kinds / sizeof *kinds)]();
    }
}

/* Names that lead in and out, by turns, as fast as possible. */
static void swap(void) {
    char target[256];
    for (;;) {
        const char *one = name(), *other = name();
        switch (below(6)) {
        case 0: syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2); break;
        case 1:
            snprintf(target, sizeof target, "../../../../../../../../../..%s", outside);
            unlink("sw");
            symlink(chance(2) ? target : outside, "sw");
            rename("sw", one);
            break;
        case 2: snprintf(target, sizeof target, "../../../../../../../../..%s/marker", outside);
            unlink("sw");
            symlink(chance(2) ? target : target + 26, "sw");
            syscall(SYS_renameat2, AT_FDCWD, "sw", AT_FDCWD, one, 2);
            break;
        case 3: mkdir("swd", 0777), syscall(SYS_renameat2, AT_FDCWD, "swd", AT_FDCWD, one, 2); break;
        case 4: snprintf(target, sizeof target, "%s/%s", one, other), rename(target, "mv"), rename("mv", one); break;
        default: close(open(one, O_CREAT | O_WRONLY, 0644));
        }
        if (getppid() == 1) _exit(0);
    }
}

static void seed_run(unsigned seed, unsigned count, char *chosen) {
    struct stat s;
    seed_of_all = (uint64_t)(seed + 1) << 32;
    state = seed_of_all | 1;
    for (int i = 0; i < 10; i++) random64();
    waits_never = racing || seed % 2; /* what one seed leaves in the root directory, the next one would wait at */
    snprintf(home, sizeof home, "/s%06u", seed);
    umask(0);
    if (mkdir(home, 0755) < 0 || chdir(home) < 0) _exit(4);
    umask(022);
    stat(".", &s);
    tree_device = s.st_dev;
    for (int i = 0; i < SLOTS; i++) slots[i] = -1;
    slots[0] = open(".", O_RDONLY | O_DIRECTORY);
    mkdir("a", 0755), mkdir("b", 0755), mkdir("a/b", 0755), mkdir("a/b/c", 0755);
    close(open("f", O_CREAT | O_RDWR, 0644)), close(open("a/f", O_CREAT | O_RDWR, 0644));
    symlink("a", "l"), symlink("../b", "a/l"), symlink("/", "m"), symlink(only_owners ? "../b" : "/proc/self/cwd", "n"), symlink("nowhere", "b/n");
    symlink("../../../../../..", "b/m"), symlink("s", "s"), symlink(home, "a/m"), link("/program", "p");
    pid_t swapper = 0;
    if (racing) {
        swapper = fork();
        if (swapper == 0) {
            if (chance(2)) chdir("a");
            swap();
        }
    }
    if (chosen)
        for (char *one = strtok(chosen, ","); one; one = strtok(NULL, ",")) number = atoi(one) - 1, calls(1);
    else calls(count);
    flush_all();
    if (swapper) kill(swapper, SIGKILL), waitpid(swapper, NULL, 0);
    _exit(0);
}

static void empty(int directory) {
    DIR *list = fdopendir(directory);
    struct dirent *entry;
    while ((entry = readdir(list))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || unlinkat(directory, entry->d_name, 0) == 0) continue;
        int below_it = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below_it >= 0) empty(below_it);
        unlinkat(directory, entry->d_name, AT_REMOVEDIR);
    }
    closedir(list);
}

/* Remove what a run has made in the root directory and give it back what it had. */
static void begin_anew(void) {
    DIR *root = opendir("/");
    struct dirent *entry;
    static const char *attributes[] = {"user.a", "user.b", "user.c", "user.d", "user.builda.owner"};
    while ((entry = readdir(root))) {
        char word[300];
        snprintf(word, sizeof word, " %s ", entry->d_name);
        if (strstr(" . .. proc sys dev etc tmp root ", word) || unlinkat(dirfd(root), entry->d_name, 0) == 0) continue;
        int directory = openat(dirfd(root), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (directory >= 0) empty(directory);
        unlinkat(dirfd(root), entry->d_name, AT_REMOVEDIR);
    }
    closedir(root);
    for (unsigned i = 0; i < sizeof attributes / sizeof *attributes; i++) syscall(SYS_removexattr, "/", attributes[i]);
    if (chown("/root/pathcalls", 0, 0) < 0 || chmod("/root/pathcalls", 0755) < 0) _exit(9); /* by /proc/self/exe */
    if (chown("/", 0, 0) < 0 || chmod("/", 0755) < 0 || chown("/dev", 0, 0) < 0 || chmod("/dev", 0755) < 0 ||
        utimensat(AT_FDCWD, "/", NULL, 0) < 0) _exit(5);
    int from = open("/root/pathcalls", O_RDONLY | O_CLOEXEC), to = open("/program", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    if (from < 0 || to < 0) _exit(6);
    while (sendfile(to, from, NULL, 1 << 24) > 0) continue;
    close(from), close(to);
}

static void run(char *text) {
    static int count;
    int status;
    char *arguments[] = {"/root/pathcalls", "run", text, NULL};
    begin_anew();
    say("run %d\n", ++count);
    flush_all();
    pid_t child = fork();
    if (child == 0) {
        execve(arguments[0], arguments, NULL);
        _exit(7);
    }
    waitpid(child, &status, 0);
    if (status) say("ended with %x\n", status);
}

/* Calls given as text: NAME ARGUMENT..., separated by `;`. An argument is a number, CWD, $N (what the call N returned), @PATH
   (the address of a socket and its length), '' (an empty path), or else a path. `readlinkat` has no buffer as argument;
   `utimensat` has the nanoseconds of its times, `getsockname` and `getpeername` the size of the buffer, if it is not that of
   an address. `execute` returns the status of a program (42 for this one) or an errno; `ids` returns 32 times the effective
   user of this program and 4 times its group, and 1 if it has capabilities. `later_open` opens a file in another process. */
static const struct { const char *name; long number; } by_text[] = {
    {"open", SYS_open}, {"openat", SYS_openat}, {"creat", SYS_creat}, {"close", SYS_close}, {"stat", SYS_stat},
    {"mkdir", SYS_mkdir}, {"mkdirat", SYS_mkdirat}, {"rmdir", SYS_rmdir}, {"unlink", SYS_unlink}, {"symlink", SYS_symlink},
    {"symlinkat", SYS_symlinkat}, {"link", SYS_link}, {"linkat", SYS_linkat}, {"rename", SYS_rename}, {"renameat2", SYS_renameat2},
    {"chdir", SYS_chdir}, {"fchdir", SYS_fchdir}, {"chmod", SYS_chmod}, {"chown", SYS_chown}, {"lchown", SYS_lchown},
    {"mknod", SYS_mknod}, {"truncate", SYS_truncate}, {"bind", SYS_bind}, {"connect", SYS_connect}, {"access", SYS_access},
    {"socket", SYS_socket}, {"umask", SYS_umask}, {"lstat", SYS_lstat}, {"getxattr", SYS_getxattr}, {"setxattr", SYS_setxattr},
    {"fchown", SYS_fchown}, {"fchmod", SYS_fchmod}, {"rmxattr", SYS_removexattr}, {"fstat", SYS_fstat},
    {"setresuid", SYS_setresuid}, {"setresgid", SYS_setresgid}, {"fsetxattr", SYS_fsetxattr}, {"rmdir", SYS_rmdir}, {"write", SYS_write},
    {"inotify_add_watch", SYS_inotify_add_watch}, {"inotify_init1", SYS_inotify_init1}, {"statfs", SYS_statfs}, {"chroot", SYS_chroot},
    {"listxattr", SYS_listxattr}, {"fremovexattr", SYS_fremovexattr}, {"openat2", SYS_openat2}, {"execute", -2},
    {"ftruncate", SYS_ftruncate}, {"fallocate", SYS_fallocate}, {"pwrite", SYS_pwrite64}, {"sendfile", SYS_sendfile},
    {"copy_file_range", SYS_copy_file_range}, {"fgetxattr", SYS_fgetxattr}, {"prctl", SYS_prctl}, {"ids", -3},
    {"readlinkat", SYS_readlinkat}, {"fcntl", SYS_fcntl}, {"later_open", -4}, {"getsockname", SYS_getsockname},
    {"getpeername", SYS_getpeername}, {"listen", SYS_listen}, {"accept", SYS_accept},
    {"utimensat", SYS_utimensat},
};

static long status_of(char *program, char *word) {
    char *arguments[] = {"pathcalls", word, NULL};
    int status;
    flush_all();
    pid_t child = fork();
    if (child == 0) execve(program, arguments, NULL), _exit(errno);
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

/* Another process opens the file a moment later. */
static long later_open(char *path, int flags) {
    flush_all();
    pid_t child = fork();
    if (child == 0) usleep(50000), syscall(SYS_open, path, flags), _exit(0);
    return 0;
}

static void perform(char *text) {
    static char many[1 << 15];
    static long results[100];
    static char capabilities[20] = {1, 0, 0, 2, 1};
    for (char *next, *one = text; one && number + 1 < 100; one = next) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct stat s = {0};
        long a[7] = {0}, n = 0, call = -1;
        char *rest, *word;
        if ((next = strchr(one, ';'))) *next++ = 0;
        say("%lu%s%s", ++number, one[0] == ' ' ? "" : " ", one);
        word = strtok_r(one, " ", &rest);
        for (unsigned i = 0; word && i < sizeof by_text / sizeof *by_text; i++)
            if (!strcmp(word, by_text[i].name)) call = by_text[i].number;
        while ((word = strtok_r(NULL, " ", &rest)) && n < 6) {
            if (!strcmp(word, "CWD")) a[n++] = AT_FDCWD;
            else if (word[0] == '$') a[n++] = results[atoi(word + 1)];
            else if (word[0] == '@') {
                strncpy(address.sun_path, word + 1, 100);
                a[n++] = (long)&address, a[n++] = sizeof address;
            } else if (!strcmp(word, "''")) a[n++] = (long)"";
            else if (!strcmp(word, "capabilities")) a[n++] = (long)capabilities;
            else if (!strcmp(word, "many-dots")) {
                for (int i = 0; i < 4095; i++) many[i] = i % 2 ? '/' : '.';
                many[4095] = 0, a[n++] = (long)many;
            } else if ((word[0] >= '0' && word[0] <= '9') || word[0] == '-') a[n++] = strtol(word, NULL, 0);
            else a[n++] = (long)word;
        }
        char text[4097];
        int is_name = call == SYS_getsockname || call == SYS_getpeername;
        socklen_t length = a[1] ? a[1] : sizeof address;
        if (is_name) a[1] = (long)&address, a[2] = (long)&length;
        if (call == SYS_readlinkat) a[3] = a[2], a[2] = (long)text;
        int looks = call == SYS_stat || call == SYS_lstat || call == SYS_fstat;
        if (looks) a[1] = (long)&s;
        struct { uint64_t flags, mode, resolve; } how = {a[2], a[3], a[4]};
        struct timespec times[2] = {{1, a[2]}, {2, a[3]}};
        if (call == SYS_utimensat) a[2] = (long)times, a[3] = a[4];
        if (call == SYS_openat2) a[2] = (long)&how, a[3] = sizeof how;
        results[number] = call == -4 ? later_open((char *)a[0], a[1]) : call < -1 ? status_of((char *)a[0], call == -2 ? "x" : "i") : syscall(call, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (looks && results[number] == 0) say(" = %o %u:%u", s.st_mode, s.st_uid, s.st_gid);
        if (call == SYS_readlinkat && results[number] >= 0) say(" = %.*s", (int)results[number], text);
        if (is_name && results[number] == 0) say(" %u %s", length, address.sun_path);
        if (looks && results[number] == 0) say("\n");
        else result(results[number]);
    }
    flush_all();
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "x")) return 42;
    if (argc > 1 && !strcmp(argv[1], "i")) {
        unsigned header[2] = {0x20080522, 0}, sets[6];
        return (geteuid() % 8) << 5 | (getegid() % 8) << 2 | (syscall(SYS_capget, header, sets) == 0 && sets[0]);
    }
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "run")) {
        char *rest;
        unsigned seed = strtoul(argv[2], &rest, 10);
        alarm(60);
        if (argv[2][0] == 'o') only_owners = 1, seed = strtoul(argv[2] + 1, &rest, 10);
        if (*rest == ':') seed_run(seed, atoi(rest + 1), NULL);
        else if (*rest == '=') seed_run(seed, 0, rest + 1);
        else if (mkdir("/t", 0755) == 0 && chdir("/t") == 0) perform(argv[2]);
        return 2;
    }
    if (argc == 6 && !strcmp(argv[1], "race")) {
        unsigned first = atoi(argv[2]), seeds = atoi(argv[3]), count = atoi(argv[4]);
        racing = 1, outside = argv[5];
        for (unsigned seed = first; seed < first + seeds; seed++) {
            int status;
            pid_t child = fork();
            if (child == 0) alarm(60), seed_run(seed, count, NULL);
            waitpid(child, &status, 0);
            if (status) printf("seed %u ended with %x\n", seed, status), fflush(stdout);
        }
        return 0;
    }
    for (int i = 1; i < argc; i++) run(argv[i]);
    flush_all();
    return argc < 2;
}
