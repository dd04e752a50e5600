/* The temporal feature pyramid, and the convolutions of the prediction heads. */

#pragma once

#include "question.h"

/* One level of the pyramid of one query in one window: its rows, and the zeros after them. */
FAST static void build_level(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t item,
                             int64_t level) {
    const int64_t width = head->width, stride = head->strides[level];
    const float *state = asked->state + item * asked->frames * width;
    half *levels = asked->stacked + item * (asked->rows + 2) * width, *to = levels + width;
    const vtg_halving *halving = head->halvings;
    for (int64_t before = 0; before < level; before++) {
        to += (asked->frames / head->strides[before] + 1) * width;
        for (int64_t left = head->strides[before]; left > 1; left /= 2) halving++;
    }
    int64_t count = asked->frames;
    if (level == 0) {
        memset(levels, 0, sizeof(half) * width); /* before the first level, and two rows after the last */
        memset(levels + (asked->rows + 1) * width, 0, sizeof(half) * width);
        narrow(state, to, count * width);
    } else {
        narrow(state, work->halved, count * width);
        for (int64_t left = stride; left > 1; left /= 2, halving++) {
            const after to_sums = {.wide = work->sums, .stride = width};
            count /= 2;
            map(work->halved, 2 * width, count, &halving->product, to_sums);
            normalise(work->sums, width, count, width, &halving->norm, 1, 0, left == 2 ? to : work->halved);
        }
    }
    memset(to + count * width, 0, sizeof(half) * width);
}

/* Some rows of all levels of one query in one window: what each tap of the second convolutions makes of them. */
FAST static void convolve(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t item,
                          int64_t begin, int64_t end) {
    const vtg_linear *first = &head->convolution;
    const int64_t outputs = first->outputs;
    const half *rows = asked->stacked + (item * (asked->rows + 2) + begin) * head->width; /* from the row before */
    const after to_said = {.rectified = 1, .wide = work->said, .stride = outputs};
    map(rows, head->width, end - begin, first, to_said); /* rows overlap: each goes on into the two after it */
    for (int64_t row = begin; row < end; row++) {
        float *to = asked->taps + (item * asked->rows + row) * head->taps;
        for (int64_t tap = 0; tap < head->taps; tap++)
            to[tap] = dot(work->said + (row - begin) * outputs, head->last + tap * outputs, outputs);
    }
}
