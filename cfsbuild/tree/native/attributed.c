/* Tells which entries of a scan have extended attributes: hardly any has, and asking about each from Python
 * costs more than the scan. */

#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_listxattrat
#define SYS_listxattrat 465 /* Linux 6.13; the same number on every architecture */
#endif

enum { NONE = 0, ASK = 1 };

static uint8_t answer(long length)
{
    return length == 0 || (length < 0 && errno == EOPNOTSUPP) ? NONE : ASK;
}

/* What an entry that is no directory has; *modern is cleared when the kernel cannot say relative to a
 * directory. */
static uint8_t of_name(int directory, const char *name, int *modern)
{
    char path[32 + 256];

    if (*modern) {
        const long length = syscall(SYS_listxattrat, directory, name, AT_SYMLINK_NOFOLLOW, NULL, (size_t)0);
        if (length >= 0 || (errno != ENOSYS && errno != EPERM))
            return answer(length);
        *modern = 0;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", directory, name);
    return answer(llistxattr(path, NULL, 0));
}

static void enter(int *fds, unsigned depth, const char *name)
{
    if (fds[depth] >= 0)
        close(fds[depth]);
    fds[depth] = fds[depth - 1] < 0
                     ? -1
                     : openat(fds[depth - 1], name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int scan_attributed(int root, const struct scan_record *records, size_t count, const char *names, uint8_t *result)
{
    int *fds, modern = 1;
    unsigned deepest = 0;

    for (size_t i = 0; i < count; i++)
        deepest = records[i].depth > deepest ? records[i].depth : deepest;
    if (!(fds = malloc((deepest + 1) * sizeof(*fds))))
        return -1;
    for (unsigned depth = 1; depth <= deepest; depth++)
        fds[depth] = -1;
    fds[0] = root;
    for (size_t i = 0; i < count; i++) {
        const char *name = names + records[i].name_offset;
        const unsigned depth = records[i].depth;

        if (depth && S_ISDIR(records[i].mode))
            enter(fds, depth, name);
        const int directory = S_ISDIR(records[i].mode) ? fds[depth] : fds[depth - 1];
        /* What cannot be opened is left to whoever asks about the entry itself, and can say what is wrong. */
        if (directory < 0)
            result[i] = ASK;
        else if (S_ISDIR(records[i].mode))
            result[i] = answer(flistxattr(directory, NULL, 0));
        else
            result[i] = of_name(directory, name, &modern);
    }
    for (unsigned depth = 1; depth <= deepest; depth++)
        if (fds[depth] >= 0)
            close(fds[depth]);
    free(fds);
    return 0;
}
