/* Lists a directory tree with several threads. */
#ifndef CFSBUILD_WALK_H
#define CFSBUILD_WALK_H

#include "scan.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

struct walk_limits {
    unsigned depth, path; /* levels; bytes of a path that begins with a slash */
    size_t entries;
    int one_file_system;
    unsigned threads;
};

/* A directory, and what was found in it. */
struct directory {
    struct directory *up, *waiting; /* the next that waits to be listed */
    struct directory *child, *sibling;
    uint32_t number; /* of this directory among the entries of the one above */
    unsigned depth, path;
    char *names; /* NUL-terminated */
    size_t names_used, names_room;
    uint32_t *order; /* offsets of names, sorted */
    size_t count, order_room;
    struct scan_record *records; /* one for each name; name_offset, name_bytes and parent are not set yet */
    size_t failed;               /* the first entry with an error; beyond count: the directory itself */
    int listed, error;           /* errno */
};

struct walk {
    struct walk_limits limits;
    int root_fd;
    struct scan_record root;
    struct directory top;
    atomic_size_t entries, name_bytes;
    atomic_int stop; /* too many entries */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct directory *waiting;
    size_t unfinished; /* directories that wait or are being listed */
    unsigned idle, started;
    pthread_t *pool;
};

/* What could not be listed: a name in a directory; empty: the directory itself. */
struct walk_failure {
    int error; /* errno; 0: nothing failed */
    const struct directory *where;
    const char *name;
};

/* Lists everything below root_fd. Always to be followed by walk_free. */
void walk_run(struct walk *w, int root_fd, const struct walk_limits *limits);

/* Says what failed; of several failures the first in depth-first order. */
struct walk_failure walk_check(const struct walk *w);

/* Writes w->entries records and w->name_bytes bytes of names, in depth-first order; what has been written is
 * freed. Only when nothing failed. */
void walk_write(struct walk *w, struct scan_record *records, char *names);

void walk_free(struct walk *w);

#endif
