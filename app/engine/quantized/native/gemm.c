/* Rows with pairs of int8 blocks, which are made of int4 ones on the way: bound by arithmetic. Each
   row is rounded whole. */
#include "rows.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { SOME = 8 };              /* rows of one pass over a block without AMX */
enum { CHUNK_BYTES = 1 << 20 }; /* of rounded rows, which a core's cache holds */
enum { REQUEST_XCOMP = 0x1023, XTILEDATA = 18 };

#define AMX __attribute__((target("amx-tile,amx-int8")))

/* levels: tiles of 16 rows x 64 inputs, those of the same rows one behind the other. */
struct many { int8_t *levels; float *scales, *sums; int64_t inputs, outputs; };

/* Stores 16 sums of one row, for blocks whose levels have 128 added. */
INLINE void store(const struct many *rows, int64_t row, __m512i dot, const float *scales, bf16 *out) {
    __m512 offset = _mm512_set1_ps(OFFSET8 * rows->sums[row]);
    __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(scales), _mm512_set1_ps(rows->scales[row]));
    dot = _mm512_castps_si512(_mm512_sub_ps(_mm512_cvtepi32_ps(dot), offset));
    narrow(out + row * rows->outputs, _mm512_mul_ps(_mm512_castsi512_ps(dot), scale));
}

INLINE void some_rows(const struct many *rows, int64_t first, const int count, const uint8_t *block,
                      const float *scales, bf16 *out) {
    const int8_t *tile = rows->levels + first / TILE_ROWS * TILE_ROWS * rows->inputs;
    tile += first % TILE_ROWS * TILE_INPUTS;
    __m512i dot[SOME][2];
    for (int r = 0; r < count; r++) dot[r][0] = dot[r][1] = _mm512_setzero_si512();
    for (int64_t k = 0; k < rows->inputs; k += TILE_INPUTS, tile += TILE)
        for (int i = 0; i < TILE_INPUTS; i += INPUTS) {
            const uint8_t *left = block + (k + i) * LANES, *right = left + rows->inputs * LANES;
            _mm_prefetch((const char *)left + AHEAD_BYTES, _MM_HINT_T0);
            _mm_prefetch((const char *)right + AHEAD_BYTES, _MM_HINT_T0);
            for (int r = 0; r < count; r++) {
                __m512i row = four_inputs(tile + r * TILE_INPUTS + i);
                dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], _mm512_loadu_si512(left), row);
                dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], _mm512_loadu_si512(right), row);
            }
        }
    for (int r = 0; r < count; r++)
        for (int h = 0; h < 2; h++)
            store(rows, first + r, dot[r][h], scales + h * LANES, out + h * LANES);
}

static void by_vnni(const struct many *rows, int64_t count, const uint8_t *block,
                    const float *scales, bf16 *out) {
    for (int64_t first = 0; first < count; first += SOME)
        switch (count - first) {
        #define SOME_ROWS(n) some_rows(rows, first, n, block, scales, out); break
        case 1: SOME_ROWS(1);
        case 2: SOME_ROWS(2);
        case 3: SOME_ROWS(3);
        case 4: SOME_ROWS(4);
        case 5: SOME_ROWS(5);
        case 6: SOME_ROWS(6);
        case 7: SOME_ROWS(7);
        default: SOME_ROWS(SOME);
        }
}

/* 32 rows at a time: four tiles of sums. */
AMX static void by_amx(const struct many *rows, int64_t count, const uint8_t *block,
                       const float *scales, bf16 *out) {
    int32_t sums[4][TILE_ROWS][LANES] __attribute__((aligned(64)));
    const uint8_t *right = block + rows->inputs * LANES;
    for (int64_t first = 0; first < count; first += 2 * TILE_ROWS) {
        const int8_t *top = rows->levels + first * rows->inputs;
        const int8_t *bottom = top + TILE_ROWS * rows->inputs;
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        for (int64_t k = 0; k < rows->inputs * LANES; k += TILE) {
            _tile_loadd(4, top + k, LINE); _tile_loadd(6, block + k, LINE);
            _tile_loadd(5, bottom + k, LINE); _tile_loadd(7, right + k, LINE);
            _tile_dpbsud(0, 4, 6); _tile_dpbsud(1, 4, 7);
            _tile_dpbsud(2, 5, 6); _tile_dpbsud(3, 5, 7);
        }
        _tile_stored(0, sums[0], LINE); _tile_stored(1, sums[1], LINE);
        _tile_stored(2, sums[2], LINE); _tile_stored(3, sums[3], LINE);
        for (int r = 0; r < 2 * TILE_ROWS && first + r < count; r++)
            for (int h = 0; h < 2; h++) {
                __m512i dot = _mm512_load_si512(sums[r / TILE_ROWS * 2 + h][r % TILE_ROWS]);
                store(rows, first + r, dot, scales + h * LANES, out + h * LANES);
            }
    }
}

/* Eight tiles of 16 rows x 64 bytes, for the calling thread. */
AMX static void tiles_on(void) {
    struct { uint8_t palette, start, unused[14]; uint16_t bytes[16]; uint8_t rows[16]; } form;
    memset(&form, 0, sizeof form);
    form.palette = 1;
    for (int i = 0; i < 8; i++) { form.bytes[i] = LINE; form.rows[i] = TILE_ROWS; }
    /* gcc 12 takes these stores for dead. */
    __asm__ volatile("" ::"r"(&form) : "memory");
    _tile_loadconfig(&form);
}

AMX static void tiles_off(void) { _tile_release(); }

/* Asks the kernel for AMX, which every process must do once: 0 when it may be used. */
int allow_amx(void) { return (int)syscall(SYS_arch_prctl, REQUEST_XCOMP, XTILEDATA); }

/* Each number rounded, in both halves of its place. */
INLINE __m512i twice(__m512 numbers) {
    __m512i whole = _mm512_cvtps_epi32(numbers);
    return _mm512_or_si512(whole, _mm512_slli_epi32(whole, 16));
}

/* An int4 block as two int8 blocks, and the scales of its 32 outputs: level * factor + base in
   numbers of 8 bits before and 8 after the point. */
static void widen_block(const uint8_t *packed, const bf16 *lines, int64_t inputs, int64_t outputs,
                        uint8_t *made, float *scales) {
    const __m512i low = _mm512_set1_epi16(15), high = _mm512_set1_epi16((short)0xff00);
    for (int h = 0; h < 2; h++) {
        const bf16 *own = lines + h * WIDTH;
        __m512 most = _mm512_set1_ps(1e-9f);
        for (int64_t g = 0; g < inputs / GROUP; g++) {
            struct line line = read_line(own + g * outputs * 2);
            __m512 first = _mm512_fnmadd_ps(line.scale, _mm512_set1_ps(OFFSET4), line.zero);
            __m512 last = _mm512_fmadd_ps(line.scale, _mm512_set1_ps(15 - OFFSET4), line.zero);
            most = _mm512_max_ps(most, _mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(last)));
        }
        _mm512_storeu_ps(scales + h * LANES, _mm512_div_ps(most, _mm512_set1_ps(LARGEST)));
        __m512 steps = _mm512_div_ps(_mm512_set1_ps(LARGEST * 256), most);
        uint8_t *to = made + h * inputs * LANES;
        for (int64_t g = 0; g < inputs / GROUP; g++) {
            struct line line = read_line(own + g * outputs * 2);
            __m512 first = _mm512_fnmadd_ps(line.scale, _mm512_set1_ps(OFFSET4), line.zero);
            first = _mm512_fmadd_ps(first, steps, _mm512_set1_ps(OFFSET8 * 256 + 128));
            __m512i factor = twice(_mm512_mul_ps(line.scale, steps)), base = twice(first);
            for (int64_t at = g * GROUP * LANES; at < (g + 1) * GROUP * LANES; at += LINE) {
                __m512i both = _mm512_loadu_si512(packed + at);
                if (h) both = _mm512_srli_epi16(both, 4);
                __m512i even = _mm512_and_si512(both, low);
                __m512i odd = _mm512_and_si512(_mm512_srli_epi16(both, 8), low);
                even = _mm512_add_epi16(_mm512_mullo_epi16(even, factor), base);
                odd = _mm512_add_epi16(_mm512_mullo_epi16(odd, factor), base);
                odd = _mm512_and_si512(odd, high);
                _mm512_storeu_si512(to + at, _mm512_or_si512(_mm512_srli_epi16(even, 8), odd));
            }
        }
    }
}

int gemm(const bf16 *rows, const uint8_t *packed, const bf16 *lines, const float *scales,
            bf16 *out, int64_t count, int64_t inputs, int64_t outputs, int amx, int threads) {
    const int64_t pair = 2 * TILE_ROWS, padded = (count + pair - 1) / pair * pair;
    int64_t step = CHUNK_BYTES / inputs / pair * pair;
    if (step < pair) step = pair;
    if (step > padded) step = padded;
    int8_t *levels = aligned_alloc(LINE, step * inputs);
    float *row_scales = malloc(2 * step * sizeof *row_scales);
    struct many many = {levels, row_scales, row_scales + step, inputs, outputs};
    int failed = !levels || !row_scales;
    #pragma omp parallel num_threads(threads)
    {
        uint8_t *made = lines ? aligned_alloc(LINE, WIDTH * inputs) : 0;
        float made_scales[WIDTH];
        if (lines && !made) {
            #pragma omp atomic write
            failed = 1;
        }
        if (amx) tiles_on();
        #pragma omp barrier
        for (int64_t start = 0; start < count && !failed; start += step) {
            int64_t here = count - start < step ? count - start : step;
            #pragma omp for schedule(static)
            for (int64_t r = 0; r < step; r++) {
                int8_t *to = levels + r / TILE_ROWS * TILE_ROWS * inputs + r % TILE_ROWS * LINE;
                if (r < here)
                    round_row(rows + (start + r) * inputs, inputs, to, TILE - LINE,
                              many.scales + r, many.sums + r);
                else
                    for (int64_t k = 0; k < inputs * TILE_ROWS; k += TILE) memset(to + k, 0, LINE);
            }
            #pragma omp for schedule(dynamic)
            for (int64_t b = 0; b < outputs / WIDTH; b++) {
                const uint8_t *block = packed + b * WIDTH * inputs;
                const float *own = scales + b * WIDTH;
                if (lines) {
                    widen_block(packed + b * LANES * inputs, lines + b * 2 * WIDTH, inputs,
                                outputs, made, made_scales);
                    block = made;
                    own = made_scales;
                }
                bf16 *to = out + start * outputs + b * WIDTH;
                if (amx && here > SOME) by_amx(&many, here, block, own, to);
                else by_vnni(&many, here, block, own, to);
            }
        }
        if (amx) tiles_off();
        free(made);
    }
    free(levels);
    free(row_scales);
    return failed;
}
