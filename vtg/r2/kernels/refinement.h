/* Recurrent temporal refinement: frames attend to words, then to all frames, then a feed-forward layer. */

#pragma once

#include "question.h"

static void add_position(const float *rows, const float *position, int64_t count, num *to) {
    for (int64_t i = 0; i < count; i += LANES) store_nums(to + i, load(rows + i) + load(position + i), LANES);
}

/* Keys [count, width] and values [count, width] of the frames from `begin` on, laid out for the self-attention. */
static void keep_keys_values(const vtg_head *head, const vtg_question *asked, const num *keys, int64_t key_stride,
                             const num *values, int64_t item, int64_t begin, int64_t count) {
    const int64_t width = head->width, heads = head->heads, depth = width / heads / CELL, frames = asked->frames;
    const int64_t panels = up(frames, PANEL) * depth; /* of one head */
    for (int64_t row = 0; row < count; row++) {
        const int64_t frame = begin + row;
        const cell *key = (const cell *)(keys + row * key_stride);
        cell *to = asked->own_keys + item * heads * panels + frame / PANEL * PANEL * depth + frame % PANEL;
        for (int64_t one = 0; one < heads; one++, to += panels)
            for (int64_t k = 0; k < depth; k++) to[k * PANEL] = *key++;
    }
    cell *to = asked->own_values + (item * ((frames + CELL - 1) / CELL) + begin / CELL) * spread(width);
    for (int64_t row = 0; row < count; row += CELL, to += spread(width)) /* a block begins at an even frame */
        join_rows(values + row * width, values + (row + CELL - 1) * width, width, to);
}

/* A block of a window's frames attends to the words of a query, and is made ready to attend to frames. */
static void attend_to_words(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer,
                            int64_t query, int64_t window, int64_t begin, int64_t end) {
    const int64_t width = head->width, heads = head->heads, count = end - begin, frames = asked->frames;
    const int64_t words = heads * asked->padded, place = layer * asked->queries + query;
    const int64_t item = window * asked->queries + query;
    const float *position = asked->position + begin * width;
    float *rows = asked->state + (item * frames + begin) * width;
    add_position(rows, position, count * width, work->placed);
    const right_operand keys = {asked->key_panels + place * words * width / CELL, width / CELL * PANEL, PANEL};
    const right_operand values = {asked->value_rows + place * words / CELL * spread(width), PANEL, spread(width)};
    const after to_similarity = {.bias = asked->key_bias + place * words, .wide = work->similarity, .stride = words};
    multiply(rows_of(work->placed, width), count, keys, width / CELL, words, &to_similarity);
    for (int64_t i = 0; i < count * words; i += asked->padded) {
        num *shares = work->shares + i;
        const float factor = 1.0f / powers_of(work->similarity + i, asked->lengths[query], asked->padded, shares);
        scale_row(shares, asked->padded, factor); /* here, not in the product, which adds all heads up */
    }
    const after to_sums = {.added = rows, .added_stride = width, .wide = work->sums, .stride = width};
    multiply(rows_of(work->shares, words), count, values, words / CELL, width, &to_sums);
    normalise(work->sums, width, count, width, &head->norms[0], 0, rows, work->flat);
    add_position(rows, position, count * width, work->placed);
    map(work->placed, width, count, &head->own_queries_keys, (after){.narrow = work->pair_keys, .stride = 2 * width});
    for (int64_t row = 0; row < count; row++)
        memcpy(asked->own_queries + (item * frames + begin + row) * width, work->pair_keys + row * 2 * width,
               sizeof(num) * (size_t)width);
    if (CELL > 1) memset(work->inner + count * width, 0, sizeof(num) * (size_t)width); /* beside an odd last frame */
    map(work->flat, width, count, &head->own_values, (after){.narrow = work->inner, .stride = width});
    keep_keys_values(head, asked, work->pair_keys + width, 2 * width, work->inner, item, begin, count);
}

/* Rows of a window attend to all of its frames. */
static void attend_to_all(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t item,
                          int64_t begin, int64_t count, num *to) {
    const int64_t width = head->width, heads = head->heads, share = width / heads, frames = asked->frames;
    const int64_t padded = up(frames, PANEL), depth = (frames + CELL - 1) / CELL;
    for (int64_t one = 0; one < heads; one++) {
        const num *queries = asked->own_queries + (item * frames + begin) * width + one * share;
        const cell *keys = asked->own_keys + (item * heads + one) * padded * share / CELL;
        const cell *values = asked->own_values + item * depth * spread(width) + one * share;
        const after to_similarity = {.wide = work->similarity, .stride = padded};
        multiply(rows_of(queries, width), count, (right_operand){keys, share / CELL * PANEL, PANEL}, share / CELL,
                 frames, &to_similarity);
        float factors[TABLE];
        for (int64_t row = 0; row < count; row++)
            factors[row] =
                1.0f / powers_of(work->similarity + row * padded, frames, padded, work->shares + row * padded);
        const after to_row = {.factors = factors, .narrow = to + one * share, .stride = width};
        multiply(rows_of(work->shares, padded), count, (right_operand){values, PANEL, spread(width)}, depth, share,
                 &to_row);
    }
}

/* A block of a window's frames attends to all of its frames, and goes through the feed-forward layer. */
static void attend_to_frames(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer,
                             int64_t item, int64_t begin, int64_t end) {
    const int64_t width = head->width, count = end - begin, inner = head->expand.outputs;
    float *rows = asked->state + (item * asked->frames + begin) * width;
    for (int64_t row = 0; row < count; row += TABLE)
        attend_to_all(head, asked, work, item, begin + row, smaller(TABLE, count - row), work->flat + row * width);
    const after to_sums = {.added = rows, .added_stride = width, .wide = work->sums, .stride = width};
    map(work->flat, width, count, &head->own_output, to_sums);
    normalise(work->sums, width, count, width, &head->norms[1], 0, rows, work->flat);
    map(work->flat, width, count, &head->expand, (after){.rectified = 1, .narrow = work->inner, .stride = inner});
    map(work->inner, inner, count, &head->contract, to_sums);
    normalise(work->sums, width, count, width, &head->norms[2], layer == 0, rows, 0); /* the last state is rectified */
}
