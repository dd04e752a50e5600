/* The weights of a head, a batch of queries and windows, and its working memory. */

#pragma once

#include "products.h"

enum {
    BLOCK = 96,     /* max. frames of a part of the work: keeps intermediate results in the cache */
    TABLE = 24,     /* max. frames whose similarities to all frames are computed at a time */
    CACHE_LINE = 64 /* bytes; two threads should not write to the same line */
};

/* Downsampling by 2: a linear layer of two neighbouring frames, layer normalisation, ReLU. */
typedef struct {
    linear_weights product;
    norm_weights norm;
} halving_weights;

typedef struct {
    int64_t width, heads, layers, query_width;
    const float *amounts, *gates; /* [layers]: weights of the pooled tokens, and of a layer in the state */
    /* query tokens */
    norm_weights input_norm, inner_norm;
    linear_weights first_map, second_map;
    linear_weights token_keys;   /* of query tokens: the key projection of video tokens is folded in */
    linear_weights cross;        /* 2 * width: keys and values of the cross-attention */
    const float *query_bias;     /* [width] bias of its queries */
    const linear_weights *folds; /* 2 * heads: its query and output projections, from the channels of a head to width */
    const float *score;          /* [width] scores of the query pooling */
    /* refinement */
    linear_weights own_queries_keys, own_values, own_output, expand, contract;
    norm_weights norms[3];
    /* pyramid and prediction heads */
    int64_t levels;
    const int64_t *strides;          /* [levels] from 1 */
    const halving_weights *halvings; /* level by level, log2(stride) each */
    linear_weights convolution;      /* the first of both prediction heads, kernel size 3 */
    const float *last, *last_bias;   /* [3, outputs, convolution.outputs] and [outputs]: the second */
    int64_t outputs;
} vtg_head;

/* One window's projected tokens: [layers, frames, patches, width] and [layers, frames, patches] float16. */
typedef struct {
    const int8_t *tokens;
    const uint16_t *scales;
    int64_t token_stride, scale_stride; /* from one layer to the next */
} vtg_window;

/* The progress of all threads in one step of the work. */
typedef struct {
    int64_t claimed;
    char padding[CACHE_LINE - sizeof(int64_t)];
    int64_t done;
    char trailing_padding[CACHE_LINE - sizeof(int64_t)];
} progress_of_step;

/* The items of a batch are its pairs of a window and a query, those of the first window first. */
typedef struct {
    int64_t queries, length, windows, frames, patches;
    const float *query_features;   /* [queries, length, layers, query_width], padding may hold any values */
    const int64_t *lengths;        /* [queries] tokens of each */
    const vtg_window *window_list; /* [windows] */
    const float *position;         /* [frames, width] */
    /* outputs */
    float *pooled;      /* [queries, width] each query pooled to one feature */
    float *state;       /* [items, frames, width] the last state, rectified */
    float *predictions; /* [items, points, outputs] of the prediction heads */
    /* division of the work */
    int64_t threads_joined;              /* threads that have started so far */
    int64_t token_columns;               /* tokens of all queries, padded to whole panels */
    int64_t padded;                      /* tokens of one query, padded to whole panels */
    int64_t block, blocks;               /* of a window's frames, for all queries */
    int64_t own_block, own_blocks;       /* of a window's frames, for one query */
    int64_t rows, row_block, row_blocks; /* all levels in sequence, a row of zeros after each */
    progress_of_step *progress;
    /* intermediate results between steps */
    float *mapped;        /* [layers, queries, length, width] */
    cell *token_keys;     /* [layers] panels of all query tokens */
    cell *key_panels;     /* [layers, queries] panels of the keys that frames attend to, head by head ... */
    cell *value_rows;     /* ... the values [heads * padded / CELL, row_stride(width)] ... */
    float *key_bias;      /* ... and biases [heads, padded] */
    num *own_queries;     /* [items, frames, width] */
    cell *own_keys;       /* [items, heads] panels of frames */
    cell *own_values;     /* [items, ceil(frames / CELL), row_stride(width)] */
    num *stacked;         /* [items, rows + 2, width] the levels, zeros before, between and after them */
    float *taps;          /* [items, rows, 3 * outputs] */
    char *thread_memory;  /* [threads] */
    int64_t thread_bytes;
} vtg_query_batch;

/* Scratch memory of one thread. */
typedef struct {
    num *placed, *flat, *inner, *shares, *query_rows, *cross_rows, *keys, *values, *tokens, *halved, *pair_keys;
    cell *token_rows, *token_shares;
    float *sums, *similarity, *both, *scale, *attended, *hidden;
} scratch_memory;

/* An arena allocator; with a null base it only counts the bytes. */
typedef struct {
    char *base;
    int64_t used;
} arena;

/* Stride of the rows of a right operand: rows a power of two apart would compete for the same cache sets. */
static int64_t row_stride(int64_t width) { return width + PANEL; }

static void *allocate(arena *memory, int64_t bytes) {
    void *own = memory->base ? memory->base + memory->used : 0;
    memory->used += round_up(bytes, CACHE_LINE);
    return own;
}

static scratch_memory layout_scratch(const vtg_head *head, const vtg_query_batch *batch, arena *memory) {
    const int64_t width = head->width, block = max_of(batch->block, batch->own_block);
    const int64_t frames = round_up(batch->frames, PANEL), cross = head->heads * batch->padded;
    const int64_t most = max_of(TABLE * frames, block * cross), query_tokens = batch->queries * batch->length;
    scratch_memory work;
    work.placed = allocate(memory, sizeof(num) * block * width);
    work.flat = allocate(memory, sizeof(num) * block * width);
    work.inner = allocate(memory, sizeof(num) * block * head->expand.outputs);
    work.pair_keys = allocate(memory, sizeof(num) * block * 2 * width);
    work.shares = allocate(memory, sizeof(num) * most);
    work.similarity = allocate(memory, sizeof(float) * max_of(most, batch->patches * batch->token_columns));
    work.sums = allocate(memory, sizeof(float) * max_of(max_of(block, query_tokens), batch->frames / 2 + 1) * width);
    work.query_rows = allocate(memory, sizeof(num) * query_tokens * max_of(width, head->query_width));
    work.cross_rows = allocate(memory, sizeof(num) * batch->length * 2 * width);
    work.keys = allocate(memory, sizeof(num) * max_of(query_tokens, cross) * width);
    work.values = allocate(memory, sizeof(num) * cross * width);
    work.both = allocate(memory, sizeof(float) * query_tokens * 2 * width);
    work.tokens = allocate(memory, sizeof(num) * (batch->patches + 1) * row_stride(width));
    work.token_rows = allocate(memory, sizeof(cell) * (batch->patches + 1) * row_stride(width));
    work.token_shares = allocate(memory, sizeof(cell) * (batch->patches + 1) * batch->token_columns);
    work.scale = allocate(memory, sizeof(float) * round_up(batch->patches + 1, PANEL));
    work.attended = allocate(memory, sizeof(float) * batch->token_columns * width);
    work.halved = allocate(memory, sizeof(num) * (batch->frames + 1) * width);
    work.hidden = allocate(memory, sizeof(float) * batch->row_block * head->convolution.outputs);
    return work;
}
