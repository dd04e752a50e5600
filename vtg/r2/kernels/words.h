/* The words of queries: mapped into the block's space, and made ready to look and to be attended to. */

#pragma once

#include "question.h"

/* The words of one query, as keys and values [length, 2 * width], made ready for frames to attend to. */
FAST static void ready_words(const vtg_head *head, const vtg_question *asked, const workplace *work, const float *both,
                             int64_t layer, int64_t query) {
    const int64_t width = head->width, heads = head->heads, share = width / heads;
    const int64_t length = asked->lengths[query], padded = asked->padded, place = layer * asked->queries + query;
    half *rows = work->inner_words, *keys = work->keys, *values = work->values;
    float *bias = asked->key_bias + place * heads * padded;
    narrow(both, rows, length * 2 * width);
    memset(keys, 0, sizeof(half) * heads * padded * width);
    memset(values, 0, sizeof(half) * heads * padded * width);
    for (int64_t one = 0; one < heads; one++) {
        const after to_keys = {.narrow = keys + one * padded * width, .stride = width};
        const after to_values = {.narrow = values + one * padded * width, .stride = width};
        map(rows + one * share, 2 * width, length, &head->folds[one], to_keys);
        map(rows + width + one * share, 2 * width, length, &head->folds[heads + one], to_values);
        for (int64_t word = 0; word < length; word++) {
            const float *key = both + word * 2 * width + one * share;
            bias[one * padded + word] = dot(key, head->query_bias + one * share, share);
        }
        for (int64_t word = length; word < padded; word++) bias[one * padded + word] = -__builtin_inff();
    }
    panels_of_rows(keys, width, heads * padded, width, asked->key_panels + place * heads * padded * width / 2);
    uint32_t *columns = asked->value_columns + place * heads * padded / 2 * width;
    for (int64_t word = 0; word < heads * padded; word += 2)
        interleave(values + word * width, values + (word + 1) * width, width, columns + word / 2 * width);
}

/* A query as one feature: its words, weighted by a softmax of their scores. */
FAST static void pool_words(const float *words, int64_t length, int64_t width, const float *score, float *to) {
    float most = -__builtin_inff(), total = 0;
    for (int64_t word = 0; word < length; word++) {
        const float own = dot(words + word * width, score, width);
        if (own > most) most = own;
    }
    memset(to, 0, sizeof(float) * width);
    for (int64_t word = 0; word < length; word++) {
        const float off = dot(words + word * width, score, width) - most;
        const float power = _mm512_cvtss_f32(exponential(_mm512_set1_ps(off)));
        total += power;
        for (int64_t i = 0; i < width; i++) to[i] += words[word * width + i] * power;
    }
    for (int64_t i = 0; i < width; i++) to[i] /= total;
}

/* One layer of the queries of one group. */
FAST static void map_words(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t chunk) {
    const int64_t width = head->width, length = asked->length, inputs = head->layers * head->query_width;
    const int64_t layer = chunk / asked->groups, group = chunk % asked->groups, first = group * asked->together;
    const int64_t queries = smaller(asked->queries - first, asked->together), count = queries * length;
    float *words = asked->words + (layer * asked->queries + first) * length * width;
    const float *from = asked->words_in + first * length * inputs + layer * head->query_width;
    normalise(from, inputs, count, head->query_width, &head->input_norm, 0, 0, work->word_rows);
    const after to_inner = {.rectified = 1, .wide = work->sums, .stride = width};
    map(work->word_rows, head->query_width, count, &head->first_map, to_inner);
    normalise(work->sums, width, count, width, &head->inner_norm, 0, 0, work->word_rows);
    const after to_words = {.wide = words, .stride = width};
    map(work->word_rows, width, count, &head->second_map, to_words);
    narrow(words, work->word_rows, count * width);
    const after to_looking = {.narrow = work->keys, .stride = width};
    map(work->word_rows, width, count, &head->look, to_looking);
    const int64_t panels = asked->stride * width / 2;
    panels_of_rows(work->keys, width, count, width, asked->looking + (layer * asked->groups + group) * panels);
    const after to_both = {.wide = work->both, .stride = 2 * width};
    map(work->word_rows, width, count, &head->attend, to_both);
    for (int64_t query = 0; query < queries; query++) {
        ready_words(head, asked, work, work->both + query * length * 2 * width, layer, first + query);
        if (layer == 0)
            pool_words(words + query * length * width, asked->lengths[first + query], width, head->score,
                       asked->pooled + (first + query) * width);
    }
}
