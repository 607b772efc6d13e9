/* A few rows with int4 weights: bound by memory. Each group of 128 inputs of a row is rounded with a
   scale of its own, and multiplied by the scales of the weights' own group. */
#include "rows.h"

enum { FEW = 4 }; /* rows of one pass over a block */

struct few { const int8_t *levels; const float *scales, *sums; int64_t inputs, groups, outputs; };

INLINE void few_rows(const struct few *rows, int64_t first, const int count, const uint8_t *block,
                     const bf16 *lines, bf16 *out) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512 made[FEW][2];
    for (int r = 0; r < count; r++) made[r][0] = made[r][1] = _mm512_setzero_ps();
    for (int64_t g = 0; g < rows->groups; g++) {
        const uint8_t *at = block + g * GROUP * LANES;
        const int8_t *levels = rows->levels + first * rows->inputs + g * GROUP;
        const bf16 *own = lines + g * rows->outputs * 2, *next = own + rows->outputs * 2;
        _mm_prefetch((const char *)next, _MM_HINT_T0);
        _mm_prefetch((const char *)next + LINE, _MM_HINT_T0);
        __m512i dot[FEW][2];
        for (int r = 0; r < count; r++) dot[r][0] = dot[r][1] = _mm512_setzero_si512();
        for (int i = 0; i < GROUP; i += INPUTS, at += LINE) {
            _mm_prefetch((const char *)at + AHEAD_BYTES, _MM_HINT_T0);
            __m512i both = _mm512_loadu_si512(at);
            __m512i left = _mm512_and_si512(both, low);
            __m512i right = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
            for (int r = 0; r < count; r++) {
                __m512i row = four_inputs(levels + r * rows->inputs + i);
                dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], left, row);
                dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], right, row);
            }
        }
        for (int h = 0; h < 2; h++) {
            struct line line = read_line(own + h * WIDTH);
            __m512 zero = _mm512_fnmadd_ps(line.scale, _mm512_set1_ps(OFFSET4), line.zero);
            for (int r = 0; r < count; r++) {
                int64_t group = (first + r) * rows->groups + g;
                __m512 value = _mm512_mul_ps(zero, _mm512_set1_ps(rows->sums[group]));
                value = _mm512_fmadd_ps(line.scale, _mm512_cvtepi32_ps(dot[r][h]), value);
                made[r][h] = _mm512_fmadd_ps(value, _mm512_set1_ps(rows->scales[group]), made[r][h]);
            }
        }
    }
    for (int r = 0; r < count; r++)
        for (int h = 0; h < 2; h++) narrow(out + (first + r) * rows->outputs + h * LANES, made[r][h]);
}

int int4_gemv(const bf16 *rows, const uint8_t *packed, const bf16 *lines, bf16 *out, int64_t count,
             int64_t inputs, int64_t outputs, int threads) {
    int64_t groups = inputs / GROUP;
    int8_t *levels = malloc(count * inputs);
    float *scales = malloc(2 * count * groups * sizeof *scales), *sums = scales + count * groups;
    if (levels && scales) {
        for (int64_t i = 0; i < count * groups; i++)
            round_row(rows + i * GROUP, GROUP, levels + i * GROUP, 0, scales + i, sums + i);
        struct few few = {levels, scales, sums, inputs, groups, outputs};
        #pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t b = 0; b < outputs / WIDTH; b++) {
            const uint8_t *block = packed + b * inputs * LANES;
            const bf16 *own = lines + b * 2 * WIDTH;
            for (int64_t first = 0; first < count; first += FEW)
                switch (count - first) {
                case 1: few_rows(&few, first, 1, block, own, out + b * WIDTH); break;
                case 2: few_rows(&few, first, 2, block, own, out + b * WIDTH); break;
                case 3: few_rows(&few, first, 3, block, own, out + b * WIDTH); break;
                default: few_rows(&few, first, FEW, block, own, out + b * WIDTH);
                }
        }
    }
    int failed = !levels || !scales;
    free(levels);
    free(scales);
    return failed;
}
