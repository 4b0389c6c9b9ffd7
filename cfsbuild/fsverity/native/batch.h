/* Reads and hashes many files with several threads, each file once. */
#ifndef CFSBUILD_BATCH_H
#define CFSBUILD_BATCH_H

#include "merkle.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

enum {
    WRITING = 1 << 16, /* added to an errno: it happened to the copy, not to the source */
    CHANGED = 1 << 17, /* in the place of an errno: the file is not what it was when it was listed */
};

enum { SLOT = HASH_MAX }; /* bytes of one result */

/* What is done with the content besides hashing; every member may be NULL. All return 0 or an error as
 * above. Called by several threads at once, except poll. */
struct batch_hooks {
    /* Compares a file that was read with what it was when it was listed. */
    int (*check)(void *context, size_t index, const struct stat *now);
    /* Takes a small file with its digest. */
    int (*keep)(void *context, size_t index, const uint8_t *digest, const uint8_t *data, size_t size);
    /* Opens a file, perhaps with O_DIRECT, for the content of a large one, which is open as source. Sets
     * *cloned when it holds that content already: it is then read in the place of source. */
    int (*spool)(void *context, size_t index, int source, int *spool, int *cloned);
    /* Ends what spool opened, and closes it; digest is NULL when the work failed. */
    int (*settle)(void *context, size_t index, int spool, const uint8_t *digest);
    /* Called several times a second by the thread that called batch_run; nonzero stops the work. */
    int (*poll)(void *context);
    void *context;
};

struct batch {
    int directory;            /* names are relative to it */
    const char *const *names;
    const int64_t *expected;  /* sizes known before, else NULL */
    size_t count;
    int algorithm;
    const struct sha_kernel *kernel;
    unsigned threads;
    size_t inline_bytes;      /* files up to this many bytes: the content is the result, not a digest */
    struct batch_hooks hooks;

    uint8_t *results;         /* SLOT bytes for each file: digest, or content */
    int64_t *sizes;
    atomic_size_t done;       /* files */
    atomic_size_t bytes;

    size_t failed;            /* of the files that were seen to fail, the first in their order, and how; stopped: none */
    int error;
    /* private */
    atomic_size_t next, next_large;
    atomic_uint begun; /* threads */
    atomic_int stop;
    unsigned running;
    size_t ahead;
    pthread_mutex_t lock;
    pthread_cond_t idle;
};

/* Returns 0, or -1: then error is set (EINTR when poll stopped the work). */
int batch_run(struct batch *b);

/* Writes `size` bytes to `fd`, `at` bytes from its start. With O_DIRECT, `from` and `at` are whole blocks, and what
 * cannot be written so goes through the page cache: the last bytes, or all. Returns 0, or errno + WRITING. */
int write_content(int fd, const uint8_t *from, size_t size, uint64_t at);

/* Ends O_DIRECT for `fd`, if it was on. */
void through_page_cache(int fd);

#endif
