/* What calls make in directories with ACLs: `acls SEED…` prints random calls, what they return, and how their files look then.

   `acls each` makes every kind of file with some modes and umasks in a directory of every default ACL. The same lines in any root directory. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COUNT(array) (sizeof array / sizeof *array)
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

struct entry { uint16_t tag, bits; uint32_t id; };
struct acl { uint32_t version; struct entry entries[40]; };
enum { USER = 1, NAMED_USER = 2, GROUP = 4, NAMED_GROUP = 8, MASK = 16, OTHER = 32, NONE = -1 };
#define SOME(...) {2, {__VA_ARGS__}}
static const struct acl acls[] = {
    SOME({USER, 7, NONE}, {GROUP, 5, NONE}, {OTHER, 0, NONE}),
    SOME({USER, 6, NONE}, {NAMED_USER, 6, 33}, {GROUP, 4, NONE}, {MASK, 6, NONE}, {OTHER, 1, NONE}),
    SOME({USER, 7, NONE}, {NAMED_USER, 7, 0}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 4, NONE}, {GROUP, 0, NONE}, {NAMED_GROUP, 7, 4}, {MASK, 5, NONE}, {OTHER, 4, NONE}),
    SOME({USER, 0, NONE}, {NAMED_USER, 1, 0}, {GROUP, 7, NONE}, {NAMED_GROUP, 2, 0}, {MASK, 7, NONE}, {OTHER, 2, NONE}),
    SOME({USER, 7, NONE}, {NAMED_USER, 7, 0}, {NAMED_USER, 5, 1000}, {NAMED_USER, 0, 65533}, {GROUP, 5, NONE}, {NAMED_GROUP, 3, 0},
        {NAMED_GROUP, 6, 100}, {NAMED_GROUP, 7, 4000000000u}, {MASK, 3, NONE}, {OTHER, 5, NONE}),
    SOME({USER, 3, NONE}, {GROUP, 6, NONE}, {MASK, 4, NONE}, {OTHER, 6, NONE}),
    SOME({USER, 7, NONE}, {GROUP, 7, NONE}, {NAMED_GROUP, 6, 4}, {NAMED_GROUP, 5, 7}, {MASK, 0, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 7, NONE}, {NAMED_USER, 7, 0}, {NAMED_USER, 2, 0}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 7, NONE}, {NAMED_USER, 7, 5}, {NAMED_USER, 2, 5}, {NAMED_USER, 1, 5}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}),
    /* What the kernel refuses: out of order, without a mask, two of a kind, unknown bits and tags, another version, no id. */
    SOME({GROUP, 7, NONE}, {USER, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 7, NONE}, {NAMED_USER, 7, 33}, {GROUP, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 7, NONE}, {USER, 7, NONE}, {GROUP, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 8, NONE}, {NAMED_USER, 7, 33}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 7, NONE}, {3, 7, 33}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}),
    SOME({USER, 7, NONE}, {NAMED_USER, 7, NONE}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}),
    {1, {{USER, 7, NONE}, {NAMED_USER, 7, 33}, {GROUP, 7, NONE}, {MASK, 7, NONE}, {OTHER, 7, NONE}}},
    {2, {{0, 0, 0}}}, /* none: removes */
};
#define VALID 10
static const int modes[] = {0777, 0666, 0644, 0600, 0440, 0, 04755, 02770, 01777, 0070, 0123};
static const int umasks[] = {022, 0, 077, 027, 0777, 0277, 0100, 0707};
static int number;

static const char *name_of(int n) { return strerrorname_np(n) ? strerrorname_np(n) : "E?"; }
static size_t size_of(const struct acl *acl) {
    size_t count = 0;
    while (acl->entries[count].tag) count++;
    return 4 + 8 * count;
}

static void show_acl(const char *path, const char *name) {
    uint32_t words[200];
    ssize_t size = lgetxattr(path, name, words, sizeof words);
    if (size < 0) { if (errno != ENODATA && errno != EOPNOTSUPP) printf(" %s", name_of(errno)); return; }
    printf(" %s[", name + 17);
    for (ssize_t at = 1; at < size / 4; at += 2) {
        struct entry entry;
        memcpy(&entry, words + at, sizeof entry);
        printf("%s%d:%d", at > 1 ? " " : "", entry.tag, entry.bits);
        if (entry.tag & (NAMED_USER | NAMED_GROUP)) printf(":%u", entry.id);
    }
    printf("]");
    if (lgetxattr(path, name, NULL, 0) != size) printf(" another size");
    if (lgetxattr(path, name, words, size - 1) != -1 || errno != ERANGE) printf(" no ERANGE");
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd >= 0 && fgetxattr(fd, name, NULL, 0) != size) printf(" another size by descriptor");
    close(fd);
}

static void show(const char *path) {
    struct stat info;
    char names[1000];
    if (lstat(path, &info)) return;
    printf("  %s %o %d:%d", path, info.st_mode, info.st_uid, info.st_gid);
    if (!S_ISLNK(info.st_mode)) show_acl(path, ACCESS), show_acl(path, DEFAULT);
    ssize_t size = llistxattr(path, names, sizeof names);
    int access = 0, other = 0, def = 0;
    for (char *name = names; name < names + size; name += strlen(name) + 1)
        if (!strcmp(name, ACCESS)) access++; else if (!strcmp(name, DEFAULT)) def++; else other++;
    printf(" %d %d %d\n", access, def, other);
}

static void said(long result, const char *format, const char *path, long a, long b) {
    int error = errno;
    printf("%d ", number++), printf(format, path, a, b);
    result < 0 ? printf(" = %s\n", name_of(error)) : printf(" = %ld\n", result > 0);
}

static long bound(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), result = bind(fd, (void *)&address, sizeof address), error = errno;
    close(fd), errno = error;
    return result;
}
static long nameless(const char *path, int mode) {
    char directory[200], link[50];
    snprintf(directory, sizeof directory, "%s", path);
    *strrchr(directory, '/') = 0;
    int fd = open(*directory ? directory : "/", O_TMPFILE | O_RDWR, mode);
    if (fd < 0) return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int result = linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW), error = errno;
    close(fd), errno = error;
    return result;
}
static long opened(const char *path, int flags, int mode) {
    int fd = open(path, flags, mode);
    if (fd >= 0) close(fd), fd = 0;
    return fd;
}
static long opened2(const char *path, int flags, int mode, int resolve) {
    struct open_how how = {.flags = flags, .mode = mode & 07777, .resolve = resolve};
    int fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (fd >= 0) close(fd), fd = 0;
    return fd;
}

enum { MKDIR, OPEN, EXCLUSIVE, CREAT, OPENAT2, IN_ROOT, NODE, FIFO, DEVICE, SOCKET, BIND, NAMELESS, KINDS };
static const char *kinds[] = {"mkdir", "open", "open excl", "creat", "openat2", "openat2 in root", "mknod file", "mkfifo", "mknod device", "mknod socket", "bind", "tmpfile"};
static long make(int kind, const char *path, int mode) {
    struct stat info;
    if (!lstat(path, &info) && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) kind = MKDIR; /* no FIFO is waited for */
    switch (kind) {
    case MKDIR: return mkdir(path, mode);
    case OPEN: return opened(path, O_CREAT | O_RDWR, mode);
    case EXCLUSIVE: return opened(path, O_CREAT | O_EXCL | O_WRONLY, mode);
    case CREAT: { int fd = creat(path, mode); if (fd >= 0) close(fd), fd = 0; return fd; }
    case OPENAT2: return opened2(path, O_CREAT | O_WRONLY, mode, 0);
    case IN_ROOT: return opened2(path, O_CREAT | O_WRONLY, mode, RESOLVE_NO_SYMLINKS);
    case NODE: return mknod(path, S_IFREG | mode, 0);
    case FIFO: return mkfifo(path, mode);
    case DEVICE: return mknod(path, S_IFCHR | mode, makedev(1, 3));
    case SOCKET: return mknod(path, S_IFSOCK | mode, 0);
    case BIND: return bound(path);
    default: return nameless(path, mode);
    }
}

static void shown(long result, const char *who, int kind, const char *path, int mode) {
    char what[100];
    int error = errno;
    snprintf(what, sizeof what, "%s%s", who, kinds[kind]), strcat(what, " %s %lo"), errno = error;
    said(result, what, path, mode, 0);
}

static const char *directories[] = {"/a", "/a/d", "/a/d/e", "/a/g"};
static const char *names[] = {"d", "e", "g", "m", "n", "o", "p"};
static char path[200];
static uint64_t state;
static unsigned chance(unsigned below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (state >> 11) % below;
}
#define ONE_OF(array) (array)[chance(COUNT(array))]
static const char *some_path(void) {
    snprintf(path, sizeof path, "%s/%s", ONE_OF(directories), ONE_OF(names));
    return path;
}

static void one_call(void) {
    const char *where = some_path();
    int kind = chance(KINDS), mode = ONE_OF(modes), which = chance(COUNT(acls)), user;
    const char *name = chance(3) ? DEFAULT : ACCESS;
    if (kind == IN_ROOT) kind = OPENAT2;
    char other[200];
    switch (chance(16)) {
    case 0: case 1: case 2: case 3: case 4:
        shown(make(kind, where, mode), "", kind, where, mode);
        break;
    case 5: case 6: case 7: {
        if (chance(2)) where = ONE_OF(directories);
        if (chance(3)) which %= VALID;
        if (!strcmp(where, "/a")) name = DEFAULT; /* another user makes files there */
        said(lsetxattr(where, name, acls + which, size_of(acls + which), 0), name == DEFAULT ? "set default %s %ld" : "set access %s %ld", where, which, 0);
        break;
    }
    case 8: said(lremovexattr(where, name), name == DEFAULT ? "remove default %s" : "remove access %s", where, 0, 0); break;
    case 9: said(chmod(where, mode), "chmod %s %lo", where, mode, 0); break;
    case 10: mode = ONE_OF(umasks); said(umask(mode), "umask %s %lo", "", mode, 0); break;
    case 11: user = chance(2) ? 33 : 0; said(lchown(where, user, chance(2) ? 4 : 0), "chown %s %ld", where, user, 0); break;
    case 12: if (unlink(where) && errno == EISDIR) rmdir(where); said(0, "remove %s", where, 0, 0); break;
    case 13:
        snprintf(other, sizeof other, "%s", some_path());
        snprintf(path, sizeof path, "%s/%s", ONE_OF(directories), ONE_OF(names));
        said(rename(other, path), "rename to %s", path, 0, 0);
        show(other);
        break;
    case 14: { /* as another user, where everybody may make files */
        if (syscall(SYS_setresgid, -1, 33, -1) || syscall(SYS_setresuid, -1, 33, -1)) puts("no other user");
        snprintf(path, sizeof path, "/a/%s", ONE_OF(names));
        if (kind == DEVICE) kind = FIFO;
        if (access(path, F_OK)) shown(make(kind, path, mode), "as 33: ", kind, path, mode);
        if (syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_setresgid, -1, 0, -1)) puts("not root again");
        break;
    }
    case 15: { /* what a copy of a file with its ACLs does */
        uint32_t value[200];
        snprintf(other, sizeof other, "%s", some_path());
        snprintf(path, sizeof path, "%s/%s", ONE_OF(directories), ONE_OF(names));
        ssize_t size = lgetxattr(other, name, value, sizeof value);
        if (size > 0) said(lsetxattr(path, name, value, size, 0), "copy an ACL to %s", path, 0, 0);
        show(other);
        break;
    }
    }
    show(path), show(where);
}

static void clean(void) {
    static const char *all[] = {"/a/d/e/d", "/a/d/e/e", "/a/d/e/g", "/a/d/e/m", "/a/d/e/n", "/a/d/e/o", "/a/d/e/p", "/a/d/d", "/a/d/e", "/a/d/g", "/a/d/m", "/a/d/n",
        "/a/d/o", "/a/d/p", "/a/g/d", "/a/g/e", "/a/g/g", "/a/g/m", "/a/g/n", "/a/g/o", "/a/g/p", "/a/d", "/a/e", "/a/g", "/a/m", "/a/n", "/a/o", "/a/p", "/a"};
    for (int round = 0; round < 4; round++)
        for (unsigned i = 0; i < COUNT(all); i++) if (unlink(all[i])) rmdir(all[i]);
}

static void each(void) {
    puts("run each");
    for (unsigned which = 0; which < COUNT(acls); which++) {
        umask(0), mkdir("/a", 0755), chmod("/a", 0755);
        said(lsetxattr("/a", DEFAULT, acls + which, size_of(acls + which), 0), "default %s %ld", "/a", which, 0);
        show("/a");
        for (unsigned mask = 0; mask < COUNT(umasks); mask++)
            for (unsigned mode = 0; mode < COUNT(modes); mode++)
                for (int kind = 0; kind < KINDS; kind++) {
                    umask(umasks[mask]);
                    said(make(kind, "/a/m", modes[mode]), "%s %lo %lo", kinds[kind], modes[mode], umasks[mask]);
                    show("/a/m");
                    if (unlink("/a/m")) rmdir("/a/m");
                }
        clean();
    }
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "each")) { each(); continue; }
        printf("run %s\n", argv[i]);
        state = strtoull(argv[i], NULL, 10) * 0x9E3779B97F4A7C15u + 1, number = 0;
        for (int j = 0; j < 10; j++) chance(2);
        clean(), umask(022);
        mkdir("/a", 0777), chmod("/a", 0777), mkdir("/a/d", 0755), mkdir("/a/d/e", 0750), mkdir("/a/g", 0755), chown("/a/g", 33, 4), chmod("/a/g", 02775);
        for (int call = 0; call < 200; call++) one_call();
        clean();
    }
}
