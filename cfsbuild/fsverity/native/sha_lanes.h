/* SHA-2 (FIPS 180-4) of LANES messages side by side, one message in each lane of a vector.
 *
 * Included once for each kernel, with
 *   NAME   the function to define, of type sha_function
 *   BITS   32 for SHA-256, 64 for SHA-512
 *   LANES  1 (scalar), or a power of two up to 16
 * and, around it, the target options of the instruction set. Undefines what it was given.
 */

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define LOCAL(x) GLUE(NAME, _##x)

#define vector LOCAL(vector)
#define octets LOCAL(octets)
#define compress LOCAL(compress)
#define load LOCAL(load)
#define group LOCAL(group)

#if BITS == 32
#define WORD uint32_t
#define ROUNDS 64
#define CONSTANTS sha256_constants
#define BIG0(x) (ROR(x, 2) ^ ROR(x, 13) ^ ROR(x, 22))
#define BIG1(x) (ROR(x, 6) ^ ROR(x, 11) ^ ROR(x, 25))
#define SMALL0(x) (ROR(x, 7) ^ ROR(x, 18) ^ ((x) >> 3))
#define SMALL1(x) (ROR(x, 17) ^ ROR(x, 19) ^ ((x) >> 10))
#define INITIAL sha256_initial
#define SWAP(x) __builtin_bswap32(x)
#else
#define WORD uint64_t
#define ROUNDS 80
#define CONSTANTS sha512_constants
#define BIG0(x) (ROR(x, 28) ^ ROR(x, 34) ^ ROR(x, 39))
#define BIG1(x) (ROR(x, 14) ^ ROR(x, 18) ^ ROR(x, 41))
#define SMALL0(x) (ROR(x, 1) ^ ROR(x, 8) ^ ((x) >> 7))
#define SMALL1(x) (ROR(x, 19) ^ ROR(x, 61) ^ ((x) >> 6))
#define INITIAL sha512_initial
#define SWAP(x) __builtin_bswap64(x)
#endif

#define ROR(x, n) (((x) >> (n)) | ((x) << (BITS - (n))))
#define CHOOSE(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define CHUNK (16 * sizeof(WORD)) /* bytes that one compression takes from each message */

#if LANES == 1
typedef WORD vector;
#else
typedef WORD vector __attribute__((vector_size(LANES * sizeof(WORD))));
typedef uint8_t octets __attribute__((vector_size(LANES * sizeof(WORD))));
#endif

#define ROUND(a, b, c, d, e, f, g, h, i)                                                                  \
    do {                                                                                                  \
        if (t)                                                                                            \
            w[i] += SMALL1(w[((i) + 14) & 15]) + w[((i) + 9) & 15] + SMALL0(w[((i) + 1) & 15]);           \
        vector sum = (h) + BIG1(e) + CHOOSE(e, f, g) + CONSTANTS[t + (i)] + w[i];                         \
        (d) += sum;                                                                                       \
        (h) = sum + BIG0(a) + MAJORITY(a, b, c);                                                          \
    } while (0)

static inline void compress(vector *state, vector *w)
{
    vector a = state[0], b = state[1], c = state[2], d = state[3];
    vector e = state[4], f = state[5], g = state[6], h = state[7];

    for (int t = 0; t < ROUNDS; t += 16) {
        ROUND(a, b, c, d, e, f, g, h, 0);
        ROUND(h, a, b, c, d, e, f, g, 1);
        ROUND(g, h, a, b, c, d, e, f, 2);
        ROUND(f, g, h, a, b, c, d, e, 3);
        ROUND(e, f, g, h, a, b, c, d, 4);
        ROUND(d, e, f, g, h, a, b, c, 5);
        ROUND(c, d, e, f, g, h, a, b, 6);
        ROUND(b, c, d, e, f, g, h, a, 7);
        ROUND(a, b, c, d, e, f, g, h, 8);
        ROUND(h, a, b, c, d, e, f, g, 9);
        ROUND(g, h, a, b, c, d, e, f, 10);
        ROUND(f, g, h, a, b, c, d, e, 11);
        ROUND(e, f, g, h, a, b, c, d, 12);
        ROUND(d, e, f, g, h, a, b, c, 13);
        ROUND(c, d, e, f, g, h, a, b, 14);
        ROUND(b, c, d, e, f, g, h, a, 15);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* Loads 16 big-endian words of each message: w[i] holds word i of all of them. */
static inline void load(vector *w, const uint8_t *const *message, size_t offset)
{
#if LANES == 1
    memcpy(w, message[0] + offset, CHUNK);
    for (int i = 0; i < 16; i++)
        w[i] = SWAP(w[i]);
#else
    octets swap;
    vector lane, row[LANES];

    for (size_t i = 0; i < sizeof(swap); i++)
        swap[i] = (uint8_t)(i ^ (sizeof(WORD) - 1));
    for (int i = 0; i < LANES; i++)
        lane[i] = (WORD)i;
    for (int part = 0; part < 16 / LANES; part++) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            octets raw;
            memcpy(&raw, message[i] + offset + (size_t)part * sizeof(vector), sizeof(raw));
            row[i] = (vector)__builtin_shuffle(raw, swap);
        }
        /* Transposes the square by exchanging ever larger blocks across its diagonal. */
#pragma GCC unroll 4
        for (int step = 1; step < LANES; step *= 2) {
            const vector set = (vector)((lane & (WORD)step) != 0);
            const vector low = lane + (set & (WORD)(LANES - step));
            const vector high = lane + (set & (WORD)LANES) + (~set & (WORD)step);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                if (i & step)
                    continue;
                const vector x = row[i], y = row[i + step];
                row[i] = __builtin_shuffle(x, y, low);
                row[i + step] = __builtin_shuffle(x, y, high);
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            w[part * LANES + i] = row[i];
    }
#endif
}

/* Hashes up to LANES messages; idle lanes repeat the first one. */
static void group(const uint8_t *data, size_t len, size_t n, uint8_t *digests)
{
    vector state[8], w[16];
    const uint8_t *message[LANES];

    for (size_t i = 0; i < LANES; i++)
        message[i] = data + (i < n ? i * len : 0);
    for (int i = 0; i < 8; i++)
        state[i] = (vector){0} + INITIAL[i];
    for (size_t offset = 0; offset < len; offset += CHUNK) {
        load(w, message, offset);
        compress(state, w);
    }
    for (int i = 0; i < 16; i++)
        w[i] = (vector){0};
    w[0] += (WORD)1 << (BITS - 1);
    w[15] += (WORD)len * 8;
    compress(state, w);
    for (int i = 0; i < 8; i++) {
        WORD words[LANES];
        memcpy(words, &state[i], sizeof(words));
        for (size_t k = 0; k < n; k++) {
            WORD word = SWAP(words[k]);
            memcpy(digests + k * 8 * sizeof(WORD) + (size_t)i * sizeof(WORD), &word, sizeof(word));
        }
    }
}

static void NAME(const uint8_t *data, size_t len, size_t n, uint8_t *digests)
{
    for (size_t i = 0; i < n; i += LANES)
        group(data + i * len, len, n - i < LANES ? n - i : LANES, digests + i * 8 * sizeof(WORD));
}

#undef vector
#undef octets
#undef compress
#undef load
#undef group
#undef WORD
#undef ROUNDS
#undef CONSTANTS
#undef BIG0
#undef BIG1
#undef SMALL0
#undef SMALL1
#undef INITIAL
#undef SWAP
#undef ROR
#undef CHOOSE
#undef MAJORITY
#undef CHUNK
#undef ROUND
#undef LOCAL
#undef GLUE
#undef GLUE_
#undef NAME
#undef BITS
#undef LANES
