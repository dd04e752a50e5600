/* Answers questions about projected windows of whole numbers, with products of bfloat16 and float32 sums.

   Only for processors that multiply pairs of bfloat16 (AVX-512 BF16), which `vtg_supported` tells. Several threads may
   help with a question: each calls `vtg_answer`, takes what nobody has taken yet, and leaves when all is done. */

#if defined(__GNUC__) || defined(__clang__)
#define PUBLIC __attribute__((visibility("default")))
#else
#define PUBLIC
#endif

#if defined(__x86_64__) && defined(__unix__) && (defined(__GNUC__) || defined(__clang__))

#include <sched.h>
#include <stdlib.h>

#include "pooling.h"
#include "readout.h"
#include "refinement.h"
#include "words.h"

enum {
    FEWEST_ROWS = 8, /* of a block: fewer are multiplied slower */
    SPINS = 4000     /* of a thread that waits for another, until it offers its processor to others */
};

enum { VERSION = 1 }; /* of what the functions below take and mean: who changes that changes it in compiled.py, too */

PUBLIC const int64_t vtg_layout[] = {VERSION, sizeof(vtg_head), sizeof(vtg_question)};

PUBLIC int vtg_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

PUBLIC int64_t vtg_panels_bytes(int64_t outputs, int64_t inputs) { return up(outputs, LANES) * inputs * sizeof(half); }

/* weight [outputs, inputs] -> panels; inputs are even. 0: no memory. */
PUBLIC FAST int vtg_pack(const float *weight, int64_t outputs, int64_t inputs, uint32_t *panels) {
    half *rows = malloc(sizeof(half) * outputs * inputs);
    if (!rows) return 0;
    narrow(weight, rows, outputs * inputs);
    panels_of_rows(rows, inputs, outputs, inputs, panels);
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

static int64_t steps_of(const vtg_head *head) { return 1 + 2 * head->layers + 2; }

/* Makes a question ready, whose first three groups of fields are filled in: cuts the work, and places what lies between
   its steps in `memory`. Gives the bytes of it that are needed; nothing else is done where there is none yet. */
PUBLIC int64_t vtg_begin(const vtg_head *head, vtg_question *asked, int64_t members, char *memory) {
    const int64_t width = head->width, layers = head->layers, queries = asked->queries, frames = asked->frames;
    const int64_t items = queries * asked->windows;
    asked->joined = 0;
    asked->together = smaller(queries, larger(1, WORDS / asked->length));
    asked->groups = (queries + asked->together - 1) / asked->together;
    asked->stride = up(asked->together * asked->length, LANES);
    asked->padded = up(asked->length, LANES);
    asked->blocks = parts_of(frames, members, asked->windows, 2, &asked->block);
    asked->own_blocks = parts_of(frames, members, items, 2, &asked->own_block);
    asked->rows = 0;
    for (int64_t level = 0; level < head->levels && head->strides[level] <= frames; level++)
        asked->rows += frames / head->strides[level] + 1;
    asked->row_blocks = parts_of(asked->rows, members, items, 1, &asked->row_block);
    scratch counted = {0}, place = {.base = memory};
    place_of(head, asked, &counted);
    asked->private_bytes = counted.used;
    const int64_t words = head->heads * asked->padded;
    asked->progress = take(&place, sizeof(vtg_progress) * steps_of(head));
    asked->words = take(&place, sizeof(float) * layers * queries * asked->length * width);
    asked->looking = take(&place, sizeof(uint32_t) * layers * asked->groups * asked->stride * width / 2);
    asked->key_panels = take(&place, sizeof(uint32_t) * layers * queries * words * width / 2);
    asked->value_columns = take(&place, sizeof(uint32_t) * layers * queries * words / 2 * width);
    asked->key_bias = take(&place, sizeof(float) * layers * queries * words);
    asked->own = take(&place, sizeof(half) * items * frames * 3 * width);
    asked->own_keys = take(&place, sizeof(uint32_t) * items * up(frames, LANES) * width / 2);
    /* The last rows are read in whole registers: a head's share may be narrower. */
    asked->own_values = take(&place, sizeof(uint32_t) * (items * ((frames + 1) / 2) * width + LANES));
    asked->stacked = take(&place, sizeof(half) * items * (asked->rows + 2) * width);
    asked->privately = take(&place, asked->private_bytes * members);
    if (memory) memset(asked->progress, 0, sizeof(vtg_progress) * steps_of(head));
    return place.used;
}

/* The next of a step's parts that nobody has taken, or what is not below `count`: all are taken. */
static int64_t claim(vtg_progress *step) { return __atomic_fetch_add(&step->claimed, 1, __ATOMIC_RELAXED); }

static void finish_part(vtg_progress *step) { __atomic_fetch_add(&step->done, 1, __ATOMIC_RELEASE); }

/* Waits until those who have taken the last parts of a step are done. */
static void wait_for(vtg_progress *step, int64_t count) {
    for (int64_t spins = 0; __atomic_load_n(&step->done, __ATOMIC_ACQUIRE) < count; spins++)
        if (spins < SPINS) _mm_pause();
        else sched_yield();
}

/* Runs what follows on each part of the next step that nobody else has taken; then all of the step's parts are done. */
#define EACH(PART, COUNT) \
    for (int64_t count_ = (COUNT), PART = claim(step); PART < count_ || (wait_for(step++, count_), 0); \
         finish_part(step), PART = claim(step))

/* Answers a question that `vtg_begin` made ready, together with whoever else calls this. At most `members` may. */
PUBLIC FAST void vtg_answer(const vtg_head *head, vtg_question *asked) {
    const int64_t member = __atomic_fetch_add(&asked->joined, 1, __ATOMIC_RELAXED);
    const int64_t items = asked->queries * asked->windows, blocks = asked->blocks;
    scratch own = {.base = asked->privately + member * asked->private_bytes};
    const workplace work = place_of(head, asked, &own);
    vtg_progress *step = asked->progress;
    EACH(part, head->layers * asked->groups) map_words(head, asked, &work, part);
    for (int64_t layer = head->layers - 1; layer >= 0; layer--) {
        EACH(part, asked->windows * blocks) {
            const int64_t window = part / blocks, begin = part % blocks * asked->block;
            const int64_t end = smaller(begin + asked->block, asked->frames);
            pool_frames(head, asked, &work, layer, window, begin, end);
            for (int64_t query = 0; query < asked->queries; query++)
                attend_to_words(head, asked, &work, layer, query, window, begin, end);
        }
        EACH(part, items * asked->own_blocks) {
            const int64_t begin = part % asked->own_blocks * asked->own_block;
            const int64_t end = smaller(begin + asked->own_block, asked->frames);
            attend_to_frames(head, asked, &work, layer, part / asked->own_blocks, begin, end);
        }
    }
    int64_t levels = 0;
    while (levels < head->levels && head->strides[levels] <= asked->frames) levels++;
    EACH(part, items * levels) build_level(head, asked, &work, part / levels, part % levels);
    EACH(part, items * asked->row_blocks) {
        const int64_t begin = part % asked->row_blocks * asked->row_block;
        convolve(head, asked, &work, part / asked->row_blocks, begin, smaller(begin + asked->row_block, asked->rows));
    }
}

#else

PUBLIC int vtg_supported(void) { return 0; }

#endif
