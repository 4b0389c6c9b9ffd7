/* The extension module cfsbuild.fsverity._verity; its twin is cfsbuild/fsverity/{plain,pool}.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "batch.h"

#include <errno.h>

static const struct sha_kernel *kernel_for(int algorithm, const char *name)
{
    const struct sha_kernel *kernel = NULL;

    if (algorithm == SHA256 || algorithm == SHA512)
        kernel = sha_select(algorithm, name);
    if (!kernel)
        PyErr_Format(PyExc_ValueError, "no kernel '%s' for algorithm %d runs here", name, algorithm);
    return kernel;
}

static PyObject *py_kernels(PyObject *self, PyObject *unused)
{
    const char *names[16];
    const size_t n = sha_list(names, 16);
    PyObject *result = PyTuple_New((Py_ssize_t)n);

    (void)self, (void)unused;
    for (size_t i = 0; result && i < n; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name)
            Py_CLEAR(result);
        else
            PyTuple_SET_ITEM(result, (Py_ssize_t)i, name);
    }
    return result;
}

static PyObject *py_hash_blocks(PyObject *self, PyObject *args)
{
    Py_buffer data;
    int algorithm;
    const char *name;
    const struct sha_kernel *kernel;
    PyObject *result = NULL;

    (void)self;
    if (!PyArg_ParseTuple(args, "y*is", &data, &algorithm, &name))
        return NULL;
    const size_t blocks = (size_t)data.len / BLOCK;
    if (data.len % BLOCK)
        PyErr_SetString(PyExc_ValueError, "not a whole number of blocks");
    else if ((kernel = kernel_for(algorithm, name)))
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(blocks * sha_size(algorithm)));
    if (result) {
        uint8_t *digests = (uint8_t *)PyBytes_AS_STRING(result);
        Py_BEGIN_ALLOW_THREADS
        kernel->hash(data.buf, BLOCK, blocks, digests);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return result;
}

static int poll_signals(void *context)
{
    PyThreadState **state = context;

    PyEval_RestoreThread(*state);
    const int stop = PyErr_CheckSignals();
    *state = PyEval_SaveThread();
    return stop;
}

/* Returns the results as a list of (digest, size), or raises what went wrong. */
static PyObject *answer(const struct batch *b, PyObject *names)
{
    if (b->error) {
        if (PyErr_Occurred())
            return NULL;
        errno = b->error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, PySequence_Fast_GET_ITEM(names, (Py_ssize_t)b->failed));
    }
    PyObject *list = PyList_New((Py_ssize_t)b->count);
    for (size_t i = 0; list && i < b->count; i++) {
        PyObject *pair = Py_BuildValue("y#L", b->results + i * SLOT, (Py_ssize_t)sha_size(b->algorithm), (long long)b->sizes[i]);
        if (!pair)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
    }
    return list;
}

static PyObject *py_digest_files(PyObject *self, PyObject *args)
{
    struct batch b = {0};
    PyObject *sequence, *names, *result = NULL;
    PyThreadState *state;
    const char *kernel;

    (void)self;
    if (!PyArg_ParseTuple(args, "iOiIs", &b.directory, &sequence, &b.algorithm, &b.threads, &kernel))
        return NULL;
    if (!(b.kernel = kernel_for(b.algorithm, kernel)))
        return NULL;
    if (!(names = PySequence_Tuple(sequence)))
        return NULL;
    b.count = (size_t)PyTuple_GET_SIZE(names);
    const char **paths = calloc(b.count + 1, sizeof(*paths));
    b.names = paths;
    b.results = malloc((b.count + 1) * SLOT);
    b.sizes = calloc(b.count + 1, sizeof(*b.sizes));
    if (!paths || !b.results || !b.sizes) {
        PyErr_NoMemory();
        goto out;
    }
    for (size_t i = 0; i < b.count; i++)
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(names, (Py_ssize_t)i), (char **)&paths[i], NULL))
            goto out;
    b.hooks.poll = poll_signals;
    b.hooks.context = &state;
    state = PyEval_SaveThread();
    batch_run(&b);
    PyEval_RestoreThread(state);
    result = answer(&b, names);
out:
    free(paths);
    free(b.results);
    free(b.sizes);
    Py_DECREF(names);
    return result;
}

static PyMethodDef methods[] = {
    {"kernels", py_kernels, METH_NOARGS, "kernels() -> names of the SHA-256 kernels that run here"},
    {"hash_blocks", py_hash_blocks, METH_VARARGS, "hash_blocks(data, algorithm, kernel) -> hashes"},
    {"digest_files", py_digest_files, METH_VARARGS,
     "digest_files(directory_fd, names, algorithm, threads, kernel) -> [(digest, size)]"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_verity", "fs-verity digests of many files", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__verity(void)
{
    return PyModule_Create(&definition);
}
