/* Opens many files in a row, and prints each time that a thread's or a new process's processors are not those that the
 * program began with: `processors ROUNDS`. Prints "done" at the end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static cpu_set_t start;

static void check(const char *where) {
    cpu_set_t now;
    if (sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &start)) {
        printf("%s: %d processors, not %d\n", where, CPU_COUNT(&now), CPU_COUNT(&start));
        fflush(stdout);
    }
}

static void *in_thread(void *unused) {
    check("a thread");
    return NULL;
}

static void open_many(int count) {
    struct stat info;
    for (int i = 0; i < count; i++) {
        int fd = open(i % 3 ? "/tmp/one" : "/", O_RDONLY);
        if (fd <= 0) printf("open: %d\n", fd);
        if (i % 17 == 0) stat("/tmp/one", &info);
        close(fd);
    }
}

int main(int argc, char **argv) {
    int rounds = atoi(argv[1]);
    sched_getaffinity(0, sizeof start, &start);
    close(open("/tmp/one", O_CREAT | O_WRONLY, 0644));
    for (int i = 0; i < rounds; i++) {
        open_many(270 + i % 240);
        if (i % 3 == 0) {
            check("after a row");
        } else if (i % 3 == 1) {
            pid_t child = fork();
            if (child == 0) {
                check("a child");
                open_many(3);
                check("a child that opened files");
                _exit(0);
            }
            waitpid(child, NULL, 0);
        } else {
            pthread_t thread;
            pthread_create(&thread, NULL, in_thread, NULL);
            pthread_join(thread, NULL);
        }
    }
    /* What the program chooses itself holds, also during a row. */
    int last = 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &start)) last = i;
    CPU_ZERO(&start);
    CPU_SET(last, &start);
    open_many(600);
    if (sched_setaffinity(0, sizeof start, &start) != 0) puts("sched_setaffinity");
    check("chosen");
    open_many(600);
    check("chosen, after a row");
    in_thread(NULL);
    puts("done");
    return 0;
}
