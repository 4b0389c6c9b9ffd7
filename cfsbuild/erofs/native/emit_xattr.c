/* Xattrs: interned names and (name, value) pairs, which pairs are shared, and the area behind each inode. */
#include "emit.h"

#include <stdlib.h>
#include <string.h>

#define FILTER_SEED 0x25BBE08Fu

static inline uint32_t rotate(uint32_t value, int bits)
{
    return value << bits | value >> (32 - bits);
}

static inline uint32_t get32(const uint8_t *data)
{
    return data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

uint32_t emit_xxh32(const uint8_t *data, size_t size, uint32_t seed)
{
    const uint32_t p1 = 0x9E3779B1u, p2 = 0x85EBCA77u, p3 = 0xC2B2AE3Du, p4 = 0x27D4EB2Fu, p5 = 0x165667B1u;
    const uint8_t *end = data + size;
    uint32_t value = seed + p5;
    if (size >= 16) {
        uint32_t lanes[4] = {seed + p1 + p2, seed + p2, seed, seed - p1};
        for (; end - data >= 16; data += 16)
            for (int i = 0; i < 4; i++)
                lanes[i] = rotate(lanes[i] + get32(data + 4 * i) * p2, 13) * p1;
        value = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
    }
    value += (uint32_t)size;
    for (; end - data >= 4; data += 4)
        value = rotate(value + get32(data) * p3, 17) * p4;
    for (; data < end; data++)
        value = rotate(value + *data * p5, 11) * p1;
    value = (value ^ value >> 15) * p2;
    value = (value ^ value >> 13) * p3;
    return value ^ value >> 16;
}

static const struct {
    const char *text;
    uint8_t size, index;
} prefixes[] = {
    {"user.", 5, 1},
    {"system.posix_acl_access", 23, 2},
    {"system.posix_acl_default", 24, 3},
    {"trusted.", 8, 4},
    {"security.", 9, 6},
};

static int compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static uint32_t hash_of(const struct emit *e, struct bytes name, struct bytes value)
{
    return emit_xxh32(value.data, value.size, emit_xxh32(name.data, name.size, e->hash_seed));
}

static uint32_t pair_hash(struct emit *e, uint32_t index)
{
    return e->pairs[index].hash;
}

static int add_name(struct emit *e, struct bytes name, uint32_t *id)
{
    if (emit_grow((void **)&e->names, &e->names_capacity, e->n_names_known, sizeof *e->names))
        return -1;
    struct xattr_name *known = &e->names[e->n_names_known];
    memset(known, 0, sizeof *known);
    known->text = emit_copy(e, name.data, name.size);
    if (known->text == NULL)
        return -1;
    known->size = (uint8_t)name.size;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (name.size >= prefixes[i].size && memcmp(name.data, prefixes[i].text, prefixes[i].size) == 0) {
            known->index = prefixes[i].index;
            known->prefix_size = prefixes[i].size;
            break;
        }
    }
    uint32_t hash = emit_xxh32(name.data + known->prefix_size, name.size - known->prefix_size,
                               FILTER_SEED + known->index);
    known->filter_mask = ~(1u << (hash & 31));
    if ((name.size == 23 && memcmp(name.data, "system.posix_acl_access", 23) == 0) ||
        (name.size == 24 && memcmp(name.data, "system.posix_acl_default", 24) == 0))
        e->flags |= 1;
    *id = e->n_names_known++;
    return 0;
}

/* Few distinct names occur: the first 64 are found again, any later one is kept once for each of its pairs. */
static int intern_name(struct emit *e, struct bytes name, uint32_t *id)
{
    for (uint32_t i = 0; i < e->n_names_known && i < 64; i++) {
        if (e->names[i].size == name.size && memcmp(e->names[i].text, name.data, name.size) == 0) {
            *id = i;
            return 0;
        }
    }
    return add_name(e, name, id);
}

static bool pair_is(const struct emit *e, const struct pair *pair, struct bytes name, struct bytes value)
{
    const struct xattr_name *known = &e->names[pair->name];
    return pair->value_size == value.size && known->size == name.size &&
           memcmp(known->text, name.data, name.size) == 0 && memcmp(pair->value, value.data, value.size) == 0;
}

static int intern_pair(struct emit *e, struct bytes name, struct bytes value, uint32_t *id)
{
    if (emit_table_reserve(&e->pair_table, pair_hash, e))
        return -1;
    uint32_t hash = hash_of(e, name, value), mask = e->pair_table.capacity - 1, at = hash & mask;
    for (; e->pair_table.slots[at] != 0; at = (at + 1) & mask) {
        *id = e->pair_table.slots[at] - 1;
        if (e->pairs[*id].hash == hash && pair_is(e, &e->pairs[*id], name, value))
            return 0;
    }
    if (e->n_pairs == UINT32_MAX - 1 ||
        emit_grow((void **)&e->pairs, &e->pairs_capacity, e->n_pairs, sizeof *e->pairs))
        return -1;
    struct pair pair = {.value_size = (uint32_t)value.size, .hash = hash, .shared_offset = NOT_SHARED};
    pair.value = emit_copy(e, value.data, value.size);
    if (pair.value == NULL || intern_name(e, name, &pair.name))
        return -1;
    *id = e->n_pairs++;
    e->pairs[*id] = pair;
    e->pair_table.slots[at] = *id + 1;
    e->pair_table.used++;
    return 0;
}

/* Give `node` an xattr, in place of one of that name if it has one. */
int emit_set_xattr(struct emit *e, struct node *node, struct bytes name, struct bytes value)
{
    uint32_t id;
    if (intern_pair(e, name, value, &id))
        return -1;
    e->pairs[id].count++;
    for (uint32_t i = 0; i < node->n_xattrs; i++) {
        const struct xattr_name *known = &e->names[e->pairs[node->xattrs[i]].name];
        if (known->size == name.size && memcmp(known->text, name.data, name.size) == 0) {
            e->pairs[node->xattrs[i]].count--;
            node->xattrs[i] = id;
            return 0;
        }
    }
    if (node->n_xattrs == node->xattrs_capacity) {
        uint32_t capacity = node->xattrs_capacity ? node->xattrs_capacity * 2u : 4;
        if (capacity > UINT16_MAX)
            return -1;
        uint32_t *larger = emit_alloc(e, capacity * sizeof *larger, _Alignof(uint32_t));
        if (larger == NULL)
            return -1;
        if (node->n_xattrs)
            memcpy(larger, node->xattrs, node->n_xattrs * sizeof *larger);
        node->xattrs = larger;
        node->xattrs_capacity = (uint16_t)capacity;
    }
    node->xattrs[node->n_xattrs++] = id;
    return 0;
}

bool emit_find_xattr(const struct emit *e, const struct node *node, const char *name, struct bytes *value)
{
    size_t size = strlen(name);
    for (uint32_t i = 0; i < node->n_xattrs; i++) {
        const struct pair *pair = &e->pairs[node->xattrs[i]];
        const struct xattr_name *known = &e->names[pair->name];
        if (known->size == size && memcmp(known->text, name, size) == 0) {
            *value = (struct bytes){pair->value, pair->value_size};
            return true;
        }
    }
    return false;
}

static int compare_names(const struct emit *e, uint32_t a, uint32_t b)
{
    uint32_t first = e->pairs[a].name, second = e->pairs[b].name;
    if (first == second)
        return 0;
    return compare(e->names[first].text, e->names[first].size, e->names[second].text, e->names[second].size);
}

static int by_name(const void *a, const void *b, void *e)
{
    return compare_names(e, *(const uint32_t *)a, *(const uint32_t *)b);
}

/* The shared area descends by name, then by length of the value, then by value. */
static int in_shared_order(const void *a, const void *b, void *context)
{
    const struct emit *e = context;
    uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;
    int order = compare_names(e, second, first);
    if (order)
        return order;
    const struct pair *p = &e->pairs[first], *q = &e->pairs[second];
    if (p->value_size != q->value_size)
        return p->value_size > q->value_size ? -1 : 1;
    return memcmp(q->value, p->value, p->value_size);
}

static uint32_t entry_size(const struct emit *e, const struct pair *pair)
{
    const struct xattr_name *name = &e->names[pair->name];
    return (uint32_t)round_up(4u + name->size - name->prefix_size + pair->value_size, 4);
}

/* Order the xattrs of every inode, and give each pair that occurs twice its place in the shared area. */
int emit_share_xattrs(struct emit *e)
{
    for (uint32_t i = 0; i < e->n_inodes; i++)
        if (e->inodes[i]->n_xattrs > 1)
            qsort_r(e->inodes[i]->xattrs, e->inodes[i]->n_xattrs, sizeof(uint32_t), by_name, e);
    for (uint32_t i = 0; i < e->n_pairs; i++)
        e->n_shared += e->pairs[i].count > 1;
    e->shared = malloc((e->n_shared + 1) * sizeof *e->shared);
    if (e->shared == NULL)
        return -1;
    for (uint32_t i = 0, n = 0; i < e->n_pairs; i++)
        if (e->pairs[i].count > 1)
            e->shared[n++] = i;
    qsort_r(e->shared, e->n_shared, sizeof *e->shared, in_shared_order, e);
    for (uint32_t i = 0; i < e->n_shared; i++) {
        struct pair *pair = &e->pairs[e->shared[i]];
        if (e->shared_size >= NOT_SHARED - BLOCK)
            return emit_fail(e, "has more xattrs than an image can hold", (struct bytes){(const uint8_t *)"/", 1});
        pair->shared_offset = (uint32_t)e->shared_size;
        e->shared_size += entry_size(e, pair);
    }
    return 0;
}

int emit_measure_xattrs(struct emit *e, struct node *node)
{
    uint64_t size = XATTR_HEADER_SIZE;
    uint32_t shared = 0;
    if (node->n_xattrs == 0)
        return 0;
    for (uint32_t i = 0; i < node->n_xattrs; i++) {
        const struct pair *pair = &e->pairs[node->xattrs[i]];
        if (pair->shared_offset != NOT_SHARED && shared < SHARED_MAX) {
            shared++;
            size += 4;
        } else {
            size += entry_size(e, pair);
        }
    }
    if ((size - XATTR_HEADER_SIZE) / 4 + 1 > UINT16_MAX)
        return emit_fail_node(e, "has more xattrs than an image can hold", node);
    node->xattr_area = (uint32_t)size;
    return 0;
}

static uint8_t *put_entry(const struct emit *e, const struct pair *pair, uint8_t *out)
{
    const struct xattr_name *name = &e->names[pair->name];
    uint8_t suffix = name->size - name->prefix_size;
    out[0] = suffix;
    out[1] = name->index;
    put16(out + 2, pair->value_size);
    memcpy(out + 4, name->text + name->prefix_size, suffix);
    memcpy(out + 4 + suffix, pair->value, pair->value_size);
    return out + entry_size(e, pair);
}

uint8_t *emit_put_xattrs(const struct emit *e, const struct node *node, uint8_t *out)
{
    if (node->n_xattrs == 0)
        return out;
    uint8_t *header = out;
    uint32_t filter = UINT32_MAX, shared = 0;
    uint64_t base = e->inodes_end % BLOCK;
    out += XATTR_HEADER_SIZE;
    for (uint32_t i = 0; i < node->n_xattrs; i++) {
        const struct pair *pair = &e->pairs[node->xattrs[i]];
        filter &= e->names[pair->name].filter_mask;
        if (pair->shared_offset != NOT_SHARED && shared < SHARED_MAX) {
            out = put32(out, (uint32_t)((base + pair->shared_offset) / 4));
            shared++;
        }
    }
    put32(header, filter);
    header[4] = (uint8_t)shared;
    for (uint32_t i = 0, seen = 0; i < node->n_xattrs; i++) {
        const struct pair *pair = &e->pairs[node->xattrs[i]];
        if (pair->shared_offset != NOT_SHARED && seen < SHARED_MAX)
            seen++;
        else
            out = put_entry(e, pair, out);
    }
    return out;
}

uint8_t *emit_put_shared(const struct emit *e, uint8_t *out)
{
    for (uint32_t i = 0; i < e->n_shared; i++)
        out = put_entry(e, &e->pairs[e->shared[i]], out);
    return out;
}
