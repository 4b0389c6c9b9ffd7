/* SHA-2 of many messages of equal length at once, by the fastest kernel that the processor runs. */
#ifndef CFSBUILD_SHA_H
#define CFSBUILD_SHA_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256 = 1, SHA512 = 2 }; /* FS_VERITY_HASH_ALG_* */

/* Hashes n messages of len bytes each, which stand one after the other; len is a multiple of 128.
 * Writes n digests, one after the other. */
typedef void sha_function(const uint8_t *data, size_t len, size_t n, uint8_t *digests);

struct sha_kernel {
    const char *name;
    size_t lanes;
    sha_function *hash;
};

/* Fills names with the SHA-256 kernels that run here, fastest first; returns how many, at most max. */
size_t sha_list(const char **names, size_t max);

/* Returns the kernel called name, or the fastest when name is empty; NULL if it is unknown or cannot run
 * here. A name that only SHA-256 has gives the fastest for SHA-512. */
const struct sha_kernel *sha_select(int algorithm, const char *name);

static inline size_t sha_size(int algorithm)
{
    return algorithm == SHA512 ? 64 : 32;
}

extern const uint32_t sha256_constants[64];
extern const uint64_t sha512_constants[80];

sha_function sha256_ni;

#endif
