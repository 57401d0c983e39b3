/* Executes scripts and programs by descriptors (execveat(2)), and prints what they get. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *texts[][2] = {
    {"/tmp/dir/script", "#!/root/scripts show\nthe text\n"},
    {"/tmp/dir/twice", "#!/tmp/dir/script\nthe other text\n"},
    {"/tmp/dir/lost", "#!/tmp/dir/nothing\n"},
    {"/tmp/dir/odd", "#!\n"},
    {"/tmp/dir/closed", "#!/root/scripts show\n"},
};

static void show(int count, char **words) {
    for (int at = 0; at < count; at++) printf(" [%s]", words[at]);
    char text[200] = "";
    int fd = open(words[count - 2], O_RDONLY);
    if (fd >= 0) read(fd, text, sizeof text - 1);
    else printf(" %s", strerror(errno));
    printf(" %s", strncmp(text, "#!", 2) ? "\n" : text + strcspn(text, "\n") + 1);
}

static void execute(const char *what, int fd, const char *path, int flags) {
    static char *const words[] = {"zeroth", "first", NULL}, *const none[] = {NULL};
    printf("%s:", what);
    fflush(stdout);
    if (!fork()) {
        syscall(SYS_execveat, fd, path, words, none, flags);
        printf(" %s\n", strerror(errno));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
}

int main(int count, char **words) {
    if (count > 1) return show(count, words), 0;
    umask(022);
    mkdir("/tmp/dir", 0755);
    for (unsigned at = 0; at < sizeof texts / sizeof *texts; at++) {
        int fd = open(texts[at][0], O_WRONLY | O_CREAT, 0755);
        write(fd, texts[at][1], strlen(texts[at][1]));
        close(fd);
    }
    chmod("/tmp/dir/closed", 0644);
    symlink("script", "/tmp/dir/link");
    chdir("/");
    static const char *names[] = {"script", "twice", "lost", "odd", "closed", "link", "../dir/./script", "none"};
    static const int kept[] = {0, O_CLOEXEC}, kinds[] = {O_RDONLY, O_PATH};
    char what[100];
    for (unsigned keep = 0; keep < 2; keep++) {
        int directory = open("/tmp/dir", O_PATH | O_DIRECTORY | kept[keep]);
        for (unsigned name = 0; name < sizeof names / sizeof *names; name++) {
            for (unsigned kind = 0; kind < 2; kind++) {
                int fd = openat(directory, names[name], kinds[kind] | kept[keep]);
                sprintf(what, "%s by descriptor %d%s", names[name], kind, keep ? ", closed" : "");
                execute(what, fd, "", AT_EMPTY_PATH);
                if (name == 0 && kind == 0) execute("not empty", fd, "", 0), execute("below a file", fd, "x", 0);
                close(fd);
            }
            sprintf(what, "%s in a directory%s", names[name], keep ? ", closed" : "");
            execute(what, directory, names[name], 0);
            execute(what, directory, names[name], AT_SYMLINK_NOFOLLOW);
        }
        execute("absolute", directory, "/tmp/dir/script", 0);
        execute("the directory", directory, "", AT_EMPTY_PATH);
        int here = open("/root/scripts", O_PATH | kept[keep]);
        execute("a program", here, "", AT_EMPTY_PATH);
        close(here);
        int gone = open("/tmp/dir/gone", O_RDWR | O_CREAT, 0755);
        write(gone, texts[0][1], strlen(texts[0][1]));
        close(gone);
        gone = open("/tmp/dir/gone", O_RDONLY | kept[keep]);
        unlink("/tmp/dir/gone");
        execute("removed", gone, "", AT_EMPTY_PATH);
        close(gone);
        close(directory);
    }
    chdir("/tmp/dir");
    execute("here", AT_FDCWD, "script", 0);
    execute("nowhere", -1, "", AT_EMPTY_PATH);
    execute("nowhere", -1, "script", 0);
    execute("the working directory", AT_FDCWD, "", AT_EMPTY_PATH);
    puts("done");
    return 0;
}
