/* Lists a directory tree with several threads: directories are the units of work, any thread takes the next
 * that waits, and the records are put into depth-first order when all are there. From an empty cache, every
 * look-up waits for the disk, which serves many at once. */

#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN_DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

static int grow(void *array, size_t *room, size_t needed, size_t size)
{
    size_t next = *room ? *room : 256;
    void **pointer = array;

    if (needed <= *room)
        return 0;
    while (next < needed)
        next *= 2;
    void *bigger = realloc(*pointer, next * size);
    if (!bigger)
        return -1;
    *pointer = bigger;
    *room = next;
    return 0;
}

/* --- one directory --- */

static int open_stepwise(int root, char *path)
{
    int fd = root;

    for (char *name = path, *end; name; name = end) {
        if ((end = strchr(name, '/')))
            *end++ = '\0';
        const int next = openat(fd, name, OPEN_DIRECTORY);
        const int error = errno;
        if (fd != root)
            close(fd);
        if (next < 0) {
            errno = error;
            return -1;
        }
        fd = next;
    }
    return fd;
}

/* Opens a directory by its whole path, but through no symbolic link; that keeps few descriptors open. */
static int open_directory(const struct walk *w, const struct directory *d)
{
    char path[PATH_MAX], *at = path + sizeof(path) - 1;

    if (!d->up)
        return openat(w->root_fd, ".", OPEN_DIRECTORY);
    *at = '\0';
    for (const struct directory *i = d; i->up; i = i->up) {
        const char *name = i->up->names + i->up->order[i->number];
        const size_t bytes = strlen(name);
        if ((size_t)(at - path) < bytes + 1) {
            errno = ENAMETOOLONG;
            return -1;
        }
        if (*at)
            *--at = '/';
        at -= bytes;
        memcpy(at, name, bytes);
    }
    struct open_how how = {.flags = OPEN_DIRECTORY, .resolve = RESOLVE_NO_SYMLINKS};
    const long fd = syscall(SYS_openat2, w->root_fd, at, &how, sizeof(how));
    /* ENOSYS: before Linux 5.6; EPERM: by a filter of system calls. */
    return fd < 0 && (errno == ENOSYS || errno == EPERM) ? open_stepwise(w->root_fd, at) : (int)fd;
}

struct kernel_dirent { /* struct linux_dirent64, getdents64(2) */
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

static int add_name(struct directory *d, const char *name)
{
    const size_t bytes = strlen(name) + 1;

    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return 0;
    if (grow(&d->names, &d->names_room, d->names_used + bytes, 1) ||
        grow(&d->order, &d->order_room, d->count + 1, sizeof(*d->order)))
        return ENOMEM;
    memcpy(d->names + d->names_used, name, bytes);
    d->order[d->count++] = (uint32_t)d->names_used;
    d->names_used += bytes;
    return 0;
}

static int by_name(const void *a, const void *b, void *names)
{
    return strcmp((const char *)names + *(const uint32_t *)a, (const char *)names + *(const uint32_t *)b);
}

/* Reads a directory's names, sorted. Returns 0 or an errno. */
static int read_names(struct directory *d, int fd)
{
    _Alignas(struct kernel_dirent) char buffer[32768];
    long n;

    while ((n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < n;) {
            const struct kernel_dirent *entry = (const struct kernel_dirent *)(buffer + at);
            const int error = add_name(d, entry->d_name);
            if (error)
                return error;
            at += entry->d_reclen;
        }
    }
    if (n < 0)
        return errno;
    if (d->count)
        qsort_r(d->order, d->count, sizeof(*d->order), by_name, d->names);
    return 0;
}

static struct scan_record record_of(const struct stat *st, unsigned depth)
{
    return (struct scan_record){
        .ino = st->st_ino,
        .size = st->st_size,
        .mtime_ns = st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
        .ctime_ns = st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec,
        .dev = st->st_dev,
        .rdev = st->st_rdev,
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .nlink = (uint32_t)st->st_nlink,
        .depth = (uint16_t)depth,
    };
}

/* Adds entry i as a directory to list; returns where the next goes, or NULL when there is no memory. */
static struct directory **add_directory(struct directory *d, size_t i, struct directory **next)
{
    struct directory *child = calloc(1, sizeof(*child));

    if (!child)
        return NULL;
    child->up = d;
    child->number = (uint32_t)i;
    child->depth = d->depth + 1;
    child->path = d->path + 1 + (unsigned)strlen(d->names + d->order[i]);
    *next = child;
    return &child->sibling;
}

/* Looks at entry i. Returns 0 or an errno. */
static int look(const struct walk *w, struct directory *d, int fd, size_t i, struct directory ***next)
{
    const char *name = d->names + d->order[i];
    struct stat st;

    if (d->depth + 1 > w->limits.depth || d->path + 1 + strlen(name) > w->limits.path)
        return ENAMETOOLONG;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno;
    d->records[i] = record_of(&st, d->depth + 1);
    if (!S_ISDIR(st.st_mode) || (w->limits.one_file_system && st.st_dev != w->root.dev))
        return 0;
    struct directory **after = add_directory(d, i, *next);
    if (!after)
        return ENOMEM;
    *next = after;
    return 0;
}

static void list(struct walk *w, struct directory *d)
{
    struct directory **next = &d->child;
    const int fd = open_directory(w, d);

    d->error = fd < 0 ? errno : read_names(d, fd);
    if (!d->error && d->count && !(d->records = malloc(d->count * sizeof(*d->records))))
        d->error = ENOMEM;
    if (d->error)
        d->failed = SIZE_MAX;
    if (atomic_fetch_add(&w->entries, d->count) + d->count > w->limits.entries)
        atomic_store(&w->stop, 1);
    atomic_fetch_add(&w->name_bytes, d->names_used);
    for (size_t i = 0; !d->error && i < d->count; i++)
        if ((d->error = look(w, d, fd, i, &next)))
            d->failed = i;
    d->listed = 1;
    if (fd >= 0)
        close(fd);
}

/* --- all of them --- */

static void *worker(void *argument);

/* Lets others take what was found in d, which is finished; starts one more thread when none is idle. */
static void hand_on(struct walk *w, struct directory *d)
{
    for (struct directory *child = d->child; child; child = child->sibling) {
        child->waiting = w->waiting;
        w->waiting = child;
        w->unfinished++;
    }
    w->unfinished--;
    if (!w->unfinished || (w->waiting && w->idle))
        pthread_cond_broadcast(&w->changed);
    if (w->waiting && !w->idle && w->started + 1 < w->limits.threads)
        w->started += !pthread_create(&w->pool[w->started], NULL, worker, w);
}

static void *worker(void *argument)
{
    struct walk *w = argument;

    pthread_mutex_lock(&w->lock);
    while (w->unfinished) {
        struct directory *d = w->waiting;
        if (!d) {
            w->idle++;
            pthread_cond_wait(&w->changed, &w->lock);
            w->idle--;
            continue;
        }
        w->waiting = d->waiting;
        pthread_mutex_unlock(&w->lock);
        if (!atomic_load(&w->stop))
            list(w, d);
        pthread_mutex_lock(&w->lock);
        hand_on(w, d);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

void walk_run(struct walk *w, int root_fd, const struct walk_limits *limits)
{
    struct stat st;

    *w = (struct walk){.limits = *limits, .root_fd = root_fd, .waiting = &w->top, .unfinished = 1};
    w->entries = w->name_bytes = 1;
    if (fstat(root_fd, &st)) {
        w->top.error = errno;
        return;
    }
    w->root = record_of(&st, 0);
    if (!(w->pool = calloc(limits->threads, sizeof(*w->pool)))) {
        w->top.error = ENOMEM;
        return;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    worker(w);
    while (w->started)
        pthread_join(w->pool[--w->started], NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
}

/* --- in order --- */

static struct walk_failure check(const struct walk *w, const struct directory *d, size_t *count)
{
    const struct directory *child = d->child;

    if (!d->listed || d->failed > d->count)
        return (struct walk_failure){d->error ? d->error : EOVERFLOW, d, ""};
    for (size_t i = 0; i < d->count; i++) {
        const char *name = d->names + d->order[i];
        if (d->error && i == d->failed)
            return (struct walk_failure){d->error, d, name};
        if (++*count > w->limits.entries)
            return (struct walk_failure){EOVERFLOW, d, name};
        if (child && child->number == i) {
            const struct walk_failure failure = check(w, child, count);
            if (failure.error)
                return failure;
            child = child->sibling;
        }
    }
    return (struct walk_failure){0, NULL, NULL};
}

struct walk_failure walk_check(const struct walk *w)
{
    size_t count = 1;
    const struct walk_failure failure = check(w, &w->top, &count);

    if (!failure.error && w->name_bytes > UINT32_MAX)
        return (struct walk_failure){EOVERFLOW, &w->top, ""};
    return failure;
}

static void empty(struct directory *d)
{
    free(d->names);
    free(d->order);
    free(d->records);
    d->names = NULL;
    d->order = NULL;
    d->records = NULL;
}

struct output {
    struct scan_record *records;
    char *names;
    size_t count, used;
};

static void put(struct output *out, struct scan_record record, const char *name, size_t parent)
{
    const size_t bytes = strlen(name);

    record.parent = (uint32_t)parent;
    record.name_offset = (uint32_t)out->used;
    record.name_bytes = (uint16_t)bytes;
    memcpy(out->names + out->used, name, bytes + 1);
    out->used += bytes + 1;
    out->records[out->count++] = record;
}

static void write_directory(struct output *out, struct directory *d)
{
    const size_t self = out->count - 1;
    struct directory *child = d->child;

    for (size_t i = 0; i < d->count; i++) {
        put(out, d->records[i], d->names + d->order[i], self);
        if (child && child->number == i) {
            write_directory(out, child);
            child = child->sibling;
        }
    }
    empty(d);
}

void walk_write(struct walk *w, struct scan_record *records, char *names)
{
    struct output out = {.records = records, .names = names};

    put(&out, w->root, "", 0);
    write_directory(&out, &w->top);
}

static void free_below(struct directory *d)
{
    for (struct directory *child = d->child, *next; child; child = next) {
        next = child->sibling;
        free_below(child);
        free(child);
    }
    empty(d);
}

void walk_free(struct walk *w)
{
    free_below(&w->top);
    free(w->pool);
}
