/* Answers queries about projected windows of int8 tokens; see vtg/r2/engine.py.

   One source for all processors: it is compiled once for each instruction set that setup.py names. Several threads may
   share a question: each calls `vtg_answer`, takes parts that nobody has taken yet, and leaves when all are done. */

#include <sched.h>
#include <stdlib.h>

#include "pooling.h"
#include "readout.h"
#include "refinement.h"
#include "words.h"

#define PUBLIC __attribute__((visibility("default")))

enum {
    VERSION = 2,     /* of what the functions below take and mean, as in engine.py */
    FEWEST_ROWS = 8, /* of a part: fewer are multiplied slower */
    SPINS = 4000     /* of a thread that waits for another, until it offers its processor to others */
};

PUBLIC const int64_t vtg_layout[] = {VERSION, sizeof(vtg_head), sizeof(vtg_question)};

/* Whether this processor has the instructions that this was compiled for. */
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
    return up(outputs, PANEL) * inputs / CELL * (int64_t)sizeof(cell);
}

/* weight [outputs, inputs] -> panels. 0: no memory. */
PUBLIC int vtg_pack(const float *weight, int64_t outputs, int64_t inputs, cell *panels) {
    num *rows = malloc(sizeof(num) * (size_t)(outputs * inputs));
    if (!rows) return 0;
    round_row(weight, outputs * inputs, rows);
    make_panels(rows, inputs, outputs, inputs, panels);
    free(rows);
    return 1;
}

/* Into how many parts each of `items` is cut, so that every member has one and none is too large; each is of so many
   rows, a multiple of `whole`. */
static int64_t parts_of(int64_t rows, int64_t members, int64_t items, int64_t whole, int64_t *each) {
    const int64_t wanted = smaller((members + items - 1) / items, larger(1, rows / FEWEST_ROWS));
    const int64_t parts = larger((rows + BLOCK - 1) / BLOCK, wanted);
    *each = up((rows + parts - 1) / parts, whole);
    return (rows + *each - 1) / *each;
}

static int64_t steps_of(const vtg_head *head) { return 1 + 2 * head->layers + 3; }

/* Makes a question ready, whose fields up to the answers are filled in: cuts the work, and places what lies between its
   steps in `memory`. Gives the bytes of it that are needed; nothing else is done where there is none yet. */
PUBLIC int64_t vtg_begin(const vtg_head *head, vtg_question *asked, int64_t members, char *memory) {
    const int64_t width = head->width, layers = head->layers, queries = asked->queries, frames = asked->frames;
    const int64_t items = queries * asked->windows;
    asked->joined = 0;
    asked->words = up(queries * asked->length, PANEL);
    asked->padded = up(asked->length, PANEL);
    asked->blocks = parts_of(frames, members, asked->windows, 2, &asked->block);
    asked->own_blocks = parts_of(frames, members, items, 2, &asked->own_block);
    asked->rows = 0;
    for (int64_t level = 0; level < head->levels && head->strides[level] <= frames; level++)
        asked->rows += frames / head->strides[level] + 1;
    asked->row_blocks = parts_of(asked->rows, members, items, 1, &asked->row_block);
    memory_piece counted = {0}, place = {.base = memory};
    workplace_of(head, asked, &counted);
    asked->private_bytes = counted.used;
    const int64_t cross = head->heads * asked->padded;
    asked->progress = take(&place, sizeof(progress_of_step) * steps_of(head));
    asked->mapped = take(&place, sizeof(float) * layers * queries * asked->length * width);
    asked->token_keys = take(&place, sizeof(cell) * layers * asked->words * width / CELL);
    asked->key_panels = take(&place, sizeof(cell) * layers * queries * cross * width / CELL);
    asked->value_rows = take(&place, sizeof(cell) * layers * queries * cross / CELL * spread(width));
    asked->key_bias = take(&place, sizeof(float) * layers * queries * cross);
    asked->own_queries = take(&place, sizeof(num) * items * frames * width);
    asked->own_keys = take(&place, sizeof(cell) * items * up(frames, PANEL) * width / CELL);
    /* The last rows are read in whole panels: a head's share may be narrower. */
    asked->own_values = take(&place, sizeof(cell) * (items * ((frames + CELL - 1) / CELL) * spread(width) + PANEL));
    asked->stacked = take(&place, sizeof(num) * items * (asked->rows + 2) * width);
    asked->taps = take(&place, sizeof(float) * items * asked->rows * 3 * head->outputs);
    asked->privately = take(&place, asked->private_bytes * members);
    if (memory) memset(asked->progress, 0, sizeof(progress_of_step) * (size_t)steps_of(head));
    return place.used;
}

/* The next of a step's parts that nobody has taken; at or above their number, all are taken. */
static int64_t claim(progress_of_step *step) { return __atomic_fetch_add(&step->claimed, 1, __ATOMIC_RELAXED); }

static void finish_part(progress_of_step *step) { __atomic_fetch_add(&step->done, 1, __ATOMIC_RELEASE); }

/* Waits until those who have taken the last parts of a step are done. */
static void wait_for(progress_of_step *step, int64_t count) {
    for (int64_t spins = 0; __atomic_load_n(&step->done, __ATOMIC_ACQUIRE) < count; spins++) {
        if (spins >= SPINS) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
    }
}

/* Runs what follows on each part of the next step that nobody else has taken; then all of the step's parts are done. */
#define EACH(PART, COUNT) \
    for (int64_t count_ = (COUNT), PART = claim(step); PART < count_ || (wait_for(step++, count_), 0); \
         finish_part(step), PART = claim(step))

/* Answers a question that `vtg_begin` made ready, together with whoever else calls this. At most `members` may. */
PUBLIC void vtg_answer(const vtg_head *head, vtg_question *asked) {
    const int64_t member = __atomic_fetch_add(&asked->joined, 1, __ATOMIC_RELAXED);
    const int64_t items = asked->queries * asked->windows, frames = asked->frames;
    memory_piece own = {.base = asked->privately + member * asked->private_bytes};
    const workplace work = workplace_of(head, asked, &own);
    progress_of_step *step = asked->progress;
    EACH(layer, head->layers) map_words(head, asked, &work, layer);
    for (int64_t layer = head->layers - 1; layer >= 0; layer--) {
        EACH(part, asked->windows * asked->blocks) {
            const int64_t window = part / asked->blocks, begin = part % asked->blocks * asked->block;
            const int64_t end = smaller(begin + asked->block, frames);
            pool_frames(head, asked, &work, layer, window, begin, end);
            for (int64_t query = 0; query < asked->queries; query++)
                attend_to_words(head, asked, &work, layer, query, window, begin, end);
        }
        EACH(part, items * asked->own_blocks) {
            const int64_t begin = part % asked->own_blocks * asked->own_block;
            const int64_t end = smaller(begin + asked->own_block, frames);
            attend_to_frames(head, asked, &work, layer, part / asked->own_blocks, begin, end);
        }
    }
    int64_t levels = 0;
    while (levels < head->levels && head->strides[levels] <= frames) levels++;
    EACH(part, items * levels) build_level(head, asked, &work, part / levels, part % levels);
    EACH(part, items * asked->row_blocks) {
        const int64_t begin = part % asked->row_blocks * asked->row_block;
        convolve(head, asked, &work, part / asked->row_blocks, begin, smaller(begin + asked->row_block, asked->rows));
    }
    EACH(item, items) add_taps(head, asked, item);
}
