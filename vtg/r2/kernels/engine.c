/* Computes the head's outputs for queries and projected windows of int8 tokens; see vtg/r2/engine.py.

   One source for all processors, compiled once for each instruction set in setup.py. Several threads may work on one
   batch: each calls `vtg_answer`, which claims unprocessed parts and returns when all parts are done.

   Read `vectors.h` and `products.h` (arithmetic), `query_batch.h` (data structures), then the steps in their order:
   `query_tokens.h`, `pooling.h`, `refinement.h`, `readout.h`. */

#include <sched.h>
#include <stdlib.h>

#include "pooling.h"
#include "query_tokens.h"
#include "readout.h"
#include "refinement.h"

#define PUBLIC __attribute__((visibility("default")))

enum {
    VERSION = 2,     /* of the interface of the functions below, as in engine.py */
    MIN_ROWS = 8,    /* of a part: products of fewer rows are slower */
    MAX_SPINS = 4000 /* of a waiting thread before it yields the processor */
};

PUBLIC const int64_t vtg_layout[] = {VERSION, sizeof(vtg_head), sizeof(vtg_query_batch)};

/* Whether this processor has the instructions that this library was compiled for. */
PUBLIC int vtg_supported(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#else
    return 1;
#endif
}

PUBLIC int64_t vtg_panels_bytes(int64_t outputs, int64_t inputs) {
    return round_up(outputs, PANEL) * inputs / CELL * (int64_t)sizeof(cell);
}

/* weight [outputs, inputs] -> panels. Returns 0 if memory cannot be allocated. */
PUBLIC int vtg_pack(const float *weight, int64_t outputs, int64_t inputs, cell *panels) {
    num *rows = malloc(sizeof(num) * (size_t)(outputs * inputs));
    if (!rows) return 0;
    round_row(weight, outputs * inputs, rows);
    make_panels(rows, inputs, outputs, inputs, panels);
    free(rows);
    return 1;
}

/* Number of parts to divide the rows of each of `items` into, so that every thread has one and none exceeds BLOCK rows.
   `each` becomes the rows of a part, a multiple of `multiple`. */
static int64_t parts_of(int64_t rows, int64_t threads, int64_t items, int64_t multiple, int64_t *each) {
    const int64_t wanted = min_of((threads + items - 1) / items, max_of(1, rows / MIN_ROWS));
    const int64_t parts = max_of((rows + BLOCK - 1) / BLOCK, wanted);
    *each = round_up((rows + parts - 1) / parts, multiple);
    return (rows + *each - 1) / *each;
}

static int64_t steps_of(const vtg_head *head) { return 1 + 2 * head->layers + 3; }

/* Prepare a batch whose input and output fields are set: divide the work among threads and lay out the intermediate
   arrays in `memory`. Returns the bytes of memory needed; with a null `memory` only these are computed. */
PUBLIC int64_t vtg_begin(const vtg_head *head, vtg_query_batch *batch, int64_t threads, char *memory) {
    const int64_t width = head->width, layers = head->layers, queries = batch->queries, frames = batch->frames;
    const int64_t items = queries * batch->windows;
    batch->threads_joined = 0;
    batch->token_columns = round_up(queries * batch->length, PANEL);
    batch->padded = round_up(batch->length, PANEL);
    batch->blocks = parts_of(frames, threads, batch->windows, 2, &batch->block);
    batch->own_blocks = parts_of(frames, threads, items, 2, &batch->own_block);
    batch->rows = 0;
    for (int64_t level = 0; level < head->levels && head->strides[level] <= frames; level++)
        batch->rows += frames / head->strides[level] + 1;
    batch->row_blocks = parts_of(batch->rows, threads, items, 1, &batch->row_block);
    arena counted = {0}, placed = {.base = memory};
    layout_scratch(head, batch, &counted);
    batch->thread_bytes = counted.used;
    const int64_t cross = head->heads * batch->padded;
    batch->progress = allocate(&placed, sizeof(progress_of_step) * steps_of(head));
    batch->mapped = allocate(&placed, sizeof(float) * layers * queries * batch->length * width);
    batch->token_keys = allocate(&placed, sizeof(cell) * layers * batch->token_columns * width / CELL);
    batch->key_panels = allocate(&placed, sizeof(cell) * layers * queries * cross * width / CELL);
    batch->value_rows = allocate(&placed, sizeof(cell) * layers * queries * cross / CELL * row_stride(width));
    batch->key_bias = allocate(&placed, sizeof(float) * layers * queries * cross);
    batch->own_queries = allocate(&placed, sizeof(num) * items * frames * width);
    batch->own_keys = allocate(&placed, sizeof(cell) * items * round_up(frames, PANEL) * width / CELL);
    /* The last rows are read in whole panels, which may be wider than the channels of an attention head. */
    const int64_t value_rows = items * ((frames + CELL - 1) / CELL);
    batch->own_values = allocate(&placed, sizeof(cell) * (value_rows * row_stride(width) + PANEL));
    batch->stacked = allocate(&placed, sizeof(num) * items * (batch->rows + 2) * width);
    batch->taps = allocate(&placed, sizeof(float) * items * batch->rows * 3 * head->outputs);
    batch->thread_memory = allocate(&placed, batch->thread_bytes * threads);
    if (memory) memset(batch->progress, 0, sizeof(progress_of_step) * (size_t)steps_of(head));
    return placed.used;
}

/* Index of the next unclaimed part of a step; at or above the number of parts, all are claimed. */
static int64_t claim_part(progress_of_step *step) { return __atomic_fetch_add(&step->claimed, 1, __ATOMIC_RELAXED); }

static void finish_part(progress_of_step *step) { __atomic_fetch_add(&step->done, 1, __ATOMIC_RELEASE); }

/* Wait until all parts of a step are finished. */
static void wait_for(progress_of_step *step, int64_t count) {
    for (int64_t spins = 0; __atomic_load_n(&step->done, __ATOMIC_ACQUIRE) < count; spins++) {
        if (spins >= MAX_SPINS) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
    }
}

/* Run the following statement on each part of the next step that this thread claims, then wait for all other parts. */
#define FOR_EACH_PART(PART, COUNT) \
    for (int64_t count_ = (COUNT), PART = claim_part(step); PART < count_ || (wait_for(step++, count_), 0); \
         finish_part(step), PART = claim_part(step))

/* Process a batch prepared by `vtg_begin`. At most `threads` threads may call this for one batch, at the same time. */
PUBLIC void vtg_answer(const vtg_head *head, vtg_query_batch *batch) {
    const int64_t thread = __atomic_fetch_add(&batch->threads_joined, 1, __ATOMIC_RELAXED);
    const int64_t items = batch->queries * batch->windows, frames = batch->frames;
    arena own = {.base = batch->thread_memory + thread * batch->thread_bytes};
    const scratch_memory work = layout_scratch(head, batch, &own);
    progress_of_step *step = batch->progress;
    FOR_EACH_PART(layer, head->layers) map_query_tokens(head, batch, &work, layer);
    for (int64_t layer = head->layers - 1; layer >= 0; layer--) {
        FOR_EACH_PART(part, batch->windows * batch->blocks) {
            const int64_t window = part / batch->blocks, begin = part % batch->blocks * batch->block;
            const int64_t end = min_of(begin + batch->block, frames);
            pool_frames(head, batch, &work, layer, window, begin, end);
            for (int64_t query = 0; query < batch->queries; query++)
                cross_attention(head, batch, &work, layer, query, window, begin, end);
        }
        FOR_EACH_PART(part, items * batch->own_blocks) {
            const int64_t begin = part % batch->own_blocks * batch->own_block;
            const int64_t end = min_of(begin + batch->own_block, frames);
            refine_frames(head, batch, &work, layer, part / batch->own_blocks, begin, end);
        }
    }
    int64_t levels = 0;
    while (levels < head->levels && head->strides[levels] <= frames) levels++;
    FOR_EACH_PART(part, items * levels) build_level(head, batch, &work, part / levels, part % levels);
    FOR_EACH_PART(part, items * batch->row_blocks) {
        const int64_t begin = part % batch->row_blocks * batch->row_block;
        convolve(head, batch, &work, part / batch->row_blocks, begin, min_of(begin + batch->row_block, batch->rows));
    }
    FOR_EACH_PART(item, items) add_taps(head, batch, item);
}
