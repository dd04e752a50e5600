/* Spatial pooling: what words see in the tokens of a frame. */

#pragma once

#include "question.h"

/* Two tokens of whole numbers as bfloat16, which is exact: one after the other, and as one row of pairs. */
INLINE void widen(const int8_t *token, const int8_t *next, int64_t width, half *rows, uint32_t *pairs) {
    for (int64_t i = 0; i < width; i += LANES) {
        __m512i low = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(token + i)));
        __m512i high = _mm512_setzero_si512();
        low = _mm512_srli_epi32((__m512i)_mm512_cvtepi32_ps(low), 16);
        _mm256_storeu_si256((__m256i *)(rows + i), _mm512_cvtepi32_epi16(low));
        if (next) {
            high = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(next + i)));
            high = (__m512i)_mm512_cvtepi32_ps(high); /* its lower 16 bits are zeros */
            _mm256_storeu_si256((__m256i *)(rows + width + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(high, 16)));
        }
        _mm512_storeu_si512(pairs + i, _mm512_or_si512(low, high));
    }
}

/* The softmax down the columns of similarities [tokens, 16], times the tokens' scales before and after, as pairs. */
INLINE void share_out(float *similarity, int64_t stride, const float *scales, int64_t tokens, uint32_t *shares) {
    __m512 most = _mm512_set1_ps(-__builtin_inff()), total = _mm512_setzero_ps();
    for (int64_t token = 0; token < tokens; token++) {
        float *at = similarity + token * stride;
        const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(at), _mm512_set1_ps(scales[token]));
        most = _mm512_max_ps(most, scaled);
        _mm512_storeu_ps(at, scaled);
    }
    for (int64_t token = 0; token < tokens; token++) {
        float *at = similarity + token * stride;
        const __m512 power = exponential(_mm512_sub_ps(_mm512_loadu_ps(at), most));
        total = _mm512_add_ps(total, power);
        _mm512_storeu_ps(at, power);
    }
    const __m512 whole = _mm512_div_ps(_mm512_set1_ps(1.0f), total);
    for (int64_t token = 0; token < tokens; token += 2) {
        const float *at = similarity + token * stride;
        __m512 low = _mm512_mul_ps(_mm512_loadu_ps(at), _mm512_mul_ps(whole, _mm512_set1_ps(scales[token])));
        __m512 high = _mm512_setzero_ps();
        if (token + 1 < tokens)
            high = _mm512_mul_ps(_mm512_loadu_ps(at + stride), _mm512_mul_ps(whole, _mm512_set1_ps(scales[token + 1])));
        const __m512i first = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
        const __m512i second = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
        _mm512_storeu_si512(shares + token / 2 * stride, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
    }
}

/* What enters the recurrence at one layer, for a block of a window's frames and all queries: the class token, and a
   share of what the strongest word sees. Of it `gate` goes into the state, beside what is there; at the first, all. */
FAST static void pool_frames(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t layer,
                             int64_t window, int64_t begin, int64_t end) {
    const int64_t width = head->width, length = asked->length, patches = asked->patches, stride = asked->stride;
    const vtg_window *looked_at = asked->looked_at + window;
    const int is_first = layer == head->layers - 1;
    const __m512 amount = _mm512_set1_ps(head->amounts[layer]), gate = _mm512_set1_ps(head->gates[layer]);
    for (int64_t frame = begin; frame < end; frame++) {
        const int8_t *tokens = looked_at->tokens + layer * looked_at->token_stride + frame * patches * width;
        const uint16_t *scales = looked_at->scales + layer * looked_at->scale_stride + frame * patches;
        for (int64_t i = 0; i < patches; i += LANES) {
            const __m256i narrow = _mm256_maskz_loadu_epi16(lanes_left(patches - i), scales + i);
            _mm512_storeu_ps(work->scale + i, _mm512_cvtph_ps(narrow));
        }
        for (int64_t token = 0; token < patches; token += 2) {
            const int8_t *own = tokens + token * width, *next = token + 1 < patches ? own + width : 0;
            widen(own, next, width, work->tokens + token * width, work->token_columns + token / 2 * width);
        }
        const __m512 class_scale = _mm512_set1_ps(work->scale[0]);
        for (int64_t group = 0; group < asked->groups; group++) {
            const int64_t first = group * asked->together, count = smaller(asked->queries - first, asked->together);
            const int64_t looking = count * length;
            const uint32_t *words = asked->looking + (layer * asked->groups + group) * stride * width / 2;
            const after to_similarity = {.wide = work->similarity, .stride = stride};
            multiply((const uint32_t *)work->tokens, width / 2, 1, patches, words, LANES, width / 2 * LANES, width / 2,
                     up(looking, LANES), &to_similarity);
            for (int64_t i = 0; i < looking; i += LANES)
                share_out(work->similarity + i, stride, work->scale, patches, work->token_shares + i);
            const after to_looked = {.wide = work->looked, .stride = width};
            multiply(work->token_shares, 1, stride, looking, work->token_columns, width, LANES, (patches + 1) / 2,
                     width, &to_looked);
            for (int64_t query = first; query < first + count; query++) {
                const float *said = asked->words + (layer * asked->queries + query) * length * width;
                const float *seen = work->looked + (query - first) * length * width;
                float *state = asked->state + ((query * asked->windows + window) * asked->frames + frame) * width;
                for (int64_t i = 0; i < width; i += LANES) {
                    __m512 strongest = _mm512_set1_ps(-__builtin_inff());
                    for (int64_t word = 0; word < asked->lengths[query]; word++)
                        strongest = _mm512_max_ps(strongest, _mm512_add_ps(_mm512_loadu_ps(seen + word * width + i),
                                                                           _mm512_loadu_ps(said + word * width + i)));
                    const __m512i whole = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(tokens + i)));
                    const __m512 class_token = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), class_scale);
                    __m512 entering = _mm512_fmadd_ps(strongest, amount, class_token);
                    if (!is_first) {
                        const __m512 before = _mm512_loadu_ps(state + i);
                        entering = _mm512_fmadd_ps(_mm512_sub_ps(entering, before), gate, before);
                    }
                    _mm512_storeu_ps(state + i, entering);
                }
            }
        }
    }
}
