/* The record that a scan makes of each entry; cfsbuild/tree/scan.py describes it. */
#ifndef CFSBUILD_SCAN_H
#define CFSBUILD_SCAN_H

#include <stddef.h>
#include <stdint.h>

struct scan_record {
    uint64_t ino;
    int64_t size, mtime_ns, ctime_ns;
    uint64_t dev, rdev;
    uint32_t mode, uid, gid, nlink;
    uint32_t parent;      /* number of the directory's record; the root's is its own */
    uint32_t name_offset; /* in the names, where each ends with a NUL */
    uint16_t name_bytes, depth;
    uint32_t zero;
};

_Static_assert(sizeof(struct scan_record) == 80, "the record is a file format");

/* Sets result[i] to 0 when entry i has no extended attributes, to 1 when it has, or when that cannot be told.
 * The records must be those of one scan of `root`. Returns -1 when there is no memory. */
int scan_attributed(int root, const struct scan_record *records, size_t count, const char *names, uint8_t *result);

#endif
