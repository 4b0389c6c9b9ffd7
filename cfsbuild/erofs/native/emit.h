/* The native image writer: the same bytes as cfsbuild/erofs/image.py, from entries that are handed over one by one.
 *
 * emit_tree.c    entries to nodes, hard links, what overlayfs needs
 * emit_xattr.c   interned (name, value) pairs and their sharing
 * emit_image.c   layout and bytes
 * emit_parse.c   the usual line of a dump
 * emit_module.c  the Python side; the other files know nothing of Python and run without its lock
 *
 * Every function that can fail returns 0 on success and -1 after it has noted the problem in struct emit.
 */
#ifndef CFSBUILD_EMIT_H
#define CFSBUILD_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK 4096u
#define SLOT 32u
#define SUPERBLOCK_OFFSET 1024u
#define INODES_OFFSET 1152u
#define COMPACT_SIZE 32u
#define EXTENDED_SIZE 64u
#define DIRENT_SIZE 12u
#define XATTR_HEADER_SIZE 12u
#define SHARED_MAX 128u
#define NAME_MAX_BYTES 255u
#define PATH_MAX_BYTES 4095u
#define INLINE_MAX_BYTES 5000u
#define XATTR_INODE_BYTES 32767u
#define FILE_MAX_BYTES (1ull << 53)
#define CHUNK_BITS_MIN 12u
#define CHUNK_BITS_MAX 43u
#define NOT_SHARED UINT32_MAX

struct bytes {
    const uint8_t *data; /* NULL: unset */
    size_t size;
};

struct xattr {
    struct bytes name, value;
};

/* One entry, as the caller gives it; nothing of it is kept. */
struct entry {
    struct bytes path, payload, content, digest, hardlink;
    uint64_t size;
    int64_t mtime_sec;
    uint32_t mode, nlink, uid, gid, rdev, mtime_nsec;
    struct xattr *xattrs;
    size_t n_xattrs;
};

struct node;

struct directory {
    struct bytes path;
    struct node **children; /* sorted by name once the tree is complete */
    struct node *first, *last;
    uint32_t n_children, n_subdirectories;
};

struct node {
    const uint8_t *name;
    struct node *parent, *next;
    struct node *target;         /* of a hard link: the inode it leads to */
    struct directory *directory; /* of a directory, else NULL */
    const uint8_t *data;         /* inline content, symlink target, or path of a hard link's target */
    uint32_t *xattrs;            /* ids of pairs */
    uint64_t size, nid;
    int64_t mtime_sec;
    uint32_t mtime_nsec, nlink, uid, gid, rdev, data_size, ino, nblocks, tail, xattr_area;
    uint16_t mode, n_xattrs, xattrs_capacity;
    uint8_t name_size;
    bool is_link, is_external, is_compact, is_whiteout, is_stub, visiting;
};

struct xattr_name {
    const uint8_t *text;
    uint32_t filter_mask;
    uint8_t size, index, prefix_size;
};

struct pair {
    const uint8_t *value;
    uint32_t value_size, name, count, shared_offset, hash;
};

struct table { /* open addressing; slots hold index + 1 */
    uint32_t *slots;
    uint32_t capacity, used;
};

struct arena_block;

struct emit {
    const char *problem; /* NULL after a failure: out of memory */
    struct bytes problem_path;
    struct arena_block *blocks;
    size_t arena_left;
    uint8_t *arena_next;

    struct node *root, *links_first, *links_last;
    struct node **directories, **inodes;
    uint32_t n_directories, directories_capacity, n_links, n_inodes, n_names, max_names;
    struct table directory_table;
    struct node *last_directory;

    struct xattr_name *names;
    struct pair *pairs;
    uint32_t n_names_known, names_capacity, n_pairs, pairs_capacity;
    struct table pair_table;
    uint32_t *shared;
    uint32_t n_shared, hash_seed;

    uint32_t format, max_format, flags, algorithm_id;
    size_t digest_size;
    bool has_whiteouts;

    int64_t min_sec;
    uint32_t min_nsec;
    uint64_t inodes_end, shared_size, data_start, data_blocks;
};

/* memory */
void *emit_alloc(struct emit *e, size_t size, size_t alignment);
const uint8_t *emit_copy(struct emit *e, const uint8_t *data, size_t size);
int emit_grow(void **array, uint32_t *capacity, uint32_t used, size_t item);
int emit_table_reserve(struct table *table, uint32_t (*hash)(struct emit *, uint32_t), struct emit *e);
void emit_free(struct emit *e);
int emit_fail(struct emit *e, const char *problem, struct bytes path);
int emit_fail_node(struct emit *e, const char *problem, const struct node *node);

/* xattrs */
uint32_t emit_xxh32(const uint8_t *data, size_t size, uint32_t seed);
int emit_set_xattr(struct emit *e, struct node *node, struct bytes name, struct bytes value);
bool emit_find_xattr(const struct emit *e, const struct node *node, const char *name, struct bytes *value);
int emit_share_xattrs(struct emit *e);
int emit_measure_xattrs(struct emit *e, struct node *node);
uint8_t *emit_put_xattrs(const struct emit *e, const struct node *node, uint8_t *out);
uint8_t *emit_put_shared(const struct emit *e, uint8_t *out);

/* tree */
int emit_add(struct emit *e, const struct entry *entry);
int emit_finish_tree(struct emit *e);

/* dump text */
struct line_buffer { /* what an entry points to besides its line */
    uint8_t digest[64];
    uint8_t content[256]; /* of a file, its escapes resolved */
    struct xattr xattrs[64];
};
bool emit_parse_line(const struct emit *e, struct bytes line, struct line_buffer *buffer, struct entry *entry);

/* image */
int emit_layout(struct emit *e);
uint64_t emit_image_size(const struct emit *e);
void emit_image(const struct emit *e, uint8_t *image); /* image is zeroed and emit_image_size() long */

static inline uint64_t round_up(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static inline uint8_t *put16(uint8_t *out, uint32_t value)
{
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
    return out + 2;
}

static inline uint8_t *put32(uint8_t *out, uint32_t value)
{
    return put16(put16(out, value), value >> 16);
}

static inline uint8_t *put64(uint8_t *out, uint64_t value)
{
    return put32(put32(out, (uint32_t)value), (uint32_t)(value >> 32));
}

#endif
