/* Query-modulated spatial pooling: attention from query tokens to the tokens of a frame. */

#pragma once

#include "query_batch.h"

/* Softmax over the tokens of similarities [tokens, columns], as cells. Similarities and results are multiplied by the
   tokens' int8 scales, so that the products before and after can use the int8 values as they are. */
static void softmax_columns(float *similarity, int64_t columns, const float *scales, int64_t tokens, cell *shares) {
    for (int64_t column = 0; column < columns; column += LANES) {
        vec most = splat(-__builtin_inff()), total = {0};
        for (int64_t token = 0; token < tokens; token++) {
            float *at = similarity + token * columns + column;
            const vec scaled = load(at) * scales[token];
            most = max_vec(most, scaled);
            store(at, scaled);
        }
        for (int64_t token = 0; token < tokens; token++) {
            float *at = similarity + token * columns + column;
            const vec power = exponential(load(at) - most);
            total += power;
            store(at, power);
        }
        const vec inverse = 1.0f / total;
        for (int64_t token = 0; token < tokens; token++) {
            float *at = similarity + token * columns + column;
            store(at, load(at) * inverse * scales[token]);
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

/* Update the recurrent state of a frame for one query at one layer: the class token plus `amount` times the maximum of
   the attended tokens over the query tokens, mixed into the state by `gate`. The last layer comes first and sets it. */
static void update_state(const vtg_head *head, const vtg_query_batch *batch, int64_t layer, int64_t query,
                         const float *attended, const int8_t *class_token, float class_scale, float *state) {
    const int64_t width = head->width;
    const float *query_tokens = batch->mapped + (layer * batch->queries + query) * batch->length * width;
    const float amount = head->amounts[layer], gate = head->gates[layer];
    float own[LANES];
    for (int64_t i = 0; i < width; i += LANES) {
        vec strongest = splat(-__builtin_inff());
        for (int64_t token = 0; token < batch->lengths[query]; token++)
            strongest =
                max_vec(strongest, load(attended + token * width + i) + load(query_tokens + token * width + i));
        for (int j = 0; j < LANES; j++) own[j] = (float)class_token[i + j];
        vec entering = load(own) * class_scale + strongest * amount;
        if (layer < head->layers - 1) {
            const vec before = load(state + i);
            entering = (entering - before) * gate + before;
        }
        store(state + i, entering);
    }
}

/* Pool one layer of a block of a window's frames, for all queries. */
static void pool_frames(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work, int64_t layer,
                        int64_t window, int64_t begin, int64_t end) {
    const int64_t width = head->width, patches = batch->patches, query_tokens = batch->queries * batch->length;
    const int64_t stride = row_stride(width);
    const vtg_window *own = batch->window_list + window;
    const right_operand keys = {batch->token_keys + layer * batch->token_columns * width / CELL, width / CELL * PANEL,
                                PANEL};
    const epilogue to_similarity = {.wide = work->similarity, .stride = batch->token_columns};
    const epilogue to_attended = {.wide = work->attended, .stride = width};
    for (int64_t frame = begin; frame < end; frame++) {
        const int8_t *tokens = own->tokens + layer * own->token_stride + frame * patches * width;
        const uint16_t *scales = own->scales + layer * own->scale_stride + frame * patches;
        for (int64_t i = 0; i < patches; i++) work->scale[i] = from_half(scales[i]);
        for (int64_t token = 0; token < patches; token++)
            for (int64_t i = 0; i < width; i++)
                work->tokens[token * stride + i] = exact_num((float)tokens[token * width + i]);
        const cell *token_rows = (const cell *)work->tokens;
        if (CELL > 1) {
            memset(work->tokens + patches * stride, 0, sizeof(num) * (size_t)width); /* pairs with an odd last token */
            for (int64_t token = 0; token < patches; token += CELL)
                join_rows(work->tokens + token * stride, work->tokens + (token + CELL - 1) * stride, width,
                          work->token_rows + token / CELL * stride);
            token_rows = work->token_rows;
        }
        multiply(rows_of(work->tokens, stride), patches, keys, width / CELL, batch->token_columns, &to_similarity);
        softmax_columns(work->similarity, batch->token_columns, work->scale, patches, work->token_shares);
        multiply((left_operand){work->token_shares, 1, batch->token_columns}, query_tokens,
                 (right_operand){token_rows, PANEL, stride}, (patches + CELL - 1) / CELL, width, &to_attended);
        for (int64_t query = 0; query < batch->queries; query++) {
            float *state = batch->state + ((window * batch->queries + query) * batch->frames + frame) * width;
            const float *attended = work->attended + query * batch->length * width;
            update_state(head, batch, layer, query, attended, tokens, work->scale[0], state);
        }
    }
}
