/* The extension module cfsbuild.tree._scan: lists a directory tree, and compares two listings. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "memory.h"
#include "scan.h"
#include "walk.h"

#include <errno.h>
#include <stddef.h>
#include <sys/stat.h>

enum { THREADS_MAX = 256 };

/* Returns the path, relative to the root, of a name in a directory. */
static PyObject *path_of(const struct directory *directory, const char *name)
{
    PyObject *path = PyBytes_FromString(name);

    for (const struct directory *i = directory; path && i->up; i = i->up) {
        PyObject *longer = PyBytes_FromFormat("%s%s%s", i->up->names + i->up->order[i->number],
                                              *PyBytes_AS_STRING(path) ? "/" : "", PyBytes_AS_STRING(path));
        Py_SETREF(path, longer);
    }
    return path;
}

static PyObject *refuse(const struct walk_failure *failure)
{
    PyObject *path = path_of(failure->where, failure->name);

    errno = failure->error;
    if (path)
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    Py_XDECREF(path);
    return NULL;
}

static PyObject *written(struct walk *w)
{
    PyObject *records = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(w->entries * sizeof(struct scan_record)));
    PyObject *names = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)w->name_bytes);

    if (records && names) {
        walk_write(w, (struct scan_record *)(void *)PyBytes_AS_STRING(records), PyBytes_AS_STRING(names));
        return Py_BuildValue("NN", records, names);
    }
    Py_XDECREF(records);
    Py_XDECREF(names);
    return NULL;
}

static PyObject *py_scan(PyObject *self, PyObject *args)
{
    struct walk_limits limits;
    struct walk w;
    Py_ssize_t entries;
    int fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "iIInpI", &fd, &limits.depth, &limits.path, &entries, &limits.one_file_system,
                          &limits.threads))
        return NULL;
    limits.entries = (size_t)entries;
    limits.threads = limits.threads < 1 ? 1 : limits.threads > THREADS_MAX ? THREADS_MAX : limits.threads;
    Py_BEGIN_ALLOW_THREADS
    walk_run(&w, fd, &limits);
    Py_END_ALLOW_THREADS
    const struct walk_failure failure = walk_check(&w);
    PyObject *result = failure.error ? refuse(&failure) : written(&w);
    walk_free(&w);
    memory_trim();
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

static PyObject *py_map_large(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    memory_map_large();
    Py_RETURN_NONE;
}

static PyObject *py_trim(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    memory_trim();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"scan", py_scan, METH_VARARGS, "scan(fd, depth, path_bytes, entries, one_file_system, threads) -> (records, names)"},
    {"match", py_match, METH_VARARGS, "match(old_records, old_names, records, names) -> int32 for each record"},
    {"attributed", py_attributed, METH_VARARGS,
     "attributed(fd, records, names) -> one byte for each record: 0 when it has no extended attributes"},
    {"map_large", py_map_large, METH_NOARGS, "map_large(): large blocks of memory go back to the system when they are freed"},
    {"trim", py_trim, METH_NOARGS, "trim(): what was freed goes back to the system"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_scan", "Lists directory trees", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&definition);
}
