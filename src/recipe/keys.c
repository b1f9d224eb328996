#include "recipe/keys.h"

#include <stdio.h>

/* The words of a choice, NULL behind them. */
#define WORDS(name, LIST) static const char *const name[] = {LIST(LB_WORD) NULL}
WORDS(precisions, LB_PRECISIONS);
WORDS(losses, LB_LOSSES);
WORDS(optimizers, LB_OPTIMIZERS);
WORDS(schedules, LB_SCHEDULES);
WORDS(fills, LB_FILLS);
WORDS(shortcuts, LB_SHORTCUTS);
WORDS(pers, LB_GRANULARITIES);
WORDS(estimators, LB_ESTIMATORS);
WORDS(surrogates, LB_SURROGATES);
WORDS(scales, LB_SCALE_RULES);
WORDS(mix_scopes, LB_MIX_SCOPES);
WORDS(mix_schedules, LB_MIX_SCHEDULES);
WORDS(mix_partitions, LB_MIX_PARTITIONS);
WORDS(mix_probabilities, LB_MIX_PROBABILITIES);
WORDS(mix_rules, LB_MIX_RULES);
WORDS(cpq_backwards, LB_CPQ_BACKWARDS);
WORDS(bit_lengths, LB_BIT_LENGTHS);
WORDS(orders, LB_MIX_ORDERS);
WORDS(ramps, LB_MIX_RAMPS);
WORDS(distill_froms, LB_DISTILL_FROMS);
WORDS(distill_losses, LB_DISTILL_LOSSES);
WORDS(rescales, LB_RESCALES);
static const char *const acts[] = {"auto", "relu", "relu6", "hardtanh", NULL}; /* the zoo's table knows them by name */
static const char *const edges[] = {"float", "same", NULL};
static const char *const methods[] = {"none",
#define LB_X(name) #name,
                                      LB_QUANTIZERS(LB_X)
#undef LB_X
                                          NULL};
static const char *const mixers[] = {
#define LB_X(name) #name,
    LB_MIXERS(LB_X)
#undef LB_X
        NULL};

#define AT(field_) .offset = offsetof(lb_config, field_)
#define SIZE(field_) sizeof(((lb_config *)0)->field_)

/* A row ends with its help, then perhaps `.when = ..` and one of these. */
#define MAY_CHANGE .change = LB_KEY_MAY_CHANGE
#define OF_TOTAL .change = LB_KEY_OF_TOTAL

#define ROW(path_, type_, fallback_, ...) {.path = path_, .type = LB_KEY_##type_, .fallback = fallback_, __VA_ARGS__}
#define SECTION(path_, help_) ROW(path_, SECTION, NULL, .help = help_)
#define NUMBER(path_, type_, field_, lo, hi, fallback_, ...)                                                                       \
    ROW(path_, type_, fallback_, AT(field_), .min = lo, .max = hi, .help = __VA_ARGS__)
#define INT(path_, ...) NUMBER(path_, INT, __VA_ARGS__)
#define FLOAT(path_, ...) NUMBER(path_, FLOAT, __VA_ARGS__)
#define BOOL(path_, field_, fallback_, ...) ROW(path_, BOOL, fallback_, AT(field_), .help = __VA_ARGS__)
#define TEXT(path_, field_, fallback_, ...) ROW(path_, TEXT, fallback_, AT(field_), .capacity = SIZE(field_), .help = __VA_ARGS__)
#define NAME(path_, field_, list, fallback_, ...)                                                                                  \
    ROW(path_, NAME, fallback_, AT(field_), .capacity = SIZE(field_), .choices = list, .help = __VA_ARGS__)
#define ENUM(path_, field_, list, fallback_, ...) ROW(path_, ENUM, fallback_, AT(field_), .choices = list, .help = __VA_ARGS__)
#define EDGE(path_, field_, fallback_, help_)                                                                                      \
    ROW(path_, EDGE, fallback_, AT(field_), .min = 1, .max = 8, .choices = edges, .when = "quant", .help = help_)
#define LIST(path_, field_, count, lo, hi, ...)                                                                                    \
    ROW(path_, LIST, "[]", AT(field_), .count_offset = offsetof(lb_config, count), .capacity = SIZE(field_) / sizeof(float),       \
        .min = lo, .max = hi, .help = __VA_ARGS__)
#define PAIR(path_, field_, lo, hi, fallback_, ...)                                                                                \
    ROW(path_, PAIR, fallback_, AT(field_), .capacity = 2, .min = lo, .max = hi, .help = __VA_ARGS__)

#define DISTILLS "distill.from!=none"
#define TWIN "distill.from=twin"
#define SGD "train.optimizer.name=sgd"
#define ADAM "train.optimizer.name=adam|adamw"

/* What weights and activations have in common. */
#define TENSOR(path, field)                                                                                                        \
    NAME(path ".method", field.method, methods, "none", "quantizer; `none`: float (`lowbit list methods` describes them)"),        \
    INT(path ".bits", field.bits, 1, 8, "2", "bits of one value", .when = path ".method!=none"),                                   \
    ENUM(path ".estimator", field.options.estimator, estimators, "default",                                                        \
         "gradient through the quantized part; `default`: the quantizer's usual one", .when = path ".method!=none"),               \
    ENUM(path ".surrogate", field.options.surrogate, surrogates, "default",                                                        \
         "what the part that is not quantized yet does; `default`: the quantizer's usual one", .when = path ".method!=none"),      \
    ENUM(path ".scale", field.options.scale, scales, "minmax",                                                                     \
         "how the step is found: from the range, or by least squares", .when = path ".method=uniform"),                            \
    NAME(path ".mixer", field.mixer, mixers, "constant", "decides which part is quantized when", .when = path ".method!=none"),    \
    FLOAT(path ".mix", field.options.mix, 0, 1, "1",                                                                               \
          "quantized share m of every value; 1: all of it", .when = path ".mixer=constant"),                                       \
    FLOAT(path ".mix_start", field.options.mix_start, 0, 1, "0",                                                                   \
          "fraction of the stage after which the ramp starts", .when = path ".mixer=alpha|stochastic"),                            \
    FLOAT(path ".mix_end", field.options.mix_end, 0, 1, "0.8",                                                                     \
          "fraction of the stage after which everything is quantized", .when = path ".mixer=alpha|stochastic"),                    \
    FLOAT(path ".mix_exponent", field.options.mix_exponent, 0.01, 100, "3",                                                        \
          "of the ramp; 1: a straight line, 3: fast first", .when = path ".mixer=alpha"),                                          \
    INT(path ".mix_every", field.options.mix_every, 1, 1000000000, "1",                                                            \
        "steps between updates of the ramp", .when = path ".mixer=alpha"),                                                         \
    FLOAT(path ".mix_from", field.options.mix_from, 0, 1, "0.5",                                                                   \
          "probability of being quantized before the ramp", .when = path ".mixer=stochastic"),                                     \
    ENUM(path ".mix_scope", field.options.mix_scope, mix_scopes, "default",                                                        \
         "what is drawn as one: filter or element (roulette), layer or block (stochastic); `default`: the first",                  \
         .when = path ".mixer=roulette|stochastic"),                                                                               \
    ENUM(path ".mix_order", field.options.mix_order, orders, "forward",                                                            \
         "layers freeze from the input on, from the output on, or all at once", .when = path ".mixer=mask"),                       \
    ENUM(path ".mix_ramp", field.options.mix_ramp, ramps, "cubic",                                                                 \
         "how a layer's frozen share grows", .when = path ".mixer=mask"),                                                          \
    INT(path ".mix_refresh", field.options.mix_refresh, 1, LB_MAX_REFRESH, "100",                                                  \
        "steps in which each entry draws once whether it is frozen", .when = path ".mixer=mask"),                                  \
    FLOAT(path ".mix_settle", field.options.mix_settle, 0, 0.99, "0.1",                                                            \
          "last share of the stage in which everything is frozen", .when = path ".mixer=mask"),                                    \
    ENUM(path ".cpq_backward", field.options.cpq_backward, cpq_backwards, "expect",                                                \
         "gradient of the mean over all levels, or of the nearest level's probability", .when = path ".method=cpq"),               \
    FLOAT(path ".temperature", field.options.temperature, 0.01, 100, "1",                                                          \
          "of the Gumbel softmax in the backward pass", .when = path ".method=rq"),                                                \
    FLOAT(path ".drop_top", field.options.drop_top, 0, 0.99, "0",                                                                  \
          "DropBits: probability that a tensor does a step without its highest bit", .when = path ".method=cpq|rq"),               \
    FLOAT(path ".drop_lower", field.options.drop_lower, 0, 0.99, "0",                                                              \
          "DropBits: the same for each lower bit but the last; the bits above go with it", .when = path ".method=cpq|rq")

static const lb_key keys[] = {
    SECTION("model", "The network. May not change between stages."),
    TEXT("model.name", model.name, "resnet20", "a network of `lowbit list models`"),
    TEXT("model.path", model.path, "\"\"",
         "the graph of an imported network, which `lowbit import` writes", .when = "model.name=onnx", MAY_CHANGE),
    FLOAT("model.width", model.width, 0.01, 64, "1", "multiplies every channel count"),
    INT("model.input_size", model.input_size, 0, 4096, "0", "pixels per side that the network sees; 0: the data's"),
    NAME("model.act", model.act, acts, "auto", "activation function before quantization; `auto`: the family's"),
    TEXT("model.variant", model.variant, "plain", "option of the family, e.g. `sq` for the ResNets of the SQ paper"),
    ENUM("model.shortcut", model.shortcut, shortcuts, "conv",
         "residual shortcuts that change shape: 1x1 convolution, or strided identity with zero channels"),
    FLOAT("model.dropout", model.dropout, -1, 0.95, "-1", "dropout ratio where the family has dropout; -1: the family's own"),
    FLOAT("model.init_std", model.init_std, 0, 10, "0", "standard deviation of initial weights; 0: He's"),
    FLOAT("model.bn_momentum", model.bn_momentum, 0, 1, "0",
          "weight of a new batch in batch norm's running statistics; 0: the family's own, 0.1. Less is steadier at evaluation"),

    SECTION("data", "The images. May not change between stages."),
    TEXT("data.name", data.name, "fashion-mnist", "a data set of `lowbit list data`, or `folder`"),
    TEXT("data.path", data.path, "\"\"",
         "folder or archive; empty: looked for in `$LOWBIT_DATA`, `data/` and `../shared/data`", MAY_CHANGE),
    LIST("data.mean", data.mean, data.nmean, -10, 10, "mean of pixels in 0..1 per channel; empty: the data set's own"),
    LIST("data.std", data.std, data.nstd, 1e-3, 10, "standard deviation likewise"),
    INT("data.size", data.size, 0, 4096, "0", "images are resized to size x size when decoded; 0: left as they are"),
    INT("data.train_limit", data.train_limit, 0, 2147483647.0, "0", "first N training images only; 0: all"),
    INT("data.test_limit", data.test_limit, 0, 2147483647.0, "0", "first N test images only; 0: all"),
    INT("data.workers", data.workers, 1, 64, "1", "threads that prepare batches", MAY_CHANGE),
    BOOL("data.cache", data.cache, "true", "keep a decoded copy in `$XDG_CACHE_HOME/lowbit` where decoding is slow", MAY_CHANGE),
    SECTION("data.augment", "Changes made to training images."),
    INT("data.augment.pad", data.augment.pad, 0, 64, "0", "pad by N pixels, then crop at random; 0: no"),
    ENUM("data.augment.fill", data.augment.fill, fills, "black",
         "their colour: black, or the data's mean, which normalisation makes 0", .when = "data.augment.pad!=0"),
    BOOL("data.augment.flip", data.augment.flip, "false", "mirror every second image, at random"),
    BOOL("data.augment.resized_crop", data.augment.resized_crop, "false", "crop a random part, resized to the input size"),
    PAIR("data.augment.scale", data.augment.scale, 1e-3, 1, "[0.08, 1]",
         "smallest and largest share of the area in that crop", .when = "data.augment.resized_crop=true"),
    PAIR("data.augment.ratio", data.augment.ratio, 0.1, 10, "[0.75, 1.3333]",
         "smallest and largest width / height of that crop", .when = "data.augment.resized_crop=true"),
    INT("data.augment.resize", data.augment.resize, 0, 4096, "0",
        "test images: shorter side to N, then centre crop; 0: straight to the input size"),

    SECTION("train", "Budget, loss, arithmetic and files."),
    FLOAT("train.epochs", train.epochs, 0, 1e6, "30",
          "budget of one stage; may be a fraction", .when = "train.steps=0", MAY_CHANGE),
    FLOAT("train.total_epochs", train.total_epochs, 0, 1e6, "0",
          "if above 0: budget of all stages together; their epochs, and those of schedules, are scaled to it. Stages of "
          "train.steps come on top", MAY_CHANGE),
    NUMBER("train.steps", INT64, train.steps, 0, 1e12, "0", "budget in steps instead of epochs; 0: epochs count", MAY_CHANGE),
    INT("train.batch", train.batch, 1, 65536, "128", "images per step"),
    NUMBER("train.seed", UINT64, train.seed, 0, 18446744073709551615.0, "1",
           "of everything random: same seed, machine and threads, same bits"),
    ENUM("train.precision", train.precision, precisions, "auto",
         "arithmetic of convolutions; `auto`: bf16 where the CPU is fast at it"),
    ENUM("train.loss", train.loss, losses, "cross-entropy", "squared-hinge has targets of +1 and -1"),
    FLOAT("train.label_smoothing", train.label_smoothing, 0, 0.99, "0",
          "share of the target spread over all classes", .when = "train.loss=cross-entropy"),
    INT("train.eval_batch", train.eval_batch, 1, 65536, "250", "images per step of evaluation", MAY_CHANGE),
    FLOAT("train.eval_every", train.eval_every, 1e-3, 1e6, "1", "epochs between evaluations", MAY_CHANGE),
    INT("train.save_every", train.save_every, 0, 2147483647.0, "0",
        "steps between checkpoints besides each epoch's; 0: none", MAY_CHANGE),
    INT("train.bn_estimate", train.bn_estimate, 0, 1000000, "0",
        "batches over which batch norm's statistics are estimated, everything quantized, before each evaluation; 0: those of "
        "training"),
    INT("train.histograms", train.histograms, 0, 1000000, "5", "epochs between TensorBoard histograms; 0: none", MAY_CHANGE),
    TEXT("train.init", train.init, "\"\"",
         "run directory or checkpoint to start from (first stage only, unless a stage says it)", MAY_CHANGE),

    SECTION("train.optimizer", "How weights are updated."),
    ENUM("train.optimizer.name", train.optimizer.name, optimizers, "sgd",
         "adam adds the decay to the gradient, adamw shrinks weights"),
    FLOAT("train.optimizer.lr", train.optimizer.lr, 0, 1e3, "0.1", "learning rate at the start, after warm-up"),
    FLOAT("train.optimizer.momentum", train.optimizer.momentum, 0, 0.9999, "0.9", "of the velocity", .when = SGD),
    BOOL("train.optimizer.nesterov", train.optimizer.nesterov, "true", "Nesterov's form, as PyTorch's", .when = SGD),
    FLOAT("train.optimizer.beta1", train.optimizer.beta1, 0, 0.99999, "0.9", "decay of the mean gradient", .when = ADAM),
    FLOAT("train.optimizer.beta2", train.optimizer.beta2, 0, 0.999999, "0.999", "decay of the mean square", .when = ADAM),
    FLOAT("train.optimizer.eps", train.optimizer.eps, 1e-12, 1, "1e-8", "added to the root of the mean square", .when = ADAM),
    FLOAT("train.optimizer.weight_decay", train.optimizer.weight_decay, 0, 10, "1e-4", "decay of convolution and linear weights"),
    FLOAT("train.optimizer.decay_bias", train.optimizer.decay_bias, 0, 100, "0", "factor on weight_decay for biases"),
    FLOAT("train.optimizer.decay_bn", train.optimizer.decay_bn, 0, 100, "0",
          "factor on weight_decay for batch norm's gamma and beta"),
    FLOAT("train.optimizer.decay_quant", train.optimizer.decay_quant, 0, 100, "0",
          "factor on weight_decay for learned steps and clips"),
    FLOAT("train.optimizer.lr_quant", train.optimizer.lr_quant, 0, 100, "1", "factor on lr for learned steps and clips"),
    FLOAT("train.optimizer.lr_gates", train.optimizer.lr_gates, 0, 1e4, "10",
          "factor on lr for the gates of learned bit-lengths"),
    FLOAT("train.optimizer.clip_weights", train.optimizer.clip_weights, 0, 1e3, "0",
          "after each update, clamp the float weights behind quantized layers to [-x, x]; 0: no"),

    SECTION("train.schedule", "Learning rate over one stage."),
    ENUM("train.schedule.name", train.schedule.name, schedules, "cosine", "shape of the curve"),
    FLOAT("train.schedule.warmup", train.schedule.warmup, 0, 1e6, "0", "epochs of linear warm-up from 0", OF_TOTAL),
    LIST("train.schedule.milestones", train.schedule.milestones, train.schedule.nmilestones, 0, 1e6,
         "epochs after which the rate is multiplied by gamma", .when = "train.schedule.name=multistep", OF_TOTAL),
    FLOAT("train.schedule.every", train.schedule.every, 1e-3, 1e6, "10",
          "epochs between multiplications by gamma", .when = "train.schedule.name=step", OF_TOTAL),
    FLOAT("train.schedule.gamma", train.schedule.gamma, 1e-6, 1, "0.1",
          "that factor", .when = "train.schedule.name=step|multistep"),
    FLOAT("train.schedule.power", train.schedule.power, 0.01, 100, "1",
          "exponent; 1: a straight line", .when = "train.schedule.name=polynomial"),
    FLOAT("train.schedule.lr_end", train.schedule.lr_end, 0, 1e3, "0",
          "learning rate at the end (exponential: above 0)", .when = "train.schedule.name=cosine|polynomial|exponential"),

    SECTION("distill", "Other networks that run on the same batches, and whose outputs are learned from."),
    ENUM("distill.from", distill.from, distill_froms, "none",
         "`teacher`: a finished run, which stays as it is; `twin`: a float network of the same kind, trained beside this one "
         "and from it"),
    TEXT("distill.teacher", distill.teacher, "\"\"", "run directory of the teacher", .when = "distill.from=teacher"),
    ENUM("distill.loss", distill.loss, distill_losses, "kl",
         "difference of outputs: of the probabilities (Kullback-Leibler), or the mean square of the scores'", .when = DISTILLS),
    FLOAT("distill.temperature", distill.temperature, 0.01, 100, "1",
          "scores are divided by it before softmax", .when = "distill.loss=kl"),
    FLOAT("distill.weight", distill.weight, 0, 1000, "0.7", "of that difference in the network's loss", .when = DISTILLS),
    FLOAT("distill.label_weight", distill.label_weight, 0, 1000, "0.7", "of train.loss in the network's loss", .when = DISTILLS),
    FLOAT("distill.twin_weight", distill.twin_weight, 0, 1000, "0.5",
          "of the difference, mean over the low-bit networks, in the twin's loss", .when = TWIN),
    FLOAT("distill.twin_label_weight", distill.twin_label_weight, 0, 1000, "1", "of train.loss in the twin's loss", .when = TWIN),
    FLOAT("distill.twin_lr", distill.twin_lr, 0, 1000, "1", "factor on train.optimizer.lr for the twin", .when = TWIN),
    LIST("distill.students", distill.students, distill.nstudents, 1, 8,
         "bits of further low-bit networks, of weights and activations, trained on the same batches in the same way",
         .when = DISTILLS),
    TEXT("distill.features", distill.features, "\"\"",
         "patterns of layer names, with spaces between, whose outputs are compared too, by their mean square", .when = DISTILLS),
    FLOAT("distill.feature_weight", distill.feature_weight, 0, 1000, "0.1",
          "of that mean square, of each layer, in the network's loss; the twin's has it times twin_weight",
          .when = "distill.features!=\"\""),

    /* The last section: quant.layers, which is no key of this table, is written behind it. */
    SECTION("quant", "What is quantized, and how."),
    ENUM("quant.rescale", quant.rescale, rescales, "start",
         "when bits change, by a stage or train.init: learned steps start anew (clips stay), keep their range, or stay (clips "
         "shrink)", .when = "quant"),
    SECTION("quant.weights", "Weights of convolutions and linear layers."),
    TENSOR("quant.weights", quant.weights),
    ENUM("quant.weights.per", quant.weights.options.per, pers, "default",
         "one step per tensor or per filter (output channel); `default`: the quantizer's usual one",
         .when = "quant.weights.method!=none"),
    FLOAT("quant.weights.threshold", quant.weights.options.threshold, 1e-3, 10, "0.7",
          "weights below threshold * mean|w| become 0", .when = "quant.weights.method=twn"),
    ENUM("quant.weights.mix_schedule", quant.weights.options.mix_schedule, mix_schedules, "exp",
         "quantized share over the stage: mix_ratio; 50, 75, 87.5, 100 % by quarters; 20, 40 .. 100 % by fifths; 100 %",
         .when = "quant.weights.mixer=roulette"),
    FLOAT("quant.weights.mix_ratio", quant.weights.options.mix_ratio, 0, 1, "0.5",
          "quantized share of the filters or weights", .when = "quant.weights.mix_schedule=constant"),
    ENUM("quant.weights.mix_partition", quant.weights.options.mix_partition, mix_partitions, "stochastic",
         "drawn at each step; those of least error; or drawn once for the stage", .when = "quant.weights.mixer=roulette"),
    ENUM("quant.weights.mix_probability", quant.weights.options.mix_probability, mix_probabilities, "linear",
         "how the chance of being drawn depends on the error", .when = "quant.weights.mix_partition=stochastic"),
    ENUM("quant.weights.mix_rule", quant.weights.options.mix_rule, mix_rules, "paper",
         "draw the quantized ones by small error, or the others by large error",
         .when = "quant.weights.mix_partition=stochastic"),
    ENUM("quant.weights.bit_lengths", quant.weights.options.bit_lengths, bit_lengths, "fixed",
         "bits of each layer: `bits`; learned, from 2 to `bits`; or kept as the stage before (or train.init) learned them",
         .when = "quant.weights.method=cpq"),
    FLOAT("quant.weights.bits_penalty", quant.weights.options.bits_penalty, 0, 1e3, "0.01",
          "weight in the loss of the expected number of levels above 2 bits, summed over layers",
          .when = "quant.weights.bit_lengths=learned"),
    SECTION("quant.activations", "What goes from layer to layer."),
    TENSOR("quant.activations", quant.activations),
    SECTION("quant.edges", "Layers that are often treated apart: `float`, `same` as the others, or a number of bits."),
    EDGE("quant.edges.first", quant.edge_first, "8", "first layer's weights and the image that enters it"),
    EDGE("quant.edges.last", quant.edge_last, "8", "last layer's weights and input"),
    EDGE("quant.edges.shortcut", quant.edge_shortcut, "same",
         "convolutions in residual shortcuts: weights, and input where no other layer reads it (in ResNets the block's first "
         "convolution does)"),
};
_Static_assert(LB_COUNT(keys) <= LB_MAX_KEYS, "raise LB_MAX_KEYS");

const lb_key *lb_recipe_key(size_t i) { return i < LB_COUNT(keys) ? &keys[i] : NULL; }

const lb_key *lb_key_find(const char *path) {
    for (size_t i = 0; i < LB_COUNT(keys); i++)
        if (strcmp(keys[i].path, path) == 0)
            return &keys[i];
    return NULL;
}

bool lb_key_is_below(const lb_key *key, const char *section) {
    size_t n = strlen(section);
    return n == 0 || (strncmp(key->path, section, n) == 0 && key->path[n] == '.');
}

const char *lb_key_first(const char *section) {
    const char *first = section;
    for (size_t i = LB_COUNT(keys); i-- > 0;)
        if (keys[i].type != LB_KEY_SECTION && lb_key_is_below(&keys[i], section))
            first = keys[i].path;
    return first;
}

bool lb_key_is_list(const lb_key *key) { return key->type == LB_KEY_LIST || key->type == LB_KEY_PAIR; }

bool lb_key_offers(const lb_key *key, const char *choice) {
    const bool activations = lb_key_is_below(key, "quant.activations");
    const lb_quantizer *quantizer = key->choices == methods ? lb_quantizer_find(choice) : NULL;
    const lb_mixer *mixer = key->choices == mixers ? lb_mixer_find(choice) : NULL;
    return (!quantizer || (activations ? quantizer->activations : quantizer->weights)) &&
           (!mixer || (activations ? mixer->activations != NULL : mixer->weights != NULL));
}

bool lb_key_is_tensors(const lb_key *key) {
    return lb_key_is_below(key, "quant.weights") || lb_key_is_below(key, "quant.activations");
}

bool lb_key_is_common(const lb_key *key) {
    static const char *const common[] = {"model", "data", "train.total_epochs"};
    for (size_t i = 0; i < LB_COUNT(common); i++)
        if (strcmp(key->path, common[i]) == 0 || lb_key_is_below(key, common[i]))
            return true;
    return false;
}

const char *lb_key_quote(const char *text, size_t length, char out[80]) {
    size_t n = LB_MIN(length, (size_t)60);
    while (n < length && n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80)
        n--; /* not inside a UTF-8 character */
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? '?' : text[i];
    memcpy(out + n, n < length ? "..." : "", n < length ? 4 : 1);
    return out;
}

void lb_key_append(char why[LB_KEY_WHY], const char *fmt, ...) {
    size_t used = strlen(why);
    va_list args;
    va_start(args, fmt);
    vsnprintf(why + used, LB_KEY_WHY - used, fmt, args);
    va_end(args);
}

/* The last word of a path. */
static const char *last_word(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

void lb_key_suggest(const char *path, char why[LB_KEY_WHY]) {
    enum { N = LB_COUNT(keys) + 2 };
    const char *paths[N], *words[N], *children[N], *child_words[N];
    size_t n = 0, nchildren = 0;
    for (; n < LB_COUNT(keys); n++)
        paths[n] = keys[n].path;
    paths[n++] = "quant.layers";
    paths[n++] = "stages";

    const char *word = last_word(path);
    char parent[80];
    snprintf(parent, sizeof parent, "%.*s", (int)LB_MIN((size_t)(word - path), sizeof parent - 1), path);
    if (parent[0])
        parent[strlen(parent) - 1] = 0; /* its dot */
    for (size_t i = 0; i < n; i++) {
        words[i] = last_word(paths[i]);
        size_t above = (size_t)(words[i] - paths[i]);
        above -= above > 0;
        if (strlen(parent) == above && strncmp(parent, paths[i], above) == 0) {
            children[nchildren] = paths[i];
            child_words[nchildren++] = words[i];
        }
    }

    const char *near = lb_nearest(word, child_words, nchildren), *found = NULL;
    for (size_t i = 0; i < nchildren && near; i++)
        if (child_words[i] == near)
            found = children[i];
    if (!found && !nchildren)
        found = lb_nearest(path, paths, n);
    for (size_t i = 0; i < n && !found; i++) /* the right word in the wrong place */
        if (strcmp(words[i], word) == 0)
            found = paths[i];
    if (!found && (near = lb_nearest(word, words, n)))
        for (size_t i = 0; i < n && !found; i++)
            if (words[i] == near)
                found = paths[i];
    why[0] = 0;
    if (found) {
        lb_key_append(why, "did you mean %s?", found);
        return;
    }
    lb_key_append(why, "%s has ", nchildren && parent[0] ? parent : "a recipe");
    if (!nchildren)
        lb_key_append(why, "model, data, train, quant, distill, stages");
    for (size_t i = 0; i < nchildren; i++)
        lb_key_append(why, "%s%s", i ? ", " : "", child_words[i]);
}
