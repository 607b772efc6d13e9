/* The vectors of this compilation: 16 numbers of 32 bits with AVX-512, 8 with AVX2, and what the
   kernels do with them. Instructions: Intel 64 and IA-32 Architectures Software Developer's Manual,
   volume 2, VPDPBUSD, VPMADDUBSW and TDPBF16PS. */
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;
typedef uint16_t f16;

#ifdef __AVX512BW__
typedef __m512i ints;
typedef __m512 floats;
enum { LANES = 16, ROWS = 6 }; /* numbers of a vector; rows whose sums the registers hold */
#define V(name) _mm512_##name
INLINE ints load(const void *from) { return _mm512_loadu_si512(from); }
INLINE ints both(ints left, ints right) { return _mm512_and_si512(left, right); }
INLINE floats load_f16(const f16 *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
#else
typedef __m256i ints;
typedef __m256 floats;
enum { LANES = 8, ROWS = 3 };
#define V(name) _mm256_##name
INLINE ints load(const void *from) { return _mm256_loadu_si256(from); }
INLINE ints both(ints left, ints right) { return _mm256_and_si256(left, right); }
INLINE floats load_f16(const f16 *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}
#endif

INLINE ints four_inputs(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, sizeof four);
    return V(set1_epi32)(four);
}

/* Adds the products of 4 inputs with unsigned codes. Without VNNI codes must be 0 to 15: the sums
   have 16 bits, which hold the 8 lines of a block, 8 x 2 x 15 x 127 = 30,480, and never saturate. */
INLINE ints add_products(ints sums, ints codes, ints levels) {
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(sums, codes, levels);
#else
    return V(add_epi16)(sums, V(maddubs_epi16)(codes, levels));
#endif
}

/* What add_products left, as sums of 32 bits. */
INLINE ints whole(ints sums) {
#ifdef __AVX512VNNI__
    return sums;
#else
    return V(madd_epi16)(sums, V(set1_epi16)(1));
#endif
}

INLINE bf16 narrow(float value) { /* to the nearest, of two to the even one */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE void store_bf16(bf16 *to, floats values) {
    float held[LANES];
    V(storeu_ps)(held, values);
    for (int i = 0; i < LANES; i++) to[i] = narrow(held[i]);
}

INLINE float widen(bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float made;
    memcpy(&made, &bits, sizeof made);
    return made;
}
