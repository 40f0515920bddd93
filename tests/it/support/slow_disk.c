/* Preloaded into a process, makes its disk stand still while the file named by SLOW_DISK_GATE exists: nothing is synced,
   and nothing is written to a write-ahead log. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_shut(void) {
    const char *gate = getenv("SLOW_DISK_GATE");
    return gate && access(gate, F_OK) == 0;
}

static void wait_at_the_gate(void) {
    while (is_shut())
        usleep(5000);
}

static void wait_with_the_log(int file) {
    if (!is_shut())
        return;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    if (length > 4 && memcmp(path + length - 4, "-wal", 4) == 0)
        wait_at_the_gate();
}

int fsync(int file) {
    wait_at_the_gate();
    return syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_at_the_gate();
    return syscall(SYS_fdatasync, file);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    wait_with_the_log(file);
    return syscall(SYS_pwrite64, file, bytes, count, at);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    return pwrite64(file, bytes, count, at);
}

ssize_t write(int file, const void *bytes, size_t count) {
    wait_with_the_log(file);
    return syscall(SYS_write, file, bytes, count);
}
