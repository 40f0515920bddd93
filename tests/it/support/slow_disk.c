/* Preloaded into a process, makes its disk stand still: fsync and fdatasync wait while the file named by SLOW_DISK_GATE
   exists. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_at_the_gate(void) {
    const char *gate = getenv("SLOW_DISK_GATE");
    while (gate && access(gate, F_OK) == 0)
        usleep(5000);
}

int fsync(int file) {
    wait_at_the_gate();
    return syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_at_the_gate();
    return syscall(SYS_fdatasync, file);
}
