/* Recurrent temporal refinement: cross-attention to query tokens, self-attention among frames, feed-forward layer. */

#pragma once

#include "query_batch.h"

static void add_position(const float *rows, const float *position, int64_t count, num *to) {
    for (int64_t i = 0; i < count; i += LANES) store_nums(to + i, load(rows + i) + load(position + i), LANES);
}

/* Store keys [count, width] and values [count, width] of the frames from `begin` on in the layout of self-attention. */
static void store_keys_values(const vtg_head *head, const vtg_query_batch *batch, const num *keys, int64_t key_stride,
                              const num *values, int64_t item, int64_t begin, int64_t count) {
    const int64_t width = head->width, heads = head->heads, depth = width / heads / CELL, frames = batch->frames;
    const int64_t panels = round_up(frames, PANEL) * depth; /* of one head */
    for (int64_t row = 0; row < count; row++) {
        const int64_t frame = begin + row;
        const cell *key = (const cell *)(keys + row * key_stride);
        cell *to = batch->own_keys + item * heads * panels + frame / PANEL * PANEL * depth + frame % PANEL;
        for (int64_t one = 0; one < heads; one++, to += panels)
            for (int64_t k = 0; k < depth; k++) to[k * PANEL] = *key++;
    }
    cell *to = batch->own_values + (item * ((frames + CELL - 1) / CELL) + begin / CELL) * row_stride(width);
    for (int64_t row = 0; row < count; row += CELL, to += row_stride(width)) /* blocks begin at even frames */
        join_rows(values + row * width, values + (row + CELL - 1) * width, width, to);
}

/* Cross-attention of a block of a window's frames to a query's tokens; projects queries, keys and values for the
   self-attention. */
static void cross_attention(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work,
                            int64_t layer, int64_t query, int64_t window, int64_t begin, int64_t end) {
    const int64_t width = head->width, heads = head->heads, count = end - begin, frames = batch->frames;
    const int64_t columns = heads * batch->padded, place = layer * batch->queries + query;
    const int64_t item = window * batch->queries + query;
    const float *position = batch->position + begin * width;
    float *rows = batch->state + (item * frames + begin) * width;
    add_position(rows, position, count * width, work->placed);
    const right_operand keys = {batch->key_panels + place * columns * width / CELL, width / CELL * PANEL, PANEL};
    const right_operand values = {batch->value_rows + place * columns / CELL * row_stride(width), PANEL,
                                  row_stride(width)};
    const epilogue to_similarity = {
        .bias = batch->key_bias + place * columns, .wide = work->similarity, .stride = columns};
    multiply(rows_of(work->placed, width), count, keys, width / CELL, columns, &to_similarity);
    for (int64_t i = 0; i < count * columns; i += batch->padded) {
        num *shares = work->shares + i;
        const float sum = softmax_numerators(work->similarity + i, batch->lengths[query], batch->padded, shares);
        scale_row(shares, batch->padded, 1.0f / sum); /* not in the product, which sums over all attention heads */
    }
    const epilogue to_sums = {.added = rows, .added_stride = width, .wide = work->sums, .stride = width};
    multiply(rows_of(work->shares, columns), count, values, columns / CELL, width, &to_sums);
    normalise(work->sums, width, count, width, &head->norms[0], 0, rows, work->flat);
    add_position(rows, position, count * width, work->placed);
    linear_layer(work->placed, width, count, &head->own_queries_keys,
                 (epilogue){.narrow = work->pair_keys, .stride = 2 * width});
    for (int64_t row = 0; row < count; row++)
        memcpy(batch->own_queries + (item * frames + begin + row) * width, work->pair_keys + row * 2 * width,
               sizeof(num) * (size_t)width);
    if (CELL > 1) memset(work->inner + count * width, 0, sizeof(num) * (size_t)width); /* beside an odd last frame */
    linear_layer(work->flat, width, count, &head->own_values, (epilogue){.narrow = work->inner, .stride = width});
    store_keys_values(head, batch, work->pair_keys + width, 2 * width, work->inner, item, begin, count);
}

/* Self-attention of some frames of a window to all of its frames. */
static void self_attention(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work, int64_t item,
                           int64_t begin, int64_t count, num *to) {
    const int64_t width = head->width, heads = head->heads, share = width / heads, frames = batch->frames;
    const int64_t padded = round_up(frames, PANEL), depth = (frames + CELL - 1) / CELL;
    for (int64_t one = 0; one < heads; one++) {
        const num *queries = batch->own_queries + (item * frames + begin) * width + one * share;
        const cell *keys = batch->own_keys + (item * heads + one) * padded * share / CELL;
        const cell *values = batch->own_values + item * depth * row_stride(width) + one * share;
        const epilogue to_similarity = {.wide = work->similarity, .stride = padded};
        multiply(rows_of(queries, width), count, (right_operand){keys, share / CELL * PANEL, PANEL}, share / CELL,
                 frames, &to_similarity);
        float factors[TABLE];
        for (int64_t row = 0; row < count; row++)
            factors[row] =
                1.0f / softmax_numerators(work->similarity + row * padded, frames, padded, work->shares + row * padded);
        const epilogue to_row = {.factors = factors, .narrow = to + one * share, .stride = width};
        multiply(rows_of(work->shares, padded), count, (right_operand){values, PANEL, row_stride(width)}, depth, share,
                 &to_row);
    }
}

/* Self-attention and feed-forward layer of a block of a window's frames. */
static void refine_frames(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work, int64_t layer,
                          int64_t item, int64_t begin, int64_t end) {
    const int64_t width = head->width, count = end - begin, inner = head->expand.outputs;
    float *rows = batch->state + (item * batch->frames + begin) * width;
    for (int64_t row = 0; row < count; row += TABLE)
        self_attention(head, batch, work, item, begin + row, min_of(TABLE, count - row), work->flat + row * width);
    const epilogue to_sums = {.added = rows, .added_stride = width, .wide = work->sums, .stride = width};
    linear_layer(work->flat, width, count, &head->own_output, to_sums);
    normalise(work->sums, width, count, width, &head->norms[1], 0, rows, work->flat);
    linear_layer(work->flat, width, count, &head->expand,
                 (epilogue){.rectified = 1, .narrow = work->inner, .stride = inner});
    linear_layer(work->inner, inner, count, &head->contract, to_sums);
    normalise(work->sums, width, count, width, &head->norms[2], layer == 0, rows, 0); /* the last state is rectified */
}
