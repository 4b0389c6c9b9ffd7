/* cfsbuild.erofs._emit: the native image writer as a Python module. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "emit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum field {
    PATH, SIZE, MODE, NLINK, UID, GID, RDEV, MTIME_SEC, MTIME_NSEC, PAYLOAD, CONTENT, DIGEST, XATTRS, HARDLINK,
    N_FIELDS
};

static const char *const field_names[N_FIELDS] = {
    "path", "size", "mode", "nlink", "uid", "gid", "rdev", "mtime_sec", "mtime_nsec", "payload", "content",
    "digest", "xattrs", "hardlink",
};

struct state {
    PyObject *error;
    PyObject *names[N_FIELDS];
};

/* Values of one entry: owned references, so that the bytes which struct entry points to stay. */
struct values {
    PyObject *fields[N_FIELDS];
    struct xattr *xattrs;
    size_t capacity;
};

static int get_u64(PyObject *value, uint64_t most, uint64_t *result)
{
    *result = PyLong_AsUnsignedLongLong(value);
    if (*result == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    if (*result > most) {
        PyErr_SetString(PyExc_OverflowError, "number out of range");
        return -1;
    }
    return 0;
}

static int get_u32(PyObject *value, uint32_t *result)
{
    uint64_t wide;
    if (get_u64(value, UINT32_MAX, &wide))
        return -1;
    *result = (uint32_t)wide;
    return 0;
}

static int get_bytes(PyObject *value, struct bytes *result)
{
    char *data;
    Py_ssize_t size;
    *result = (struct bytes){NULL, 0};
    if (value == Py_None)
        return 0;
    if (PyBytes_AsStringAndSize(value, &data, &size))
        return -1;
    *result = (struct bytes){(const uint8_t *)data, (size_t)size};
    return 0;
}

static int get_xattrs(PyObject *value, struct values *values, struct entry *entry)
{
    if (!PyTuple_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "xattrs must be a tuple");
        return -1;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(value);
    if (count > values->capacity) {
        struct xattr *larger = PyMem_Realloc(values->xattrs, count * sizeof *larger);
        if (larger == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        values->xattrs = larger;
        values->capacity = count;
    }
    for (size_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(value, (Py_ssize_t)i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyBytes_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "an xattr must be a pair of bytes");
            return -1;
        }
        if (get_bytes(PyTuple_GET_ITEM(pair, 0), &values->xattrs[i].name) ||
            get_bytes(PyTuple_GET_ITEM(pair, 1), &values->xattrs[i].value))
            return -1;
    }
    entry->xattrs = values->xattrs;
    entry->n_xattrs = count;
    return 0;
}

static int get_entry(PyObject *object, const struct state *state, struct values *values, struct entry *entry)
{
    uint64_t size;
    PyObject **field = values->fields;
    const int in_row = PyTuple_CheckExact(object);
    if (in_row && PyTuple_GET_SIZE(object) != N_FIELDS) {
        PyErr_SetString(PyExc_TypeError, "a row must have the fields of an entry");
        return -1;
    }
    for (int i = 0; i < N_FIELDS; i++) {
        Py_XSETREF(field[i], in_row ? Py_NewRef(PyTuple_GET_ITEM(object, i))
                                    : PyObject_GetAttr(object, state->names[i]));
        if (field[i] == NULL)
            return -1;
    }
    if (!PyBytes_Check(field[PATH])) {
        PyErr_SetString(PyExc_TypeError, "path must be bytes");
        return -1;
    }
    if (get_bytes(field[PATH], &entry->path) || get_u64(field[SIZE], UINT64_MAX, &size) ||
        get_u32(field[MODE], &entry->mode) || get_u32(field[NLINK], &entry->nlink) ||
        get_u32(field[UID], &entry->uid) || get_u32(field[GID], &entry->gid) ||
        get_u32(field[RDEV], &entry->rdev) || get_u32(field[MTIME_NSEC], &entry->mtime_nsec) ||
        get_bytes(field[PAYLOAD], &entry->payload) || get_bytes(field[CONTENT], &entry->content) ||
        get_bytes(field[DIGEST], &entry->digest) || get_bytes(field[HARDLINK], &entry->hardlink) ||
        get_xattrs(field[XATTRS], values, entry))
        return -1;
    entry->size = size;
    entry->mtime_sec = PyLong_AsLongLong(field[MTIME_SEC]);
    return entry->mtime_sec == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Raise what went wrong: Error(path, problem), or MemoryError. */
static void raise_problem(const struct emit *e, const struct state *state)
{
    if (e->problem == NULL) {
        PyErr_NoMemory();
        return;
    }
    PyObject *args = Py_BuildValue("(y#s)", (const char *)e->problem_path.data, (Py_ssize_t)e->problem_path.size,
                                   e->problem);
    if (args != NULL) {
        PyErr_SetObject(state->error, args);
        Py_DECREF(args);
    }
}

/* Take in the entry that an object of Python is: one with the fields as attributes, or a tuple of them. */
static int take_object(struct emit *e, PyObject *object, struct values *values, const struct state *state)
{
    struct entry entry;
    memset(&entry, 0, sizeof entry);
    if (get_entry(object, state, values, &entry))
        return -1;
    if (emit_add(e, &entry)) {
        raise_problem(e, state);
        return -1;
    }
    return 0;
}

/* Take in a line of a dump; `parse` makes an entry of it if it is not of the usual kind. */
static int take_line(struct emit *e, PyObject *line, PyObject *parse, struct values *values,
                     const struct state *state)
{
    struct line_buffer buffer;
    struct entry entry;
    struct bytes text;
    if (!PyBytes_Check(line)) {
        PyErr_SetString(PyExc_TypeError, "a line must be bytes");
        return -1;
    }
    if (get_bytes(line, &text))
        return -1;
    if (text.size > 0 && text.data[text.size - 1] == '\n')
        text.size--;
    /* The first line must be the root: the parser has words for what else it may be. */
    if (e->root != NULL && emit_parse_line(e, text, &buffer, &entry)) {
        if (emit_add(e, &entry) == 0)
            return 0;
        raise_problem(e, state);
        return -1;
    }
    PyObject *number = PyLong_FromUnsignedLong((unsigned long)e->n_names + 1);
    PyObject *object = number == NULL ? NULL : PyObject_CallFunctionObjArgs(parse, line, number, NULL);
    Py_XDECREF(number);
    if (object == NULL)
        return -1;
    int result = take_object(e, object, values, state);
    Py_DECREF(object);
    return result;
}

static int take_all(struct emit *e, PyObject *iterator, PyObject *parse, const struct state *state)
{
    struct values values = {{NULL}, NULL, 0};
    PyObject *object;
    int result = 0;
    while (result == 0 && (object = PyIter_Next(iterator)) != NULL) {
        result = parse == NULL ? take_object(e, object, &values, state)
                               : take_line(e, object, parse, &values, state);
        Py_DECREF(object);
        if (result == 0 && e->n_names % 16384 == 0) /* reading lines may run no Python that would notice Ctrl-C */
            result = PyErr_CheckSignals();
    }
    for (int i = 0; i < N_FIELDS; i++)
        Py_XDECREF(values.fields[i]);
    PyMem_Free(values.xattrs);
    return PyErr_Occurred() ? -1 : result;
}

static PyObject *make_image(struct emit *e, const struct state *state)
{
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = emit_finish_tree(e) || emit_layout(e) ? -1 : 0;
    Py_END_ALLOW_THREADS
    if (result) {
        raise_problem(e, state);
        return NULL;
    }
    uint64_t size = emit_image_size(e);
    if (size > PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    PyObject *image = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (image == NULL)
        return NULL;
    uint8_t *data = (uint8_t *)PyBytes_AS_STRING(image);
    Py_BEGIN_ALLOW_THREADS
    memset(data, 0, size);
    emit_image(e, data);
    Py_END_ALLOW_THREADS
    return image;
}

static PyObject *emit(PyObject *module, PyObject *args)
{
    const struct state *state = PyModule_GetState(module);
    struct emit e;
    PyObject *entries, *parse, *image = NULL;
    unsigned int format, max_format, digest_size, algorithm_id, max_names;
    if (!PyArg_ParseTuple(args, "OOIIIII:emit", &entries, &parse, &format, &max_format, &digest_size,
                          &algorithm_id, &max_names))
        return NULL;
    if (digest_size > 128)
        return PyErr_Format(PyExc_ValueError, "digests of %u bytes", digest_size);
    PyObject *iterator = PyObject_GetIter(entries);
    if (iterator == NULL)
        return NULL;
    memset(&e, 0, sizeof e);
    e.format = format;
    e.max_format = max_format;
    e.digest_size = digest_size;
    e.algorithm_id = algorithm_id;
    e.max_names = max_names;
    /* The seed only spreads hash tables, so that nobody can choose colliding names; it shows in no image. */
    if (getrandom(&e.hash_seed, sizeof e.hash_seed, GRND_NONBLOCK) < 0)
        e.hash_seed = (uint32_t)(uintptr_t)iterator;
    if (take_all(&e, iterator, parse == Py_None ? NULL : parse, state) == 0)
        image = make_image(&e, state);
    Py_DECREF(iterator);
    emit_free(&e);
    return image;
}

static int module_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    for (int i = 0; i < N_FIELDS; i++) {
        state->names[i] = PyUnicode_InternFromString(field_names[i]);
        if (state->names[i] == NULL)
            return -1;
    }
    state->error = PyErr_NewExceptionWithDoc(
        "cfsbuild.erofs._emit.Error", "An entry cannot stand in an image: (path, problem).", PyExc_ValueError, NULL);
    return state->error == NULL ? -1 : PyModule_AddObjectRef(module, "Error", state->error);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->error);
    for (int i = 0; i < N_FIELDS; i++)
        Py_VISIT(state->names[i]);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->error);
    for (int i = 0; i < N_FIELDS; i++)
        Py_CLEAR(state->names[i]);
    return 0;
}

static PyMethodDef methods[] = {
    {"emit", emit, METH_VARARGS,
     "emit(entries, parse, format, max_format, digest_size, algorithm_id, max_names) -> bytes\n\n"
     "Return the image of the entries; if `parse` is not None, of the dump lines that `entries` are then:\n"
     "parse(line, number) gives the entry of a line that is not of the usual kind. Raises Error, or what the\n"
     "iterable or `parse` raises."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cfsbuild.erofs._emit",
    .m_doc = "Native composefs image writer; cfsbuild/erofs/image.py gives the same bytes.",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__emit(void)
{
    return PyModuleDef_Init(&definition);
}
