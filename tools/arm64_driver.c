/* Runs the compiled engine on a batch of queries saved by tools/check_arm64.py; for processors without Python. */

#include <stdio.h>

#include "../vtg/r2/kernels/engine.c"

static void *read_bytes(int64_t bytes) {
    void *to = aligned_alloc(CACHE_LINE, (size_t)round_up(max_of(bytes, 1), CACHE_LINE));
    if (!to || fread(to, 1, (size_t)bytes, stdin) != (size_t)bytes) {
        fprintf(stderr, "the saved batch is too short\n");
        exit(1);
    }
    return to;
}

static int64_t read_count(void) {
    int64_t *count = read_bytes(sizeof(int64_t)), own = *count;
    free(count);
    return own;
}

static float *read_floats(int64_t count) { return read_bytes(count * (int64_t)sizeof(float)); }

static linear_weights read_linear(void) {
    linear_weights linear = {.outputs = read_count()};
    linear.inputs = read_count();
    const int64_t has_bias = read_count();
    linear.panels = read_bytes(vtg_panels_bytes(linear.outputs, linear.inputs));
    linear.bias = has_bias ? read_floats(linear.outputs) : 0;
    return linear;
}

static norm_weights read_norm(int64_t width) {
    norm_weights norm = {.epsilon = 1e-5};
    norm.scale = read_floats(width);
    norm.shift = read_floats(width);
    return norm;
}

/* Fields in the order of vtg_head, as check_arm64.py writes them. */
static vtg_head read_head(void) {
    vtg_head head = {.width = read_count()};
    const int64_t width = head.width;
    head.heads = read_count();
    head.layers = read_count();
    head.query_width = read_count();
    head.amounts = read_floats(head.layers);
    head.gates = read_floats(head.layers);
    head.input_norm = read_norm(head.query_width);
    head.inner_norm = read_norm(width);
    head.first_map = read_linear();
    head.second_map = read_linear();
    head.token_keys = read_linear();
    head.cross = read_linear();
    head.query_bias = read_floats(width);
    linear_weights *folds = malloc(sizeof(linear_weights) * (size_t)(2 * head.heads));
    for (int64_t one = 0; one < 2 * head.heads; one++) folds[one] = read_linear();
    head.folds = folds;
    head.score = read_floats(width);
    head.own_queries_keys = read_linear();
    head.own_values = read_linear();
    head.own_output = read_linear();
    head.expand = read_linear();
    head.contract = read_linear();
    for (int one = 0; one < 3; one++) head.norms[one] = read_norm(width);
    head.levels = read_count();
    head.strides = read_bytes(head.levels * (int64_t)sizeof(int64_t));
    const int64_t count = read_count();
    halving_weights *halvings = malloc(sizeof(halving_weights) * (size_t)(count + 1));
    for (int64_t one = 0; one < count; one++) {
        halvings[one].product = read_linear();
        halvings[one].norm = read_norm(width);
    }
    head.halvings = halvings;
    head.convolution = read_linear();
    head.outputs = read_count();
    head.last = read_floats(3 * head.outputs * head.convolution.outputs);
    head.last_bias = read_floats(head.outputs);
    return head;
}

int main(void) {
    const vtg_head head = read_head();
    vtg_query_batch batch = {.windows = 1};
    batch.queries = read_count();
    batch.length = read_count();
    batch.frames = read_count();
    batch.patches = read_count();
    batch.lengths = read_bytes(batch.queries * (int64_t)sizeof(int64_t));
    batch.query_features = read_floats(batch.queries * batch.length * head.layers * head.query_width);
    batch.position = read_floats(batch.frames * head.width);
    const int64_t tokens = batch.frames * batch.patches;
    vtg_window window = {.token_stride = tokens * head.width, .scale_stride = tokens};
    window.tokens = read_bytes(head.layers * tokens * head.width);
    window.scales = read_bytes(head.layers * tokens * 2);
    batch.window_list = &window;
    int64_t points = 0;
    for (int64_t level = 0; level < head.levels; level++) points += batch.frames / head.strides[level];
    const size_t state = (size_t)(batch.queries * batch.frames * head.width);
    const size_t predictions = (size_t)(batch.queries * points * head.outputs);
    batch.pooled = malloc(sizeof(float) * (size_t)(batch.queries * head.width));
    batch.state = malloc(sizeof(float) * state);
    batch.predictions = malloc(sizeof(float) * predictions);
    char *memory = aligned_alloc(CACHE_LINE, (size_t)round_up(vtg_begin(&head, &batch, 1, 0), CACHE_LINE));
    if (!memory || !batch.pooled || !batch.state || !batch.predictions) return 1;
    vtg_begin(&head, &batch, 1, memory);
    vtg_answer(&head, &batch);
    fwrite(batch.state, sizeof(float), state, stdout);
    fwrite(batch.predictions, sizeof(float), predictions, stdout);
    return 0;
}
