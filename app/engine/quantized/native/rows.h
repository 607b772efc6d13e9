/* What the matmuls of bfloat16 rows with int4 and int8 weights share: how weights lie, and how rows
   are rounded to int8. For CPUs with AVX-512 VNNI.

   Weights lie as the instructions take them. A line is 64 bytes: 4 inputs of each of 16 outputs. A
   block of int8 has 16 outputs, one line behind the other; 16 lines are a tile of AMX. A block of
   int4 has 32 outputs: the low half of a byte is of output i, the high half of 16 + i. One side of
   these matmuls is unsigned, so that the levels of weights are kept with 128, or 8, added.

   Instructions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VPDPBUSD and
   TDPBSUD. Threads are OpenMP's. library.py compiles these files; matmul.py calls them, says what
   the arguments are and checks them. */
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 128, LANES = 16, INPUTS = 4, LINE = LANES * INPUTS, WIDTH = 2 * LANES };
enum { TILE_ROWS = 16, TILE_INPUTS = 64, TILE = TILE_ROWS * TILE_INPUTS };
enum { AHEAD_BYTES = 2048 }; /* what is fetched before it is needed */
enum { OFFSET8 = 128, OFFSET4 = 8, LARGEST = 127 };

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

INLINE __m512 widen(const bf16 *from) {
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

/* Stores 16 numbers as bfloat16: to the nearest, of two to the even one. */
INLINE void narrow(bf16 *to, __m512 values) {
    __m512i bits = _mm512_castps_si512(values);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

/* Rounds so many inputs of a row; behind each 64 levels `gap` bytes are left out. */
INLINE void round_row(const bf16 *from, int64_t count, int8_t *to, int64_t gap, float *scale,
                      float *sum) {
    __m512 largest = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += LANES)
        largest = _mm512_max_ps(largest, _mm512_abs_ps(widen(from + i)));
    float most = _mm512_reduce_max_ps(largest);
    __m512 factor = _mm512_set1_ps(most > 0 ? LARGEST / most : 0);
    __m512i total = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i += LANES) {
        __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(widen(from + i), factor));
        total = _mm512_add_epi32(total, level);
        _mm_storeu_si128((__m128i *)(to + i + i / TILE_INPUTS * gap), _mm512_cvtsepi32_epi8(level));
    }
    *scale = most / LARGEST;
    *sum = (float)_mm512_reduce_add_epi32(total);
}

/* Scales and zeros of 16 outputs for one group, of (groups, outputs, 2). */
struct line { __m512 scale, zero; };

INLINE struct line read_line(const bf16 *from) {
    __m512i both = _mm512_loadu_si512(from);
    __m512i zero = _mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000));
    struct line line = {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), _mm512_castsi512_ps(zero)};
    return line;
}

INLINE __m512i four_inputs(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, sizeof four);
    return _mm512_set1_epi32(four);
}
