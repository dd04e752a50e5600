/* What is asked: the weights of a head, a question to some windows, and where everything lies while it is answered. */

#pragma once

#include "products.h"

enum {
    BLOCK = 96, /* most frames refined in one go: what lies between two products stays in the cache */
    WORDS = 96, /* rows of words that look at a frame in one go, about */
    LINE = 64   /* bytes of the cache that two threads should not both write to */
};

/* Halves a sequence: a product of two neighbours, normalised and rectified. */
typedef struct {
    vtg_linear product;
    vtg_norm norm;
} vtg_halving;

typedef struct {
    int64_t width, heads, layers, query_width;
    const float *amounts, *gates; /* [layers]: of what words see; of what enters the state */
    /* words */
    vtg_norm input_norm, inner_norm;
    vtg_linear first_map, second_map;
    vtg_linear look;         /* words as they look at tokens, the key map folded in */
    vtg_linear attend;       /* 2 * width: the keys and values of the cross-attention */
    const float *query_bias; /* [width] the bias of its queries */
    const vtg_linear *folds; /* 2 * heads: its maps of queries and of what was attended to, a head's share to width */
    const float *score;      /* [width] of the query's pooling */
    /* refinement */
    vtg_linear own, own_output, expand, contract; /* `own` has no bias: `own_place` of a question brings it */
    vtg_norm norms[3];
    /* pyramid and prediction heads */
    int64_t levels;
    const int64_t *strides;      /* [levels] from 1 */
    const vtg_halving *halvings; /* level by level, as many as halve it */
    vtg_linear convolution;      /* the prediction heads' first, of three neighbours */
    const float *last;           /* [taps, convolution.outputs]: their second, whose taps are not added up yet */
    int64_t taps;
} vtg_head;

/* One window's projected tokens: [layers, frames, patches, width] and [layers, frames, patches] float16, of which each
   layer lies somewhere. */
typedef struct {
    const int8_t *tokens;
    const uint16_t *scales;
    int64_t token_stride, scale_stride;
} vtg_window;

/* How far the threads are with one step of the work. */
typedef struct {
    int64_t claimed;
    char apart[LINE - sizeof(int64_t)];
    int64_t done;
    char from_the_next[LINE - sizeof(int64_t)];
} vtg_progress;

typedef struct {
    int64_t queries, length, windows, frames, patches;
    const float *words_in;             /* [queries, length, layers, query_width], whatever where there is no word */
    const int64_t *lengths;            /* [queries] words of each */
    const vtg_window *looked_at;       /* [windows] */
    const float *position, *own_place; /* [frames, width] and [frames, 3 * width]: what a place adds */
    /* answers */
    float *pooled; /* [queries, width] each query as one feature */
    float *state;  /* [queries, windows, frames, width] the last state, rectified */
    float *taps;   /* [queries, windows, rows, taps] of all levels one after the other, a row after each */
    /* how the work is cut */
    int64_t joined;                      /* threads that have come so far */
    int64_t together, groups, stride;    /* queries whose words look together; words in a table of similarities */
    int64_t padded;                      /* words of a query, filled up to whole registers */
    int64_t block, blocks;               /* of a window's frames, for all queries */
    int64_t own_block, own_blocks;       /* of a window's frames, for each query */
    int64_t rows, row_block, row_blocks; /* of all levels */
    vtg_progress *progress;
    /* what one step leaves to another */
    float *words;            /* [layers, queries, length, width] */
    uint32_t *looking;       /* [layers, groups] panels of words that look at a frame together */
    uint32_t *key_panels;    /* [layers, queries] panels of words that frames attend to, head by head ... */
    uint32_t *value_columns; /* ... what they give ... */
    float *key_bias;         /* ... and their biases [heads, padded] */
    half *own;               /* [queries, windows, frames, 3 * width] */
    uint32_t *own_keys;      /* [queries, windows, heads] panels of frames */
    uint32_t *own_values;    /* [queries, windows] */
    half *stacked;           /* [queries, windows, rows + 2, width] the levels, zeros before, between and after them */
    char *privately;         /* [members] */
    int64_t private_bytes;
} vtg_question;

/* What a thread needs between two products. */
typedef struct {
    half *placed, *flat, *inner, *shares, *word_rows, *inner_words, *keys, *values, *tokens, *halved;
    uint32_t *token_columns, *token_shares;
    float *sums, *similarity, *both, *scale, *looked, *said;
} workplace;

static int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }
static int64_t larger(int64_t one, int64_t other) { return one > other ? one : other; }

/* Memory in one piece: counted where there is none yet, then handed out. */
typedef struct {
    char *base;
    int64_t used;
} scratch;

static void *take(scratch *memory, int64_t bytes) {
    void *own = memory->base ? memory->base + memory->used : 0;
    memory->used += up(bytes, LINE);
    return own;
}

static workplace place_of(const vtg_head *head, const vtg_question *asked, scratch *memory) {
    const int64_t width = head->width, block = larger(asked->block, asked->own_block);
    const int64_t most = larger(up(asked->frames, LANES), head->heads * asked->padded);
    const int64_t words = asked->together * asked->length;
    workplace work;
    work.placed = take(memory, sizeof(half) * block * width);
    work.flat = take(memory, sizeof(half) * block * width);
    work.inner = take(memory, sizeof(half) * block * head->expand.outputs);
    work.shares = take(memory, sizeof(half) * block * most);
    work.similarity = take(memory, sizeof(float) * larger(block * most, asked->patches * asked->stride));
    work.sums = take(memory, sizeof(float) * larger(larger(block, words), asked->frames / 2) * width);
    work.word_rows = take(memory, sizeof(half) * words * larger(width, head->query_width));
    work.inner_words = take(memory, sizeof(half) * asked->length * 2 * width);
    work.keys = take(memory, sizeof(half) * larger(words, head->heads * asked->padded) * width);
    work.values = take(memory, sizeof(half) * head->heads * asked->padded * width);
    work.both = take(memory, sizeof(float) * words * 2 * width);
    work.tokens = take(memory, sizeof(half) * (asked->patches + 1) * width);
    work.token_columns = take(memory, sizeof(uint32_t) * (asked->patches + 1) / 2 * width);
    work.token_shares = take(memory, sizeof(uint32_t) * (asked->patches + 1) / 2 * asked->stride);
    work.scale = take(memory, sizeof(float) * up(asked->patches, LANES));
    work.looked = take(memory, sizeof(float) * asked->stride * width);
    work.halved = take(memory, sizeof(half) * asked->frames * width);
    work.said = take(memory, sizeof(float) * asked->row_block * head->convolution.outputs);
    return work;
}
