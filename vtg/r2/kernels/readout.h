/* The temporal feature pyramid, and the prediction heads. */

#pragma once

#include "question.h"

/* One level of the pyramid of one item: its rows, and the zeros after them. */
static void build_level(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t item,
                        int64_t level) {
    const int64_t width = head->width;
    const float *state = asked->state + item * asked->frames * width;
    num *levels = asked->stacked + item * (asked->rows + 2) * width, *to = levels + width;
    const halving_weights *halving = head->halvings;
    for (int64_t before = 0; before < level; before++) {
        to += (asked->frames / head->strides[before] + 1) * width;
        for (int64_t left = head->strides[before]; left > 1; left /= 2) halving++;
    }
    int64_t count = asked->frames;
    if (level == 0) {
        memset(levels, 0, sizeof(num) * (size_t)width); /* before the first level, and after the last */
        memset(levels + (asked->rows + 1) * width, 0, sizeof(num) * (size_t)width);
        round_row(state, count * width, to);
    } else {
        round_row(state, count * width, work->halved);
        for (int64_t left = head->strides[level]; left > 1; left /= 2, halving++) {
            count /= 2;
            map(work->halved, 2 * width, count, &halving->product, (after){.wide = work->sums, .stride = width});
            normalise(work->sums, width, count, width, &halving->norm, 1, 0, left == 2 ? to : work->halved);
        }
    }
    memset(to + count * width, 0, sizeof(num) * (size_t)width);
}

/* Some rows of all levels of one item: what each tap of the second convolutions makes of them. */
static void convolve(const vtg_head *head, const vtg_question *asked, const workplace *work, int64_t item, int64_t begin,
                     int64_t end) {
    const int64_t hidden = head->convolution.outputs, taps = 3 * head->outputs;
    const num *rows = asked->stacked + (item * (asked->rows + 2) + begin) * head->width; /* from the row before */
    map(rows, head->width, end - begin, &head->convolution, /* rows overlap: each goes on into the two after it */
        (after){.rectified = 1, .wide = work->hidden, .stride = hidden});
    for (int64_t row = begin; row < end; row++)
        for (int64_t tap = 0; tap < taps; tap++)
            asked->taps[(item * asked->rows + row) * taps + tap] =
                dot(work->hidden + (row - begin) * hidden, head->last + tap * hidden, hidden);
}

/* Adds the taps of each point of one item up. */
static void add_taps(const vtg_head *head, const vtg_question *asked, int64_t item) {
    const int64_t outputs = head->outputs, taps = 3 * outputs;
    const float *row = asked->taps + item * asked->rows * taps;
    float *to = asked->said;
    int64_t points = 0;
    for (int64_t level = 0; level < head->levels; level++) points += asked->frames / head->strides[level];
    to += item * points * outputs;
    for (int64_t level = 0; level < head->levels && head->strides[level] <= asked->frames; level++, row += taps) {
        const int64_t count = asked->frames / head->strides[level];
        for (int64_t point = 0; point < count; point++, row += taps)
            for (int64_t own = 0; own < outputs; own++) {
                float sum = head->last_bias[own] + row[outputs + own];
                if (point > 0) sum += row[own - taps];
                if (point + 1 < count) sum += row[2 * outputs + own + taps];
                *to++ = sum;
            }
    }
}
