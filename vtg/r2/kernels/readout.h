/* The temporal feature pyramid, and the prediction heads. */

#pragma once

#include "query_batch.h"

/* Compute one level of the pyramid of one item, and the row of zeros after it. */
static void build_level(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work, int64_t item,
                        int64_t level) {
    const int64_t width = head->width;
    const float *state = batch->state + item * batch->frames * width;
    num *levels = batch->stacked + item * (batch->rows + 2) * width, *to = levels + width;
    const halving_weights *halving = head->halvings;
    for (int64_t before = 0; before < level; before++) {
        to += (batch->frames / head->strides[before] + 1) * width;
        for (int64_t left = head->strides[before]; left > 1; left /= 2) halving++;
    }
    int64_t count = batch->frames;
    if (level == 0) {
        memset(levels, 0, sizeof(num) * (size_t)width); /* before the first level, and after the last */
        memset(levels + (batch->rows + 1) * width, 0, sizeof(num) * (size_t)width);
        round_row(state, count * width, to);
    } else {
        round_row(state, count * width, work->halved);
        for (int64_t left = head->strides[level]; left > 1; left /= 2, halving++) {
            count /= 2;
            linear_layer(work->halved, 2 * width, count, &halving->product,
                         (epilogue){.wide = work->sums, .stride = width});
            normalise(work->sums, width, count, width, &halving->norm, 1, 0, left == 2 ? to : work->halved);
        }
    }
    memset(to + count * width, 0, sizeof(num) * (size_t)width);
}

/* Compute both convolutions for some rows of all levels of one item; the taps of the second one are kept separate. */
static void convolve(const vtg_head *head, const vtg_query_batch *batch, const scratch_memory *work, int64_t item,
                     int64_t begin, int64_t end) {
    const int64_t hidden = head->convolution.outputs, taps = 3 * head->outputs;
    const num *rows = batch->stacked + (item * (batch->rows + 2) + begin) * head->width; /* from the row before */
    /* Input rows overlap: each one extends over the two after it. */
    linear_layer(rows, head->width, end - begin, &head->convolution,
                 (epilogue){.rectified = 1, .wide = work->hidden, .stride = hidden});
    for (int64_t row = begin; row < end; row++)
        for (int64_t tap = 0; tap < taps; tap++)
            batch->taps[(item * batch->rows + row) * taps + tap] =
                dot(work->hidden + (row - begin) * hidden, head->last + tap * hidden, hidden);
}

/* Sum the taps of each point of one item. */
static void add_taps(const vtg_head *head, const vtg_query_batch *batch, int64_t item) {
    const int64_t outputs = head->outputs, taps = 3 * outputs;
    const float *row = batch->taps + item * batch->rows * taps;
    float *to = batch->predictions;
    int64_t points = 0;
    for (int64_t level = 0; level < head->levels; level++) points += batch->frames / head->strides[level];
    to += item * points * outputs;
    for (int64_t level = 0; level < head->levels && head->strides[level] <= batch->frames; level++, row += taps) {
        const int64_t count = batch->frames / head->strides[level];
        for (int64_t point = 0; point < count; point++, row += taps)
            for (int64_t own = 0; own < outputs; own++) {
                float sum = head->last_bias[own] + row[outputs + own];
                if (point > 0) sum += row[own - taps];
                if (point + 1 < count) sum += row[2 * outputs + own + taps];
                *to++ = sum;
            }
    }
}
