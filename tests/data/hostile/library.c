/* A library that pretends to be ONNX Runtime, and tries what a model would that has taken its process over.
 * tests/it/process/locked.rs compiles it. It tells what came of it in the place of its version, which the child
 * reports as the reason why it does not load the library: "key:EACCES exec:EPERM ... thread:done".
 * The paths and the port come as -D. Nothing that is tried does harm where it works. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char told[4096];

static void tell(const char *what, long result)
{
    size_t at = strlen(told);
    const char *name = "done";
    char number[16];
    if (result < 0) {
        switch (errno) {
        case EACCES: name = "EACCES"; break;
        case EPERM: name = "EPERM"; break;
        case ENOENT: name = "ENOENT"; break;
        case EBADF: name = "EBADF"; break;
        case EINVAL: name = "EINVAL"; break;
        default: snprintf(number, sizeof number, "%d", errno); name = number;
        }
    }
    snprintf(told + at, sizeof told - at, "%s:%s ", what, name);
}

static int opens(const char *path, int flags)
{
    int file = open(path, flags | O_CLOEXEC, 0600);
    if (file >= 0)
        close(file);
    return file;
}

static int connects(int domain, const struct sockaddr *to, socklen_t length)
{
    int peer = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer < 0)
        return peer;
    int result = connect(peer, to, length);
    int error = errno;
    close(peer);
    errno = error;
    return result;
}

static int forks(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (child > 0)
        waitpid(child, NULL, 0);
    return child;
}

static void *nothing(void *unused)
{
    return unused;
}

static const char *version(void)
{
    char path[128];
    struct rlimit limit;
    pthread_t thread;
    struct sockaddr_in web = { .sin_family = AF_INET, .sin_port = htons(PORT) };
    struct sockaddr_un agent = { .sun_family = AF_UNIX };

    /* Files. */
    tell("key", opens(KEY, O_RDONLY));
    tell("change", opens(BUNDLE "/manifest.json", O_WRONLY));
    tell("outside", opens(OUTSIDE "/new", O_WRONLY | O_CREAT));
    tell("away", rename(OUTSIDE "/old", OUTSIDE "/old"));
    tell("rights", chmod(KEY, 0600));
    tell("passwd", opens("/etc/passwd", O_RDONLY));
    /* The network, and the agent's own socket. */
    web.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tell("tcp", connects(AF_INET, (struct sockaddr *)&web, sizeof web));
    tell("udp", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    strncpy(agent.sun_path, SOCKET, sizeof agent.sun_path - 1);
    tell("agent", connects(AF_UNIX, (struct sockaddr *)&agent, sizeof agent));
    /* Programs and processes. */
    tell("exec", execl("/no/such/program", "program", (char *)NULL));
    tell("fork", forks());
    tell("signal", kill(getppid(), 0));
    tell("limits", prlimit(getppid(), RLIMIT_NOFILE, NULL, &limit));
    snprintf(path, sizeof path, "/proc/%d/status", (int)getppid());
    tell("process", opens(path, O_RDONLY));
    tell("namespace", setns(-1, 0));

    /* What it needs. */
    tell("bundle", opens(BUNDLE "/manifest.json", O_RDONLY));
    tell("cpu", opens("/proc/cpuinfo", O_RDONLY));
    tell("topology", opens("/sys/devices/system/cpu/online", O_RDONLY));
    tell("self", opens("/proc/self/maps", O_RDONLY));
    errno = pthread_create(&thread, NULL, nothing, NULL);
    if (errno == 0)
        pthread_join(thread, NULL);
    tell("thread", errno == 0 ? 0 : -1);
    return told;
}

static const struct {
    const void *(*get_api)(unsigned int);
    const char *(*get_version_string)(void);
} base = { NULL, version };

const void *OrtGetApiBase(void)
{
    return &base;
}
