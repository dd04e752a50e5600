/* Matrix products: rows of cells by panels of 16 columns. */

#pragma once

#include "vectors.h"

/* The weights of a linear layer: panels of 16 outputs, in each of which the cells of one input stand together. */
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

/* What a product does with its sums, in this order: multiplies by a factor, adds a bias, adds a matrix, rectifies,
   stores. */
typedef struct {
    const float *factors; /* [rows], or none */
    const float *bias;  /* [columns], or none */
    const float *added; /* [rows, columns], or none */
    int64_t added_stride;
    int rectified;
    float *wide; /* where they go: one of both */
    num *narrow;
    int64_t stride;
} after;

INLINE void finish(vec sum, int64_t row, int64_t column, int64_t left, const after *then) {
    if (left <= 0) return;
    if (then->factors) sum *= then->factors[row];
    if (then->bias) sum += load_part(then->bias + column, left, 0);
    if (then->added) sum += load_part(then->added + row * then->added_stride + column, left, 0);
    if (then->rectified) sum = largest(sum, all(0));
    if (then->wide) store_part(then->wide + row * then->stride + column, sum, left);
    else store_nums(then->narrow + row * then->stride + column, sum, left);
}

/* A tile of constant `rows` and `panels`. */
INLINE void tile(const int rows, const int panels, const cell *left, left_operand a, const cell *right, right_operand b,
                 int64_t depth, int64_t row, int64_t column, int64_t columns, const after *then) {
    enum { MOST = TILE_PANELS * PANEL_VECS };
    const int vectors = panels * PANEL_VECS;
    vec sums[TILE_ROWS][MOST];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++) sums[r][v] = (vec){0};
    for (int64_t k = 0; k < depth; k++, left += a.cell, right += b.cell) {
        cells own[MOST];
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
            finish(sums[r][v], row + r, column + v * LANES, columns - column - v * LANES, then);
}

#define TILE(ROWS) \
    case ROWS: \
        if (TILE_PANELS > 1 && wide) \
            tile(ROWS, TILE_PANELS, left, a, right, b, depth, row, column, columns, then); \
        else tile(ROWS, 1, left, a, right, b, depth, row, column, columns, then); \
        break;

/* a [rows, depth] by b [depth, columns]. */
static void multiply(left_operand a, int64_t rows, right_operand b, int64_t depth, int64_t columns, const after *then) {
    const int64_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t column = 0; column < columns; column += TILE_PANELS * PANEL) {
        const int wide = columns - column > PANEL;
        const cell *right = b.cells + column / PANEL * b.panel;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = rows * block / blocks, next = rows * (block + 1) / blocks; /* of about equal height */
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

/* A linear layer of inputs [rows, linear.inputs], `stride` numbers apart. */
static void map(const num *inputs, int64_t stride, int64_t rows, const linear_weights *linear, after then) {
    const int64_t depth = linear->inputs / CELL;
    then.bias = linear->bias;
    multiply(rows_of(inputs, stride), rows, (right_operand){linear->panels, depth * PANEL, PANEL}, depth,
             linear->outputs, &then);
}

/* Rows [count, width] as the columns of panels [panels][width / CELL][16]; columns beyond them are zeros. */
static void make_panels(const num *rows, int64_t stride, int64_t count, int64_t width, cell *to) {
    const int64_t depth = width / CELL;
    for (int64_t first = 0; first < count; first += PANEL, to += depth * PANEL) {
        const int64_t own = smaller(count - first, PANEL);
        if (own < PANEL) memset(to, 0, sizeof(cell) * (size_t)(depth * PANEL));
        for (int64_t row = 0; row < own; row++) {
            const cell *from = (const cell *)(rows + (first + row) * stride);
            for (int64_t k = 0; k < depth; k++) to[k * PANEL + row] = from[k];
        }
    }
}
