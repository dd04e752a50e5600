/* Query-modulated spatial pooling: what the words see in the tokens of a frame. */

#pragma once

#include "question.h"

/* The softmax down columns of similarities [tokens, columns], times the scales of the tokens before and after, as cells.
   A token's scale is a factor of its similarity and of its share, so its values are multiplied by as they are. */
static void share_out(float *similarity, int64_t columns, const float *scales, int64_t tokens, cell *shares) {
    for (int64_t column = 0; column < columns; column += LANES) {
        vec most = all(-__builtin_inff()), total = {0};
        for (int64_t token = 0; token < tokens; token++) {
            float *at = similarity + token * columns + column;
            const vec scaled = load(at) * scales[token];
            most = largest(most, scaled);
            store(at, scaled);
        }
        for (int64_t token = 0; token < tokens; token++) {
            float *at = similarity + token * columns + column;
            const vec power = exponential(load(at) - most);
            total += power;
            store(at, power);
        }
        const vec whole = 1.0f / total;
        for (int64_t token = 0; token < tokens; token++) {
            float *at = similarity + token * columns + column;
            store(at, load(at) * whole * scales[token]);
        }
    }
    for (int64_t token = 0; token < tokens; token += CELL, shares += columns) {
        const float *at = similarity + token * columns;
#ifdef ENGINE_BF16
        const float *next = at + columns;
        for (int64_t i = 0; i < columns; i++)
            shares[i] = (cell)round_num(at[i]) | (token + 1 < tokens ? (cell)round_num(next[i]) << 16 : 0);
#else
        memcpy(shares, at, sizeof(cell) * (size_t)columns);
#endif
    }
}

/* What enters the state at one layer, for a frame and one query: the class token, and a share of what the strongest word
   sees. Of both, `gate` goes into the state, beside what is there; at the last layer, which comes first, all. */
static void enter(const vtg_head *head, const vtg_question *asked, int64_t layer, int64_t query, const float *looked,
                  const int8_t *class_token, float class_scale, float *state) {
    const int64_t width = head->width;
    const float *words = asked->mapped + (layer * asked->queries + query) * asked->length * width;
    const float amount = head->amounts[layer], gate = head->gates[layer];
    float own[LANES];
    for (int64_t i = 0; i < width; i += LANES) {
        vec strongest = all(-__builtin_inff());
        for (int64_t word = 0; word < asked->lengths[query]; word++)
            strongest = largest(strongest, load(looked + word * width + i) + load(words + word * width + i));
        for (int j = 0; j < LANES; j++) own[j] = (float)class_token[i + j];
        vec entering = load(own) * class_scale + strongest * amount;
        if (layer < head->layers - 1) {
            const vec before = load(state + i);
            entering = (entering - before) * gate + before;
        }
        store(state + i, entering);
    }
}

/* One layer of a block of a window's frames, for all queries. */
static void pool_frames(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer,
                        int64_t window, int64_t begin, int64_t end) {
    const int64_t width = head->width, patches = asked->patches, words = asked->queries * asked->length;
    const int64_t stride = spread(width);
    const vtg_window *own = asked->window_list + window;
    const right_operand keys = {asked->token_keys + layer * asked->words * width / CELL, width / CELL * PANEL, PANEL};
    const after to_similarity = {.wide = work->similarity, .stride = asked->words};
    const after to_looked = {.wide = work->looked, .stride = width};
    for (int64_t frame = begin; frame < end; frame++) {
        const int8_t *tokens = own->tokens + layer * own->token_stride + frame * patches * width;
        const uint16_t *scales = own->scales + layer * own->scale_stride + frame * patches;
        for (int64_t i = 0; i < patches; i++) work->scale[i] = from_half(scales[i]);
        for (int64_t token = 0; token < patches; token++)
            for (int64_t i = 0; i < width; i++)
                work->tokens[token * stride + i] = exact_num((float)tokens[token * width + i]);
        const cell *token_rows = (const cell *)work->tokens;
        if (CELL > 1) {
            memset(work->tokens + patches * stride, 0, sizeof(num) * (size_t)width); /* beside an odd last token */
            for (int64_t token = 0; token < patches; token += CELL)
                join_rows(work->tokens + token * stride, work->tokens + (token + CELL - 1) * stride, width,
                          work->token_rows + token / CELL * stride);
            token_rows = work->token_rows;
        }
        multiply(rows_of(work->tokens, stride), patches, keys, width / CELL, asked->words, &to_similarity);
        share_out(work->similarity, asked->words, work->scale, patches, work->token_shares);
        multiply((left_operand){work->token_shares, 1, asked->words}, words,
                 (right_operand){token_rows, PANEL, stride}, (patches + CELL - 1) / CELL, width, &to_looked);
        for (int64_t query = 0; query < asked->queries; query++) {
            float *state = asked->state + ((window * asked->queries + query) * asked->frames + frame) * width;
            enter(head, asked, layer, query, work->looked + query * asked->length * width, tokens, work->scale[0], state);
        }
    }
}
