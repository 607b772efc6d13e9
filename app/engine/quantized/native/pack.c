/* Packs float rows as layout.py says, and chooses scales and minimums as quantize.py says. Threads
   are the caller's: each call packs whole squares of some outputs. */
#include "layout.h"

enum { SHARES = 6 }; /* of a block's range that the search begins with */

INLINE f16 to_half(float value) {
    value = value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
    return (f16)_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
}

INLINE float half(float value) { return _cvtsh_ss(to_half(value)); }

/* At least what float16 holds: a scale is never nothing. */
INLINE float scale_of(float value) { return half(value > 0x1p-24f ? value : 0x1p-24f); }

struct line { float scale, minimum, error; };

/* Codes for a line, and their sums: of the codes, of their squares, and of their products. */
INLINE void encode(const float *values, struct line *line, float *codes, float *sums) {
    const float inverse = 1 / line->scale;
    float error = 0, sum = 0, squares = 0, products = 0;
    for (int i = 0; i < BLOCK; i++) {
        float code = __builtin_rintf((values[i] - line->minimum) * inverse);
        code = code < 0 ? 0 : code;
        codes[i] = code > 15 ? 15 : code;
    }
    for (int i = 0; i < BLOCK; i++) {
        float off = codes[i] * line->scale + line->minimum - values[i];
        error += off * off;
        sum += codes[i];
        squares += codes[i] * codes[i];
        products += codes[i] * values[i];
    }
    line->error = error;
    sums[0] = sum; sums[1] = squares; sums[2] = products;
}

INLINE struct line best_line(const float *values, float *best_codes) {
    float low = values[0], high = values[0], total = 0, codes[BLOCK], sums[3];
    for (int i = 0; i < BLOCK; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
        total += values[i];
    }
    struct line best = {0, 0, __builtin_inff()};
    best.error = 3e38f;
    for (int s = 0; s < SHARES; s++) {
        struct line line = {scale_of((high - low) / 15 * (1 - 0.05f * (float)s)), 0, 0};
        line.minimum = half((low + high) / 2 - 7.5f * line.scale);
        for (int again = 0; again < 3; again++) {
            encode(values, &line, codes, sums);
            if (line.error < best.error) {
                best = line;
                memcpy(best_codes, codes, BLOCK * sizeof *codes);
            }
            /* The least-squares line through these codes. */
            float spread = BLOCK * sums[1] - sums[0] * sums[0];
            if (spread <= 0) break;
            line.scale = scale_of((BLOCK * sums[2] - sums[0] * total) / spread);
            line.minimum = half((total - line.scale * sums[0]) / BLOCK);
        }
    }
    return best;
}

static void pack4(const float *values, int output, uint8_t *square) {
    float codes[BLOCK];
    struct line line = best_line(values, codes);
    f16 *numbers = (f16 *)square;
    numbers[output] = to_half(line.scale);
    numbers[BLOCK + output] = to_half(line.minimum);
    uint8_t *to = square + CODES4 + output % LINE_OUTPUTS * INPUTS;
    const int shift = output / LINE_OUTPUTS * 4;
    for (int i = 0; i < BLOCK; i++)
        to[i / INPUTS * LINE + i % INPUTS] |= (uint8_t)((int)codes[i] << shift);
}

static void pack8(const float *values, int output, uint8_t *square) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++) {
        float size = __builtin_fabsf(values[i]);
        most = size > most ? size : most;
    }
    float scale = scale_of(most / 127), codes[BLOCK];
    ((f16 *)square)[output] = to_half(scale);
    for (int i = 0; i < BLOCK; i++) {
        float code = __builtin_rintf(values[i] / scale);
        code = code < -127 ? -127 : code;
        codes[i] = code > 127 ? 127 : code;
    }
    uint8_t *to = square + CODES8 + output / LINE_OUTPUTS * LINES * LINE;
    to += output % LINE_OUTPUTS * INPUTS;
    for (int i = 0; i < BLOCK; i++)
        to[i / INPUTS * LINE + i % INPUTS] = (uint8_t)((int)codes[i] + (int)OFFSET8);
}

/* values: (outputs, inputs) float32 */
int pack(const float *values, uint8_t *packed, int64_t outputs, int64_t inputs, int bits) {
    const int64_t blocks = inputs / BLOCK, size = bits == 4 ? SQUARE4 : SQUARE8;
    memset(packed, 0, outputs / BLOCK * blocks * size);
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t b = 0; b < blocks; b++) {
            const float *from = values + o * inputs + b * BLOCK;
            uint8_t *square = packed + (o / BLOCK * blocks + b) * size;
            if (bits == 4) pack4(from, (int)(o % BLOCK), square);
            else pack8(from, (int)(o % BLOCK), square);
        }
    return 0;
}
