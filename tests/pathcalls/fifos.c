/* Readers and writers of FIFOs that are killed, or interrupted by signals, while they wait for the other end.

   fifos SEED ROUNDS prints what a kernel would not have done, and then "done". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 60000 /* milliseconds: longer than any machine is busy */
static const char *fifo = "/tmp/fifo";
static unsigned long long state;
static int round_number;

static unsigned below(unsigned count) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33) % count;
}

static void pause_some(void) {
    static const int longest[] = {1, 200, 2000, 8000};
    usleep(below(longest[below(4)]));
}

static void differs(const char *what) {
    printf("round %d: %s\n", round_number, what);
    fflush(stdout);
}

static void nothing(int number) { (void)number; }

/* A process that opens the FIFO, tells `told`, and then writes `text` or reads to the end and tells what. */
static pid_t opener(int flags, const char *text, int told, int handles) {
    pid_t pid = fork();
    if (pid) return pid;
    if (handles) {
        struct sigaction action = {.sa_handler = nothing, .sa_flags = handles == 2 ? SA_RESTART : 0};
        sigaction(SIGALRM, &action, NULL);
    }
    write(told, "b", 1);
    int fd = open(fifo, flags);
    if (fd < 0) _exit(errno == EINTR ? 3 : 4);
    if (text) _exit(write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : 5);
    char data[64];
    size_t size = 0;
    for (ssize_t count; (count = read(fd, data + size, sizeof data - size)) > 0;) size += count;
    write(told, data, size);
    _exit(size ? 0 : 6);
}

/* The exit status of a process; -1 if it had to be killed, and 128 and more for a signal. */
static int ended(pid_t pid, int patience) {
    int status;
    for (int waited = 0;; waited++) {
        pid_t found = waitpid(pid, &status, WNOHANG);
        if (found == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (waited >= patience) break;
        usleep(1000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static void has_begun(int begun) {
    char byte;
    read(begun, &byte, 1);
}

/* After one end has gone, the two ends that come then meet each other. */
static void meet(int *told) {
    int first = below(2);
    pid_t reader = 0, writer = 0;
    if (first) writer = opener(O_WRONLY, "data", told[1], 0);
    else reader = opener(O_RDONLY, NULL, told[1], 0);
    has_begun(told[0]);
    pause_some();
    if (first) reader = opener(O_RDONLY, NULL, told[1], 0);
    else writer = opener(O_WRONLY, "data", told[1], 0);
    has_begun(told[0]);
    int wrote = ended(writer, PATIENCE), has_read = ended(reader, wrote ? 1000 : PATIENCE);
    char text[64] = "";
    fcntl(told[0], F_SETFL, O_NONBLOCK);
    read(told[0], text, sizeof text - 1);
    fcntl(told[0], F_SETFL, 0);
    if (wrote) printf("round %d: the writer ended with %d\n", round_number, wrote);
    if (has_read) printf("round %d: the reader ended with %d\n", round_number, has_read);
    if (!wrote && !has_read && strcmp(text, "data")) printf("round %d: the reader got %s\n", round_number, text);
    fflush(stdout);
}

/* One end waits and is killed: it is none any more. */
static void killed(int *told) {
    pid_t pid = opener(below(2) ? O_WRONLY : O_RDONLY, "lost", told[1], 0);
    has_begun(told[0]);
    pause_some();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    meet(told);
}

/* One end waits and is interrupted: it is none any more. */
static void interrupted(int *told) {
    pid_t pid = opener(below(2) ? O_WRONLY : O_RDONLY, "lost", told[1], 1);
    has_begun(told[0]);
    int status = -1;
    for (int tries = 0; tries < PATIENCE && status < 0; tries++) {
        pause_some();
        kill(pid, SIGALRM);
        if (waitpid(pid, &status, WNOHANG) != pid) status = -1;
    }
    if (status < 0) kill(pid, SIGKILL), waitpid(pid, &status, 0), differs("an end was not interrupted");
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 3) differs("an end failed");
    meet(told);
}

/* One end waits, and is interrupted by a signal after which it waits again: the other end meets it. */
static void restarted(int *told) {
    int first = below(2);
    pid_t pid = opener(first ? O_WRONLY : O_RDONLY, first ? "data" : NULL, told[1], 2);
    has_begun(told[0]);
    for (int count = below(4); count; count--) pause_some(), kill(pid, SIGALRM);
    pid_t other = opener(first ? O_RDONLY : O_WRONLY, first ? NULL : "data", told[1], 2);
    has_begun(told[0]);
    for (int count = below(4); count; count--) pause_some(), kill(other, SIGALRM), kill(pid, SIGALRM);
    int one = ended(pid, PATIENCE), two = ended(other, PATIENCE);
    if (one || two) printf("round %d: ended with %d and %d\n", round_number, one, two), fflush(stdout);
    char text[64];
    fcntl(told[0], F_SETFL, O_NONBLOCK);
    read(told[0], text, sizeof text);
    fcntl(told[0], F_SETFL, 0);
}

/* Both ends come, and one is killed at some moment: the other one ends, or waits for another. */
static void raced(int *told) {
    int first = below(2);
    pid_t pid = opener(first ? O_WRONLY : O_RDONLY, first ? "data" : NULL, told[1], 0);
    pid_t other = opener(first ? O_RDONLY : O_WRONLY, first ? NULL : "data", told[1], 0);
    pause_some();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    int status = -1;
    for (int tries = 0; tries < PATIENCE && status < 0; tries++) { /* let the other one through, once it waits */
        int fd = open(fifo, O_RDWR | O_NONBLOCK);
        if (fd < 0) differs("open to read and write failed");
        close(fd);
        usleep(1000);
        if (waitpid(other, &status, WNOHANG) != other) status = -1;
    }
    if (status < 0) kill(other, SIGKILL), waitpid(other, &status, 0), differs("the other end waits for ever");
    char text[64];
    fcntl(told[0], F_SETFL, O_NONBLOCK);
    while (read(told[0], text, sizeof text) > 0);
    fcntl(told[0], F_SETFL, 0);
    int fd = open(fifo, O_RDWR | O_NONBLOCK); /* nothing of this round is left in it */
    while (read(fd, text, sizeof text) > 0);
    close(fd);
}

int main(int count, char **words) {
    static void (*const kinds[])(int *) = {killed, interrupted, restarted, raced};
    if (count != 3) return 2;
    state = strtoull(words[1], NULL, 10) * 7919 + 1;
    signal(SIGPIPE, SIG_IGN);
    int told[2];
    if (pipe2(told, O_CLOEXEC) || (mkfifo(fifo, 0600) && errno != EEXIST)) return perror("fifos"), 1;
    for (round_number = 0; round_number < atoi(words[2]); round_number++) kinds[below(4)](told);
    puts("done");
    return 0;
}
