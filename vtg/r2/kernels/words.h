/* The words of queries: mapped into the block's space, and made ready for pooling and for the cross-attention. */

#pragma once

#include "question.h"

/* Keys and values of the cross-attention of one query, from both [length, 2 * width]. */
static void ready_cross_attention(const vtg_head *head, const vtg_question *asked, const workplace *work,
                                  const float *both, int64_t layer, int64_t query) {
    const int64_t width = head->width, heads = head->heads, share = width / heads;
    const int64_t length = asked->lengths[query], padded = asked->padded, place = layer * asked->queries + query;
    num *rows = work->cross_words, *keys = work->keys, *values = work->values;
    float *bias = asked->key_bias + place * heads * padded;
    round_row(both, length * 2 * width, rows);
    memset(keys, 0, sizeof(num) * (size_t)(heads * padded * width));
    memset(values, 0, sizeof(num) * (size_t)(heads * padded * width));
    for (int64_t one = 0; one < heads; one++) {
        const after to_keys = {.narrow = keys + one * padded * width, .stride = width};
        const after to_values = {.narrow = values + one * padded * width, .stride = width};
        map(rows + one * share, 2 * width, length, &head->folds[one], to_keys);
        map(rows + width + one * share, 2 * width, length, &head->folds[heads + one], to_values);
        for (int64_t word = 0; word < length; word++)
            bias[one * padded + word] = dot(both + word * 2 * width + one * share, head->query_bias + one * share, share);
        for (int64_t word = length; word < padded; word++) bias[one * padded + word] = -__builtin_inff();
    }
    make_panels(keys, width, heads * padded, width, asked->key_panels + place * heads * padded * width / CELL);
    cell *value_rows = asked->value_rows + place * heads * padded / CELL * spread(width);
    for (int64_t word = 0; word < heads * padded; word += CELL)
        join_rows(values + word * width, values + (word + CELL - 1) * width, width,
                  value_rows + word / CELL * spread(width));
}

/* A query as one feature: its words, weighted by a softmax of their scores. */
static void pool_words(const float *words, int64_t length, int64_t width, const float *score, float *to) {
    float most = -__builtin_inff(), total = 0;
    for (int64_t word = 0; word < length; word++) {
        const float own = dot(words + word * width, score, width);
        if (own > most) most = own;
    }
    memset(to, 0, sizeof(float) * (size_t)width);
    for (int64_t word = 0; word < length; word++) {
        const float power = exponential(all(dot(words + word * width, score, width) - most))[0];
        total += power;
        for (int64_t i = 0; i < width; i++) to[i] += words[word * width + i] * power;
    }
    for (int64_t i = 0; i < width; i++) to[i] /= total;
}

/* One layer of all queries. */
static void map_words(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer) {
    const int64_t width = head->width, length = asked->length, count = asked->queries * length;
    float *words = asked->mapped + layer * count * width;
    const float *from = asked->words_in + layer * head->query_width;
    normalise(from, head->layers * head->query_width, count, head->query_width, &head->input_norm, 0, 0, work->word_rows);
    map(work->word_rows, head->query_width, count, &head->first_map,
        (after){.rectified = 1, .wide = work->sums, .stride = width});
    normalise(work->sums, width, count, width, &head->inner_norm, 0, 0, work->word_rows);
    map(work->word_rows, width, count, &head->second_map, (after){.wide = words, .stride = width});
    round_row(words, count * width, work->word_rows);
    map(work->word_rows, width, count, &head->token_keys, (after){.narrow = work->keys, .stride = width});
    make_panels(work->keys, width, count, width, asked->token_keys + layer * asked->words * width / CELL);
    map(work->word_rows, width, count, &head->cross, (after){.wide = work->both, .stride = 2 * width});
    for (int64_t query = 0; query < asked->queries; query++) {
        ready_cross_attention(head, asked, work, work->both + query * length * 2 * width, layer, query);
        if (layer == 0)
            pool_words(words + query * length * width, asked->lengths[query], width, head->score,
                       asked->pooled + query * width);
    }
}
