/* From entries to a complete tree: parents found, names sorted, hard links followed, overlayfs served. */
#include "emit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT(literal) ((struct bytes){(const uint8_t *)(literal), sizeof(literal) - 1})

static const struct bytes EMPTY = {(const uint8_t *)"", 0};

/* --- directories by path ---------------------------------------------------------------------------------- */

static uint32_t directory_hash(struct emit *e, uint32_t index)
{
    struct bytes path = e->directories[index]->directory->path;
    return emit_xxh32(path.data, path.size, e->hash_seed);
}

static struct node *find_directory(struct emit *e, struct bytes path)
{
    if (e->directory_table.capacity == 0)
        return NULL;
    uint32_t mask = e->directory_table.capacity - 1;
    uint32_t at = emit_xxh32(path.data, path.size, e->hash_seed) & mask;
    for (; e->directory_table.slots[at] != 0; at = (at + 1) & mask) {
        struct node *node = e->directories[e->directory_table.slots[at] - 1];
        struct bytes known = node->directory->path;
        if (known.size == path.size && memcmp(known.data, path.data, path.size) == 0)
            return node;
    }
    return NULL;
}

static int add_directory(struct emit *e, struct node *node, struct bytes path)
{
    struct directory *directory = emit_alloc(e, sizeof *directory, _Alignof(struct directory));
    if (directory == NULL)
        return -1;
    memset(directory, 0, sizeof *directory);
    directory->path = (struct bytes){emit_copy(e, path.data, path.size), path.size};
    if (directory->path.data == NULL || emit_table_reserve(&e->directory_table, directory_hash, e) ||
        emit_grow((void **)&e->directories, &e->directories_capacity, e->n_directories, sizeof(struct node *)))
        return -1;
    node->directory = directory;
    e->directories[e->n_directories] = node;
    uint32_t mask = e->directory_table.capacity - 1;
    uint32_t at = directory_hash(e, e->n_directories) & mask;
    while (e->directory_table.slots[at] != 0)
        at = (at + 1) & mask;
    e->directory_table.slots[at] = ++e->n_directories;
    e->directory_table.used++;
    return 0;
}

/* Split a path into its directory and its name; return the directory's node or NULL. */
static struct node *parent_of(struct emit *e, struct bytes path, struct bytes *name)
{
    size_t slash = path.size;
    while (slash > 0 && path.data[slash - 1] != '/')
        slash--;
    if (slash == 0)
        return NULL;
    *name = (struct bytes){path.data + slash, path.size - slash};
    struct bytes above = {path.data, slash > 1 ? slash - 1 : 1};
    if (e->last_directory != NULL) {
        struct bytes last = e->last_directory->directory->path;
        if (last.size == above.size && memcmp(last.data, above.data, above.size) == 0)
            return e->last_directory;
    }
    struct node *node = find_directory(e, above);
    if (node != NULL)
        e->last_directory = node;
    return node;
}

/* --- entries ---------------------------------------------------------------------------------------------- */

static void append(struct node *parent, struct node *node)
{
    struct directory *directory = parent->directory;
    node->parent = parent;
    if (directory->last == NULL)
        directory->first = node;
    else
        directory->last->next = node;
    directory->last = node;
    directory->n_children++;
}

static struct node *new_node(struct emit *e)
{
    struct node *node = emit_alloc(e, sizeof *node, _Alignof(struct node));
    if (node != NULL)
        memset(node, 0, sizeof *node);
    return node;
}

static int keep_data(struct emit *e, struct node *node, struct bytes data)
{
    node->data = emit_copy(e, data.data, data.size);
    node->data_size = (uint32_t)data.size;
    return node->data == NULL ? -1 : 0;
}

/* Whether a backing path could name something outside its directory, or no file at all. */
static bool leads_out(struct bytes path)
{
    for (size_t i = 0; i < path.size; i++) {
        bool starts = i == 0 || path.data[i - 1] == '/';
        if (path.data[i] == 0 || (starts && path.size - i >= 2 && path.data[i] == '.' && path.data[i + 1] == '.' &&
                                  (path.size - i == 2 || path.data[i + 2] == '/')))
            return true;
    }
    return false;
}

/* What overlayfs reads to find a file's bytes elsewhere: the digest they must have, and the path. */
static int add_overlay_xattrs(struct emit *e, struct node *node, const struct entry *entry)
{
    uint8_t value[PATH_MAX_BYTES + 1];
    struct bytes metacopy = EMPTY;
    if (entry->digest.data != NULL) {
        if (entry->digest.size != e->digest_size)
            return emit_fail(e, "has a digest of another algorithm", entry->path);
        value[0] = 0;
        value[1] = (uint8_t)(4 + e->digest_size);
        value[2] = 0;
        value[3] = (uint8_t)e->algorithm_id;
        memcpy(value + 4, entry->digest.data, entry->digest.size);
        metacopy = (struct bytes){value, 4 + entry->digest.size};
    }
    if (emit_set_xattr(e, node, TEXT("trusted.overlay.metacopy"), metacopy))
        return -1;
    if (entry->payload.size == 0)
        return 0;
    if (entry->payload.size > PATH_MAX_BYTES)
        return emit_fail(e, "has a backing path over 4095 bytes", entry->path);
    if (leads_out(entry->payload))
        return emit_fail(e, "has a backing path that leads out of the object directory", entry->path);
    value[0] = '/';
    memcpy(value + 1, entry->payload.data, entry->payload.size);
    return emit_set_xattr(e, node, TEXT("trusted.overlay.redirect"),
                          (struct bytes){value, entry->payload.size + 1});
}

static int add_xattrs(struct emit *e, struct node *node, const struct entry *entry)
{
    static const struct bytes overlay = {(const uint8_t *)"trusted.overlay.", 16};
    size_t total = XATTR_HEADER_SIZE;
    for (size_t i = 0; i < entry->n_xattrs; i++) {
        struct bytes name = entry->xattrs[i].name, value = entry->xattrs[i].value;
        uint8_t escaped[NAME_MAX_BYTES];
        /* Both are bounded before they are added, so that the sum cannot wrap. */
        if (name.size == 0 || name.size > NAME_MAX_BYTES || value.size > XATTR_INODE_BYTES ||
            memchr(name.data, 0, name.size) != NULL)
            return emit_fail(e, "has a malformed or over-long xattr", entry->path);
        total += 7 + name.size + value.size;
        if (total > XATTR_INODE_BYTES)
            return emit_fail(e, "has more than 32767 bytes of xattrs", entry->path);
        if (name.size >= overlay.size && memcmp(name.data, overlay.data, overlay.size) == 0) {
            if (name.size + 8 > NAME_MAX_BYTES)
                return emit_fail(e, "has an over-long xattr name", entry->path);
            memcpy(escaped, "trusted.overlay.overlay.", 24);
            memcpy(escaped + 24, name.data + overlay.size, name.size - overlay.size);
            name = (struct bytes){escaped, name.size + 8};
        }
        if (emit_set_xattr(e, node, name, value))
            return -1;
    }
    return 0;
}

static int add_regular(struct emit *e, struct node *node, const struct entry *entry)
{
    if (entry->size == 0)
        return 0;
    if (entry->content.size != 0) {
        if (entry->content.size != entry->size || entry->size > INLINE_MAX_BYTES)
            return emit_fail(e, "has inline content that does not fit its size", entry->path);
        return keep_data(e, node, entry->content);
    }
    if (entry->size > FILE_MAX_BYTES)
        return emit_fail(e, "is larger than an image can describe", entry->path);
    node->is_external = true;
    return add_overlay_xattrs(e, node, entry);
}

static int fill(struct emit *e, struct node *node, const struct entry *entry)
{
    node->mode = (uint16_t)entry->mode;
    node->nlink = entry->nlink;
    node->uid = entry->uid;
    node->gid = entry->gid;
    node->mtime_sec = entry->mtime_sec;
    node->mtime_nsec = entry->mtime_nsec;
    node->size = entry->size;
    if (entry->mode > UINT16_MAX)
        return emit_fail(e, "has a mode out of range", entry->path);
    if (add_xattrs(e, node, entry))
        return -1;
    switch (node->mode & S_IFMT) {
    case S_IFREG:
        return add_regular(e, node, entry);
    case S_IFDIR:
        return add_directory(e, node, entry->path);
    case S_IFLNK:
        if (entry->payload.size == 0 || entry->payload.size > PATH_MAX_BYTES)
            return emit_fail(e, "is a symlink whose target is not 1 to 4095 bytes long", entry->path);
        node->size = entry->payload.size;
        return keep_data(e, node, entry->payload);
    case S_IFCHR:
        node->rdev = entry->rdev;
        node->is_whiteout = entry->rdev == 0;
        e->has_whiteouts |= node->is_whiteout;
        return 0;
    case S_IFBLK:
        node->rdev = entry->rdev;
        return 0;
    case S_IFIFO:
    case S_IFSOCK:
        return 0;
    default:
        return emit_fail(e, "has no valid file type", entry->path);
    }
}

static bool is_name(struct bytes name)
{
    return name.size >= 1 && name.size <= NAME_MAX_BYTES && memchr(name.data, 0, name.size) == NULL &&
           !(name.data[0] == '.' && (name.size == 1 || (name.size == 2 && name.data[1] == '.')));
}

static int add_root(struct emit *e, const struct entry *entry)
{
    if (entry->path.size != 1 || entry->path.data[0] != '/' || entry->hardlink.data != NULL ||
        (entry->mode & S_IFMT) != S_IFDIR)
        return emit_fail(e, "comes first but is not the root directory", entry->path);
    struct node *root = new_node(e);
    if (root == NULL || fill(e, root, entry))
        return -1;
    root->parent = root;
    e->root = root;
    return 0;
}

int emit_add(struct emit *e, const struct entry *entry)
{
    struct bytes name;
    if (e->n_names++ == e->max_names)
        return emit_fail(e, "is one name more than an image may have", entry->path);
    if (e->root == NULL)
        return add_root(e, entry);
    struct node *parent = parent_of(e, entry->path, &name);
    if (entry->path.size > PATH_MAX_BYTES || (parent != NULL && !is_name(name)))
        return emit_fail(e, "is not a valid path, or appears twice", entry->path);
    if (parent == NULL)
        return emit_fail(e, "comes before its directory, or that is no directory", entry->path);
    struct node *node = new_node(e);
    if (node == NULL)
        return -1;
    node->name = emit_copy(e, name.data, name.size);
    node->name_size = (uint8_t)name.size;
    if (node->name == NULL)
        return -1;
    if (entry->hardlink.data != NULL) {
        node->is_link = true;
        e->n_links++;
        if (keep_data(e, node, entry->hardlink))
            return -1;
    } else {
        if ((entry->mode & S_IFMT) == S_IFDIR) {
            if (find_directory(e, entry->path) != NULL)
                return emit_fail(e, "appears twice", entry->path);
            parent->directory->n_subdirectories++;
        }
        if (fill(e, node, entry))
            return -1;
    }
    append(parent, node);
    return 0;
}

/* --- the complete tree ------------------------------------------------------------------------------------ */

static int compare_names(const struct node *a, const struct node *b)
{
    size_t shorter = a->name_size < b->name_size ? a->name_size : b->name_size;
    int order = memcmp(a->name, b->name, shorter);
    return order ? order : (int)a->name_size - (int)b->name_size;
}

static int by_name(const void *a, const void *b)
{
    return compare_names(*(struct node *const *)a, *(struct node *const *)b);
}

/* Add "." or ".." as a hard link. */
static int add_alias(struct emit *e, struct node *directory, const char *name, struct node *target)
{
    struct node *alias = new_node(e);
    if (alias == NULL)
        return -1;
    alias->name = (const uint8_t *)name;
    alias->name_size = (uint8_t)strlen(name);
    alias->is_link = true;
    alias->target = target;
    append(directory, alias);
    return 0;
}

/* Turn the list of a directory's names into a sorted array. */
static int sort_children(struct emit *e, struct directory *directory)
{
    struct node **children = emit_alloc(e, directory->n_children * sizeof(struct node *), _Alignof(struct node *));
    bool sorted = true;
    uint32_t n = 0;
    if (children == NULL)
        return -1;
    for (struct node *node = directory->first; node != NULL; node = node->next) {
        children[n] = node;
        sorted = sorted && (n == 0 || compare_names(children[n - 1], node) < 0);
        n++;
    }
    if (!sorted)
        qsort(children, n, sizeof *children, by_name);
    for (uint32_t i = 1; i < n; i++)
        if (compare_names(children[i - 1], children[i]) == 0)
            return emit_fail_node(e, "appears twice", children[i]);
    directory->children = children;
    return 0;
}

static struct node *find_child(const struct directory *directory, struct bytes name)
{
    uint32_t low = 0, high = directory->n_children;
    struct node wanted = {.name = name.data, .name_size = (uint8_t)name.size};
    if (name.size == 0 || name.size > NAME_MAX_BYTES)
        return NULL;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_names(&wanted, directory->children[middle]);
        if (order == 0)
            return directory->children[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Find what a hard link names, which may be a hard link itself. */
static int find_target(struct emit *e, struct node *link)
{
    struct bytes name = EMPTY;
    struct node *parent = parent_of(e, (struct bytes){link->data, link->data_size}, &name);
    struct node *target = parent == NULL || !is_name(name) ? NULL : find_child(parent->directory, name);
    if (target == NULL || target->directory != NULL || target->is_stub)
        return emit_fail_node(e, "is a hard link to what is missing or a directory", link);
    link->target = target;
    return 0;
}

/* Make a link, and every link on the way, point to the inode at the end of its chain. */
static int follow(struct emit *e, struct node *link)
{
    struct node *end = link;
    for (; end->is_link; end = end->target) {
        if (end->visiting)
            return emit_fail_node(e, "is a hard link to itself", link);
        end->visiting = true;
    }
    for (struct node *next; link->is_link; link = next) {
        next = link->target;
        link->target = end;
        link->visiting = false;
    }
    return 0;
}

static int for_each_link(struct emit *e, int (*act)(struct emit *, struct node *))
{
    for (uint32_t i = 0; i < e->n_directories && e->n_links > 0; i++) {
        struct directory *directory = e->directories[i]->directory;
        for (uint32_t j = 0; j < directory->n_children; j++) {
            struct node *child = directory->children[j];
            if (child->is_link && child->data != NULL && act(e, child))
                return -1;
        }
    }
    return 0;
}

static int set_all(struct emit *e, struct node *node, const struct xattr *xattrs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (emit_set_xattr(e, node, xattrs[i].name, xattrs[i].value))
            return -1;
    return 0;
}

/* A whiteout of the input becomes what overlayfs shows as one and does not act upon itself. */
static int escape_whiteout(struct emit *e, struct node *node)
{
    const struct xattr own[] = {
        {TEXT("trusted.overlay.overlay.whiteout"), EMPTY},
        {TEXT("user.overlay.whiteout"), EMPTY},
    };
    const struct xattr above[] = {
        {TEXT("trusted.overlay.overlay.whiteouts"), EMPTY},
        {TEXT("user.overlay.whiteouts"), EMPTY},
        {TEXT("trusted.overlay.overlay.opaque"), TEXT("x")},
        {TEXT("user.overlay.opaque"), TEXT("x")},
    };
    node->mode = (uint16_t)(S_IFREG | (node->mode & 07777));
    node->size = 0;
    if (set_all(e, node, own, 2))
        return -1;
    return set_all(e, node->parent, above, e->format >= 1 ? 4 : 2);
}

static int escape_whiteouts(struct emit *e)
{
    if (!e->has_whiteouts)
        return 0;
    if (e->format < 1 && e->max_format >= 1)
        e->format = 1;
    for (uint32_t i = 0; i < e->n_directories; i++)
        for (struct node *node = e->directories[i]->directory->first; node != NULL; node = node->next)
            if (node->is_whiteout && escape_whiteout(e, node))
                return -1;
    return 0;
}

/* The whiteouts 00 to ff in the root hide an object store that is an ordinary lower layer. */
static int add_stubs(struct emit *e)
{
    static const char digits[] = "0123456789abcdef";
    struct node *root = e->root;
    struct bytes label;
    bool present[256] = {false}, labelled = emit_find_xattr(e, root, "security.selinux", &label);
    for (struct node *node = root->directory->first; node != NULL; node = node->next) {
        const char *high, *low;
        if (node->name_size == 2 && (high = memchr(digits, node->name[0], 16)) != NULL &&
            (low = memchr(digits, node->name[1], 16)) != NULL)
            present[(high - digits) * 16 + (low - digits)] = true;
    }
    for (int i = 0; i < 256; i++) {
        uint8_t name[2] = {(uint8_t)digits[i >> 4], (uint8_t)digits[i & 15]};
        if (present[i])
            continue;
        struct node *stub = new_node(e);
        if (stub == NULL || (stub->name = emit_copy(e, name, 2)) == NULL)
            return -1;
        stub->name_size = 2;
        stub->is_stub = true;
        stub->mode = S_IFCHR | 0644;
        stub->nlink = 1;
        stub->uid = root->uid;
        stub->gid = root->gid;
        stub->mtime_sec = root->mtime_sec;
        stub->mtime_nsec = root->mtime_nsec;
        append(root, stub);
        if (labelled && emit_set_xattr(e, stub, TEXT("security.selinux"), label))
            return -1;
    }
    return 0;
}

int emit_finish_tree(struct emit *e)
{
    if (e->root == NULL)
        return emit_fail(e, "is missing: there are no entries", TEXT("/"));
    if (escape_whiteouts(e) || emit_set_xattr(e, e->root, TEXT("trusted.overlay.opaque"), TEXT("y")) || add_stubs(e))
        return -1;
    for (uint32_t i = 0; i < e->n_directories; i++) {
        struct node *node = e->directories[i];
        node->nlink = 2 + node->directory->n_subdirectories;
        if (add_alias(e, node, ".", node) || add_alias(e, node, "..", node->parent) ||
            sort_children(e, node->directory))
            return -1;
    }
    e->last_directory = NULL;
    return for_each_link(e, find_target) || for_each_link(e, follow) ? -1 : 0;
}
