#include "batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CLAIM = 32, LARGE_FIRST = 4, THREADS_MAX = 256, AWAITED_MAX = 16, POLL_NS = 50 * 1000 * 1000,
       PAUSE_NS = 1000 * 1000 };

/* A small file that the disk was asked for. */
struct awaited {
    size_t index;
    int fd;
};

static atomic_size_t awaited_now; /* by all threads of all batches */

struct worker {
    struct batch *b;
    struct merkle m;
    struct awaited awaited[AWAITED_MAX]; /* a ring */
    unsigned oldest, count;
};

static void fail(struct batch *b, size_t index, int error)
{
    pthread_mutex_lock(&b->lock);
    if (!b->error || (index < b->failed && error != EINTR)) {
        b->error = error;
        b->failed = index;
    }
    pthread_mutex_unlock(&b->lock);
    atomic_store(&b->stop, 1);
}

/* Reads until size bytes are there or the file ends; returns how many, or -1. */
static ssize_t read_all(int fd, uint8_t *to, size_t size)
{
    size_t got = 0;

    while (got < size) {
        const ssize_t n = read(fd, to + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* Reads what the page cache has; returns whether that is all. The disk is asked for the rest, which nobody waits for. */
static int read_cached(int fd, uint8_t *to, size_t size)
{
    const struct iovec whole = {.iov_base = to, .iov_len = size};
    const ssize_t got = size ? preadv2(fd, &whole, 1, 0, RWF_NOWAIT) : 0;

    if (got == (ssize_t)size)
        return 1;
    /* Before Linux 5.19 the read itself begins nothing; some file systems never read so. */
    posix_fadvise(fd, 0, (off_t)size, POSIX_FADV_WILLNEED);
    return 0;
}

static int write_all(int fd, const uint8_t *from, size_t size, uint64_t at)
{
    while (size) {
        const ssize_t n = pwrite(fd, from, size, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno + WRITING;
        from += n;
        size -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

static int is_direct(int fd)
{
    const int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && flags & O_DIRECT;
}

void through_page_cache(int fd)
{
    if (is_direct(fd))
        fcntl(fd, F_SETFL, 0);
}

int write_content(int fd, const uint8_t *from, size_t size, uint64_t at)
{
    const size_t whole = is_direct(fd) ? size - size % BLOCK : size;
    int error = write_all(fd, from, whole, at);

    /* A device with larger sectors. */
    if (error == EINVAL + WRITING && is_direct(fd)) {
        through_page_cache(fd);
        error = write_all(fd, from, whole, at);
    }
    if (error || whole == size)
        return error;
    through_page_cache(fd);
    return write_all(fd, from + whole, size - whole, at + whole);
}

static void finished(struct batch *b, size_t index, int64_t size)
{
    b->sizes[index] = size;
    atomic_fetch_add_explicit(&b->done, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&b->bytes, (size_t)size, memory_order_relaxed);
}

/* Hashes what is in the arena and hands it on. */
static void flush(struct batch *b, struct merkle *m)
{
    if (!m->file_count)
        return;
    merkle_batch(m);
    for (size_t i = 0; i < m->file_count && !atomic_load(&b->stop); i++) {
        const struct merkle_file *file = &m->files[i];
        int error = 0;

        memcpy(b->results + file->index * SLOT, file->digest, m->hash);
        if (b->hooks.keep)
            error = b->hooks.keep(b->hooks.context, file->index, file->digest, m->arena + file->offset, file->size);
        if (error)
            fail(b, file->index, error);
        else
            finished(b, file->index, (int64_t)file->size);
    }
    m->used = m->file_count = 0;
}

static int is_inline(const struct batch *b, size_t size)
{
    return b->inline_bytes && size <= b->inline_bytes;
}

static int checked(struct batch *b, size_t index, int fd)
{
    struct stat now;

    if (!b->hooks.check)
        return 0;
    return fstat(fd, &now) ? errno : b->hooks.check(b->hooks.context, index, &now);
}

/* Where the content of a small file goes: to the results if it is the result, else to the arena. */
static uint8_t *place(struct batch *b, struct merkle *m, size_t index, size_t size)
{
    const size_t room = (size + BLOCK - 1) / BLOCK * BLOCK;

    if (is_inline(b, size))
        return b->results + index * SLOT;
    if (m->used + room > ARENA || m->file_count == BATCH_FILES)
        flush(b, m);
    return m->arena + m->used;
}

/* Takes a small file, of which got bytes were read to its place. */
static int take(struct batch *b, struct merkle *m, size_t index, int fd, size_t size, ssize_t got)
{
    int error = got < 0 ? errno : checked(b, index, fd);

    if (!error && (size_t)got < size && b->expected)
        error = CHANGED;
    if (error)
        return error;
    if (is_inline(b, size))
        finished(b, index, got);
    else
        merkle_add(m, index, (size_t)got);
    return 0;
}

static void end(struct batch *b, size_t index, int fd, int error)
{
    close(fd);
    if (error)
        fail(b, index, error);
}

static int read_small(struct worker *w, size_t index, int fd, size_t size)
{
    const ssize_t got = read_all(fd, place(w->b, &w->m, index, size), size);

    return take(w->b, &w->m, index, fd, size, got);
}

/* Reads a large file piece by piece from one descriptor, and writes it to the spool unless that is -1. */
static int pass(struct batch *b, struct merkle *m, int from, int spool, uint64_t size, uint64_t *total)
{
    for (*total = 0; *total < size;) {
        const size_t want = size - *total < ARENA ? (size_t)(size - *total) : ARENA;
        const ssize_t got = read_all(from, m->arena, want);

        if (got < 0)
            return errno;
        if (atomic_load(&b->stop))
            return EINTR;
        if (spool >= 0) {
            const int error = write_content(spool, m->arena, (size_t)got, *total);
            if (error)
                return error;
        }
        *total += (uint64_t)got;
        if (got > 0 && merkle_stream(m, (size_t)got))
            return ENOMEM;
        if ((size_t)got < want)
            break;
    }
    return 0;
}

static int large(struct batch *b, struct merkle *m, size_t index, int fd, uint64_t size)
{
    uint8_t *digest = b->results + index * SLOT;
    int spool = -1, cloned = 0, error = 0;
    uint64_t total = 0;

    flush(b, m);
    if (b->hooks.spool && (error = b->hooks.spool(b->hooks.context, index, fd, &spool, &cloned)))
        return error;
    error = pass(b, m, cloned ? spool : fd, cloned ? -1 : spool, size, &total);
    if (merkle_finish(m, total, digest) && !error)
        error = ENOMEM;
    if (!error)
        error = checked(b, index, fd);
    if (!error && total < size && b->expected)
        error = CHANGED;
    if (b->hooks.spool) {
        const int late = b->hooks.settle(b->hooks.context, index, spool, error ? NULL : digest);
        error = error ? error : late;
    }
    if (!error)
        finished(b, index, (int64_t)total);
    return error;
}

/* Sets the size of what is to be read. Returns 0 or an error. */
static int size_of(const struct batch *b, size_t index, int fd, uint64_t *size)
{
    struct stat st;

    if (b->expected) {
        *size = (uint64_t)b->expected[index];
        return 0;
    }
    if (fstat(fd, &st))
        return errno;
    *size = (uint64_t)st.st_size;
    return S_ISREG(st.st_mode) ? 0 : EINVAL;
}

/* Waits for the disk to bring the file that it was asked for first, which may have another size by now. */
static void take_oldest(struct worker *w)
{
    const struct awaited a = w->awaited[w->oldest];
    struct batch *b = w->b;
    uint64_t size = 0;
    int error = 0;

    w->oldest = (w->oldest + 1) % AWAITED_MAX;
    w->count--;
    if (!atomic_load(&b->stop) && !(error = size_of(b, a.index, a.fd, &size)))
        error = size > ARENA ? large(b, &w->m, a.index, a.fd, size) : read_small(w, a.index, a.fd, (size_t)size);
    end(b, a.index, a.fd, error);
    atomic_fetch_sub(&awaited_now, 1);
}

static void take_all(struct worker *w)
{
    while (w->count)
        take_oldest(w);
}

static void small(struct worker *w, size_t index, int fd, size_t size)
{
    struct batch *b = w->b;

    if (read_cached(fd, place(b, &w->m, index, size), size)) {
        end(b, index, fd, take(b, &w->m, index, fd, size, (ssize_t)size));
    } else if (atomic_fetch_add(&awaited_now, 1) < b->ahead) {
        if (w->count == AWAITED_MAX)
            take_oldest(w);
        w->awaited[(w->oldest + w->count++) % AWAITED_MAX] = (struct awaited){.index = index, .fd = fd};
    } else {
        atomic_fetch_sub(&awaited_now, 1);
        end(b, index, fd, read_small(w, index, fd, size));
    }
}

/* Opens a file; where descriptors have run out, when one of those is free that somebody waits for. */
static int open_file(struct worker *w, size_t index)
{
    static const struct timespec moment = {.tv_nsec = PAUSE_NS};
    struct batch *b = w->b;

    for (;;) {
        const int fd = openat(b->directory, b->names[index], O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        const int none = fd < 0 && (errno == EMFILE || errno == ENFILE);
        if (none && atomic_load(&b->stop)) {
            errno = EINTR;
            return -1;
        }
        if (none && w->count)
            take_oldest(w);
        else if (none && atomic_load(&awaited_now))
            nanosleep(&moment, NULL);
        else
            return fd;
    }
}

static void one(struct worker *w, size_t index)
{
    struct batch *b = w->b;
    const int fd = open_file(w, index);
    uint64_t size = 0;

    if (fd < 0) {
        fail(b, index, errno);
        return;
    }
    const int error = size_of(b, index, fd, &size);
    if (!error && size <= ARENA) {
        small(w, index, fd, (size_t)size);
    } else {
        take_all(w);
        end(b, index, fd, error ? error : large(b, &w->m, index, fd, size));
    }
}

static void large_ones(struct worker *w)
{
    struct batch *b = w->b;
    size_t i;

    while (b->expected && !atomic_load(&b->stop) && (i = atomic_fetch_add(&b->next_large, 1)) < b->count)
        if (b->expected[i] > ARENA)
            one(w, i);
}

static void small_ones(struct worker *w)
{
    struct batch *b = w->b;
    size_t i;

    while (!atomic_load(&b->stop) && (i = atomic_fetch_add(&b->next, CLAIM)) < b->count)
        for (const size_t end = i + CLAIM; i < end && i < b->count && !atomic_load(&b->stop); i++)
            if (!b->expected || b->expected[i] <= ARENA)
                one(w, i);
    take_all(w);
}

/* Large files first, so that none of them is begun when all else is done. From a cold cache they wait for the
 * disk's bandwidth and small files for its latency, so that threads beyond the first few do the latter
 * meanwhile. */
static void work(struct worker *w)
{
    if (atomic_fetch_add(&w->b->begun, 1) < LARGE_FIRST) {
        large_ones(w);
        small_ones(w);
    } else {
        small_ones(w);
        large_ones(w);
    }
    flush(w->b, &w->m);
}

static void *worker(void *argument)
{
    struct batch *b = argument;
    struct worker w = {.b = b};

    if (merkle_init(&w.m, b->algorithm, b->kernel))
        fail(b, 0, ENOMEM);
    else
        work(&w);
    merkle_free(&w.m);
    pthread_mutex_lock(&b->lock);
    b->running--;
    pthread_cond_signal(&b->idle);
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* Waits for the workers; calls poll meanwhile. Returns whether poll stopped them. */
static int wait_for(struct batch *b)
{
    int stopped = 0;

    pthread_mutex_lock(&b->lock);
    while (b->running) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += POLL_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&b->idle, &b->lock, &until);
        if (b->running && b->hooks.poll && !stopped) {
            pthread_mutex_unlock(&b->lock);
            stopped = b->hooks.poll(b->hooks.context);
            if (stopped)
                atomic_store(&b->stop, 1);
            pthread_mutex_lock(&b->lock);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return stopped;
}

/* How many files the whole process may wait for: a quarter of the descriptors that it may have. */
static size_t ahead(void)
{
    struct rlimit open;

    return getrlimit(RLIMIT_NOFILE, &open) ? 0 : (size_t)(open.rlim_cur / 4);
}

int batch_run(struct batch *b)
{
    pthread_t threads[THREADS_MAX];
    pthread_condattr_t attributes;
    const size_t useful = b->count / CLAIM + 1;
    unsigned wanted = b->threads < THREADS_MAX ? b->threads : THREADS_MAX, started = 0;

    if (wanted > useful)
        wanted = (unsigned)useful;
    b->ahead = ahead();
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&b->idle, &attributes);
    pthread_condattr_destroy(&attributes);
    while (started < wanted) {
        pthread_mutex_lock(&b->lock);
        b->running++;
        pthread_mutex_unlock(&b->lock);
        if (pthread_create(&threads[started], NULL, worker, b)) {
            pthread_mutex_lock(&b->lock);
            b->running--;
            pthread_mutex_unlock(&b->lock);
            break;
        }
        started++;
    }
    if (!started) {
        b->running = 1;
        worker(b);
    }
    const int stopped = wait_for(b);
    while (started)
        pthread_join(threads[--started], NULL);
    pthread_cond_destroy(&b->idle);
    pthread_mutex_destroy(&b->lock);
    if (stopped && !b->error) {
        b->error = EINTR;
        b->failed = b->count;
    }
    return b->error ? -1 : 0;
}
