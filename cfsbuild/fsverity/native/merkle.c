#include "merkle.h"

#include <stdlib.h>
#include <string.h>

enum { DESCRIPTOR = 256 };

static size_t padded(size_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

int merkle_init(struct merkle *m, int algorithm, const struct sha_kernel *kernel)
{
    memset(m, 0, sizeof(*m));
    m->algorithm = algorithm;
    m->kernel = kernel;
    m->hash = sha_size(algorithm);
    m->arena = aligned_alloc(BLOCK, ARENA);
    m->blocks = aligned_alloc(BLOCK, ARENA);
    m->files = calloc(BATCH_FILES, sizeof(*m->files));
    m->hashes[0] = malloc(BATCH_FILES * HASH_MAX);
    m->hashes[1] = malloc(BATCH_FILES * HASH_MAX);
    return m->arena && m->blocks && m->files && m->hashes[0] && m->hashes[1] ? 0 : -1;
}

void merkle_free(struct merkle *m)
{
    free(m->arena);
    free(m->blocks);
    free(m->files);
    free(m->hashes[0]);
    free(m->hashes[1]);
    for (int i = 0; i < LEVELS; i++)
        free(m->level[i]);
}

void merkle_add(struct merkle *m, size_t index, size_t size)
{
    struct merkle_file *file = &m->files[m->file_count++];
    const size_t room = padded(size);

    memset(m->arena + m->used + size, 0, room - size);
    *file = (struct merkle_file){.index = index, .offset = m->used, .size = size, .count = room / BLOCK};
    m->used += room;
}

/* struct fsverity_descriptor: version, algorithm, log2 of the block size, salt size, 4 reserved bytes, size
 * of the file, root hash, salt, 144 reserved bytes. */
static void descriptor(const struct merkle *m, uint64_t size, const uint8_t *root, uint8_t *out)
{
    memset(out, 0, DESCRIPTOR);
    out[0] = 1;
    out[1] = (uint8_t)m->algorithm;
    out[2] = 12;
    for (int i = 0; i < 8; i++)
        out[8 + i] = (uint8_t)(size >> (8 * i));
    memcpy(out + 16, root, m->hash);
}

/* Hashes the next level of every tree that has more than one hash on this one. Returns whether there is
 * one that still has. */
static int climb(struct merkle *m, const uint8_t *from, uint8_t *to)
{
    size_t n = 0;
    int more = 0;

    for (size_t i = 0; i < m->file_count; i++) {
        struct merkle_file *file = &m->files[i];
        const size_t bytes = file->count * m->hash;

        if (file->count == 1)
            memcpy(file->root, from, m->hash);
        if (file->count > 1) {
            memcpy(m->blocks + n * BLOCK, from, bytes);
            memset(m->blocks + n * BLOCK + bytes, 0, padded(bytes) - bytes);
            n += padded(bytes) / BLOCK;
            more = 1;
        }
        from += bytes;
        file->count = file->count > 1 ? padded(bytes) / BLOCK : 0;
    }
    m->kernel->hash(m->blocks, BLOCK, n, to);
    return more;
}

void merkle_batch(struct merkle *m)
{
    int now = 0;

    m->kernel->hash(m->arena, BLOCK, m->used / BLOCK, m->hashes[now]);
    while (climb(m, m->hashes[now], m->hashes[!now]))
        now = !now;
    for (size_t i = 0; i < m->file_count; i++)
        descriptor(m, m->files[i].size, m->files[i].root, m->blocks + i * DESCRIPTOR);
    m->kernel->hash(m->blocks, DESCRIPTOR, m->file_count, m->hashes[0]);
    for (size_t i = 0; i < m->file_count; i++)
        memcpy(m->files[i].digest, m->hashes[0] + i * m->hash, m->hash);
}

/* Appends hashes to a level. A full level is hashed only when more comes: one that ends with a single hash
 * is the root. */
static int push(struct merkle *m, int k, const uint8_t *hashes, size_t bytes)
{
    while (bytes) {
        if (k == LEVELS || (!m->level[k] && !(m->level[k] = malloc(LEVEL))))
            return -1;
        if (m->filled[k] == LEVEL) {
            uint8_t above[LEVEL / BLOCK * HASH_MAX];
            m->kernel->hash(m->level[k], BLOCK, LEVEL / BLOCK, above);
            m->filled[k] = 0;
            if (push(m, k + 1, above, LEVEL / BLOCK * m->hash))
                return -1;
        }
        const size_t room = LEVEL - m->filled[k], part = bytes < room ? bytes : room;
        memcpy(m->level[k] + m->filled[k], hashes, part);
        m->filled[k] += part;
        hashes += part;
        bytes -= part;
    }
    return 0;
}

int merkle_stream(struct merkle *m, size_t len)
{
    memset(m->arena + len, 0, padded(len) - len);
    m->kernel->hash(m->arena, BLOCK, padded(len) / BLOCK, m->hashes[0]);
    return push(m, 0, m->hashes[0], padded(len) / BLOCK * m->hash);
}

int merkle_finish(struct merkle *m, uint64_t size, uint8_t *digest)
{
    uint8_t root[HASH_MAX] = {0}, above[LEVEL / BLOCK * HASH_MAX];
    int failed = 0;

    for (int k = 0; k < LEVELS && m->filled[k] && !failed; k++) {
        const int last = k + 1 == LEVELS || !m->filled[k + 1];
        const size_t bytes = m->filled[k], room = padded(bytes);

        m->filled[k] = 0;
        if (last && bytes == m->hash) {
            memcpy(root, m->level[k], m->hash);
            break;
        }
        memset(m->level[k] + bytes, 0, room - bytes);
        m->kernel->hash(m->level[k], BLOCK, room / BLOCK, above);
        failed = push(m, k + 1, above, room / BLOCK * m->hash);
    }
    memset(m->filled, 0, sizeof(m->filled));
    descriptor(m, size, root, m->blocks);
    m->kernel->hash(m->blocks, DESCRIPTOR, 1, digest);
    return failed;
}
