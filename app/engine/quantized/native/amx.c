/* Matmul of many bfloat16 rows with int4 and int8 weights by the tiles of AMX, which multiply
   bfloat16: a scale for each 32 inputs would cost integer tiles more than they gain. The weights of
   32 outputs at a time are made into bfloat16, and the rows stay as they are. */
#include "layout.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { TILE_ROWS = 16, TILE = TILE_ROWS * BLOCK }; /* a tile is 16 rows x 32 bfloat16 */
enum { CHUNK = 2 << 20 };                          /* bytes of rows, which a core's cache holds */
enum { REQUEST_XCOMP = 0x1023, XTILEDATA = 18 };

/* Eight tiles of 16 rows x 64 bytes, for the calling thread. */
static void tiles_on(void) {
    struct { uint8_t palette, start, unused[14]; uint16_t bytes[16]; uint8_t rows[16]; } form;
    memset(&form, 0, sizeof form);
    form.palette = 1;
    for (int i = 0; i < 8; i++) { form.bytes[i] = LINE; form.rows[i] = TILE_ROWS; }
    /* gcc 12 takes these stores for dead. */
    __asm__ volatile("" ::"r"(&form) : "memory");
    _tile_loadconfig(&form);
}

/* Asks the kernel for AMX, which every process must do once: 0 when it may be used. */
int allow_amx(void) { return (int)syscall(SYS_arch_prctl, REQUEST_XCOMP, XTILEDATA); }

/* One of the 4 inputs of a line, 16 outputs, as the bits of float32, rounded to bfloat16 above. */
INLINE ints one_input(ints line, int shift, const int bits, floats scale, floats base) {
    ints code = both(_mm512_srli_epi32(line, shift), _mm512_set1_epi32(bits == 4 ? 15 : 255));
    floats value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), scale, base);
    return _mm512_add_epi32(_mm512_castps_si512(value), _mm512_set1_epi32(0x8000));
}

/* The weights of 32 outputs, made into two rows of tiles: pairs of inputs of 16 outputs. */
INLINE void make_tiles(const uint8_t *square, int64_t blocks, const int bits, bf16 *made) {
    const ints high = _mm512_set1_epi32((int)0xffff0000);
    for (int64_t b = 0; b < blocks; b++, square += bits == 4 ? SQUARE4 : SQUARE8)
        for (int h = 0; h < 2; h++) {
            const f16 *numbers = (const f16 *)square + h * LINE_OUTPUTS;
            floats scale = load_f16(numbers);
            floats base = bits == 4 ? load_f16(numbers + BLOCK)
                                    : _mm512_mul_ps(scale, _mm512_set1_ps(-OFFSET8));
            const uint8_t *lines = square + (bits == 4 ? CODES4 : CODES8 + h * LINES * LINE);
            bf16 *to = made + (h * blocks + b) * TILE;
            for (int l = 0; l < LINES; l++) {
                ints line = load(lines + l * LINE);
                if (bits == 4 && h) line = _mm512_srli_epi32(line, 4);
                for (int i = 0; i < INPUTS; i += 2, to += BLOCK) {
                    ints first = one_input(line, 8 * i, bits, scale, base);
                    ints second = one_input(line, 8 * i + 8, bits, scale, base);
                    second = _mm512_and_si512(second, high);
                    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(first, 16), second));
                }
            }
        }
}

/* 32 rows at a time: four tiles of sums. */
static void by_tiles(const bf16 *rows, int64_t count, int64_t blocks, const bf16 *made,
                     int64_t outputs, bf16 *out) {
    float sums[4][TILE_ROWS][LINE_OUTPUTS] __attribute__((aligned(64)));
    const bf16 *beside = made + blocks * TILE;
    for (int64_t first = 0; first < count; first += 2 * TILE_ROWS) {
        const bf16 *top = rows + first * blocks * BLOCK, *bottom = top + blocks * TILE;
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        for (int64_t k = 0; k < blocks * TILE; k += TILE) {
            _tile_loadd(4, top + k, LINE); _tile_loadd(6, made + k, LINE);
            _tile_loadd(5, bottom + k, LINE); _tile_loadd(7, beside + k, LINE);
            _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, sums[0], LINE); _tile_stored(1, sums[1], LINE);
        _tile_stored(2, sums[2], LINE); _tile_stored(3, sums[3], LINE);
        for (int r = 0; r < 2 * TILE_ROWS && first + r < count; r++)
            for (int h = 0; h < 2; h++)
                store_bf16(out + (first + r) * outputs + h * LINE_OUTPUTS,
                           _mm512_load_ps(sums[r / TILE_ROWS * 2 + h][r % TILE_ROWS]));
    }
}

int amx_matmul(const bf16 *rows, const uint8_t *packed, bf16 *out, int64_t count, int64_t inputs,
               int64_t outputs, int bits, int threads) {
    const int64_t pair = 2 * TILE_ROWS, padded = (count + pair - 1) / pair * pair;
    const int64_t blocks = inputs / BLOCK, square = bits == 4 ? SQUARE4 : SQUARE8;
    int64_t step = CHUNK / (int64_t)sizeof(bf16) / inputs / pair * pair;
    if (step < pair) step = pair;
    if (step > padded) step = padded;
    bf16 *tiles = aligned_alloc(LINE, step * inputs * sizeof *tiles);
    int failed = !tiles;
    #pragma omp parallel num_threads(threads)
    {
        bf16 *made = aligned_alloc(LINE, BLOCK * inputs * sizeof *made);
        if (!made) {
            #pragma omp atomic write
            failed = 1;
        }
        tiles_on();
        #pragma omp barrier
        for (int64_t start = 0; start < count && !failed; start += step) {
            int64_t here = count - start < step ? count - start : step;
            #pragma omp for schedule(static)
            for (int64_t r = 0; r < step; r++) {
                bf16 *to = tiles + r / TILE_ROWS * TILE_ROWS * inputs + r % TILE_ROWS * BLOCK;
                for (int64_t b = 0; b < blocks; b++, to += TILE)
                    if (r < here) memcpy(to, rows + (start + r) * inputs + b * BLOCK, LINE);
                    else memset(to, 0, LINE);
            }
            #pragma omp for schedule(dynamic)
            for (int64_t b = 0; b < outputs / BLOCK; b++) {
                const uint8_t *squares = packed + b * blocks * square;
                if (bits == 4) make_tiles(squares, blocks, 4, made);
                else make_tiles(squares, blocks, 8, made);
                by_tiles(tiles, here, blocks, made, outputs, out + start * outputs + b * BLOCK);
            }
        }
        _tile_release();
        free(made);
    }
    free(tiles);
    return failed;
}
