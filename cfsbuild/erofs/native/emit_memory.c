/* Memory of the image writer: an arena for what lives until the end, growing arrays, hash tables of indices, and
 * what went wrong.
 */
#include "emit.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK ((size_t)1 << 20)

struct arena_block {
    struct arena_block *next;
};

int emit_fail(struct emit *e, const char *problem, struct bytes path)
{
    if (e->problem == NULL) {
        uint8_t *copy = (uint8_t *)emit_copy(e, path.data, path.size);
        if (copy == NULL)
            return -1;
        e->problem = problem;
        e->problem_path = (struct bytes){copy, path.size};
    }
    return -1;
}

int emit_fail_node(struct emit *e, const char *problem, const struct node *node)
{
    uint8_t path[PATH_MAX_BYTES + NAME_MAX_BYTES + 2];
    size_t size = 0;
    if (node->parent != NULL && node->parent != node) {
        struct bytes above = node->parent->directory->path;
        if (above.size > 1) {
            memcpy(path, above.data, above.size);
            size = above.size;
        }
        path[size++] = '/';
        memcpy(path + size, node->name, node->name_size);
        size += node->name_size;
    } else {
        path[size++] = '/';
    }
    return emit_fail(e, problem, (struct bytes){path, size});
}

void *emit_alloc(struct emit *e, size_t size, size_t alignment)
{
    size_t skip = (size_t)(-(uintptr_t)e->arena_next & (alignment - 1));
    if (e->arena_next == NULL || size + skip > e->arena_left) {
        size_t room = size > ARENA_BLOCK / 4 ? size : ARENA_BLOCK;
        struct arena_block *block;
        if (room > SIZE_MAX - sizeof *block - 16)
            return NULL;
        block = malloc(sizeof *block + 16 + room);
        if (block == NULL)
            return NULL;
        block->next = e->blocks;
        e->blocks = block;
        e->arena_next = (uint8_t *)block + sizeof *block;
        e->arena_left = room + 16;
        skip = (size_t)(-(uintptr_t)e->arena_next & (alignment - 1));
    }
    uint8_t *result = e->arena_next + skip;
    e->arena_next = result + size;
    e->arena_left -= skip + size;
    return result;
}

const uint8_t *emit_copy(struct emit *e, const uint8_t *data, size_t size)
{
    uint8_t *copy = emit_alloc(e, size + (size == 0), 1);
    if (copy != NULL && size != 0)
        memcpy(copy, data, size);
    return copy;
}

/* Make room for one more item in an array of *capacity items. */
int emit_grow(void **array, uint32_t *capacity, uint32_t used, size_t item)
{
    if (used < *capacity)
        return 0;
    uint32_t wanted = *capacity ? *capacity + *capacity / 2 : 256;
    if (wanted <= *capacity || wanted > SIZE_MAX / item)
        return -1;
    void *grown = realloc(*array, wanted * item);
    if (grown == NULL)
        return -1;
    *array = grown;
    *capacity = wanted;
    return 0;
}

/* Make room for one more index; `hash` gives the hash of an index that is in the table already. */
int emit_table_reserve(struct table *table, uint32_t (*hash)(struct emit *, uint32_t), struct emit *e)
{
    if (table->used + 1 <= table->capacity / 4 * 3)
        return 0;
    uint32_t capacity = table->capacity ? table->capacity * 2 : 1024;
    if (capacity <= table->capacity)
        return -1;
    uint32_t *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return -1;
    for (uint32_t i = 0; i < table->capacity; i++) {
        if (table->slots[i] == 0)
            continue;
        uint32_t at = hash(e, table->slots[i] - 1) & (capacity - 1);
        while (slots[at] != 0)
            at = (at + 1) & (capacity - 1);
        slots[at] = table->slots[i];
    }
    free(table->slots);
    table->slots = slots;
    table->capacity = capacity;
    return 0;
}

void emit_free(struct emit *e)
{
    while (e->blocks != NULL) {
        struct arena_block *next = e->blocks->next;
        free(e->blocks);
        e->blocks = next;
    }
    free(e->directories);
    free(e->inodes);
    free(e->directory_table.slots);
    free(e->names);
    free(e->pairs);
    free(e->pair_table.slots);
    free(e->shared);
    memset(e, 0, sizeof *e);
}
