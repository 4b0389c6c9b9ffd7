/* fs-verity digests (Linux fsverity.rst: 4096-byte blocks, no salt) of many files at a time. */
#ifndef CFSBUILD_MERKLE_H
#define CFSBUILD_MERKLE_H

#include "sha.h"

enum {
    BLOCK = 4096,
    ARENA = 1 << 20,     /* bytes of file content in memory for each thread */
    BATCH_FILES = 1024,  /* most files in one arena */
    LEVEL = 16 * BLOCK,  /* hashes of one level of a large file's tree that wait for their hashing */
    LEVELS = 8,          /* enough for 2^63 bytes */
    HASH_MAX = 64,
};

struct merkle_file {
    size_t index;  /* the caller's number of the file */
    size_t offset; /* of its content in the arena */
    size_t size;
    size_t count;  /* hashes on the level that is being worked on */
    uint8_t root[HASH_MAX];
    uint8_t digest[HASH_MAX];
};

/* What one thread works with. Small files gather in the arena, padded to whole blocks, until
 * merkle_batch hashes them all together; a large file passes through it chunk by chunk. */
struct merkle {
    const struct sha_kernel *kernel;
    int algorithm;
    size_t hash; /* bytes of one hash */
    uint8_t *arena;
    size_t used;
    struct merkle_file *files;
    size_t file_count;
    uint8_t *blocks;    /* ARENA bytes: blocks of one level of all trees, or descriptors */
    uint8_t *hashes[2]; /* ARENA / BLOCK hashes, or BATCH_FILES */
    uint8_t *level[LEVELS];
    size_t filled[LEVELS];
};

/* Returns 0, or -1 when there is no memory; free in both cases. */
int merkle_init(struct merkle *m, int algorithm, const struct sha_kernel *kernel);
void merkle_free(struct merkle *m);

/* Adds a file whose content, not yet padded, stands at arena + used. */
void merkle_add(struct merkle *m, size_t index, size_t size);

/* Fills in the digest of every file in the arena. The caller empties it: used = file_count = 0. */
void merkle_batch(struct merkle *m);

/* For one large file: takes the next len bytes of it, which stand in the (else empty) arena; all but the
 * last piece are ARENA bytes long. Returns 0, or -1 when there is no memory. */
int merkle_stream(struct merkle *m, size_t len);

/* Ends a large file of size bytes: writes its digest, and is ready for the next one. */
int merkle_finish(struct merkle *m, uint64_t size, uint8_t *digest);

#endif
