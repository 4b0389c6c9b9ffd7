/* Where everything stands in an image, and its bytes. Composefs format, "Inode order" to "Directory groups". */
#include "emit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static inline mode_t type_of(const struct node *node)
{
    return node->mode & S_IFMT;
}

static uint32_t chunk_bits(uint64_t size)
{
    uint32_t bits = size > 1 ? 64 - (uint32_t)__builtin_clzll(size - 1) : 0;
    return bits < CHUNK_BITS_MIN ? CHUNK_BITS_MIN : bits > CHUNK_BITS_MAX ? CHUNK_BITS_MAX : bits;
}

/* --- layout ----------------------------------------------------------------------------------------------- */

/* Number the inodes breadth first. */
static int order_inodes(struct emit *e)
{
    size_t most = (size_t)e->n_names + 256;
    e->inodes = malloc(most * sizeof *e->inodes);
    if (e->inodes == NULL)
        return -1;
    e->inodes[0] = e->root;
    e->n_inodes = 1;
    for (uint32_t i = 0; i < e->n_inodes; i++) {
        struct directory *directory = e->inodes[i]->directory;
        e->inodes[i]->ino = i;
        for (uint32_t j = 0; directory != NULL && j < directory->n_children; j++)
            if (!directory->children[j]->is_link)
                e->inodes[e->n_inodes++] = directory->children[j];
    }
    return 0;
}

static void find_min_mtime(struct emit *e)
{
    e->min_sec = e->root->mtime_sec;
    e->min_nsec = e->root->mtime_nsec;
    for (uint32_t i = 0; i < e->n_inodes; i++) {
        const struct node *node = e->inodes[i];
        if (node->mtime_sec < e->min_sec ||
            (node->mtime_sec == e->min_sec && node->mtime_nsec < e->min_nsec)) {
            e->min_sec = node->mtime_sec;
            e->min_nsec = node->mtime_nsec;
        }
    }
}

/* Return how many names from `first` on fit one block, and the bytes that they take. */
static uint32_t group_at(const struct directory *directory, uint32_t first, uint32_t *size)
{
    uint32_t end = first, sum = 0;
    for (; end < directory->n_children; end++) {
        uint32_t cost = DIRENT_SIZE + directory->children[end]->name_size;
        if (sum + cost > BLOCK)
            break;
        sum += cost;
    }
    *size = sum;
    return end - first;
}

static void measure(struct node *node)
{
    switch (type_of(node)) {
    case S_IFDIR:
        for (uint32_t first = 0, size; first < node->directory->n_children;) {
            first += group_at(node->directory, first, &size);
            if (first < node->directory->n_children || size > BLOCK / 2)
                node->nblocks++;
            else
                node->tail = size;
        }
        node->size = (uint64_t)node->nblocks * BLOCK + node->tail;
        break;
    case S_IFLNK:
        node->tail = (uint32_t)node->size;
        break;
    case S_IFREG:
        if (node->is_external) {
            uint32_t bits = chunk_bits(node->size);
            node->tail = 4 * (uint32_t)((node->size + (1ull << bits) - 1) >> bits);
        } else {
            node->nblocks = (uint32_t)(node->size / BLOCK);
            node->tail = (uint32_t)(node->size % BLOCK);
            if (node->tail > BLOCK / 2) {
                node->nblocks++;
                node->tail = 0;
            }
        }
        break;
    default:
        break;
    }
}

static uint32_t fixed_size(const struct node *node)
{
    return (node->is_compact ? COMPACT_SIZE : EXTENDED_SIZE) + node->xattr_area;
}

/* Give `node` its place at or after `position`; return where it ends. */
static uint64_t place(struct node *node, uint64_t position)
{
    uint32_t fixed = fixed_size(node);
    position = round_up(position, SLOT);
    if (type_of(node) == S_IFLNK) {
        /* Kernels before 6.12 misread a target across a block; the whole inode counts, moved out or not. */
        uint64_t total = fixed + node->tail;
        if (total >= BLOCK) {
            node->nblocks = 1;
            node->tail = 0;
        }
        if (position / BLOCK != (position + total - 1) / BLOCK)
            position = round_up(position, BLOCK);
    } else {
        uint64_t rest = BLOCK - (position + fixed) % BLOCK;
        if (rest < node->tail) {
            uint64_t padding = round_up(rest, SLOT);
            if (node->tail <= BLOCK - (position + fixed + padding) % BLOCK) {
                position += padding;
            } else {
                node->nblocks++;
                node->tail = 0;
                position = round_up(position, BLOCK);
            }
        }
    }
    node->nid = position / SLOT;
    return position + fixed + node->tail;
}

int emit_layout(struct emit *e)
{
    uint64_t position = INODES_OFFSET;
    if (order_inodes(e) || emit_share_xattrs(e))
        return -1;
    find_min_mtime(e);
    for (uint32_t i = 0; i < e->n_inodes; i++) {
        struct node *node = e->inodes[i];
        measure(node);
        if (emit_measure_xattrs(e, node))
            return -1;
        node->is_compact = node->mtime_sec == e->min_sec && node->mtime_nsec == e->min_nsec &&
                           node->nlink <= UINT16_MAX && node->uid <= UINT16_MAX && node->gid <= UINT16_MAX &&
                           node->size <= UINT32_MAX;
        position = place(node, position);
        e->data_blocks += node->nblocks;
    }
    e->inodes_end = round_up(position, SLOT);
    e->data_start = round_up(e->inodes_end + e->shared_size, BLOCK);
    if (e->root->nid >= UINT16_MAX)
        return emit_fail_node(e, "has xattrs that push it further than a superblock can point", e->root);
    if (e->data_start / BLOCK + e->data_blocks > UINT32_MAX)
        return emit_fail_node(e, "holds more than an image can address", e->root);
    return 0;
}

uint64_t emit_image_size(const struct emit *e)
{
    return e->data_start + e->data_blocks * BLOCK;
}

/* --- bytes ------------------------------------------------------------------------------------------------ */

static uint8_t file_type(const struct node *node)
{
    switch (type_of(node)) {
    case S_IFREG:
        return 1;
    case S_IFDIR:
        return 2;
    case S_IFCHR:
        return 3;
    case S_IFBLK:
        return 4;
    case S_IFIFO:
        return 5;
    case S_IFSOCK:
        return 6;
    default:
        return 7;
    }
}

static void put_superblock(const struct emit *e, uint8_t *image)
{
    uint8_t *super = image + SUPERBLOCK_OFFSET;
    put32(image, 0xD078629Au);
    put32(image + 4, 1);
    put32(image + 8, e->flags);
    put32(image + 12, e->format);
    put32(super, 0xE0F5E1E2u);
    put32(super + 8, 6); /* MTIME, XATTR_FILTER */
    super[12] = 12;      /* log2 of the block size */
    put16(super + 14, (uint32_t)e->root->nid);
    put64(super + 16, e->n_inodes);
    put64(super + 24, (uint64_t)e->min_sec);
    put32(super + 32, e->min_nsec);
    put32(super + 36, (uint32_t)(emit_image_size(e) / BLOCK));
    put32(super + 44, (uint32_t)(e->inodes_end / BLOCK));
}

static void put_inode(const struct node *node, uint32_t first_block, uint8_t *out)
{
    mode_t type = type_of(node);
    uint32_t layout = node->is_external ? 4 : node->tail ? 2 : 0;
    uint32_t pointer = node->nblocks ? first_block : 0;
    uint64_t size = type == S_IFREG || type == S_IFDIR || type == S_IFLNK ? node->size : 0;
    if (node->is_external) /* the chunk format takes the low half of the field that holds the block number */
        pointer = (pointer & 0xFFFF0000u) | (chunk_bits(node->size) - CHUNK_BITS_MIN);
    else if (type == S_IFCHR || type == S_IFBLK)
        pointer = node->rdev;
    put16(out, layout << 1 | !node->is_compact);
    put16(out + 2, node->xattr_area ? (node->xattr_area - XATTR_HEADER_SIZE) / 4 + 1 : 0);
    put16(out + 4, node->mode);
    put32(out + 16, pointer);
    put32(out + 20, node->ino);
    if (node->is_compact) {
        put16(out + 6, node->nlink);
        put32(out + 8, (uint32_t)size);
        put16(out + 24, node->uid);
        put16(out + 26, node->gid);
    } else {
        put64(out + 8, size);
        put32(out + 24, node->uid);
        put32(out + 28, node->gid);
        put64(out + 32, (uint64_t)node->mtime_sec);
        put32(out + 40, node->mtime_nsec);
        put32(out + 44, node->nlink);
    }
}

/* Put `count` names from `first` on: all entries, then all names. */
static void put_group(const struct directory *directory, uint32_t first, uint32_t count, uint8_t *out)
{
    uint32_t offset = count * DIRENT_SIZE;
    for (uint32_t i = 0; i < count; i++) {
        const struct node *child = directory->children[first + i];
        const struct node *inode = child->is_link ? child->target : child;
        uint8_t *dirent = out + (size_t)i * DIRENT_SIZE;
        put64(dirent, inode->nid);
        put16(dirent + 8, offset);
        dirent[10] = file_type(inode);
        memcpy(out + offset, child->name, child->name_size);
        offset += child->name_size;
    }
}

/* Put a directory's full blocks at `blocks` and its last group, if that is no block, at `tail`. */
static void put_directory(const struct node *node, uint8_t *blocks, uint8_t *tail)
{
    const struct directory *directory = node->directory;
    uint32_t size;
    for (uint32_t first = 0, group = 0; first < directory->n_children; group++) {
        uint32_t count = group_at(directory, first, &size);
        put_group(directory, first, count, group < node->nblocks ? blocks + (size_t)group * BLOCK : tail);
        first += count;
    }
}

static void put_data(const struct node *node, uint8_t *blocks, uint8_t *tail)
{
    uint64_t in_tail = node->tail;
    if (node->directory != NULL) {
        put_directory(node, blocks, tail);
    } else if (node->is_external) {
        memset(tail, 0xFF, node->tail);
        memset(blocks, 0xFF, (size_t)node->nblocks * BLOCK);
    } else if (node->data != NULL) {
        memcpy(blocks, node->data, node->data_size - in_tail);
        memcpy(tail, node->data + node->data_size - in_tail, in_tail);
    }
}

void emit_image(const struct emit *e, uint8_t *image)
{
    uint64_t block = e->data_start / BLOCK;
    put_superblock(e, image);
    for (uint32_t i = 0; i < e->n_inodes; i++) {
        const struct node *node = e->inodes[i];
        uint8_t *at = image + node->nid * SLOT;
        put_inode(node, (uint32_t)block, at);
        at = emit_put_xattrs(e, node, at + (node->is_compact ? COMPACT_SIZE : EXTENDED_SIZE));
        put_data(node, image + block * BLOCK, at);
        block += node->nblocks;
    }
    emit_put_shared(e, image + e->inodes_end);
}
