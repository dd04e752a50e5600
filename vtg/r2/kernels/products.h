/* Matrix products of rows of cells with panels of 16 columns. */

#pragma once

#include "vectors.h"

/* The weights of a linear layer: panels of 16 outputs, each of which stores the cells of one input contiguously. */
typedef struct {
    const cell *panels;
    const float *bias;
    int64_t inputs, outputs;
} linear_weights;

/* The left operand; strides in cells. */
typedef struct {
    const cell *cells;
    int64_t row, cell;
} left_operand;

/* The right operand: [panels][cells][16]; strides in cells. */
typedef struct {
    const cell *cells;
    int64_t panel, cell;
} right_operand;

/* Operations on the sums of a product, in this order: scale, add a bias, add a matrix, rectify, store. */
typedef struct {
    const float *factors; /* [rows], or null */
    const float *bias;    /* [columns], or null */
    const float *added;   /* [rows, columns], or null */
    int64_t added_stride;
    int rectified;
    float *wide; /* destination: either floats */
    num *narrow; /* or operands of a further product */
    int64_t stride;
} epilogue;

INLINE void apply_epilogue(vec sum, int64_t row, int64_t column, int64_t left, const epilogue *then) {
    if (left <= 0) return;
    if (then->factors) sum *= then->factors[row];
    if (then->bias) sum += load_part(then->bias + column, left, 0);
    if (then->added) sum += load_part(then->added + row * then->added_stride + column, left, 0);
    if (then->rectified) sum = max_vec(sum, splat(0));
    if (then->wide) store_part(then->wide + row * then->stride + column, sum, left);
    else store_nums(then->narrow + row * then->stride + column, sum, left);
}

/* Compute a tile; `rows` and `panels` are compile-time constants. */
INLINE void tile(const int rows, const int panels, const cell *left, left_operand a, const cell *right, right_operand b,
                 int64_t depth, int64_t row, int64_t column, int64_t columns, const epilogue *then) {
    enum { MAX_VECTORS = TILE_PANELS * PANEL_VECS };
    const int vectors = panels * PANEL_VECS;
    vec sums[TILE_ROWS][MAX_VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++) sums[r][v] = (vec){0};
    for (int64_t k = 0; k < depth; k++, left += a.cell, right += b.cell) {
        cells own[MAX_VECTORS];
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            own[v] = load_cells(right + v / PANEL_VECS * b.panel + v % PANEL_VECS * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const cell factor = left[r * a.row];
#pragma GCC unroll 16
            for (int v = 0; v < vectors; v++) sums[r][v] = multiply_add(factor, own[v], sums[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            apply_epilogue(sums[r][v], row + r, column + v * LANES, columns - column - v * LANES, then);
}

#define TILE(ROWS) \
    case ROWS: \
        if (TILE_PANELS > 1 && wide) \
            tile(ROWS, TILE_PANELS, left, a, right, b, depth, row, column, columns, then); \
        else tile(ROWS, 1, left, a, right, b, depth, row, column, columns, then); \
        break;

/* a [rows, depth] by b [depth, columns]. */
static void multiply(left_operand a, int64_t rows, right_operand b, int64_t depth, int64_t columns,
                     const epilogue *then) {
    const int64_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t column = 0; column < columns; column += TILE_PANELS * PANEL) {
        const int wide = columns - column > PANEL;
        const cell *right = b.cells + column / PANEL * b.panel;
        for (int64_t block = 0; block < blocks; block++) {
            /* Tiles of nearly equal height. */
            const int64_t row = rows * block / blocks, next = rows * (block + 1) / blocks;
            const cell *left = a.cells + row * a.row;
            (void)wide;
            switch (next - row) {
                TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#ifdef ENGINE_BF16
                TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#endif
            }
        }
    }
}

INLINE left_operand rows_of(const num *rows, int64_t stride) {
    return (left_operand){(const cell *)rows, stride / CELL, 1};
}

/* A linear layer on inputs [rows, linear.inputs] whose rows are `stride` numbers apart. */
static void linear_layer(const num *inputs, int64_t stride, int64_t rows, const linear_weights *linear, epilogue then) {
    const int64_t depth = linear->inputs / CELL;
    then.bias = linear->bias;
    multiply(rows_of(inputs, stride), rows, (right_operand){linear->panels, depth * PANEL, PANEL}, depth,
             linear->outputs, &then);
}

/* Store rows [count, width] as the columns of panels [panels][width / CELL][16]; remaining columns become zeros. */
static void make_panels(const num *rows, int64_t stride, int64_t count, int64_t width, cell *to) {
    const int64_t depth = width / CELL;
    for (int64_t first = 0; first < count; first += PANEL, to += depth * PANEL) {
        const int64_t own = min_of(count - first, PANEL);
        if (own < PANEL) memset(to, 0, sizeof(cell) * (size_t)(depth * PANEL));
        for (int64_t row = 0; row < own; row++) {
            const cell *from = (const cell *)(rows + (first + row) * stride);
            for (int64_t k = 0; k < depth; k++) to[k * PANEL + row] = from[k];
        }
    }
}
