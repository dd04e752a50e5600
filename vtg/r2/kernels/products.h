/* Products of bfloat16 with float32 sums, and what stands between two of them: rows are normalised, shared out,
   rounded, laid out. Numbers in memory are row-major, and without gaps unless a stride says otherwise. */

#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FAST __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c,fma,bmi2")))
#define INLINE static inline __attribute__((always_inline)) FAST

enum {
    LANES = 16,    /* of float32 in a register; also the columns of a panel */
    MOST_ROWS = 14 /* of a tile: 2 x 14 sums, two columns and an input fill the registers */
};

typedef uint16_t half; /* a bfloat16 */

/* A matrix of weights as it is multiplied by: panels of 16 columns, in each of which pairs of inputs stand together. */
typedef struct {
    const uint32_t *panels;
    const float *bias;
    int64_t inputs, outputs;
} vtg_linear;

typedef struct {
    const float *scale, *shift;
    double epsilon;
} vtg_norm;

static int64_t up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

INLINE __mmask16 lanes_left(int64_t left) { return left >= LANES ? 0xffff : left <= 0 ? 0 : (1u << left) - 1; }

INLINE void store_half(half *to, __mmask16 lanes, __m512 values) {
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(values));
}

/* What a product does with its sums, in this order: adds a bias, adds a matrix, rectifies, stores. */
typedef struct {
    const float *bias;  /* [columns], or none */
    const float *added; /* [rows, columns], or none */
    int64_t added_stride;
    int rectified;
    float *wide; /* where they go: one of both */
    half *narrow;
    int64_t stride;
} after;

INLINE void finish(__m512 sum, int64_t row, int64_t column, __mmask16 lanes, const after *then) {
    if (then->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, then->bias + column));
    if (then->added)
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, then->added + row * then->added_stride + column));
    if (then->rectified) sum = _mm512_max_ps(sum, _mm512_setzero_ps());
    if (then->wide) _mm512_mask_storeu_ps(then->wide + row * then->stride + column, lanes, sum);
    else store_half(then->narrow + row * then->stride + column, lanes, sum);
}

/* A tile of so many rows and of 16 or 32 columns. Strides are those of pairs. */
INLINE void tile(const int rows, const int wide, const uint32_t *a, int64_t a_row, int64_t a_pair, const uint32_t *b,
                 const uint32_t *b2, int64_t b_pair, int64_t pairs, int64_t row, int64_t column, int64_t columns,
                 const after *then) {
    __m512 sums[MOST_ROWS], more[MOST_ROWS];
    const uint32_t *threes[(MOST_ROWS + 2) / 3];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) sums[r] = more[r] = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int r = 0; r < rows; r += 3) threes[r / 3] = a + r * a_row;
    for (int64_t pair = 0; pair < pairs; pair++) {
        const __m512bh left = (__m512bh)_mm512_loadu_si512(b + pair * b_pair);
        const __m512bh right = wide ? (__m512bh)_mm512_loadu_si512(b2 + pair * b_pair) : left;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const __m512bh input = (__m512bh)_mm512_set1_epi32((int)threes[r / 3][r % 3 * a_row + pair * a_pair]);
            sums[r] = _mm512_dpbf16_ps(sums[r], left, input);
            if (wide) more[r] = _mm512_dpbf16_ps(more[r], right, input);
        }
    }
    const __mmask16 lanes = lanes_left(columns - column), others = lanes_left(columns - column - LANES);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        finish(sums[r], row + r, column, lanes, then);
        if (wide) finish(more[r], row + r, column + LANES, others, then);
    }
}

#define TILE(ROWS) \
    case ROWS: \
        if (wide) tile(ROWS, 1, from, a_row, a_pair, b, b2, b_pair, pairs, row, column, columns, then); \
        else tile(ROWS, 0, from, a_row, a_pair, b, b2, b_pair, pairs, row, column, columns, then); \
        break;

/* a [rows, pairs] by b [pairs, columns], both of pairs of bfloat16; b's columns lie in panels `b_panel` apart. */
FAST static void multiply(const uint32_t *a, int64_t a_row, int64_t a_pair, int64_t rows, const uint32_t *b0,
                          int64_t b_pair, int64_t b_panel, int64_t pairs, int64_t columns, const after *then) {
    const int64_t blocks = (rows + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t column = 0; column < columns; column += 2 * LANES) {
        const int wide = columns - column > LANES;
        const uint32_t *b = b0 + column / LANES * b_panel, *b2 = b + b_panel;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = rows * block / blocks, next = rows * (block + 1) / blocks; /* of about equal height */
            const uint32_t *from = a + row * a_row;
            switch (next - row) {
                TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7)
                TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
            }
        }
    }
}

/* inputs [rows, linear.inputs] in bfloat16, `stride` numbers apart */
FAST static void map(const half *inputs, int64_t stride, int64_t rows, const vtg_linear *linear, after then) {
    const int64_t pairs = linear->inputs / 2;
    then.bias = linear->bias;
    multiply((const uint32_t *)inputs, stride / 2, 1, rows, linear->panels, LANES, pairs * LANES, pairs,
             linear->outputs, &then);
}

FAST static void narrow(const float *from, half *to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = lanes_left(count - i);
        store_half(to + i, lanes, _mm512_maskz_loadu_ps(lanes, from + i));
    }
}

/* rows [count, width] as the columns of panels: [panels][width / 2][16]. */
FAST static void panels_of_rows(const half *rows, int64_t stride, int64_t count, int64_t width, uint32_t *to) {
    const int64_t pairs = width / 2;
    for (int64_t first = 0; first < count; first += LANES, to += pairs * LANES) {
        const int64_t own = count - first < LANES ? count - first : LANES;
        if (own < LANES) memset(to, 0, sizeof(uint32_t) * pairs * LANES);
        for (int64_t row = 0; row < own; row++) {
            const uint32_t *from = (const uint32_t *)(rows + (first + row) * stride);
            for (int64_t pair = 0; pair < pairs; pair++) to[pair * LANES + row] = from[pair];
        }
    }
}

/* Two rows as one row of pairs; the second may be none, which counts as zeros. */
INLINE void interleave(const half *row, const half *next, int64_t width, uint32_t *to) {
    for (int64_t i = 0; i < width; i += LANES) {
        const __mmask16 lanes = lanes_left(width - i);
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, row + i));
        __m512i high = _mm512_setzero_si512();
        if (next) high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, next + i)), 16);
        _mm512_mask_storeu_epi32(to + i, lanes, _mm512_or_si512(low, high));
    }
}

/* e to the power of what is at most 0; what is far below, -inf too, becomes (nearly) 0. */
INLINE __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x); /* log 2 in two parts */
    rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), rest);
    __m512 sum = _mm512_set1_ps(1.0f / 720);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f / 120));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f / 24));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f / 6));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.5f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, n);
}

/* The softmax of similarities [count] as shares, zeros up to `padded`. */
FAST static void softmax(float *similarity, int64_t count, int64_t padded, half *shares) {
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 most = lowest, total = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += LANES)
        most = _mm512_max_ps(most, _mm512_mask_loadu_ps(lowest, lanes_left(count - i), similarity + i));
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int64_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = lanes_left(count - i);
        const __m512 power =
            _mm512_maskz_mov_ps(lanes, exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, similarity + i), top)));
        total = _mm512_add_ps(total, power);
        _mm512_mask_storeu_ps(similarity + i, lanes, power);
    }
    const __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (int64_t i = 0; i < padded; i += LANES) {
        const __m512 power = _mm512_maskz_loadu_ps(lanes_left(count - i), similarity + i);
        store_half(shares + i, lanes_left(padded - i), _mm512_mul_ps(power, share));
    }
}

/* Layer normalisation of rows that are `from_stride` apart, rectified if wanted; either result may be none. */
FAST static void normalise(const float *rows, int64_t from_stride, int64_t count, int64_t width, const vtg_norm *norm,
                           int rectified, float *wide, half *narrowed) {
    for (int64_t row = 0; row < count; row++) {
        const float *from = rows + row * from_stride;
        __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < width; i += LANES)
            total = _mm512_add_ps(total, _mm512_maskz_loadu_ps(lanes_left(width - i), from + i));
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / (float)width);
        for (int64_t i = 0; i < width; i += LANES) {
            const __mmask16 lanes = lanes_left(width - i);
            const __m512 off = _mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, from + i), mean);
            squares = _mm512_fmadd_ps(off, off, squares);
        }
        const float variance = _mm512_reduce_add_ps(squares) / (float)width + (float)norm->epsilon;
        const __m512 factor = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_set1_ps(variance)));
        for (int64_t i = 0; i < width; i += LANES) {
            const __mmask16 lanes = lanes_left(width - i);
            const __m512 even = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, from + i), mean), factor);
            __m512 result = _mm512_fmadd_ps(even, _mm512_maskz_loadu_ps(lanes, norm->scale + i),
                                            _mm512_maskz_loadu_ps(lanes, norm->shift + i));
            if (rectified) result = _mm512_max_ps(result, _mm512_setzero_ps());
            if (wide) _mm512_mask_storeu_ps(wide + row * width + i, lanes, result);
            if (narrowed) store_half(narrowed + row * width + i, lanes, result);
        }
    }
}

INLINE float dot(const float *one, const float *other, int64_t count) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = lanes_left(count - i);
        sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, one + i), _mm512_maskz_loadu_ps(lanes, other + i), sum);
    }
    return _mm512_reduce_add_ps(sum);
}
