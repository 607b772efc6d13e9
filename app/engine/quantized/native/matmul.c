/* Matmul of bfloat16 rows with int4 and int8 weights, which lie as layout.py says. Each block of 32
   inputs of a row is rounded to int8 with a scale of its own. Threads are OpenMP's. library.py
   compiles this file; matmul.py calls it, says what the arguments are and checks them. */
#include "layout.h"

enum { AHEAD = 2048 };          /* bytes that are fetched before they are needed */
enum { CHUNK_BYTES = 1 << 20 }; /* of rounded rows, which a core's cache holds */
enum { FEW_BYTES = 1 << 15 };   /* of rows that are rounded before the threads begin */

/* levels: (rows, inputs) · scales: of each block of a row its scale and what one unit of a minimum
   (int4), or the offset of the codes (int8), adds. */
struct rows { int8_t *levels; float (*scales)[2]; int64_t inputs, outputs; };

INLINE void round_row(const bf16 *from, int64_t inputs, int bits, int8_t *to, float (*scales)[2]) {
    for (int64_t b = 0; b < inputs / BLOCK; b++, from += BLOCK, to += BLOCK) {
        float values[BLOCK], most = 0;
        for (int i = 0; i < BLOCK; i++) values[i] = widen(from[i]);
        for (int i = 0; i < BLOCK; i++) {
            float size = __builtin_fabsf(values[i]);
            most = size > most ? size : most;
        }
        float factor = most > 0 ? 127 / most : 0;
        int32_t sum = 0, level[BLOCK];
        for (int i = 0; i < BLOCK; i++) level[i] = (int32_t)__builtin_rintf(values[i] * factor);
        for (int i = 0; i < BLOCK; i++) sum += level[i];
        for (int i = 0; i < BLOCK; i++) to[i] = (int8_t)level[i];
        scales[b][0] = most / 127;
        scales[b][1] = (float)sum * scales[b][0] * (bits == 4 ? 1 : -OFFSET8);
    }
}

/* Some rows with one vector of lines: of int4 its outputs and those 16 behind, of int8 its own. */
INLINE void some_rows(const struct rows *rows, int64_t first, const int count, const int bits,
                      const uint8_t *square, int at, bf16 *out) {
    const int wide = bits == 4 ? 2 : 1;
    const int64_t blocks = rows->inputs / BLOCK;
    const int8_t *levels = rows->levels + first * rows->inputs;
    const float(*scales)[2] = (const float(*)[2])rows->scales + first * blocks;
    const ints low = V(set1_epi8)(15);
    const int64_t line = bits == 4 ? CODES4 + at * INPUTS
        : CODES8 + at / LINE_OUTPUTS * LINES * LINE + at % LINE_OUTPUTS * INPUTS;
    floats made[ROWS][2];
    for (int r = 0; r < count; r++) made[r][0] = made[r][1] = V(setzero_ps)();
    for (int64_t b = 0; b < blocks; b++, square += bits == 4 ? SQUARE4 : SQUARE8, levels += BLOCK) {
        ints dot[ROWS][2];
        for (int r = 0; r < count; r++)
            dot[r][0] = dot[r][1] = V(set1_epi32)(0);
        for (int l = 0; l < LINES; l++) {
            const uint8_t *codes = square + line + l * LINE;
            _mm_prefetch((const char *)codes + AHEAD, _MM_HINT_T0);
            ints pair = load(codes);
#ifdef __AVX512VNNI__
            if (bits == 8) {
                for (int r = 0; r < count; r++)
                    dot[r][0] = add_products(
                        dot[r][0], pair, four_inputs(levels + r * rows->inputs + l * INPUTS));
                continue;
            }
#endif
            ints left = both(pair, low), right = both(V(srli_epi16)(pair, 4), low);
            for (int r = 0; r < count; r++) {
                ints four = four_inputs(levels + r * rows->inputs + l * INPUTS);
                dot[r][0] = add_products(dot[r][0], left, four);
                dot[r][1] = add_products(dot[r][1], right, four);
            }
        }
        const f16 *numbers = (const f16 *)square + at;
        for (int h = 0; h < wide; h++) {
            floats scale = load_f16(numbers + h * LINE_OUTPUTS);
            floats minimum = bits == 4 ? load_f16(numbers + BLOCK + h * LINE_OUTPUTS) : scale;
            for (int r = 0; r < count; r++) {
                ints sum = whole(dot[r][h]);
#ifndef __AVX512VNNI__
                /* The low and the high half of int8 codes were multiplied apart. */
                if (bits == 8) sum = V(add_epi32)(sum, V(slli_epi32)(whole(dot[r][1]), 4));
#endif
                floats own = V(set1_ps)(scales[r * blocks + b][0]);
                floats more = V(set1_ps)(scales[r * blocks + b][1]);
                floats value = V(cvtepi32_ps)(sum);
                if (bits == 4) {
                    made[r][h] = V(fmadd_ps)(minimum, more, made[r][h]);
                    value = V(mul_ps)(value, own);
                } else
                    value = V(fmadd_ps)(value, own, more);
                made[r][h] = V(fmadd_ps)(value, scale, made[r][h]);
            }
        }
    }
    for (int r = 0; r < count; r++)
        for (int h = 0; h < wide; h++)
            store_bf16(out + (first + r) * rows->outputs + at + h * LINE_OUTPUTS, made[r][h]);
}

INLINE void all_rows(const struct rows *rows, int64_t count, const int bits, const uint8_t *squares,
                     bf16 *out) {
    for (int at = 0; at < (bits == 4 ? LINE_OUTPUTS : BLOCK); at += LANES)
        for (int64_t first = 0; first < count; first += ROWS)
            switch (count - first) {
            #define SOME_ROWS(n) some_rows(rows, first, n, bits, squares, at, out); break
            case 1: SOME_ROWS(1);
            case 2: SOME_ROWS(2);
#ifdef __AVX512BW__
            case 3: SOME_ROWS(3);
            case 4: SOME_ROWS(4);
            case 5: SOME_ROWS(5);
#endif
            default: SOME_ROWS(ROWS);
            }
}

static void rows4(const struct rows *rows, int64_t count, const uint8_t *squares, bf16 *out) {
    all_rows(rows, count, 4, squares, out);
}

static void rows8(const struct rows *rows, int64_t count, const uint8_t *squares, bf16 *out) {
    all_rows(rows, count, 8, squares, out);
}

int matmul(const bf16 *rows, const uint8_t *packed, bf16 *out, int64_t count, int64_t inputs,
           int64_t outputs, int bits, int threads) {
    const int64_t blocks = inputs / BLOCK, square = bits == 4 ? SQUARE4 : SQUARE8;
    int64_t step = CHUNK_BYTES / inputs / ROWS * ROWS;
    if (step < ROWS) step = ROWS;
    if (step > count) step = count;
    int8_t *levels = aligned_alloc(LINE, (step * inputs + LINE - 1) / LINE * LINE);
    float(*scales)[2] = malloc(step * blocks * sizeof *scales);
    struct rows some = {levels, scales, inputs, outputs};
    const int failed = !levels || !scales, few = count * inputs <= FEW_BYTES;
    if (few && !failed)
        for (int64_t r = 0; r < count; r++)
            round_row(rows + r * inputs, inputs, bits, levels + r * inputs, scales + r * blocks);
    #pragma omp parallel num_threads(threads)
    for (int64_t start = 0; start < count && !failed; start += step) {
        const int64_t here = count - start < step ? count - start : step;
        if (!few) {
            #pragma omp for schedule(static)
            for (int64_t r = 0; r < here; r++)
                round_row(rows + (start + r) * inputs, inputs, bits, levels + r * inputs,
                          scales + r * blocks);
        }
        #pragma omp for schedule(static)
        for (int64_t b = 0; b < outputs / BLOCK; b++)
            (bits == 4 ? rows4 : rows8)(&some, here, packed + b * blocks * square,
                                        out + start * outputs + b * BLOCK);
    }
    free(levels);
    free(scales);
    return failed;
}
