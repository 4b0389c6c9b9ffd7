/* The usual line of a dump, fast. Anything about a line that is not plain and certainly right is left to the
 * Python parser (cfsbuild/tree/dump.py), which alone decides what is accepted and what is said about the rest.
 */
#include "emit.h"

#include <string.h>
#include <sys/stat.h>

#define LINE_MAX_BYTES PATH_MAX_BYTES /* no field of such a line can be too long */
#define N_FIELDS 11
#define CONTENT_FIELD 9

static bool digits(struct bytes field, size_t most, uint64_t *value)
{
    *value = 0;
    if (field.size == 0 || field.size > most)
        return false;
    for (size_t i = 0; i < field.size; i++) {
        if (field.data[i] < '0' || field.data[i] > '9')
            return false;
        *value = *value * 10 + (field.data[i] - '0');
    }
    return true;
}

static bool number32(struct bytes field, uint32_t *value)
{
    uint64_t wide;
    if (!digits(field, 10, &wide) || wide > UINT32_MAX)
        return false;
    *value = (uint32_t)wide;
    return true;
}

static bool mode(struct bytes field, uint32_t *value)
{
    *value = 0;
    if (field.size == 0 || field.size > 6)
        return false;
    for (size_t i = 0; i < field.size; i++) {
        if (field.data[i] < '0' || field.data[i] > '7')
            return false;
        *value = *value * 8 + (field.data[i] - '0');
    }
    return *value <= UINT16_MAX;
}

static bool time_of(struct bytes field, struct entry *entry)
{
    uint64_t sec, nsec;
    const uint8_t *dot = memchr(field.data, '.', field.size);
    if (dot == NULL)
        return false;
    size_t before = (size_t)(dot - field.data);
    if (!digits((struct bytes){field.data, before}, 18, &sec) ||
        !digits((struct bytes){dot + 1, field.size - before - 1}, 9, &nsec))
        return false;
    entry->mtime_sec = (int64_t)sec;
    entry->mtime_nsec = (uint32_t)nsec;
    return true;
}

static bool is_normal(struct bytes path)
{
    if (path.size == 0 || path.size > NAME_MAX_BYTES || path.data[0] != '/' || path.data[path.size - 1] == '/')
        return false;
    for (size_t i = 0; i + 1 < path.size; i++)
        if (path.data[i] == '/' && (path.data[i + 1] == '/' || path.data[i + 1] == '.'))
            return false;
    return true;
}

static struct bytes optional(struct bytes field)
{
    return field.size == 1 && field.data[0] == '-' ? (struct bytes){NULL, 0} : field;
}

static int hex(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool digest_of(const struct emit *e, struct bytes field, struct line_buffer *buffer, struct bytes *digest)
{
    *digest = (struct bytes){NULL, 0};
    if (field.size == 1 && field.data[0] == '-')
        return true;
    if (field.size != 2 * e->digest_size || e->digest_size > sizeof buffer->digest)
        return false;
    for (size_t i = 0; i < e->digest_size; i++) {
        int high = hex(field.data[2 * i]), low = hex(field.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        buffer->digest[i] = (uint8_t)(high << 4 | low);
    }
    *digest = (struct bytes){buffer->digest, e->digest_size};
    return true;
}

static int plain_escape(uint8_t code)
{
    switch (code) {
    case '\\':
        return '\\';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return -1;
    }
}

/* Resolves the escapes of a file's content, if it has any. */
static bool content_of(struct bytes field, struct line_buffer *buffer, struct bytes *content)
{
    size_t used = 0;
    *content = optional(field);
    if (memchr(field.data, '\\', field.size) == NULL)
        return true;
    for (size_t i = 0; i < field.size; i++) {
        int byte = field.data[i];
        if (byte == '\\') {
            const size_t left = field.size - ++i;
            if (left >= 3 && field.data[i] == 'x') {
                const int high = hex(field.data[i + 1]), low = hex(field.data[i + 2]);
                byte = high < 0 || low < 0 ? -1 : high << 4 | low;
                i += 2;
            } else {
                byte = left >= 1 ? plain_escape(field.data[i]) : -1;
            }
        }
        if (byte < 0 || used == sizeof buffer->content)
            return false;
        buffer->content[used++] = (uint8_t)byte;
    }
    *content = (struct bytes){buffer->content, used};
    return true;
}

static bool xattrs_of(const uint8_t *at, const uint8_t *end, struct line_buffer *buffer, struct entry *entry)
{
    entry->xattrs = buffer->xattrs;
    for (entry->n_xattrs = 0;; at++) {
        const uint8_t *space = memchr(at, ' ', (size_t)(end - at));
        const uint8_t *stop = space == NULL ? end : space;
        const uint8_t *equals = memchr(at, '=', (size_t)(stop - at));
        if (equals == NULL || equals == at || equals - at > (ptrdiff_t)NAME_MAX_BYTES ||
            entry->n_xattrs == sizeof buffer->xattrs / sizeof *buffer->xattrs)
            return false;
        buffer->xattrs[entry->n_xattrs++] = (struct xattr){
            {at, (size_t)(equals - at)},
            {equals + 1, (size_t)(stop - equals - 1)},
        };
        if (space == NULL)
            return true;
        at = space;
    }
}

/* Whether the fields fit each other: the same rules as in the Python parser. */
static bool is_consistent(const struct entry *entry)
{
    switch (entry->mode & S_IFMT) {
    case S_IFREG:
        if (entry->content.size != 0)
            return entry->content.size == entry->size;
        return entry->size == 0 || (entry->payload.size != 0 && entry->size <= FILE_MAX_BYTES &&
                                    memmem(entry->payload.data, entry->payload.size, "..", 2) == NULL);
    case S_IFLNK:
        return entry->payload.size != 0 && entry->content.size == 0;
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        return entry->content.size == 0;
    default:
        return false;
    }
}

bool emit_parse_line(const struct emit *e, struct bytes line, struct line_buffer *buffer, struct entry *entry)
{
    struct bytes field[N_FIELDS];
    const uint8_t *at = line.data, *end = line.data + line.size;
    if (line.size > LINE_MAX_BYTES || memchr(at, 0, line.size) != NULL)
        return false;
    for (int i = 0; i < N_FIELDS; i++) {
        const uint8_t *space = memchr(at, ' ', (size_t)(end - at));
        if (space == NULL && i < N_FIELDS - 1)
            return false;
        const uint8_t *stop = space == NULL ? end : space;
        field[i] = (struct bytes){at, (size_t)(stop - at)};
        if (i != CONTENT_FIELD && memchr(at, '\\', field[i].size) != NULL)
            return false;
        at = space == NULL ? NULL : stop + 1;
    }
    if (at != NULL && memchr(at, '\\', (size_t)(end - at)) != NULL)
        return false;
    *entry = (struct entry){.path = field[0], .payload = optional(field[8])};
    return content_of(field[CONTENT_FIELD], buffer, &entry->content) && is_normal(field[0]) && digits(field[1], 18, &entry->size) && mode(field[2], &entry->mode) &&
           number32(field[3], &entry->nlink) && number32(field[4], &entry->uid) &&
           number32(field[5], &entry->gid) && number32(field[6], &entry->rdev) && time_of(field[7], entry) &&
           digest_of(e, field[10], buffer, &entry->digest) &&
           (at == NULL || xattrs_of(at, end, buffer, entry)) && is_consistent(entry);
}
