/* What users without rights make and may do: `users SECTION` prints what calls return, and how their files look then.

   The same lines in any root directory, whoever makes the calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CAPABILITIES "security.capability"
#define COUNT(array) (sizeof array / sizeof *array)
static const char *name_of(int n) { return strerrorname_np(n) ? strerrorname_np(n) : "E?"; }
static const char *said(long result) { return result < 0 ? name_of(errno) : "0"; }

static void become(unsigned uid, unsigned gid) { setfsgid(gid), setfsuid(uid); }
static void show(const char *path) {
    struct stat info;
    if (lstat(path, &info)) printf(" %s", said(-1));
    else printf(" %o %u:%u", info.st_mode, info.st_uid, info.st_gid);
}
static void show_open(int fd) {
    struct stat info;
    if (fd >= 0 && !fstat(fd, &info)) printf(" %o %u:%u", info.st_mode, info.st_uid, info.st_gid);
}

/* openat2(2) with rules for paths. */
static int open_by_rules(int directory, const char *path, uint64_t flags, uint64_t rules) {
    struct open_how how = {flags | O_CLOEXEC, flags & (O_CREAT | O_TMPFILE) ? 0640 : 0, rules};
    int fd;
    do fd = syscall(SYS_openat2, directory, path, &how, sizeof how); /* EAGAIN: somebody renamed or mounted something meanwhile */
    while (fd < 0 && errno == EAGAIN && !(rules & RESOLVE_CACHED));
    return fd;
}
static const char *made[] = {"w/f", "w/sub/f", "w/q", "esc", "/etc/z", "w/new", "w/tmp/w/g", "w/tmp/w/new", "w/g", "w/x", "x", "w/etc/z", "w/group/f"};
static const char *paths[] = {"f", "sub/f", "to-sub/f", "absolute/f", "/f", "/tmp/w/g", "../esc", "sub/../q", "out/z", "to-new", "to-new-absolute",
    "up", "no/f", "f/x", "sub/", "sub", ".", "..", "", "loop", "mine", "roots", "to-roots", "group/f", "/proc/self/fd/0/f", "pipe"};
static const uint64_t rules[] = {0, RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_CACHED,
    RESOLVE_BENEATH | RESOLVE_IN_ROOT, 0x40, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
static const uint64_t hows[] = {O_CREAT | O_WRONLY, O_CREAT | O_EXCL | O_RDWR, O_CREAT | O_NOFOLLOW, O_CREAT | O_TRUNC | O_RDWR, O_TMPFILE | O_RDWR, O_CREAT | O_DIRECTORY};

static void by_rules(void) {
    const char *links[][2] = {{"sub", "w/to-sub"}, {"/tmp/w/sub", "w/absolute"}, {"../../etc", "w/out"}, {"new", "w/to-new"}, {"/tmp/w/new", "w/to-new-absolute"},
        {"../x", "w/up"}, {"loop", "w/loop"}, {"roots", "w/to-roots"}};
    mkdir("w", 0700), chmod("w", 0777), mkdir("w/sub", 0700), chmod("w/sub", 0777), mkdir("w/tmp", 0700), mkdir("w/tmp/w", 0700), chmod("w/tmp", 0777);
    chmod("w/tmp/w", 0777), mkdir("w/etc", 0755), mkdir("w/group", 0700), chown("w/group", 7, 8), chmod("w/group", 02777), mkfifo("w/pipe", 0600);
    close(creat("w/roots", 0644)), close(creat("w/mine", 0600)), chown("w/mine", 33, 6);
    for (size_t i = 0; i < COUNT(links); i++) symlink(links[i][0], links[i][1]);
    int directory = open("w", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (unsigned uid = 0; uid < 34; uid += 33)
        for (size_t r = 0; r < COUNT(rules); r++)
            for (size_t h = 0; h < COUNT(hows); h++)
                for (size_t p = 0; p < COUNT(paths); p++) {
                    if (!strcmp(paths[p], "pipe") && h != 1 && h != 4) continue; /* would wait */
                    become(uid, uid ? 6 : 0);
                    int fd = open_by_rules(directory, paths[p], hows[h], rules[r]);
                    printf("%u openat2 %s %lo %lx = %s", uid, paths[p], (long)hows[h], (long)rules[r], said(fd));
                    show_open(fd), close(fd), become(0, 0);
                    for (size_t m = 0; m < COUNT(made); m++)
                        if (!access(made[m], F_OK)) printf(" %s", made[m]), show(made[m]), unlink(made[m]);
                    puts("");
                }
    become(33, 6);
    int fd = open_by_rules(AT_FDCWD, "w/sub/f", O_CREAT, RESOLVE_NO_MAGICLINKS);
    printf("close on exec: %d\n", fcntl(fd, F_GETFD));
    become(0, 0), chroot("w"), become(33, 6); /* the working directory is outside */
    for (size_t r = 0; r < COUNT(rules); r++) {
        const char *outside[] = {"/sub/c", "w/sub/c", "/to-sub/c", "w/to-sub/c", "/absolute/c", "w/to-new", "../c"};
        for (size_t p = 0; p < COUNT(outside); p++) {
            fd = open_by_rules(AT_FDCWD, outside[p], O_CREAT, rules[r]);
            printf("outside %s %lx = %s", outside[p], (long)rules[r], said(fd)), show_open(fd), close(fd), become(0, 0);
            unlink("/sub/c"), unlink("/new"), become(33, 6), puts("");
        }
    }
}

/* The capabilities of files: of the present namespace, and of those with another root user. */
static void show_capabilities(const char *path) {
    unsigned char value[64];
    ssize_t size = getxattr(path, CAPABILITIES, value, sizeof value);
    printf(" %s", size < 0 ? name_of(errno) : "");
    for (ssize_t at = 0; at < size; at++) printf("%02x", value[at]);
    printf(" size %zd, %zd, %zd", getxattr(path, CAPABILITIES, NULL, 0), getxattr(path, CAPABILITIES, value, 20), lgetxattr(path, CAPABILITIES, value, 24));
    size = listxattr(path, (char *)value, sizeof value);
    for (char *at = (char *)value; size > 0 && at < (char *)value + size; at += strlen(at) + 1) printf(" %s", at);
    puts("");
}
static int set_capabilities(const char *path, uint32_t first, size_t size, uint32_t permitted, uint32_t inheritable, uint32_t root, int flags) {
    uint32_t words[6] = {first, permitted, inheritable, inheritable & 3, permitted & 3, root};
    return setxattr(path, CAPABILITIES, words, size, flags);
}
static void in_child(unsigned uid, void (*run)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        if (setresuid(uid, uid, uid)) puts(said(-1));
        run(), fflush(stdout), _exit(0);
    }
    waitpid(child, NULL, 0);
}
static void execute(void) { execl("file", "file", "capabilities", "held", NULL), puts(said(-1)); }
static void as_user(void) {
    for (size_t size = 0; size < 28; size += 4)
        for (uint32_t version = 1; version < 4; version++)
            printf("user sets %u %zu %s\n", version, size, size ? said(set_capabilities("file", version << 24, size, 1, 0, 1000, 0)) : "0");
    printf("user removes %s\n", said(removexattr("file", CAPABILITIES)));
    printf("user sets of nothing %s\n", said(set_capabilities("none", 3 << 24, 24, 1, 0, 1000, 0)));
    printf("user removes of nothing %s\n", said(removexattr("none", CAPABILITIES)));
}
static void held(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    syscall(SYS_capget, &header, data);
    printf("held %x %x %x\n", data[0].effective, data[0].permitted, data[0].inheritable);
}
static void write_byte(const char *path, int flags) {
    int fd = open(path, O_WRONLY | flags);
    if (!(flags & O_TRUNC) && write(fd, "x", 1) != 1) puts("not written");
    close(fd);
}
static void capabilities(void) {
    const uint32_t roots[] = {0, 1, 33, 1000, 100000, 0x7fffff, 0x800000, 0x7fffffff, 0xfffffffe, 0xffffffff};
    int self = open("/proc/self/exe", O_RDONLY), file = creat("file", 0755);
    while (sendfile(file, self, NULL, 1 << 20) > 0);
    close(file), close(self);
    for (size_t r = 0; r < COUNT(roots); r++)
        for (size_t size = 16; size <= 28; size += 4)
            for (uint32_t version = 0; version < 5; version++)
                for (uint32_t effective = 0; effective < 3; effective++) {
                    if (size == 20 && roots[r]) continue;
                    int result = set_capabilities("file", version << 24 | effective, size, 0xc1, effective == 2 ? 0xffffffff : 3, roots[r], 0);
                    printf("version %u.%u size %zu root %u = %s", version, effective, size, roots[r], said(result)), show_capabilities("file");
                    if (!result) in_child(0, execute), in_child(33, execute);
                    removexattr("file", CAPABILITIES);
                }
    const uint32_t one = 3 << 24 | 1;
    printf("not replaced %s\n", said(set_capabilities("file", one, 24, 1, 1, 7, XATTR_REPLACE)));
    printf("made %s\n", said(set_capabilities("file", one, 24, 1, 1, 7, XATTR_CREATE)));
    printf("made again %s\n", said(set_capabilities("file", one, 24, 1, 1, 8, XATTR_CREATE)));
    printf("unknown flag %s\n", said(set_capabilities("file", one, 24, 1, 1, 8, 4)));
    show_capabilities("file"), in_child(33, as_user), show_capabilities("file");
    printf("executed by root who lacks them:"), set_capabilities("file", one, 24, 1 << 21, 0, 7, 0), in_child(0, execute);
    printf("chown %s", said(chown("file", 0, 0))), show_capabilities("file");
    for (int flags = O_APPEND; flags; flags = flags == O_APPEND ? O_TRUNC : 0)
        set_capabilities("file", one, 24, 1, 1, 7, 0), write_byte("file", flags), printf("written %o", flags), show_capabilities("file");
    set_capabilities("file", one, 24, 1, 1, 7, 0), printf("truncate %s", said(truncate("file", 5))), show_capabilities("file");
    set_capabilities("file", 2 << 24, 20, 0, 0, 0, 0), printf("none of version 2"), show_capabilities("file");
    mkdir("directory", 0755), set_capabilities("directory", one, 24, 1, 1, 7, 0), printf("directory"), show_capabilities("directory");
    symlink("directory", "link"), printf("by a link"), show_capabilities("link");
    file = open("directory", O_RDONLY);
    printf("by a descriptor %zd %s", fgetxattr(file, CAPABILITIES, NULL, 0), said(fremovexattr(file, CAPABILITIES))), show_capabilities("directory");
}

/* What ACLs give and take. */
struct entry { uint16_t tag, bits; uint32_t id; };
enum { USER = 1, NAMED_USER = 2, GROUP = 4, NAMED_GROUP = 8, MASK = 16, OTHER = 32, NONE = -1 };
static const struct { uint32_t version; struct entry entries[7]; } acls[] = {
    {2, {{USER, 6, NONE}, {NAMED_USER, 4, 1001}, {GROUP, 0, NONE}, {MASK, 6, NONE}, {OTHER, 0, NONE}}},
    {2, {{USER, 6, NONE}, {NAMED_USER, 7, 1001}, {NAMED_USER, 2, 1002}, {GROUP, 0, NONE}, {MASK, 7, NONE}, {OTHER, 0, NONE}}},
    {2, {{USER, 6, NONE}, {NAMED_USER, 0, 1001}, {GROUP, 4, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}}},
    {2, {{USER, 6, NONE}, {NAMED_USER, 7, 1001}, {GROUP, 7, NONE}, {MASK, 1, NONE}, {OTHER, 7, NONE}}},
    {2, {{USER, 6, NONE}, {GROUP, 0, NONE}, {NAMED_GROUP, 5, 50}, {MASK, 7, NONE}, {OTHER, 4, NONE}}},
    {2, {{USER, 6, NONE}, {GROUP, 1, NONE}, {NAMED_GROUP, 4, 50}, {NAMED_GROUP, 2, 51}, {MASK, 7, NONE}, {OTHER, 7, NONE}}},
    {2, {{USER, 6, NONE}, {GROUP, 0, NONE}, {NAMED_GROUP, 0, 50}, {MASK, 7, NONE}, {OTHER, 7, NONE}}},
    {2, {{USER, 4, NONE}, {NAMED_USER, 7, 7}, {GROUP, 0, NONE}, {MASK, 7, NONE}, {OTHER, 0, NONE}}},
    {2, {{USER, 6, NONE}, {NAMED_USER, 0, 0}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}}},
    {2, {{USER, 6, NONE}, {NAMED_USER, 1, 1001}, {GROUP, 1, NONE}, {MASK, 0, NONE}, {OTHER, 1, NONE}}},
    {2, {{USER, 6, NONE}, {GROUP, 7, NONE}, {MASK, 4, NONE}, {OTHER, 7, NONE}}},
};
static const struct { unsigned uid, gid, count; gid_t groups[2]; } users[] = {
    {1001, 1001, 0}, {1002, 1002, 1, {50}}, {1003, 50, 0}, {1003, 1003, 2, {50, 51}}, {7, 8, 0}, {1004, 8, 0}, {1005, 5, 0}, {0, 0, 0}};

static void use(const char *path, int is_directory) {
    char name[40];
    for (int wanted = 0; wanted < 8; wanted++) printf(" %s", said(access(path, wanted)));
    if (is_directory) {
        snprintf(name, sizeof name, "%s/x", path);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        printf(" make %s", said(fd));
        if (fd >= 0) close(fd), unlink(name);
        printf(" mkdir %s", said(mkdir(name, 0700))), rmdir(name);
    } else
        for (int how = O_RDONLY; how <= O_RDWR; how++) {
            int fd = open(path, how | O_CREAT, 0600);
            printf(" open %s", said(fd)), close(fd);
        }
    puts("");
}
static void by_acls(void) {
    const unsigned owners[] = {0, 7, 1001};
    for (size_t a = 0; a < COUNT(acls); a++)
        for (size_t o = 0; o < COUNT(owners); o++)
            for (int is_directory = 0; is_directory < 2; is_directory++) {
                char path[20];
                size_t count = 0;
                snprintf(path, sizeof path, "%s-%zu-%u", is_directory ? "d" : "f", a, owners[o]);
                while (acls[a].entries[count].tag) count++;
                is_directory ? mkdir(path, 0755) : close(creat(path, 0644));
                chown(path, owners[o], 8);
                if (setxattr(path, "system.posix_acl_access", &acls[a], 4 + 8 * count, 0)) puts(said(-1));
                for (size_t u = 0; u < COUNT(users); u++) {
                    printf("%s %u:%u", path, users[u].uid, users[u].gid), fflush(stdout);
                    if (!fork()) {
                        setgroups(users[u].count, users[u].groups), setresgid(users[u].gid, users[u].gid, users[u].gid);
                        setresuid(users[u].uid, users[u].uid, users[u].uid), use(path, is_directory), fflush(stdout), _exit(0);
                    }
                    wait(NULL);
                }
            }
}

/* Files with set-id bits, and with several names; recent calls. */
static void line(const char *what, long result, const char *path) {
    printf("%s = %s", what, said(result)), show(path), puts("");
}
static void make_with_bits(void) {
    for (size_t d = 0; d < 3; d++)
        for (mode_t mode = 0700; mode < 07000; mode += 01010) {
            const char *directories[] = {"of-group", "open", "own"};
            char name[40];
            snprintf(name, sizeof name, "%s/x", directories[d]);
            printf("%s %o: ", name, mode);
            int fd = open(name, O_CREAT | O_WRONLY, mode);
            line("open", fd < 0 ? fd : 0, name), unlink(name);
            line("  mkdir", mkdir(name, mode), name), rmdir(name);
            line("  mkfifo", mkfifo(name, mode), name), unlink(name);
            line("  mknod", mknod(name, mode | S_IFREG, 0), name), line("  chmod", chmod(name, mode | 06000), name);
            line("  fchmodat", fchmodat(AT_FDCWD, name, mode | 04000, 0), name), line("  chgrp", chown(name, -1, 6), name);
            line("  fchmod", (fd = open(name, O_RDWR)) < 0 ? 0 : fchmod(fd, mode | 02000), name), close(fd);
            line("  fchmodat2", syscall(452, AT_FDCWD, name, mode | 02000, 0), name), unlink(name);
        }
    line("chmod", chmod("of-root", 04755), "of-root"), line("chmod", chmod("missing", 04755), "missing");
    line("chmod", chmod("of-root/x", 06755), "of-root/x"), line("fchmod", fchmod(99, 06755), "of-root");
    int fd = open("of-root", O_PATH);
    line("fchmod", fchmod(fd, 06755), "of-root"), line("fchmodat2", syscall(452, fd, "", 04755, AT_EMPTY_PATH), "of-root"), close(fd);
    line("chmod", chmod("a-link", 04755), "a-link"), line("fchmodat2", syscall(452, AT_FDCWD, "a-link", 04755, AT_SYMLINK_NOFOLLOW), "a-link");
}
static void make(void) {
    const char *groups[] = {"of-group", "open", "own"};
    for (size_t d = 0; d < COUNT(groups); d++) mkdir(groups[d], 0777), chown(groups[d], d == 2 ? 33 : 7, d == 2 ? 33 : 8), chmod(groups[d], d == 1 ? 0777 : 02777);
    close(creat("of-root", 0644)), symlink("of-root", "a-link");
    in_child(0, make_with_bits), in_child(33, make_with_bits), show("of-root"), chmod("of-root", 0644), puts("");
    symlink("x", "l"), lchown("l", 5, 6), mkfifo("p", 0600), chown("p", 7, 8), mknod("c", S_IFCHR | 0600, 0x103), chown("c", 9, 9);
    const char *first[] = {"l", "p", "c", "of-root", "missing", "l", "p"}, *second[] = {"l2", "p2", "c2", "r2", "m2", "p", "own/missing/x"};
    for (size_t n = 0; n < COUNT(first); n++) line(first[n], link(first[n], second[n]), second[n]);
    line("linkat", linkat(AT_FDCWD, "l2", AT_FDCWD, "l3", 0), "l3"), line("linkat", linkat(AT_FDCWD, "l/", AT_FDCWD, "l4", 0), "l4");
    line("lchown", lchown("l3", 1, 1), "l3"), line("chmod", chmod("c2", 0640), "c"), line("unlink", unlink("l2"), "l3");
    line("link", link("of-root", "l2"), "l2"), line("rename", rename("c2", "r2"), "r2");
    struct statx info;
    for (unsigned flags = 0; flags < 0x8000; flags += 0x2000) printf("statx %x = %s\n", flags, said(syscall(SYS_statx, AT_FDCWD, "c", flags, 0x7ff, &info)));
}

/* Programs that are only looked at. Kernels before Linux 6.14 refuse that. */
static void check_execution(void) {
    char *words[] = {"file", NULL}, *none[] = {NULL};
    int self = open("file", O_RDONLY | O_CLOEXEC);
    printf("by path %s\n", said(syscall(SYS_execveat, AT_FDCWD, "file", words, none, 0x10000))), held();
    printf("by descriptor %s\n", said(syscall(SYS_execveat, self, "", words, none, 0x10000 | AT_EMPTY_PATH))), held();
    printf("unknown flag %s\n", said(syscall(SYS_execveat, self, "", words, none, 0x20000 | AT_EMPTY_PATH))), held();
    printf("user %u %u\n", getuid(), geteuid());
}
static void executions(void) {
    int self = open("/proc/self/exe", O_RDONLY), file = creat("file", 0755);
    while (sendfile(file, self, NULL, 1 << 20) > 0);
    close(file), close(self), chmod("file", 04755), in_child(33, check_execution), fflush(stdout);
    if (!fork()) setresuid(33, 33, 33), execl("file", "file", "executions", "again", NULL);
    wait(NULL);
}

/* Attributes of users. */
static void use_attributes(void) {
    const char *of[] = {"root", "root-may-read", "own", "group", "directory", "sticky", "fifo", "missing", "named"};
    char value[10];
    for (size_t n = 0; n < COUNT(of); n++) {
        int fd = access(of[n], R_OK) ? -1 : open(of[n], O_RDONLY | O_NONBLOCK);
        printf("%s: set %s", of[n], said(setxattr(of[n], "user.x", "1", 1, 0))), printf(" get %s", said(getxattr(of[n], "user.x", value, 10)));
        printf(" get y %s", said(lgetxattr(of[n], "user.y", value, 10))), printf(" get none %s", said(getxattr(of[n], "user.none", NULL, 0)));
        printf(" remove %s %s", said(removexattr(of[n], "user.x")), said(removexattr(of[n], "user.none")));
        printf(" by descriptor %s %s %s", said(fsetxattr(fd, "user.x", "2", 1, 0)), said(fgetxattr(fd, "user.x", value, 10)), said(fremovexattr(fd, "user.x")));
        printf(" list %s\n", said(listxattr(of[n], NULL, 0))), close(fd);
    }
}
static void attributes(void) {
    const char *files[] = {"root", "root-may-read", "own", "group", "named"};
    for (size_t n = 0; n < COUNT(files); n++) close(creat(files[n], 0600)), setxattr(files[n], "user.y", "1", 1, 0);
    chmod("root-may-read", 0644), chown("own", 33, 33), chown("group", 7, 0), chmod("group", 0660), mkfifo("fifo", 0666);
    mkdir("directory", 0755), mkdir("sticky", 0755), chmod("sticky", 01777), setxattr("sticky", "user.y", "1", 1, 0);
    setxattr("named", "system.posix_acl_access", &(__typeof__(acls[0])){2, {{USER, 6, NONE}, {NAMED_USER, 6, 33}, {GROUP, 0, NONE}, {MASK, 6, NONE}, {OTHER, 0, NONE}}}, 44, 0);
    in_child(0, use_attributes), in_child(33, use_attributes);
}

static const struct { const char *name; void (*run)(void); } sections[] = {{"rules", by_rules}, {"capabilities", capabilities}, {"acls", by_acls}, {"making", make}, {"executions", executions}, {"attributes", attributes}};

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "executions")) return setresuid(33, 33, 33), chdir("/tmp"), check_execution(), 0;
    if (count == 3) return held(), 0;
    umask(022), chdir("/tmp");
    for (size_t i = 0; count == 2 && i < COUNT(sections); i++)
        if (!strcmp(words[1], sections[i].name)) return sections[i].run(), fflush(stdout) ? 1 : 0;
    return 1;
}
