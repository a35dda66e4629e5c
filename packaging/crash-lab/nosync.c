/* Plants a bug from outside, from LD_PRELOAD: a program that forgets to make something durable. crash-lab.sh compiles
 * it. EDGEWARDEN_LAB_FORGET names what is forgotten, with commas between: "file" (regular files), "folder", "store"
 * (the files of the store's folder, which are not counted as "file"). What is forgotten succeeds and does nothing.
 * Rust's standard library and sled call these functions of libc; lab.py looks with strace that nothing goes past. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int forgets_file, forgets_folder, forgets_store;

__attribute__((constructor)) static void start(void)
{
    const char *told = getenv("EDGEWARDEN_LAB_FORGET");
    if (!told)
        return;
    forgets_file = strstr(told, "file") != NULL;
    forgets_folder = strstr(told, "folder") != NULL;
    forgets_store = strstr(told, "store") != NULL;
}

static int forgotten(int fd)
{
    struct stat about;
    char link[40], path[4096];
    ssize_t length;
    if (fstat(fd, &about) != 0)
        return 0;
    if (S_ISDIR(about.st_mode))
        return forgets_folder;
    if (!S_ISREG(about.st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return strstr(path, "/state/store/") ? forgets_store : forgets_file;
}

int fsync(int fd) { return forgotten(fd) ? 0 : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return forgotten(fd) ? 0 : (int)syscall(SYS_fdatasync, fd); }

int sync_file_range(int fd, off64_t from, off64_t count, unsigned flags)
{
    return forgotten(fd) ? 0 : (int)syscall(SYS_sync_file_range, fd, from, count, flags);
}
