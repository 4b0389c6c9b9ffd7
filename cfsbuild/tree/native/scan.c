/* The extension module cfsbuild.tree._scan: lists a directory tree, and compares two listings. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct limits {
    unsigned depth, path;
    size_t entries;
    int one_file_system;
};

struct walk {
    struct limits limits;
    uint64_t device;
    struct scan_record *records;
    size_t count, room;
    char *names;
    size_t names_used, names_room;
    int error;      /* errno */
    size_t culprit; /* record of the directory in which it happened */
    char name[256]; /* of the entry; empty: the directory itself */
};

struct listing {
    char *bytes; /* names, NUL-terminated */
    size_t used, room;
    uint32_t *order;
    size_t count, order_room;
};

static int grow(void *array, size_t *room, size_t needed, size_t size)
{
    size_t next = *room ? *room : 1024;
    void **pointer = array;

    if (needed <= *room)
        return 0;
    while (next < needed)
        next *= 2;
    void *bigger = realloc(*pointer, next * size);
    if (!bigger)
        return -1;
    *pointer = bigger;
    *room = next;
    return 0;
}

static int fail(struct walk *w, size_t directory, const char *name, int error)
{
    w->error = error;
    w->culprit = directory;
    snprintf(w->name, sizeof(w->name), "%s", name);
    return -1;
}

struct kernel_dirent { /* struct linux_dirent64, getdents64(2) */
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

static int add_name(struct listing *list, const char *name)
{
    const size_t bytes = strlen(name) + 1;

    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return 0;
    if (grow(&list->bytes, &list->room, list->used + bytes, 1) ||
        grow(&list->order, &list->order_room, list->count + 1, sizeof(*list->order)))
        return ENOMEM;
    memcpy(list->bytes + list->used, name, bytes);
    list->order[list->count++] = (uint32_t)list->used;
    list->used += bytes;
    return 0;
}

static int by_name(const void *a, const void *b, void *bytes)
{
    return strcmp((const char *)bytes + *(const uint32_t *)a, (const char *)bytes + *(const uint32_t *)b);
}

/* Reads a directory's names, sorted. Returns 0 or an errno. */
static int list_directory(int fd, struct listing *list)
{
    _Alignas(struct kernel_dirent) char buffer[32768];
    long n;

    while ((n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < n;) {
            const struct kernel_dirent *entry = (const struct kernel_dirent *)(buffer + at);
            const int error = add_name(list, entry->d_name);
            if (error)
                return error;
            at += entry->d_reclen;
        }
    }
    if (n < 0)
        return errno;
    if (list->count)
        qsort_r(list->order, list->count, sizeof(*list->order), by_name, list->bytes);
    return 0;
}

static int add_record(struct walk *w, const struct stat *st, const char *name, size_t parent, unsigned depth)
{
    const size_t bytes = strlen(name);

    if (grow(&w->records, &w->room, w->count + 1, sizeof(*w->records)) ||
        grow(&w->names, &w->names_room, w->names_used + bytes + 1, 1))
        return ENOMEM;
    if (w->count == w->limits.entries || w->names_used + bytes > UINT32_MAX)
        return EOVERFLOW;
    memcpy(w->names + w->names_used, name, bytes + 1);
    w->records[w->count++] = (struct scan_record){
        .ino = st->st_ino,
        .size = st->st_size,
        .mtime_ns = st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
        .ctime_ns = st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec,
        .dev = st->st_dev,
        .rdev = st->st_rdev,
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .nlink = (uint32_t)st->st_nlink,
        .parent = (uint32_t)parent,
        .name_offset = (uint32_t)w->names_used,
        .name_bytes = (uint16_t)bytes,
        .depth = (uint16_t)depth,
    };
    w->names_used += bytes + 1;
    return 0;
}

static int walk_directory(struct walk *w, int fd, size_t self, unsigned depth, unsigned path);

static int walk_child(struct walk *w, int fd, size_t self, const char *name, unsigned depth, unsigned path)
{
    const unsigned bytes = path + 1 + (unsigned)strlen(name);
    const size_t mine = w->count;
    struct stat st;
    int error;

    if (depth > w->limits.depth || bytes > w->limits.path)
        return fail(w, self, name, ENAMETOOLONG);
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return fail(w, self, name, errno);
    if ((error = add_record(w, &st, name, self, depth)))
        return fail(w, self, name, error);
    if (!S_ISDIR(st.st_mode) || (w->limits.one_file_system && st.st_dev != w->device))
        return 0;
    const int child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0)
        return fail(w, self, name, errno);
    error = walk_directory(w, child, mine, depth, bytes);
    close(child);
    return error;
}

static int walk_directory(struct walk *w, int fd, size_t self, unsigned depth, unsigned path)
{
    struct listing list = {0};
    int error = list_directory(fd, &list);

    if (error)
        error = fail(w, self, "", error);
    for (size_t i = 0; !error && i < list.count; i++)
        error = walk_child(w, fd, self, list.bytes + list.order[i], depth + 1, path);
    free(list.bytes);
    free(list.order);
    return error;
}

static void walk_root(struct walk *w, int fd)
{
    struct stat st;
    int error = fstat(fd, &st) ? errno : add_record(w, &st, "", 0, 0);

    if (error) {
        fail(w, 0, "", error);
        return;
    }
    w->device = st.st_dev;
    walk_directory(w, fd, 0, 0, 0);
}

/* Returns the path, relative to the root, of a name in a directory. */
static PyObject *path_of(const struct scan_record *records, const char *names, size_t directory, const char *name)
{
    PyObject *path = PyBytes_FromString(name);

    for (size_t i = directory; path && i != 0; i = records[i].parent) {
        PyObject *longer =
            PyBytes_FromFormat("%s%s%s", names + records[i].name_offset, *PyBytes_AS_STRING(path) ? "/" : "",
                               PyBytes_AS_STRING(path));
        Py_SETREF(path, longer);
    }
    return path;
}

static PyObject *py_scan(PyObject *self, PyObject *args)
{
    struct walk w = {0};
    Py_ssize_t entries;
    PyObject *result = NULL;
    int fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "iIInp", &fd, &w.limits.depth, &w.limits.path, &entries, &w.limits.one_file_system))
        return NULL;
    w.limits.entries = (size_t)entries;
    Py_BEGIN_ALLOW_THREADS
    walk_root(&w, fd);
    Py_END_ALLOW_THREADS
    if (w.error) {
        PyObject *path = path_of(w.records, w.names, w.culprit, w.name);
        errno = w.error;
        if (path)
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        Py_XDECREF(path);
    } else {
        result = Py_BuildValue("y#y#", w.records, (Py_ssize_t)(w.count * sizeof(*w.records)), w.names,
                               (Py_ssize_t)w.names_used);
    }
    free(w.records);
    free(w.names);
    return result;
}

/* One side of a comparison. */
struct side {
    Py_buffer records, names;
    const struct scan_record *at;
    size_t count;
};

static int valid(struct side *s)
{
    const char *names = s->names.buf;

    s->at = s->records.buf;
    s->count = (size_t)s->records.len / sizeof(struct scan_record);
    if ((size_t)s->records.len % sizeof(struct scan_record) || (uintptr_t)s->at % 8)
        return 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t end = (size_t)s->at[i].name_offset + s->at[i].name_bytes;
        if (end >= (size_t)s->names.len || names[end] || s->at[i].parent > i)
            return 0;
    }
    return 1;
}

static int compare_names(const struct side *a, size_t i, const struct side *b, size_t j)
{
    return strcmp((const char *)a->names.buf + a->at[i].name_offset, (const char *)b->names.buf + b->at[j].name_offset);
}

static size_t after_subtree(const struct side *s, size_t i)
{
    const uint16_t depth = s->at[i].depth;

    while (++i < s->count && s->at[i].depth > depth)
        ;
    return i;
}

/* Walks both listings in their common order. Whenever i and j stand at the same depth, the directories that
 * they are in have the same path. */
static void match(const struct side *old, const struct side *new, int32_t *result)
{
    size_t i = 0, j = 0;

    memset(result, 0xff, new->count * sizeof(*result));
    while (i < new->count && j < old->count) {
        const struct scan_record *a = &new->at[i], *b = &old->at[j];

        if (a->depth > b->depth) {
            i++;
        } else if (a->depth < b->depth) {
            j++;
        } else {
            const int order = compare_names(new, i, old, j);
            if (order < 0) {
                i = after_subtree(new, i);
            } else if (order > 0) {
                j = after_subtree(old, j);
            } else {
                if (!memcmp(a, b, offsetof(struct scan_record, parent)))
                    result[i] = (int32_t)j;
                i++, j++;
            }
        }
    }
}

static PyObject *py_match(PyObject *self, PyObject *args)
{
    struct side old, new;
    PyObject *result = NULL;

    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*y*", &old.records, &old.names, &new.records, &new.names))
        return NULL;
    if (!valid(&old) || !valid(&new))
        PyErr_SetString(PyExc_ValueError, "not the records of a scan");
    else
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(new.count * sizeof(int32_t)));
    if (result)
        match(&old, &new, (int32_t *)(void *)PyBytes_AS_STRING(result));
    PyBuffer_Release(&old.records);
    PyBuffer_Release(&old.names);
    PyBuffer_Release(&new.records);
    PyBuffer_Release(&new.names);
    return result;
}

/* Says whether the records are in the order of a walk: depths as in a tree, and every parent a directory. */
static int in_order(const struct side *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct scan_record *r = &s->at[i];
        if (i == 0 ? r->depth != 0 || !S_ISDIR(r->mode)
                   : r->depth == 0 || r->parent == i || s->at[r->parent].depth + 1 != r->depth ||
                         !S_ISDIR(s->at[r->parent].mode) || r->name_bytes > 255)
            return 0;
    }
    return 1;
}

static PyObject *py_attributed(PyObject *self, PyObject *args)
{
    struct side listing;
    PyObject *result = NULL;
    int fd, error = 0;

    (void)self;
    if (!PyArg_ParseTuple(args, "iy*y*", &fd, &listing.records, &listing.names))
        return NULL;
    if (!valid(&listing) || !in_order(&listing))
        PyErr_SetString(PyExc_ValueError, "not the records of a scan");
    else
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)listing.count);
    if (result) {
        uint8_t *flags = (uint8_t *)PyBytes_AS_STRING(result);
        Py_BEGIN_ALLOW_THREADS
        error = scan_attributed(fd, listing.at, listing.count, listing.names.buf, flags);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&listing.records);
    PyBuffer_Release(&listing.names);
    if (error) {
        Py_CLEAR(result);
        PyErr_NoMemory();
    }
    return result;
}

static PyMethodDef methods[] = {
    {"scan", py_scan, METH_VARARGS, "scan(fd, depth, path_bytes, entries, one_file_system) -> (records, names)"},
    {"match", py_match, METH_VARARGS, "match(old_records, old_names, records, names) -> int32 for each record"},
    {"attributed", py_attributed, METH_VARARGS,
     "attributed(fd, records, names) -> one byte for each record: 0 when it has no extended attributes"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_scan", "Lists directory trees", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&definition);
}
