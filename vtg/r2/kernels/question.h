/* The weights of a head, a question to some windows, and the memory that it is answered in. */

#pragma once

#include "products.h"

enum {
    BLOCK = 96,           /* most frames of a part of the work: what lies between two products stays in the cache */
    TABLE = 24,           /* most frames whose similarities to all frames are computed at a time */
    LINE = 64             /* bytes of the cache that two threads should not both write to */
};

/* Halves a sequence: a product of two neighbours, normalised and rectified. */
typedef struct {
    linear_weights product;
    norm_weights norm;
} halving_weights;

typedef struct {
    int64_t width, heads, layers, query_width;
    const float *amounts, *gates; /* [layers]: how much of what was pooled, and of a layer, enters the state */
    /* words */
    norm_weights input_norm, inner_norm;
    linear_weights first_map, second_map;
    linear_weights token_keys;   /* makes of words what tokens are multiplied by: the maps of both are folded */
    linear_weights cross;        /* 2 * width: the keys and values of the cross-attention */
    const float *query_bias;     /* [width] the bias of its queries */
    const linear_weights *folds; /* 2 * heads: its maps of queries and of its output, from a head's share to width */
    const float *score;          /* [width] of the query's pooling */
    /* refinement */
    linear_weights own_queries_keys, own_values, own_output, expand, contract;
    norm_weights norms[3];
    /* pyramid and prediction heads */
    int64_t levels;
    const int64_t *strides;          /* [levels] from 1 */
    const halving_weights *halvings; /* level by level, as many as halve it */
    linear_weights convolution;      /* the first of both prediction heads, of three neighbours */
    const float *last, *last_bias;   /* [3, outputs, convolution.outputs] and [outputs]: their second */
    int64_t outputs;
} vtg_head;

/* One window's projected tokens: [layers, frames, patches, width] and [layers, frames, patches] float16. */
typedef struct {
    const int8_t *tokens;
    const uint16_t *scales;
    int64_t token_stride, scale_stride; /* from one layer to the next */
} vtg_window;

/* How far the threads are with one step of the work. */
typedef struct {
    int64_t claimed;
    char apart[LINE - sizeof(int64_t)];
    int64_t done;
    char from_the_next[LINE - sizeof(int64_t)];
} progress_of_step;

/* The items of a question are its pairs of a window and a query, those of the first window first. */
typedef struct {
    int64_t queries, length, windows, frames, patches;
    const float *words_in;         /* [queries, length, layers, query_width], anything where there is no word */
    const int64_t *lengths;        /* [queries] words of each */
    const vtg_window *window_list; /* [windows] */
    const float *position;         /* [frames, width] */
    /* answers */
    float *pooled; /* [queries, width] each query as one feature */
    float *state;  /* [items, frames, width] the last state, rectified */
    float *said;   /* [items, points, outputs] of the prediction heads */
    /* how the work is cut */
    int64_t joined;                      /* threads that have come so far */
    int64_t words;                       /* of all queries, filled up to whole panels */
    int64_t padded;                      /* of one query, filled up to whole panels */
    int64_t block, blocks;               /* of a window's frames, for all queries */
    int64_t own_block, own_blocks;       /* of a window's frames, for one query */
    int64_t rows, row_block, row_blocks; /* of all levels one after the other, with a row of zeros after each */
    progress_of_step *progress;
    /* what one step leaves to another */
    float *mapped;        /* [layers, queries, length, width] */
    cell *token_keys;     /* [layers] panels of all words */
    cell *key_panels;     /* [layers, queries] panels of the keys that frames attend to, head by head ... */
    cell *value_rows;     /* ... the values [heads * padded / CELL, spread(width)] ... */
    float *key_bias;      /* ... and biases [heads, padded] */
    num *own_queries;     /* [items, frames, width] */
    cell *own_keys;       /* [items, heads] panels of frames */
    cell *own_values;     /* [items, ceil(frames / CELL), spread(width)] */
    num *stacked;         /* [items, rows + 2, width] the levels, zeros before, between and after them */
    float *taps;          /* [items, rows, 3 * outputs] */
    char *privately;      /* [members] */
    int64_t private_bytes;
} vtg_question;

/* What a thread needs between two products. */
typedef struct {
    num *placed, *flat, *inner, *shares, *word_rows, *cross_words, *keys, *values, *tokens, *halved, *pair_keys;
    cell *token_rows, *token_shares;
    float *sums, *similarity, *both, *scale, *looked, *hidden;
} workplace;

/* Memory in one piece: counted where there is none yet, then handed out. */
typedef struct {
    char *base;
    int64_t used;
} memory_piece;

/* From one row of a right operand to the next: rows a power of two apart would share a few places in the cache. */
static int64_t spread(int64_t width) { return width + PANEL; }

static void *take(memory_piece *memory, int64_t bytes) {
    void *own = memory->base ? memory->base + memory->used : 0;
    memory->used += up(bytes, LINE);
    return own;
}

static workplace workplace_of(const vtg_head *head, const vtg_question *asked, memory_piece *memory) {
    const int64_t width = head->width, block = larger(asked->block, asked->own_block);
    const int64_t frames = up(asked->frames, PANEL), cross = head->heads * asked->padded;
    const int64_t most = larger(TABLE * frames, block * cross), words = asked->queries * asked->length;
    workplace work;
    work.placed = take(memory, sizeof(num) * block * width);
    work.flat = take(memory, sizeof(num) * block * width);
    work.inner = take(memory, sizeof(num) * block * head->expand.outputs);
    work.pair_keys = take(memory, sizeof(num) * block * 2 * width);
    work.shares = take(memory, sizeof(num) * most);
    work.similarity = take(memory, sizeof(float) * larger(most, asked->patches * asked->words));
    work.sums = take(memory, sizeof(float) * larger(larger(block, words), asked->frames / 2 + 1) * width);
    work.word_rows = take(memory, sizeof(num) * words * larger(width, head->query_width));
    work.cross_words = take(memory, sizeof(num) * asked->length * 2 * width);
    work.keys = take(memory, sizeof(num) * larger(words, cross) * width);
    work.values = take(memory, sizeof(num) * cross * width);
    work.both = take(memory, sizeof(float) * words * 2 * width);
    work.tokens = take(memory, sizeof(num) * (asked->patches + 1) * spread(width));
    work.token_rows = take(memory, sizeof(cell) * (asked->patches + 1) * spread(width));
    work.token_shares = take(memory, sizeof(cell) * (asked->patches + 1) * asked->words);
    work.scale = take(memory, sizeof(float) * up(asked->patches + 1, PANEL));
    work.looked = take(memory, sizeof(float) * asked->words * width);
    work.halved = take(memory, sizeof(num) * (asked->frames + 1) * width);
    work.hidden = take(memory, sizeof(float) * asked->row_block * head->convolution.outputs);
    return work;
}
