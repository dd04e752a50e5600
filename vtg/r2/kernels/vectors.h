/* Float vectors with the vector extensions of GCC and Clang; softmax, layer normalisation and rounding.

   Operands of products have the type `num`, and are read in cells of 32 bits: one float, or two bfloat16 where the
   processor multiplies pairs of them (ENGINE_BF16). Sums are always float32. */

#pragma once

#include <stdint.h>
#include <string.h>

/* ENGINE_EMULATES_BF16 tests the layout of AVX-512 BF16 on processors without it. */
#if defined(__AVX512F__) || defined(ENGINE_EMULATES_BF16)
#define ENGINE_BF16 1
enum { LANES = 16, TILE_ROWS = 14, TILE_PANELS = 2 };
#elif defined(__AVX2__)
enum { LANES = 8, TILE_ROWS = 6, TILE_PANELS = 1 };
#else
enum { LANES = 4, TILE_ROWS = 6, TILE_PANELS = 1 };
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t loose_bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { PANEL = 16, PANEL_VECS = PANEL / LANES }; /* columns of a panel of the right operand of a product */

static int64_t min_of(int64_t one, int64_t other) { return one < other ? one : other; }
static int64_t max_of(int64_t one, int64_t other) { return one > other ? one : other; }
static int64_t round_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

INLINE vec splat(float value) { return value - (vec){0}; }
INLINE vec load(const float *from) { return (vec) * (const loose_vec *)from; }
INLINE void store(float *to, vec values) { *(loose_vec *)to = values; }

/* The first `left` values, `fill` beyond. */
INLINE vec load_part(const float *from, int64_t left, float fill) {
    if (left >= LANES) return load(from);
    vec values = splat(fill);
    for (int64_t i = 0; i < left; i++) values[i] = from[i];
    return values;
}

INLINE void store_part(float *to, vec values, int64_t left) {
    if (left >= LANES) store(to, values);
    else
        for (int64_t i = 0; i < left; i++) to[i] = values[i];
}

INLINE vec max_vec(vec one, vec other) {
#if defined(__AVX2__) && !defined(ENGINE_BF16)
    return (vec)__builtin_ia32_maxps256(one, other); /* GCC does not generate it from the code below */
#endif
    const bits greater = (bits)(one > other);
    return (vec)(((bits)one & greater) | ((bits)other & ~greater));
}

INLINE float sum_lanes(vec values) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += values[i];
    return sum;
}

INLINE float max_lane(vec values) {
    float most = values[0];
    for (int i = 1; i < LANES; i++)
        if (values[i] > most) most = values[i];
    return most;
}

/* exp(x) for x <= 0; values far below, including -inf, give (nearly) 0. */
INLINE vec exponential(vec x) {
    const vec rounding = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds a small number into the lowest bits */
    x = max_vec(x, splat(-87.0f));
    const vec shifted = x * 1.44269504f + rounding, n = shifted - rounding;
    const vec rest = (x - n * 0.693145752f) - n * 1.42860677e-6f; /* log 2 in two parts */
    vec sum = rest * (1.0f / 720) + 1.0f / 120;
    sum = sum * rest + 1.0f / 24;
    sum = sum * rest + 1.0f / 6;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    return (vec)((bits)sum + ((bits)shifted << 23)); /* times 2^n */
}

INLINE float float_of(uint32_t pattern) {
    float value;
    memcpy(&value, &pattern, sizeof value);
    return value;
}

INLINE uint32_t pattern_of(float value) {
    uint32_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return pattern;
}

/* Convert a finite, non-negative float16. */
INLINE float from_half(uint16_t half) { return float_of((uint32_t)half << 13) * 0x1p112f; }

#ifdef ENGINE_BF16

typedef uint16_t num; /* a bfloat16 */
typedef uint32_t cell;
enum { CELL = 2 }; /* numbers in a cell */

INLINE num round_num(float value) {
    const uint32_t pattern = pattern_of(value);
    return (num)((pattern + 0x7fff + ((pattern >> 16) & 1)) >> 16);
}

INLINE num exact_num(float value) { return (num)(pattern_of(value) >> 16); }
INLINE float float_of_num(num value) { return float_of((uint32_t)value << 16); }

#ifdef ENGINE_EMULATES_BF16
INLINE vec multiply_add(cell left, bits right, vec sum) {
    return sum + float_of(left << 16) * (vec)(right << 16) + float_of(left & 0xffff0000u) * (vec)(right & 0xffff0000u);
}

INLINE void store_nums(num *to, vec values, int64_t left) {
    for (int64_t i = 0; i < min_of(left, LANES); i++) to[i] = round_num(values[i]);
}
#else
#include <immintrin.h>

INLINE vec multiply_add(cell left, bits right, vec sum) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)left), (__m512bh)right);
}

INLINE void store_nums(num *to, vec values, int64_t left) {
    const __m256bh narrow = _mm512_cvtneps_pbh((__m512)values);
    const __mmask16 lanes = left >= LANES ? 0xffff : (__mmask16)((1u << left) - 1);
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)narrow);
}
#endif

typedef bits cells;
INLINE cells load_cells(const cell *from) { return (cells) * (const loose_bits *)from; }

/* Interleave two rows of numbers to one row of cells. */
INLINE void join_rows(const num *row, const num *next, int64_t width, cell *to) {
    for (int64_t i = 0; i < width; i++) to[i] = (cell)row[i] | (cell)next[i] << 16;
}

#else

typedef float num;
typedef float cell;
typedef vec cells;
enum { CELL = 1 };

INLINE num round_num(float value) { return value; }
INLINE num exact_num(float value) { return value; }
INLINE float float_of_num(num value) { return value; }
INLINE vec multiply_add(cell left, cells right, vec sum) { return left * right + sum; }
INLINE cells load_cells(const cell *from) { return load(from); }
INLINE void store_nums(num *to, vec values, int64_t left) { store_part(to, values, left); }
INLINE void join_rows(const num *row, const num *next, int64_t width, cell *to) {
    (void)next;
    memcpy(to, row, sizeof(cell) * (size_t)width);
}

#endif

INLINE void round_row(const float *from, int64_t count, num *to) {
    for (int64_t i = 0; i < count; i += LANES) store_nums(to + i, load_part(from + i, count - i, 0), count - i);
}

INLINE void scale_row(num *row, int64_t count, float factor) {
    for (int64_t i = 0; i < count; i++) row[i] = round_num(float_of_num(row[i]) * factor);
}

INLINE float dot(const float *one, const float *other, int64_t count) {
    vec sum = {0};
    for (int64_t i = 0; i < count; i += LANES)
        sum += load_part(one + i, count - i, 0) * load_part(other + i, count - i, 0);
    return sum_lanes(sum);
}

/* Keep the first `left` values; the others become `fill`. */
INLINE vec first_of(vec values, int64_t left, float fill) {
    if (left >= LANES) return values;
    bits lanes;
    for (uint32_t i = 0; i < LANES; i++) lanes[i] = i;
    const bits own = (bits)(lanes < (bits){0} + (uint32_t)max_of(left, 0));
    return (vec)(((bits)values & own) | ((bits)splat(fill) & ~own));
}

/* Numerators of a softmax: exp of similarities [padded] less their maximum. Only the first `count` take part, all
   others become zeros. Returns the sum. */
static float softmax_numerators(const float *similarity, int64_t count, int64_t padded, num *powers) {
    const float lowest = -__builtin_inff();
    vec most = splat(lowest), total = {0};
    for (int64_t i = 0; i < count; i += LANES) most = max_vec(most, first_of(load(similarity + i), count - i, lowest));
    const vec top = splat(max_lane(most));
    for (int64_t i = 0; i < padded; i += LANES) {
        const vec power = first_of(exponential(load(similarity + i) - top), count - i, 0);
        total += power;
        store_nums(powers + i, power, LANES);
    }
    return sum_lanes(total);
}

typedef struct {
    const float *scale, *shift;
    double epsilon;
} norm_weights;

/* Layer normalisation of rows that are `from_stride` apart, with optional ReLU; either result may be null. */
static void normalise(const float *rows, int64_t from_stride, int64_t count, int64_t width, const norm_weights *norm,
                      int rectified, float *wide, num *narrow) {
    for (int64_t row = 0; row < count; row++) {
        const float *from = rows + row * from_stride;
        vec total = {0}, squares = {0};
        for (int64_t i = 0; i < width; i += LANES) total += load_part(from + i, width - i, 0);
        const float mean = sum_lanes(total) / (float)width;
        for (int64_t i = 0; i < width; i += LANES) {
            const vec off = load_part(from + i, width - i, mean) - mean;
            squares += off * off;
        }
        const float factor = 1.0f / __builtin_sqrtf(sum_lanes(squares) / (float)width + (float)norm->epsilon);
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t left = width - i;
            vec result = (load_part(from + i, left, 0) - mean) * factor * load_part(norm->scale + i, left, 0) +
                         load_part(norm->shift + i, left, 0);
            if (rectified) result = max_vec(result, splat(0));
            if (wide) store_part(wide + row * width + i, result, left);
            if (narrow) store_nums(narrow + row * width + i, result, left);
        }
    }
}
