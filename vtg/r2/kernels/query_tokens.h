/* The tokens of queries: projected into the block's space, and prepared for pooling and cross-attention. */

#pragma once

#include "query_batch.h"

/* Store keys and values of the cross-attention of one query; `both` is [length, 2 * width]. */
static void prepare_cross_attention(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work,
                                    const float *both, int64_t layer, int64_t query) {
    const int64_t width = head->width, heads = head->heads, share = width / heads;
    const int64_t length = batch->lengths[query], padded = batch->padded, place = layer * batch->queries + query;
    num *rows = work->cross_rows, *keys = work->keys, *values = work->values;
    float *bias = batch->key_bias + place * heads * padded;
    round_row(both, length * 2 * width, rows);
    memset(keys, 0, sizeof(num) * (size_t)(heads * padded * width));
    memset(values, 0, sizeof(num) * (size_t)(heads * padded * width));
    for (int64_t one = 0; one < heads; one++) {
        const epilogue to_keys = {.narrow = keys + one * padded * width, .stride = width};
        const epilogue to_values = {.narrow = values + one * padded * width, .stride = width};
        linear_layer(rows + one * share, 2 * width, length, &head->folds[one], to_keys);
        linear_layer(rows + width + one * share, 2 * width, length, &head->folds[heads + one], to_values);
        for (int64_t token = 0; token < length; token++)
            bias[one * padded + token] =
                dot(both + token * 2 * width + one * share, head->query_bias + one * share, share);
        for (int64_t token = length; token < padded; token++) bias[one * padded + token] = -__builtin_inff();
    }
    make_panels(keys, width, heads * padded, width, batch->key_panels + place * heads * padded * width / CELL);
    cell *value_rows = batch->value_rows + place * heads * padded / CELL * row_stride(width);
    for (int64_t token = 0; token < heads * padded; token += CELL)
        join_rows(values + token * width, values + (token + CELL - 1) * width, width,
                  value_rows + token / CELL * row_stride(width));
}

/* Pool a query to one feature: its tokens, weighted by a softmax of their scores. */
static void pool_query(const float *query_tokens, int64_t length, int64_t width, const float *score, float *to) {
    float most = -__builtin_inff(), total = 0;
    for (int64_t token = 0; token < length; token++) {
        const float own = dot(query_tokens + token * width, score, width);
        if (own > most) most = own;
    }
    memset(to, 0, sizeof(float) * (size_t)width);
    for (int64_t token = 0; token < length; token++) {
        const float power = exponential(splat(dot(query_tokens + token * width, score, width) - most))[0];
        total += power;
        for (int64_t i = 0; i < width; i++) to[i] += query_tokens[token * width + i] * power;
    }
    for (int64_t i = 0; i < width; i++) to[i] /= total;
}

/* Project one layer of all queries. */
static void map_query_tokens(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work,
                             int64_t layer) {
    const int64_t width = head->width, length = batch->length, count = batch->queries * length;
    float *query_tokens = batch->mapped + layer * count * width;
    const float *from = batch->query_features + layer * head->query_width;
    normalise(from, head->layers * head->query_width, count, head->query_width, &head->input_norm, 0, 0,
              work->query_rows);
    linear_layer(work->query_rows, head->query_width, count, &head->first_map,
                 (epilogue){.rectified = 1, .wide = work->sums, .stride = width});
    normalise(work->sums, width, count, width, &head->inner_norm, 0, 0, work->query_rows);
    linear_layer(work->query_rows, width, count, &head->second_map, (epilogue){.wide = query_tokens, .stride = width});
    round_row(query_tokens, count * width, work->query_rows);
    linear_layer(work->query_rows, width, count, &head->token_keys, (epilogue){.narrow = work->keys, .stride = width});
    make_panels(work->keys, width, count, width, batch->token_keys + layer * batch->token_columns * width / CELL);
    linear_layer(work->query_rows, width, count, &head->cross, (epilogue){.wide = work->both, .stride = 2 * width});
    for (int64_t query = 0; query < batch->queries; query++) {
        prepare_cross_attention(head, batch, work, work->both + query * length * 2 * width, layer, query);
        if (layer == 0)
            pool_query(query_tokens + query * length * width, batch->lengths[query], width, head->score,
                       batch->pooled + query * width);
    }
}
