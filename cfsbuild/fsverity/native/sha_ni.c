/* SHA-256 of two messages at once with the SHA extensions of x86-64.
 *
 * One message keeps the unit busy for less than half of the time, since each of its instructions waits
 * for the one before; two fill the gaps, and more would need more than the 16 registers there are. */

#include "sha.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define PAIR _Pragma("GCC unroll 2") for (int k = 0; k < 2; k++)

struct pair {
    __m128i abef[2], cdgh[2];
};

/* Runs 64 rounds on both states; w[k] holds the 16 words of message k. */
__attribute__((target("sha,sse4.1"))) static inline void rounds(struct pair *state, __m128i w[2][4])
{
    __m128i abef[2], cdgh[2];

    PAIR abef[k] = state->abef[k], cdgh[k] = state->cdgh[k];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        const __m128i constants = _mm_loadu_si128((const __m128i *)(sha256_constants + 4 * i));
        __m128i sum[2];

        PAIR sum[k] = _mm_add_epi32(w[k][i & 3], constants);
        PAIR cdgh[k] = _mm_sha256rnds2_epu32(cdgh[k], abef[k], sum[k]);
        PAIR abef[k] = _mm_sha256rnds2_epu32(abef[k], cdgh[k], _mm_shuffle_epi32(sum[k], 0x0e));
        if (i < 3 || i == 15)
            continue;
        PAIR
        {
            const __m128i newest = w[k][i & 3];
            const __m128i middle = _mm_alignr_epi8(newest, w[k][(i + 3) & 3], 4);
            const __m128i oldest = _mm_sha256msg1_epu32(w[k][(i + 1) & 3], w[k][(i + 2) & 3]);
            w[k][(i + 1) & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(oldest, middle), newest);
        }
    }
    PAIR state->abef[k] = _mm_add_epi32(state->abef[k], abef[k]);
    PAIR state->cdgh[k] = _mm_add_epi32(state->cdgh[k], cdgh[k]);
}

__attribute__((target("sha,sse4.1"))) static void hash_pair(const uint8_t *const *message, size_t len,
                                                            uint8_t *const *digest)
{
    const __m128i swap = _mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
    struct pair state;
    __m128i w[2][4];

    PAIR state.abef[k] = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    PAIR state.cdgh[k] = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    for (size_t offset = 0; offset < len; offset += 64) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            PAIR w[k][i] = _mm_shuffle_epi8(
                _mm_loadu_si128((const __m128i *)(message[k] + offset + 16 * i)), swap);
        rounds(&state, w);
    }
    PAIR
    {
        w[k][0] = _mm_set_epi32(0, 0, 0, (int)0x80000000);
        w[k][1] = w[k][2] = _mm_setzero_si128();
        w[k][3] = _mm_set_epi32((int)(len * 8), (int)((uint64_t)len * 8 >> 32), 0, 0);
    }
    rounds(&state, w);
    PAIR
    {
        const __m128i feba = _mm_shuffle_epi32(state.abef[k], 0x1b); /* a b e f, first word lowest */
        const __m128i hgdc = _mm_shuffle_epi32(state.cdgh[k], 0x1b);
        const __m128i low = _mm_unpacklo_epi64(feba, hgdc);
        const __m128i high = _mm_unpackhi_epi64(feba, hgdc);
        _mm_storeu_si128((__m128i *)digest[k], _mm_shuffle_epi8(low, swap));
        _mm_storeu_si128((__m128i *)(digest[k] + 16), _mm_shuffle_epi8(high, swap));
    }
}

void sha256_ni(const uint8_t *data, size_t len, size_t n, uint8_t *digests)
{
    uint8_t unused[32];

    for (size_t i = 0; i < n; i += 2) {
        const int both = i + 1 < n;
        const uint8_t *const message[2] = {data + i * len, data + (both ? i + 1 : i) * len};
        uint8_t *const digest[2] = {digests + i * 32, both ? digests + (i + 1) * 32 : unused};
        hash_pair(message, len, digest);
    }
}

#endif
