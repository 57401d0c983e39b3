/* Opens files while it lowers and raises its limit of descriptors. Prints what fails, and "done" at the end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void limit(rlim_t soft) {
    struct rlimit both;
    getrlimit(RLIMIT_NOFILE, &both);
    both.rlim_cur = soft ? soft : both.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &both)) printf("setrlimit(%lu): %s\n", (unsigned long)soft, strerror(errno));
}

/* Opens a file until there are no more descriptors; how many of the numbers up to `most` it got. */
static int opened(int most) {
    int count = 0, fd;
    while ((fd = open("/etc/passwd", O_RDONLY)) >= 0 && fd < most) count++;
    if (fd < 0 && errno != EMFILE) printf("open: %s\n", strerror(errno));
    for (int last = 3; last < most + 1; last++) close(last);
    return count;
}

int main(void) {
    static const int limits[] = {3, 4, 10, 5, 64};
    for (unsigned at = 0; at < sizeof limits / sizeof *limits; at++) {
        limit(limits[at]);
        int count = opened(limits[at]);
        if (count != limits[at] - 3) printf("%d descriptors of %d\n", count, limits[at]);
    }
    limit(0);
    int count = opened(1500);
    if (count != 1497 && count != 1496) printf("%d descriptors\n", count); /* one may serve the supervisor */
    puts("done");
    return 0;
}
