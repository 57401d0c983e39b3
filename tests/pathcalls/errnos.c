/* What calls return for bad input: `errnos STEP` prints a line for each call. The same lines in any root directory.

   Each call that takes a path gets each bad path; each call gets bad pointers, descriptors, flags and sizes. All files
   are below /e, and are made again after each call that changed something. With a STEP of more than 1 a call gets only some of the paths. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define AT_EMPTY 0x1000
#define NOWHERE ((char *)-1L)

static char *closed_page, *edge; /* memory that cannot be read; the last bytes before such memory */
static char buffer[8192], long_name[300], long_path[5000], longest_path[4200];
static int file_fd, directory_fd, path_fd, closed_fd = 900;
static const char *who = "";

static const char *error_name(int n) { return strerrorname_np(n) ? strerrorname_np(n) : "E?"; }
static void made(const char *path, int mode) { close(open(path, O_CREAT | O_WRONLY, mode)); }

static void remove_all(void) {
    static const char *names[] = {"full/file", "full", "empty", "dir/none", "dir/file", "dir/inner/file", "dir/inner/new", "dir/inner", "dir", "file", "link", "loop", "dangling", "linkdir",
        "fifo", "socket", "new", "none", "script", "badscript", "text", "loopscript", "setid", "closed/file", "closed/none", "closed"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (unlink(names[i]) && errno == EISDIR) rmdir(names[i]);
}
static void put(const char *path, const char *text, int mode) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    if (write(fd, text, strlen(text)) < 0) puts("write");
    close(fd);
}
static void set_up(void) {
    umask(0);
    mkdir("/e", 0777), chdir("/e"), remove_all();
    chmod("/e", 0777), chmod("/", 0755), chown("/", 0, 0), chown("/e", 0, 0), mkdir("dir", 0755), mkdir("dir/inner", 0755), mkdir("empty", 0755), mkdir("full", 0755), mkdir("closed", 0700);
    chmod("dir", 0755), chown("dir", 0, 0);
    made("file", 0644), made("dir/file", 0644), made("dir/inner/file", 0644), made("full/file", 0644), made("setid", 06755), made("closed/file", 0644);
    put("text", "words\n", 0755), put("script", "#!/root/errnos x\n", 0755), put("badscript", "#!/none\n", 0755), put("loopscript", "#!/e/loopscript\n", 0755);
    symlink("file", "link"), symlink("loop", "loop"), symlink("none", "dangling"), symlink("dir", "linkdir"), mkfifo("fifo", 0644);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/e/socket"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(s, (void *)&address, sizeof address), close(s);
    close(file_fd), close(directory_fd), close(path_fd);
    dup3(open("/e/file", O_RDWR), file_fd = 100, 0), dup3(open("/e/dir", O_RDONLY | O_DIRECTORY), directory_fd = 101, 0);
    dup3(open("/e/file", O_PATH), path_fd = 102, 0);
    for (int fd = 3; fd < 30; fd++) close(fd);
}

static void show(const char *name, const char *argument, long result, int error) {
    if (result < 0) printf("%s%s(%s) = %s\n", who, name, argument, error_name(error));
    else printf("%s%s(%s) = %ld\n", who, name, argument, result);
}
#define TRY(call) do { errno = 0; long result_ = (call); show("", #call, result_, errno); } while (0)
#define TRY_AND_RESET(call) do { errno = 0; long result_ = (call); show("", #call, result_, errno); if (result_ >= 0) set_up(); } while (0)

static struct { const char *name, *path; } paths[] = {
    {"NULL", NULL}, {"-1", NOWHERE}, {"closed page", NULL}, {"no end", NULL}, {"long name", long_name}, {"long path", long_path},
    {"longest path", longest_path}, {"\"\"", ""}, {"none", "none"}, {"none/x", "none/x"}, {"none/", "none/"}, {"file/x", "file/x"}, {"file/", "file/"},
    {"file/..", "file/.."}, {"loop", "loop"}, {"loop/", "loop/"}, {"loop/x", "loop/x"}, {"dangling", "dangling"}, {"dangling/", "dangling/"}, {"dangling/x", "dangling/x"},
    {"link", "link"}, {"link/", "link/"}, {"link/x", "link/x"}, {"linkdir", "linkdir"}, {"linkdir/", "linkdir/"}, {"linkdir/none", "linkdir/none"},
    {"/", "/"}, {"/..", "/.."}, {".", "."}, {"..", ".."}, {"dir/.", "dir/."}, {"dir/..", "dir/.."}, {"full", "full"}, {"empty", "empty"}, {"empty/", "empty/"},
    {"file", "file"}, {"fifo", "fifo"}, {"socket", "socket"}, {"setid", "setid"}, {"text", "text"}, {"script", "script"}, {"badscript", "badscript"}, {"loopscript", "loopscript"},
    {"/e/none", "/e/none"}, {"/none/x", "/none/x"}, {"/e/file/x", "/e/file/x"}, {"/e/loop", "/e/loop"}, {"//e//dir//", "//e//dir//"}, {"closed/file", "closed/file"}, {"closed/none", "closed/none"},
};

static const char *name_of(const char *p) { return p == NULL || p == NOWHERE || p == closed_page || p == edge ? "" : p; }

/* Calls with one path. */
static struct open_how how;
static long opened(long fd) {
    if (fd < 0) return fd;
    close(fd);
    return 1;
}
static long executed(const char *path, int at, int flags) {
    int ends[2], error = 0;
    pid_t child;
    if (pipe2(ends, O_CLOEXEC)) return -1;
    if (!(child = fork())) {
        char *words[] = {"x", "x", NULL}, *none[] = {NULL};
        if (at == -1) syscall(SYS_execve, path, words, none);
        else syscall(SYS_execveat, at, path, words, none, flags);
        error = errno;
        if (write(ends[1], &error, sizeof error) < 0) _exit(9);
        _exit(1);
    }
    close(ends[1]);
    int status;
    if (read(ends[0], &error, sizeof error) < 0) error = 0;
    close(ends[0]), waitpid(child, &status, 0);
    errno = error;
    return error ? -1 : status;
}
static long in_child(long (*call)(const char *), const char *path) {
    int error, status;
    pid_t child;
    fflush(stdout);
    if (!(child = fork())) {
        error = call(path) < 0 ? errno : 0;
        _exit(error);
    }
    waitpid(child, &status, 0);
    error = errno = WEXITSTATUS(status);
    return error ? -1 : 0;
}
static long addressed(const char *path, int connects) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || path == NOWHERE || path == closed_page || path == edge || strlen(path) > 100) return 0;
    strcpy(address.sun_path, path);
    int s = socket(AF_UNIX, SOCK_STREAM, 0), error;
    long result = connects ? connect(s, (void *)&address, sizeof address) : bind(s, (void *)&address, sizeof address);
    error = errno, close(s), errno = error;
    return result;
}
static long change_root(const char *p) { return syscall(SYS_chroot, p); }
static long c_chroot(const char *p) { return in_child(change_root, p); }
static long change_directory(const char *p) { return syscall(SYS_chdir, p); }
static long c_chdir(const char *p) { return in_child(change_directory, p); }
#define CALL(name, call) static long c_##name(const char *p) { return call; }
CALL(open, opened(syscall(SYS_open, p, O_RDONLY | O_NONBLOCK)))
CALL(open_write, opened(syscall(SYS_open, p, O_RDWR | O_NONBLOCK)))
CALL(open_create, opened(syscall(SYS_open, p, O_RDONLY | O_CREAT | O_NONBLOCK, 0644)))
CALL(open_exclusive, opened(syscall(SYS_open, p, O_RDWR | O_CREAT | O_EXCL, 0644)))
CALL(open_truncate, opened(syscall(SYS_open, p, O_RDWR | O_TRUNC | O_NONBLOCK)))
CALL(open_directory, opened(syscall(SYS_open, p, O_RDONLY | O_DIRECTORY)))
CALL(open_nofollow, opened(syscall(SYS_open, p, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)))
CALL(open_path, opened(syscall(SYS_open, p, O_PATH)))
CALL(open_path_nofollow, opened(syscall(SYS_open, p, O_PATH | O_NOFOLLOW)))
CALL(open_path_directory, opened(syscall(SYS_open, p, O_PATH | O_DIRECTORY)))
CALL(open_temporary, opened(syscall(SYS_open, p, O_TMPFILE | O_RDWR, 0600)))
CALL(open_create_directory, opened(syscall(SYS_open, p, O_CREAT | O_DIRECTORY | O_RDONLY, 0600)))
CALL(creat, !strcmp(name_of(p), "fifo") ? 0 : opened(syscall(SYS_creat, p, 0644)))
CALL(openat, opened(syscall(SYS_openat, AT_FDCWD, p, O_RDONLY | O_NONBLOCK)))
CALL(openat_directory_fd, opened(syscall(SYS_openat, directory_fd, p, O_RDONLY | O_NONBLOCK)))
CALL(openat_file_fd, opened(syscall(SYS_openat, file_fd, p, O_RDONLY | O_NONBLOCK)))
CALL(openat_closed_fd, opened(syscall(SYS_openat, closed_fd, p, O_RDONLY | O_NONBLOCK)))
CALL(openat_negative_fd, opened(syscall(SYS_openat, -1, p, O_RDONLY | O_NONBLOCK)))
CALL(openat2, (how = (struct open_how){.flags = O_RDONLY | O_NONBLOCK}, opened(syscall(SYS_openat2, AT_FDCWD, p, &how, sizeof how))))
CALL(openat2_beneath, (how = (struct open_how){.flags = O_RDONLY | O_NONBLOCK, .resolve = RESOLVE_BENEATH}, opened(syscall(SYS_openat2, AT_FDCWD, p, &how, sizeof how))))
CALL(openat2_no_links, (how = (struct open_how){.flags = O_RDONLY | O_NONBLOCK, .resolve = RESOLVE_NO_SYMLINKS}, opened(syscall(SYS_openat2, AT_FDCWD, p, &how, sizeof how))))
CALL(stat, syscall(SYS_stat, p, buffer))
CALL(lstat, syscall(SYS_lstat, p, buffer))
CALL(stat_nowhere, syscall(SYS_stat, p, NOWHERE))
CALL(newfstatat, syscall(SYS_newfstatat, AT_FDCWD, p, buffer, 0))
CALL(newfstatat_empty, syscall(SYS_newfstatat, file_fd, p, buffer, AT_EMPTY))
CALL(newfstatat_closed_fd, syscall(SYS_newfstatat, closed_fd, p, buffer, 0))
CALL(newfstatat_file_fd, syscall(SYS_newfstatat, file_fd, p, buffer, 0))
CALL(newfstatat_flags, syscall(SYS_newfstatat, AT_FDCWD, p, buffer, 0x40))
CALL(statx, syscall(SYS_statx, AT_FDCWD, p, 0, 0x7ff, buffer))
CALL(statx_flags, syscall(SYS_statx, AT_FDCWD, p, 0x40, 0x7ff, buffer))
CALL(statx_sync, syscall(SYS_statx, AT_FDCWD, p, 0x6000, 0x7ff, buffer))
CALL(statx_mask, syscall(SYS_statx, AT_FDCWD, p, 0, 0x80000000L, buffer))
CALL(statx_nowhere, syscall(SYS_statx, AT_FDCWD, p, 0, 0x7ff, NOWHERE))
CALL(statfs, syscall(SYS_statfs, p, buffer))
CALL(statfs_nowhere, syscall(SYS_statfs, p, NOWHERE))
CALL(access, syscall(SYS_access, p, R_OK))
CALL(access_execute, syscall(SYS_access, p, X_OK))
CALL(access_mode, syscall(SYS_access, p, 8))
CALL(faccessat2_flags, syscall(SYS_faccessat2, AT_FDCWD, p, R_OK, 0x40))
CALL(faccessat2_nofollow, syscall(SYS_faccessat2, AT_FDCWD, p, F_OK, AT_SYMLINK_NOFOLLOW))
CALL(faccessat2_empty, syscall(SYS_faccessat2, file_fd, p, X_OK, AT_EMPTY))
CALL(faccessat2_closed_fd, syscall(SYS_faccessat2, closed_fd, p, F_OK, 0))
CALL(readlink, syscall(SYS_readlink, p, buffer, 100))
CALL(readlink_nowhere, syscall(SYS_readlink, p, NOWHERE, 100))
CALL(readlink_none, syscall(SYS_readlink, p, buffer, 0))
CALL(readlink_negative, syscall(SYS_readlink, p, buffer, -1))
CALL(readlinkat_file_fd, syscall(SYS_readlinkat, file_fd, p, buffer, 100))
CALL(mkdir, syscall(SYS_mkdir, p, 0755))
CALL(mkdirat_file_fd, syscall(SYS_mkdirat, file_fd, p, 0755))
CALL(mkdirat_closed_fd, syscall(SYS_mkdirat, closed_fd, p, 0755))
CALL(rmdir, syscall(SYS_rmdir, p))
CALL(unlink, syscall(SYS_unlink, p))
CALL(unlinkat_flags, syscall(SYS_unlinkat, AT_FDCWD, p, 0x40))
CALL(unlinkat_directory, syscall(SYS_unlinkat, AT_FDCWD, p, AT_REMOVEDIR))
CALL(unlinkat_file_fd, syscall(SYS_unlinkat, file_fd, p, 0))
CALL(unlinkat_closed_fd, syscall(SYS_unlinkat, closed_fd, p, 0))
CALL(mknod_file, syscall(SYS_mknod, p, S_IFREG | 0644, 0))
CALL(mknod_fifo, syscall(SYS_mknod, p, S_IFIFO | 0644, 0))
CALL(mknod_device, syscall(SYS_mknod, p, S_IFCHR | 0644, makedev(1, 3)))
CALL(mknod_directory, syscall(SYS_mknod, p, S_IFDIR | 0644, 0))
CALL(mknod_link, syscall(SYS_mknod, p, S_IFLNK | 0644, 0))
CALL(mknod_odd, syscall(SYS_mknod, p, 0030644, 0))
CALL(mknodat_closed_fd, syscall(SYS_mknodat, closed_fd, p, S_IFREG | 0644, 0))
/* What was renamed is renamed back: a directory would keep its files under another name. */
static long back(long result, const char *from, const char *to) {
    int error = errno;
    static char name[300];
    if (result >= 0) {
        snprintf(name, sizeof name, "%s", to), to = name;
        while (strlen(name) > 1 && name[strlen(name) - 1] == '/') name[strlen(name) - 1] = 0;
    }
    if (result >= 0 && syscall(SYS_renameat2, AT_FDCWD, to, AT_FDCWD, from, RENAME_EXCHANGE)) syscall(SYS_rename, to, from);
    errno = error;
    return result;
}
CALL(rename_from, back(syscall(SYS_rename, p, "new"), p, "new"))
CALL(rename_to, syscall(SYS_rename, "file", p))
CALL(rename_directory_to, back(syscall(SYS_rename, "dir", p), "dir", p))
CALL(rename_into_itself, syscall(SYS_rename, "dir", "dir/inner/new"))
CALL(renameat_closed_fd, syscall(SYS_renameat, closed_fd, p, AT_FDCWD, "new"))
CALL(renameat2_flags, syscall(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, "new", 0x40))
CALL(renameat2_both, syscall(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, "new", 3))
CALL(renameat2_new, syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, p, 1))
CALL(renameat2_exchange, back(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, p, RENAME_EXCHANGE), "file", p))
CALL(link_from, syscall(SYS_link, p, "new"))
CALL(link_to, syscall(SYS_link, "file", p))
CALL(linkat_follow, syscall(SYS_linkat, AT_FDCWD, p, AT_FDCWD, "new", AT_SYMLINK_FOLLOW))
CALL(linkat_flags, syscall(SYS_linkat, AT_FDCWD, p, AT_FDCWD, "new", 0x40))
CALL(linkat_closed_fd, syscall(SYS_linkat, closed_fd, p, AT_FDCWD, "new", 0))
CALL(symlink_to, syscall(SYS_symlink, p, "new"))
CALL(symlink_at, syscall(SYS_symlink, "file", p))
CALL(symlinkat_closed_fd, syscall(SYS_symlinkat, "file", closed_fd, p))
CALL(chmod, syscall(SYS_chmod, p, 0644))
CALL(fchmodat_closed_fd, syscall(SYS_fchmodat, closed_fd, p, 0644))
CALL(fchmodat2_nofollow, syscall(SYS_fchmodat2, AT_FDCWD, p, 0644, AT_SYMLINK_NOFOLLOW))
CALL(fchmodat2_flags, syscall(SYS_fchmodat2, AT_FDCWD, p, 0644, 0x40))
CALL(chown, syscall(SYS_chown, p, 1, 2))
CALL(lchown, syscall(SYS_lchown, p, 1, 2))
CALL(chown_none, syscall(SYS_chown, p, -1, -1))
CALL(fchownat_flags, syscall(SYS_fchownat, AT_FDCWD, p, 1, 2, 0x40))
CALL(fchownat_closed_fd, syscall(SYS_fchownat, closed_fd, p, 1, 2, 0))
CALL(fchownat_file_fd, syscall(SYS_fchownat, file_fd, p, 1, 2, 0))
CALL(fchownat_empty, syscall(SYS_fchownat, file_fd, p, 1, 2, AT_EMPTY))
CALL(truncate, syscall(SYS_truncate, p, 0))
CALL(truncate_negative, syscall(SYS_truncate, p, -1))
CALL(utimensat, syscall(SYS_utimensat, AT_FDCWD, p, (struct timespec[2]){{1, 0}, {2, 0}}, 0))
CALL(utimensat_nanoseconds, syscall(SYS_utimensat, AT_FDCWD, p, (struct timespec[2]){{1, 2000000000}, {2, 0}}, 0))
CALL(utimensat_flags, syscall(SYS_utimensat, AT_FDCWD, p, (struct timespec[2]){{1, 0}, {2, 0}}, 0x40))
CALL(utimensat_nowhere, syscall(SYS_utimensat, AT_FDCWD, p, NOWHERE, 0))
CALL(utimensat_closed_fd, syscall(SYS_utimensat, closed_fd, p, (struct timespec[2]){{1, 0}, {2, 0}}, 0))
CALL(utimes_odd, syscall(SYS_utimes, p, (long[4]){1, 1000000, 1, 0}))
CALL(utime_nowhere, syscall(SYS_utime, p, NOWHERE))
CALL(setxattr, syscall(SYS_setxattr, p, "user.a", "v", 1, 0))
CALL(lsetxattr, syscall(SYS_lsetxattr, p, "user.a", "v", 1, 0))
CALL(setxattr_flags, syscall(SYS_setxattr, p, "user.a", "v", 1, 4))
CALL(setxattr_replace, syscall(SYS_setxattr, p, "user.none", "v", 1, 2))
CALL(setxattr_large, syscall(SYS_setxattr, p, "user.a", "v", 65537, 0))
CALL(setxattr_no_name, syscall(SYS_setxattr, p, "", "v", 1, 0))
CALL(setxattr_name_nowhere, syscall(SYS_setxattr, p, NOWHERE, "v", 1, 0))
CALL(setxattr_nowhere, syscall(SYS_setxattr, p, "user.a", NOWHERE, 1, 0))
CALL(setxattr_odd_name, syscall(SYS_setxattr, p, "odd.a", "v", 1, 0))
CALL(setxattr_long_name, syscall(SYS_setxattr, p, long_name, "v", 1, 0))
CALL(setxattr_trusted, syscall(SYS_setxattr, p, "trusted.a", "v", 1, 0))
CALL(getxattr, syscall(SYS_getxattr, p, "user.none", buffer, 100))
CALL(getxattr_odd, syscall(SYS_getxattr, p, "odd.a", buffer, 100))
CALL(getxattr_no_name, syscall(SYS_getxattr, p, "", buffer, 100))
CALL(lgetxattr, syscall(SYS_lgetxattr, p, "user.none", buffer, 100))
CALL(listxattr, (syscall(SYS_listxattr, p, buffer, 0) < 0 ? -1 : 0))
CALL(llistxattr, (syscall(SYS_llistxattr, p, buffer, 0) < 0 ? -1 : 0))
CALL(removexattr, syscall(SYS_removexattr, p, "user.none"))
CALL(lremovexattr, syscall(SYS_lremovexattr, p, "user.none"))
CALL(removexattr_long_name, syscall(SYS_removexattr, p, long_name))
CALL(execve, executed(p, -1, 0))
CALL(execveat, executed(p, AT_FDCWD, 0))
CALL(execveat_nofollow, executed(p, AT_FDCWD, AT_SYMLINK_NOFOLLOW))
CALL(execveat_flags, executed(p, AT_FDCWD, 0x40))
CALL(execveat_closed_fd, executed(p, closed_fd, 0))
CALL(execveat_file_fd, executed(p, file_fd, 0))
CALL(bind, addressed(p, 0))
CALL(connect, addressed(p, 1))
static int watcher;
CALL(inotify, (syscall(SYS_inotify_add_watch, watcher, p, IN_MODIFY) < 0 ? -1 : 0))
CALL(inotify_directory, (syscall(SYS_inotify_add_watch, watcher, p, IN_MODIFY | IN_ONLYDIR) < 0 ? -1 : 0))
CALL(inotify_nofollow, (syscall(SYS_inotify_add_watch, watcher, p, IN_MODIFY | IN_DONT_FOLLOW) < 0 ? -1 : 0))
CALL(inotify_nothing, syscall(SYS_inotify_add_watch, watcher, p, 0))
CALL(inotify_closed_fd, syscall(SYS_inotify_add_watch, closed_fd, p, IN_MODIFY))
CALL(inotify_file_fd, syscall(SYS_inotify_add_watch, file_fd, p, IN_MODIFY))

#define ROW(name) {#name, c_##name}
static struct { const char *name; long (*call)(const char *); } calls[] = {
    ROW(open), ROW(open_write), ROW(open_create), ROW(open_exclusive), ROW(open_truncate), ROW(open_directory), ROW(open_nofollow), ROW(open_path),
    ROW(open_path_nofollow), ROW(open_path_directory), ROW(open_temporary), ROW(open_create_directory), ROW(creat), ROW(openat),
    ROW(openat_directory_fd), ROW(openat_file_fd), ROW(openat_closed_fd), ROW(openat_negative_fd), ROW(openat2), ROW(openat2_beneath), ROW(openat2_no_links),
    ROW(stat), ROW(lstat), ROW(stat_nowhere), ROW(newfstatat), ROW(newfstatat_empty), ROW(newfstatat_closed_fd), ROW(newfstatat_file_fd), ROW(newfstatat_flags),
    ROW(statx), ROW(statx_flags), ROW(statx_sync), ROW(statx_mask), ROW(statx_nowhere), ROW(statfs), ROW(statfs_nowhere), ROW(access), ROW(access_execute), ROW(access_mode),
    ROW(faccessat2_flags), ROW(faccessat2_nofollow), ROW(faccessat2_empty), ROW(faccessat2_closed_fd), ROW(readlink), ROW(readlink_nowhere), ROW(readlink_none), ROW(readlink_negative),
    ROW(readlinkat_file_fd), ROW(mkdir), ROW(mkdirat_file_fd), ROW(mkdirat_closed_fd), ROW(rmdir), ROW(unlink), ROW(unlinkat_flags), ROW(unlinkat_directory), ROW(unlinkat_file_fd),
    ROW(unlinkat_closed_fd), ROW(mknod_file), ROW(mknod_fifo), ROW(mknod_device), ROW(mknod_directory), ROW(mknod_link), ROW(mknod_odd), ROW(mknodat_closed_fd),
    ROW(rename_from), ROW(rename_to), ROW(rename_directory_to), ROW(rename_into_itself), ROW(renameat_closed_fd), ROW(renameat2_flags), ROW(renameat2_both), ROW(renameat2_new), ROW(renameat2_exchange),
    ROW(link_from), ROW(link_to), ROW(linkat_follow), ROW(linkat_flags), ROW(linkat_closed_fd), ROW(symlink_to), ROW(symlink_at), ROW(symlinkat_closed_fd),
    ROW(chmod), ROW(fchmodat_closed_fd), ROW(fchmodat2_nofollow), ROW(fchmodat2_flags), ROW(chown), ROW(lchown), ROW(chown_none), ROW(fchownat_flags), ROW(fchownat_closed_fd), ROW(fchownat_file_fd), ROW(fchownat_empty),
    ROW(truncate), ROW(truncate_negative), ROW(utimensat), ROW(utimensat_nanoseconds), ROW(utimensat_flags), ROW(utimensat_nowhere), ROW(utimensat_closed_fd), ROW(utimes_odd), ROW(utime_nowhere),
    ROW(setxattr), ROW(lsetxattr), ROW(setxattr_flags), ROW(setxattr_replace), ROW(setxattr_large), ROW(setxattr_no_name), ROW(setxattr_name_nowhere), ROW(setxattr_nowhere), ROW(setxattr_odd_name),
    ROW(setxattr_long_name), ROW(setxattr_trusted), ROW(getxattr), ROW(getxattr_odd), ROW(getxattr_no_name), ROW(lgetxattr), ROW(listxattr), ROW(llistxattr), ROW(removexattr), ROW(lremovexattr), ROW(removexattr_long_name),
    ROW(execve), ROW(execveat), ROW(execveat_nofollow), ROW(execveat_flags), ROW(execveat_closed_fd), ROW(execveat_file_fd), ROW(bind), ROW(connect), ROW(chroot), ROW(chdir),
    ROW(inotify), ROW(inotify_directory), ROW(inotify_nofollow), ROW(inotify_nothing), ROW(inotify_closed_fd), ROW(inotify_file_fd),
};

/* Whether the calls of a row change nothing, so that the files need not be made again. */
static int only_looks(const char *name) {
    static const char *names[] = {"stat", "lstat", "newfstatat", "access", "faccessat2", "readlink", "getxattr", "lgetxattr", "listxattr", "llistxattr", "exec", "chroot", "chdir", "inotify", "connect",
        "openat", "open_directory", "open_nofollow", "open_path", "open_temporary"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!strncmp(name, names[i], strlen(names[i]))) return 1;
    return !strcmp(name, "open");
}
static void with_paths(unsigned from, unsigned step) {
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
        for (unsigned j = (from + i) % step; j < sizeof paths / sizeof *paths; j += step) {
            errno = 0;
            long result = calls[i].call(paths[j].path);
            show(calls[i].name, paths[j].name, result, errno);
            if (result >= 0 && !only_looks(calls[i].name)) set_up();
        }
}

static void syncs(int fd) {
    TRY(syscall(SYS_fsync, fd)); TRY(syscall(SYS_fdatasync, fd)); TRY(syscall(SYS_syncfs, fd)); TRY(syscall(SYS_sync_file_range, fd, 0L, 0L, 2));
    TRY(syscall(SYS_sync_file_range, fd, -1L, 0L, 2)); TRY(syscall(SYS_sync_file_range, fd, 1L, -1L, 2)); TRY(syscall(SYS_sync_file_range, fd, 1L, 0x7fffffffffffffffL, 2)); TRY(syscall(SYS_sync_file_range, fd, 0L, 0L, 8));
}

static void descriptors(void) {
    int fds[] = {-1, 900, 100, 101, 102, AT_FDCWD};
    struct stat *s = (void *)buffer;
    for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++) {
        int fd = fds[i];
        printf("%sdescriptor %d\n", who, fd);
        TRY(syscall(SYS_fstat, fd, s)); TRY(syscall(SYS_fstat, fd, NOWHERE)); TRY(syscall(SYS_fchmod, fd, 0644)); TRY(syscall(SYS_fchown, fd, 1, 1));
        TRY(syscall(SYS_newfstatat, fd, "", s, AT_EMPTY)); TRY(syscall(SYS_newfstatat, fd, NULL, s, AT_EMPTY)); TRY(syscall(SYS_newfstatat, fd, "", s, 0));
        TRY(syscall(SYS_statx, fd, "", AT_EMPTY, 0x7ff, s)); TRY(syscall(SYS_statx, fd, NULL, AT_EMPTY, 0x7ff, s)); TRY(syscall(SYS_fchownat, fd, "", 1, 1, AT_EMPTY)); TRY(syscall(SYS_fchownat, fd, "", 1, 1, 0));
        TRY(syscall(SYS_fchmodat2, fd, "", 0644, AT_EMPTY)); TRY(syscall(SYS_utimensat, fd, NULL, NULL, 0)); TRY(syscall(SYS_utimensat, fd, "", NULL, AT_EMPTY)); TRY(syscall(SYS_futimesat, fd, NULL, NULL));
        TRY(syscall(SYS_faccessat2, fd, "", R_OK, AT_EMPTY)); TRY(syscall(SYS_readlinkat, fd, "", buffer, 10)); TRY(syscall(SYS_fsetxattr, fd, "user.x", "v", 1, 0)); TRY(syscall(SYS_fsetxattr, fd, NULL, "v", 1, 0));
        TRY(syscall(SYS_fgetxattr, fd, "user.none", buffer, 10)); TRY(syscall(SYS_fremovexattr, fd, "user.none")); TRY(syscall(SYS_flistxattr, fd, buffer, 0) < 0 ? -1 : 0); TRY(syscall(SYS_fstatfs, fd, NOWHERE));
        TRY(syscall(SYS_unlinkat, fd, "", 0)); TRY(syscall(SYS_mkdirat, fd, "", 0755)); TRY(syscall(SYS_linkat, fd, "", AT_FDCWD, "file", AT_EMPTY)); TRY(syscall(SYS_renameat2, fd, "", AT_FDCWD, "new", 0));
        TRY(syscall(SYS_openat, fd, "", O_RDONLY)); TRY(syscall(SYS_openat, fd, "", O_PATH)); TRY(syscall(SYS_execveat, fd, "", NULL, NULL, 0)); TRY(syscall(SYS_execveat, 900, "", NULL, NULL, AT_EMPTY));
        TRY(syscall(SYS_bind, fd, s, 10)); TRY(syscall(SYS_connect, fd, s, 10)); TRY(syscall(SYS_sendto, fd, "x", 1, 0, NULL, 0)); TRY(syscall(SYS_sendmsg, fd, NULL, 0)); TRY(syscall(SYS_fchdir, fd == 101 ? 100 : fd));
        syncs(fd);
        set_up();
    }
    int ends[2], s2 = socket(AF_UNIX, SOCK_STREAM, 0), fifo = open("fifo", O_RDWR), null = open("/dev/null", O_RDWR);
    if (pipe(ends) == 0) printf("%spipe\n", who), syncs(ends[0]), close(ends[0]), close(ends[1]);
    printf("%ssocket\n", who), syncs(s2), close(s2);
    printf("%sfifo\n", who), syncs(fifo), close(fifo);
    printf("%snull\n", who), syncs(null), close(null);
}

static void sizes(void) {
    long values[] = {0, 1, 2, 3, 5, 109, 110, 111, 128, 129, -1, -2147483648L};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/e/none"};
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++) {
        long n = values[i];
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        printf("%ssize %ld\n", who, n);
        TRY(syscall(SYS_connect, s, &address, n)); TRY(syscall(SYS_connect, s, NOWHERE, n)); TRY(syscall(SYS_bind, s, NOWHERE, n));
        close(s), s = socket(AF_UNIX, SOCK_DGRAM, 0);
        TRY(syscall(SYS_sendto, s, "x", 1, 0, &address, n)); TRY(syscall(SYS_sendto, s, "x", 1, 0, NOWHERE, n));
        close(s), s = socket(AF_INET, SOCK_DGRAM, 0);
        TRY(syscall(SYS_connect, s, &address, n));
        close(s);
        TRY(syscall(SYS_getcwd, buffer, n)); TRY(syscall(SYS_getcwd, NOWHERE, n)); TRY(syscall(SYS_readlink, "link", buffer, n)); TRY(syscall(SYS_readlink, "link", NOWHERE, n));
        TRY(syscall(SYS_getgroups, n, buffer)); TRY(syscall(SYS_getgroups, n, NOWHERE)); TRY(syscall(SYS_setgroups, n, NOWHERE)); TRY(syscall(SYS_listxattr, "file", NOWHERE, n) < 0 ? -1 : 0);
        how = (struct open_how){.flags = O_RDONLY};
        TRY(opened(syscall(SYS_openat2, AT_FDCWD, "file", &how, n))); TRY(syscall(SYS_openat2, AT_FDCWD, "file", NOWHERE, n)); TRY(syscall(SYS_openat2, AT_FDCWD, "file", NULL, 24));
    }
    syscall(SYS_setxattr, "file", "user.name", "value", 5, 0);
    for (int n = 0; n < 7; n++) {
        TRY(syscall(SYS_getxattr, "file", "user.name", buffer, n)); TRY(syscall(SYS_getxattr, "file", "user.name", NOWHERE, n)); TRY(syscall(SYS_listxattr, "file", buffer, n + 5));
    }
    TRY(syscall(SYS_setxattr, "file", "user.name", "v", 1, 1)); TRY(syscall(SYS_uname, NOWHERE)); TRY(syscall(SYS_uname, NULL));
}

static void open_flags(void) {
    static const unsigned flags[] = {3, O_CREAT | O_DIRECTORY, O_TMPFILE, O_TMPFILE | O_CREAT | O_RDWR, 0x80000000, 0x40000000, O_PATH | O_CREAT, O_PATH | O_RDWR, O_DIRECTORY | O_WRONLY, O_DIRECT, O_NOATIME, O_ASYNC, O_SYNC | O_CREAT, O_LARGEFILE, O_EXCL, O_TRUNC, O_RDONLY | O_TRUNC | O_DIRECTORY, 020000000};
    static const char *names[] = {"file", "dir", "none", "link", "loop", "fifo", "socket", NOWHERE};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        for (unsigned j = 0; j < sizeof names / sizeof *names; j++) {
            char text[64];
            unsigned f = flags[i] | (strcmp(j == 7 ? "" : names[j], "fifo") ? 0 : O_NONBLOCK);
            snprintf(text, sizeof text, "%s, %#x", j == 7 ? "-1" : names[j], f);
            errno = 0;
            long result = opened(syscall(SYS_openat, AT_FDCWD, names[j], f, 0644));
            show("openat", text, result, errno);
            if (result >= 0) set_up();
            for (unsigned mode = 0; mode < 3; mode++) {
                how = (struct open_how){.flags = f, .mode = mode == 1 ? 0644 : mode == 2 ? 010000 : 0};
                errno = 0;
                result = opened(syscall(SYS_openat2, AT_FDCWD, names[j], &how, sizeof how));
                snprintf(text, sizeof text, "%s, %#x, %#llo", j == 7 ? "-1" : names[j], f, (unsigned long long)how.mode);
                show("openat2", text, result, errno);
                if (result >= 0) set_up();
            }
        }
    how = (struct open_how){.flags = O_RDONLY, .resolve = 0x1000};
    TRY(syscall(SYS_openat2, AT_FDCWD, "file", &how, sizeof how));
    how = (struct open_how){.flags = 1ULL << 40};
    TRY(syscall(SYS_openat2, AT_FDCWD, "file", &how, sizeof how));
    how = (struct open_how){.flags = O_RDONLY, .resolve = RESOLVE_BENEATH | RESOLVE_IN_ROOT};
    TRY(syscall(SYS_openat2, AT_FDCWD, "file", &how, sizeof how));
}

static void identities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    gid_t groups[3] = {1, 2, -1};
    TRY(syscall(SYS_setuid, -1)); TRY(syscall(SYS_setgid, -1)); TRY(syscall(SYS_setfsuid, -1)); TRY(syscall(SYS_setfsgid, -1)); TRY(syscall(SYS_setreuid, -1, -1)); TRY(syscall(SYS_setresuid, -1, -1, -1));
    TRY(syscall(SYS_getresuid, NOWHERE, NOWHERE, NOWHERE)); TRY(syscall(SYS_getresgid, buffer, NULL, buffer)); TRY(syscall(SYS_getresuid, buffer, buffer, closed_page));
    TRY(syscall(SYS_setgroups, 65537, groups)); TRY(syscall(SYS_setgroups, -1, groups)); TRY(syscall(SYS_setgroups, 3, groups)); TRY(syscall(SYS_setgroups, 2, groups)); TRY(syscall(SYS_setgroups, 1, closed_page));
    TRY(syscall(SYS_getgroups, 1, buffer)); TRY(syscall(SYS_getgroups, 2, NOWHERE)); TRY(syscall(SYS_getgroups, -1, buffer));
    TRY(syscall(SYS_capget, NOWHERE, data)); TRY(syscall(SYS_capget, NULL, NULL)); TRY(syscall(SYS_capget, &header, NOWHERE)); TRY(syscall(SYS_capget, &header, NULL));
    header.version = 1; TRY(syscall(SYS_capget, &header, NULL)); header.version = 2; TRY(syscall(SYS_capget, &header, data)); TRY(header.version == _LINUX_CAPABILITY_VERSION_3);
    header.version = 3; TRY(syscall(SYS_capset, &header, data)); header = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, -1}; TRY(syscall(SYS_capget, &header, data)); TRY(syscall(SYS_capset, &header, data));
    header.pid = 99999999; TRY(syscall(SYS_capget, &header, data)); TRY(syscall(SYS_capset, &header, data));
    header.pid = 0; TRY(syscall(SYS_capset, NOWHERE, data)); TRY(syscall(SYS_capset, &header, NOWHERE)); TRY(syscall(SYS_capset, &header, NULL));
    data[0].effective = -1; TRY(syscall(SYS_capset, &header, data)); data[0].effective = 0, data[0].permitted = -1; TRY(syscall(SYS_capset, &header, data));
    for (int option = 7; option < 48; option++)
        if (option == 7 || option == 8 || option == 23 || option == 24 || option == 27 || option == 28 || option == 38 || option == 39 || option == 47) {
            for (int value = -1; value < 4; value++)
                if (!(option == 24 && value >= 0) && !(option == 38 && value == 1) && !(option == 8 && value >= 0)) {
                    printf("%s%d %d: ", who, option, value); TRY(syscall(SYS_prctl, option, value, 0, 0, 0));
                }
            printf("%s%d: ", who, option); TRY(syscall(SYS_prctl, option, 64, 0, 0, 0)); printf("%s%d: ", who, option); TRY(syscall(SYS_prctl, option, 1, 1, 0, 0)); printf("%s%d: ", who, option); TRY(syscall(SYS_prctl, option, 4, 0, 1, 1));
            printf("%s%d: ", who, option); TRY(syscall(SYS_prctl, option, 2, 64, 0, 0)); printf("%s%d: ", who, option); TRY(syscall(SYS_prctl, option, 1L << 32, 0, 0, 0));
        }
}

static void as_user(void) {
    pid_t child;
    fflush(stdout);
    if (!(child = fork())) {
        who = "as user 33: ";
        if (setresgid(33, 33, 33) || setgroups(0, NULL) || setresuid(33, 33, 33)) _exit(1);
        TRY(chown("file", 33, -1)); TRY(chown("file", -1, 33)); TRY(chown("file", -1, -1)); TRY(chown("none", 1, 1)); TRY(chown("file/x", 1, 1)); TRY(chown(NOWHERE, 1, 1)); TRY(fchown(file_fd, 33, 33)); TRY(fchown(900, 33, 33));
        TRY(mknod("new", S_IFCHR | 0644, makedev(1, 3))); TRY(mknod("file", S_IFCHR | 0644, makedev(1, 3))); TRY(mknod("none/x", S_IFCHR | 0644, makedev(1, 3))); TRY(mkdir("dir/new", 0755)); TRY(symlink("a", "dir/new")); TRY(open("dir/new", O_CREAT | O_RDWR, 0644));
        TRY(mkdir("dir/file", 0755)); TRY(mkdir("closed", 0755)); TRY(open("text", O_CREAT | O_RDWR, 0644)); TRY(access("closed", X_OK)); TRY(access("file", W_OK)); TRY(access("file", R_OK)); TRY(access("none", R_OK));
        TRY(setuid(0)); TRY(setgid(0)); TRY(setgroups(0, NULL)); TRY(setgroups(65537, (void *)buffer)); TRY(syscall(SYS_setgroups, 1, NOWHERE)); TRY(setreuid(0, -1)); TRY(setresuid(33, 0, 33)); TRY(setfsuid(0)); TRY(setfsuid(-1));
        TRY(chroot("dir")); TRY(chroot("none")); TRY(chroot("file")); TRY(chmod("file", 0644));
        identities();
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv) {
    alarm(300), setgroups(0, NULL);
    if (argc > 1 && !strcmp(argv[1], "x")) return 42;
    int step = argc > 1 ? atoi(argv[1]) : 1;
    closed_page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    edge = closed_page + 4096 - 8;
    memset(edge, 'a', 8);
    closed_page += 4096;
    mprotect(closed_page, 4096, PROT_NONE);
    memset(long_name, 'n', 256);
    memset(long_path, '/', 4200), memcpy(long_path + 4200, "file", 5);
    for (int i = 0; i < 4090; i += 2) memcpy(longest_path + i, "./", 2);
    strcpy(longest_path + 4090, "file");
    paths[2].path = closed_page, paths[3].path = edge;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    set_up();
    watcher = 103, dup3(inotify_init1(0), watcher, 0);
    with_paths(0, step);
    fflush(stdout);
    set_up();
    descriptors(), sizes();
    if (step == 1) open_flags();
    as_user(), identities();
    fflush(stdout);
    return 0;
}
