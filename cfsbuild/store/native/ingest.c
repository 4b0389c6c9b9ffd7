/* The extension module cfsbuild.store._ingest: reads files once, hashes them, and writes those that are new to
 * a transaction's staging directory, as `xx/rest`, mode 0444; and makes two system calls that Python lacks. Its twins
 * are cfsbuild/store/ingest.py and syscalls.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "batch.h"
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NOT_KEPT = 0, STAGED = 1, PRESENT = 2, DAMAGED = 3 };

enum { NAME_ROOM = 2 * HASH_MAX + 2, READ_ONLY = 0444, DIRECT_BYTES = 1 << 16 };

struct ingest {
    struct batch batch;
    const struct scan_record *records;
    size_t record_count;
    const uint32_t *numbers; /* the record of each file */
    int staging, objects;    /* directories; -1: only hash */
    int sync;
    uint8_t *states;
    unsigned serial;         /* of this call in the process, for names that no other file has */
    PyObject *progress;     /* called with (files, bytes), or None */
    PyThreadState *thread;
};

static void object_name(const struct ingest *in, const uint8_t *digest, char *name)
{
    static const char digits[] = "0123456789abcdef";
    const size_t bytes = sha_size(in->batch.algorithm);

    for (size_t i = 0; i < bytes; i++) {
        *name++ = digits[digest[i] >> 4];
        *name++ = digits[digest[i] & 15];
        if (i == 0)
            *name++ = '/';
    }
    *name = 0;
}

/* Returns 0 or errno; another thread may have been faster. */
static int make_shard(const struct ingest *in, const char *name)
{
    const char shard[] = {name[0], name[1], 0};

    return mkdirat(in->staging, shard, 0777) && errno != EEXIST ? errno : 0;
}

static int64_t nanoseconds(const struct timespec *time)
{
    return time->tv_sec * 1000000000 + time->tv_nsec;
}

static int has(int directory, const char *name, int64_t size)
{
    struct stat st;

    return !fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) && st.st_size == size;
}

/* Says whether the object `name`, which has `size` bytes, holds what `data` or, without it, the file `fd` does. */
static int holds(const struct ingest *in, const char *name, const uint8_t *data, int fd, uint64_t size)
{
    uint8_t theirs[16384], ours[16384];
    const int object = openat(in->objects, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    uint64_t at = 0;

    while (object >= 0 && at < size) {
        const ssize_t got = pread(object, theirs, sizeof(theirs), (off_t)at);
        if (got <= 0 || (uint64_t)got > size - at || (!data && pread(fd, ours, (size_t)got, (off_t)at) != got) ||
            memcmp(theirs, data ? data + at : ours, (size_t)got))
            break;
        at += (uint64_t)got;
    }
    if (object >= 0)
        close(object);
    return object >= 0 && at == size;
}

/* Closes a new file, whatever happened before, and makes sure that it is read-only. Returns 0 or an error. */
static int seal(const struct ingest *in, int fd, int error)
{
    struct stat st;

    if (!error && fstat(fd, &st))
        error = errno + WRITING;
    /* Only a umask or a default ACL can have taken bits away; to set them costs the file system a transaction. */
    if (!error && (st.st_mode & 07777) != READ_ONLY && fchmod(fd, READ_ONLY))
        error = errno + WRITING;
    if (!error && in->sync && fsync(fd))
        error = errno + WRITING;
    if (close(fd) && !error)
        error = errno + WRITING;
    return error;
}

static int create(const struct ingest *in, const char *name)
{
    return openat(in->staging, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, READ_ONLY);
}

/* Few builds read soon what they have stored. Without the page cache nothing is copied once more, nothing else is
 * driven out of it, and the commit finds the content on the disk. Not every file system can. */
static void past_page_cache(int fd)
{
    fcntl(fd, F_SETFL, O_DIRECT);
}

static void temporary_name(const struct ingest *in, size_t index, char *name)
{
    snprintf(name, NAME_ROOM, "ingest-%u-%zu", in->serial, index);
}

/* Gives a complete temporary file its name; it may replace an equal one. Returns 0 or an error. */
static int give_name(const struct ingest *in, const char *temporary, const char *name)
{
    if (!renameat(in->staging, temporary, in->staging, name))
        return 0;
    int failed = errno;
    if (failed == ENOENT && !(failed = make_shard(in, name))) {
        if (!renameat(in->staging, temporary, in->staging, name))
            return 0;
        failed = errno;
    }
    const int error = failed + WRITING;
    unlinkat(in->staging, temporary, 0);
    return error;
}

static int write_new(const struct ingest *in, int fd, const char *name, const uint8_t *data, size_t size)
{
    if (size >= DIRECT_BYTES)
        past_page_cache(fd);
    const int error = seal(in, fd, write_content(fd, data, size, 0));

    if (error)
        unlinkat(in->staging, name, 0);
    return error;
}

static int keep(void *context, size_t index, const uint8_t *digest, const uint8_t *data, size_t size)
{
    struct ingest *in = context;
    char name[NAME_ROOM], temporary[NAME_ROOM];
    int error;

    object_name(in, digest, name);
    if (has(in->objects, name, (int64_t)size)) {
        in->states[index] = holds(in, name, data, -1, size) ? PRESENT : DAMAGED;
        return 0;
    }
    in->states[index] = STAGED;
    int fd = create(in, name);
    if (fd < 0 && errno == ENOENT) {
        const int failed = make_shard(in, name);
        if (failed)
            return failed + WRITING;
        fd = create(in, name);
    }
    if (fd >= 0)
        return write_new(in, fd, name, data, size);
    if (errno != EEXIST)
        return errno + WRITING;
    /* Staged before; if it is not complete, someone is writing it, or failed to. */
    if (has(in->staging, name, (int64_t)size))
        return 0;
    temporary_name(in, index, temporary);
    if ((fd = create(in, temporary)) < 0)
        return errno + WRITING;
    error = write_new(in, fd, temporary, data, size);
    return error ? error : give_name(in, temporary, name);
}

static int spool(void *context, size_t index, int source, int *file, int *cloned)
{
    struct ingest *in = context;
    char name[NAME_ROOM];

    temporary_name(in, index, name);
    if ((*file = create(in, name)) < 0)
        return errno + WRITING;
    /* What is hashed is then what the clone holds, so that a later change of the source does not matter. */
    *cloned = !ioctl(*file, FICLONE, source);
    if (!*cloned)
        past_page_cache(*file);
    return 0;
}

static int settle(void *context, size_t index, int file, const uint8_t *digest)
{
    struct ingest *in = context;
    char temporary[NAME_ROOM], name[NAME_ROOM];
    struct stat st;
    int error = fstat(file, &st) ? errno + WRITING : 0;

    through_page_cache(file);
    temporary_name(in, index, temporary);
    if (!error && digest) {
        object_name(in, digest, name);
        in->states[index] = STAGED;
        if (has(in->objects, name, st.st_size))
            in->states[index] = holds(in, name, NULL, file, (uint64_t)st.st_size) ? PRESENT : DAMAGED;
    }
    error = seal(in, file, error);
    if (!error && digest && in->states[index] == STAGED)
        return give_name(in, temporary, name);
    unlinkat(in->staging, temporary, 0);
    return error;
}

static int check(void *context, size_t index, const struct stat *now)
{
    const struct ingest *in = context;
    const struct scan_record *before = &in->records[in->numbers[index]];
    const int same = before->ino == now->st_ino && before->dev == now->st_dev && before->mode == now->st_mode &&
                     before->size == now->st_size && before->mtime_ns == nanoseconds(&now->st_mtim) &&
                     before->ctime_ns == nanoseconds(&now->st_ctim);

    return same ? 0 : CHANGED;
}

static int poll_python(void *context)
{
    struct ingest *in = context;
    PyObject *answer = Py_None;

    PyEval_RestoreThread(in->thread);
    int stop = PyErr_CheckSignals();
    if (!stop && in->progress != Py_None) {
        answer = PyObject_CallFunction(in->progress, "nn", (Py_ssize_t)atomic_load(&in->batch.done),
                                       (Py_ssize_t)atomic_load(&in->batch.bytes));
        stop = !answer;
        Py_XDECREF(answer);
    }
    in->thread = PyEval_SaveThread();
    return stop;
}

/* Fills in what the batch needs from the arguments. Returns -1 with an exception set. */
static int prepare(struct ingest *in, PyObject *names, const Py_buffer *records, const Py_buffer *numbers)
{
    struct batch *b = &in->batch;
    const size_t n = (size_t)PyTuple_GET_SIZE(names);
    const char **paths = calloc(n + 1, sizeof(*paths));
    int64_t *expected = calloc(n + 1, sizeof(*expected));

    b->names = paths;
    b->expected = expected;
    b->results = malloc((n + 1) * SLOT);
    b->sizes = calloc(n + 1, sizeof(*b->sizes));
    in->states = calloc(n + 1, 1);
    if (!paths || !expected || !b->results || !b->sizes || !in->states) {
        PyErr_NoMemory();
        return -1;
    }
    b->count = n;
    in->records = records->buf;
    in->numbers = numbers->buf;
    in->record_count = (size_t)records->len / sizeof(*in->records);
    if ((size_t)numbers->len != n * sizeof(*in->numbers)) {
        PyErr_SetString(PyExc_ValueError, "as many numbers as names are needed");
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(names, (Py_ssize_t)i), (char **)&paths[i], NULL))
            return -1;
        if (in->numbers[i] >= in->record_count || !S_ISREG(in->records[in->numbers[i]].mode)) {
            PyErr_SetString(PyExc_ValueError, "not the number of a regular file's record");
            return -1;
        }
        expected[i] = in->records[in->numbers[i]].size;
    }
    return 0;
}

/* Returns (values, states, -1, 0), or (None, None, number of the file that failed, error). */
static PyObject *answer(const struct ingest *in)
{
    const struct batch *b = &in->batch;

    if (b->error)
        return PyErr_Occurred() ? NULL : Py_BuildValue("OOni", Py_None, Py_None, (Py_ssize_t)b->failed, b->error);
    PyObject *values = PyList_New((Py_ssize_t)b->count);
    for (size_t i = 0; values && i < b->count; i++) {
        const size_t size = (size_t)b->sizes[i] <= b->inline_bytes ? (size_t)b->sizes[i] : sha_size(b->algorithm);
        PyObject *value = PyBytes_FromStringAndSize((const char *)b->results + i * SLOT, (Py_ssize_t)size);
        if (!value)
            Py_CLEAR(values);
        else
            PyList_SET_ITEM(values, (Py_ssize_t)i, value);
    }
    return values ? Py_BuildValue("Ny#ni", values, in->states, (Py_ssize_t)b->count, (Py_ssize_t)-1, 0) : NULL;
}

static PyObject *py_ingest(PyObject *self, PyObject *args)
{
    static atomic_uint calls;
    struct ingest in = {.batch = {.inline_bytes = SLOT}};
    struct batch *b = &in.batch;
    Py_buffer records, numbers;
    PyObject *sequence, *names, *result = NULL;
    const char *kernel;

    (void)self;
    if (!PyArg_ParseTuple(args, "iOy*y*iipiIsO", &b->directory, &sequence, &records, &numbers, &in.staging, &in.objects,
                          &in.sync, &b->algorithm, &b->threads, &kernel, &in.progress))
        return NULL;
    in.serial = atomic_fetch_add(&calls, 1);
    b->hooks = (struct batch_hooks){.check = check, .poll = poll_python, .context = &in};
    if (in.staging >= 0)
        b->hooks.keep = keep, b->hooks.spool = spool, b->hooks.settle = settle;
    names = PySequence_Tuple(sequence);
    b->kernel = sha_select(b->algorithm, kernel);
    if (!b->kernel) {
        PyErr_Format(PyExc_ValueError, "no kernel '%s' runs here", kernel);
    } else if (names && !prepare(&in, names, &records, &numbers)) {
        in.thread = PyEval_SaveThread();
        batch_run(b);
        PyEval_RestoreThread(in.thread);
        result = answer(&in);
    }
    free((void *)b->names);
    free((void *)b->expected);
    free(b->results);
    free(b->sizes);
    free(in.states);
    Py_XDECREF(names);
    PyBuffer_Release(&records);
    PyBuffer_Release(&numbers);
    return result;
}

/* present(objects_fd, digests, sizes, uid) -> one byte for each digest: 1 when its object is there, has that
 * size, and belongs to that user. */
static PyObject *py_present(PyObject *self, PyObject *args)
{
    PyObject *digests, *list, *result;
    Py_buffer sizes;
    int objects;
    unsigned uid;

    (void)self;
    if (!PyArg_ParseTuple(args, "iOy*I", &objects, &digests, &sizes, &uid))
        return NULL;
    list = PySequence_Tuple(digests);
    const Py_ssize_t n = list ? PyTuple_GET_SIZE(list) : 0;
    result = list ? PyBytes_FromStringAndSize(NULL, n) : NULL;
    if (result && sizes.len != n * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "as many sizes as digests are needed");
        Py_CLEAR(result);
    }
    for (Py_ssize_t i = 0; result && i < n; i++) {
        struct ingest in = {0};
        char name[NAME_ROOM];
        struct stat st;
        char *digest;
        Py_ssize_t bytes;

        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(list, i), &digest, &bytes)) {
            Py_CLEAR(result);
            break;
        }
        in.batch.algorithm = bytes == 64 ? SHA512 : SHA256;
        if (bytes != (Py_ssize_t)sha_size(in.batch.algorithm)) {
            PyErr_SetString(PyExc_ValueError, "not a digest");
            Py_CLEAR(result);
            break;
        }
        object_name(&in, (const uint8_t *)digest, name);
        PyBytes_AS_STRING(result)[i] = !fstatat(objects, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
                                       st.st_size == ((const int64_t *)sizes.buf)[i] && st.st_uid == uid;
    }
    Py_XDECREF(list);
    PyBuffer_Release(&sizes);
    return result;
}

/* rename_new(source_fd, source, target_fd, target) -> 0 or errno: renameat2(2) that replaces nothing. */
static PyObject *py_rename_new(PyObject *self, PyObject *args)
{
    int source_fd, target_fd, failed;
    const char *source, *target;

    (void)self;
    if (!PyArg_ParseTuple(args, "iyiy", &source_fd, &source, &target_fd, &target))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = syscall(SYS_renameat2, source_fd, source, target_fd, target, RENAME_NOREPLACE) ? errno : 0;
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(failed);
}

/* sync_file_system(fd) -> 0 or errno: syncfs(2). */
static PyObject *py_sync_file_system(PyObject *self, PyObject *args)
{
    int fd, failed;

    (void)self;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = syscall(SYS_syncfs, fd) ? errno : 0;
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(failed);
}

static PyMethodDef methods[] = {
    {"ingest", py_ingest, METH_VARARGS,
     "ingest(directory, names, records, numbers, staging, objects, sync, algorithm, threads, kernel, progress)"},
    {"present", py_present, METH_VARARGS, "present(objects, digests, sizes, uid) -> bytes"},
    {"rename_new", py_rename_new, METH_VARARGS, "rename_new(source_fd, source, target_fd, target) -> errno"},
    {"sync_file_system", py_sync_file_system, METH_VARARGS, "sync_file_system(fd) -> errno"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_ingest", "Reads, hashes and stages files", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__ingest(void)
{
    return PyModule_Create(&definition);
}
