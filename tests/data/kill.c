/* Ends the agent in the middle of its work, from LD_PRELOAD: EDGEWARDEN_TEST_KILL is the number of the call that changes
 * or syncs a file at which `edgewarden run` gets its SIGKILL, before that call does anything. Its children are left
 * alone. With EDGEWARDEN_TEST_KILL=0 the calls are only counted, into the file that EDGEWARDEN_TEST_KILL_COUNT names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;
static long last = -1;

__attribute__((constructor)) static void start(int argc, char **argv, char **environment)
{
    const char *wanted = getenv("EDGEWARDEN_TEST_KILL");
    (void)environment;
    if (wanted && argc > 1 && strcmp(argv[1], "run") == 0)
        last = atol(wanted);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("EDGEWARDEN_TEST_KILL_COUNT");
    FILE *file = last == 0 && path ? fopen(path, "w") : NULL;
    if (!file)
        return;
    fprintf(file, "%ld\n", atomic_load(&calls));
    fclose(file);
}

static void step(void)
{
    if (last >= 0 && atomic_fetch_add(&calls, 1) + 1 == last)
        kill(getpid(), SIGKILL);
}

int fsync(int fd)
{
    step();
    return (int)syscall(SYS_fsync, fd);
}

int sync_file_range(int fd, off64_t from, off64_t count, unsigned flags)
{
    step();
    return (int)syscall(SYS_sync_file_range, fd, from, count, flags);
}

int rename(const char *from, const char *to)
{
    step();
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlink(const char *target, const char *at)
{
    step();
    return (int)syscall(SYS_symlinkat, target, AT_FDCWD, at);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    step();
    return (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
}

int unlink(const char *path)
{
    step();
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
