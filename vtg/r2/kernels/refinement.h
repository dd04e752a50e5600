/* Recurrent temporal refinement: frames attend to words, then to all frames. */

#pragma once

#include "question.h"

/* A block of a window's frames attends to the words of a query, and is made ready to attend to frames. */
FAST static void attend_to_words(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer,
                                 int64_t query, int64_t window, int64_t begin, int64_t end) {
    const int64_t width = head->width, heads = head->heads, share = width / heads, frames = asked->frames;
    const int64_t count = end - begin, words = heads * asked->padded, place = layer * asked->queries + query;
    const int64_t item = query * asked->windows + window;
    float *rows = asked->state + (item * frames + begin) * width;
    for (int64_t i = 0; i < count * width; i += LANES)
        store_half(work->placed + i, 0xffff,
                   _mm512_add_ps(_mm512_loadu_ps(rows + i), _mm512_loadu_ps(asked->position + begin * width + i)));
    const after to_similarity = {.bias = asked->key_bias + place * words, .wide = work->similarity, .stride = words};
    multiply((const uint32_t *)work->placed, width / 2, 1, count, asked->key_panels + place * words * width / 2, LANES,
             width / 2 * LANES, width / 2, words, &to_similarity);
    for (int64_t i = 0; i < count * words; i += asked->padded)
        softmax(work->similarity + i, asked->padded, asked->padded, work->shares + i);
    const after to_sums = {.added = rows, .added_stride = width, .wide = work->sums, .stride = width};
    multiply((const uint32_t *)work->shares, words / 2, 1, count, asked->value_columns + place * words / 2 * width,
             width, LANES, words / 2, width, &to_sums);
    normalise(work->sums, width, count, width, &head->norms[0], 0, rows, work->flat);
    half *own = asked->own + (item * frames + begin) * 3 * width;
    const after to_own = {.added = asked->own_place + begin * 3 * width, .added_stride = 3 * width,
                          .narrow = own, .stride = 3 * width};
    map(work->flat, width, count, &head->own, to_own);
    const int64_t panels = up(frames, LANES) * share / 2; /* of one head */
    for (int64_t frame = begin; frame < end; frame++) {
        const uint32_t *key = (const uint32_t *)(own + (frame - begin) * 3 * width + width);
        uint32_t *to = asked->own_keys + item * heads * panels + frame / LANES * LANES * share / 2 + frame % LANES;
        for (int64_t one = 0; one < heads; one++, to += panels)
            for (int64_t pair = 0; pair < share / 2; pair++) to[pair * LANES] = *key++;
    }
    for (int64_t frame = begin; frame < end; frame += 2) { /* a block begins at an even frame */
        const half *value = own + (frame - begin) * 3 * width + 2 * width;
        interleave(value, frame + 1 < end ? value + 3 * width : 0, width,
                   asked->own_values + (item * ((frames + 1) / 2) + frame / 2) * width);
    }
}

/* A block of a window's frames attends to all of its frames, and goes through the feed-forward layer. */
FAST static void attend_to_frames(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer,
                                  int64_t item, int64_t begin, int64_t end) {
    const int64_t width = head->width, heads = head->heads, share = width / heads, frames = asked->frames;
    const int64_t count = end - begin, padded = up(frames, LANES), pairs = (frames + 1) / 2;
    float *rows = asked->state + (item * frames + begin) * width;
    for (int64_t one = 0; one < heads; one++) {
        const half *query = asked->own + (item * frames + begin) * 3 * width + one * share;
        const uint32_t *keys = asked->own_keys + (item * heads + one) * padded * share / 2;
        const after to_similarity = {.wide = work->similarity, .stride = padded};
        multiply((const uint32_t *)query, 3 * width / 2, 1, count, keys, LANES, share / 2 * LANES, share / 2, frames,
                 &to_similarity);
        for (int64_t row = 0; row < count; row++)
            softmax(work->similarity + row * padded, frames, padded, work->shares + row * padded);
        const after to_flat = {.narrow = work->flat + one * share, .stride = width};
        multiply((const uint32_t *)work->shares, padded / 2, 1, count,
                 asked->own_values + item * pairs * width + one * share, width, LANES, pairs, share, &to_flat);
    }
    const after to_sums = {.added = rows, .added_stride = width, .wide = work->sums, .stride = width};
    map(work->flat, width, count, &head->own_output, to_sums);
    normalise(work->sums, width, count, width, &head->norms[1], 0, rows, work->flat);
    const after to_inner = {.rectified = 1, .narrow = work->inner, .stride = head->expand.outputs};
    map(work->flat, width, count, &head->expand, to_inner);
    map(work->inner, head->expand.outputs, count, &head->contract, to_sums);
    normalise(work->sums, width, count, width, &head->norms[2], layer == 0, rows, 0); /* the last state is rectified */
}
