/* The one table of recipe keys. The defaults, the parser, `--set`, the resolved copy in a run directory and docs/recipes.md all
 * come from it: a new key is a field in config.h and a row in keys.c. */
#ifndef LB_RECIPE_KEYS_H
#define LB_RECIPE_KEYS_H

#include "recipe/config.h"

typedef enum lb_key_type {
    LB_KEY_SECTION, /* no value: a mapping of the keys below it */
    LB_KEY_INT, /* int */
    LB_KEY_INT64, /* int64_t */
    LB_KEY_UINT64, /* uint64_t */
    LB_KEY_FLOAT, /* float */
    LB_KEY_BOOL, /* bool */
    LB_KEY_TEXT, /* char [capacity] */
    LB_KEY_NAME, /* char [capacity], one of choices */
    LB_KEY_ENUM, /* int, the index of one of choices */
    LB_KEY_EDGE, /* int: float 0, same LB_EDGE_SAME, or 1 to 8 */
    LB_KEY_LIST, /* float [capacity], its length an int at count_offset */
    LB_KEY_PAIR /* float [2], ascending */
} lb_key_type;

/* In a run that is continued. */
typedef enum lb_key_change {
    LB_KEY_STAYS,
    LB_KEY_MAY_CHANGE, /* budgets, and what does not touch the weights */
    LB_KEY_OF_TOTAL /* a float or list, counted in epochs: train.total_epochs scales it, and it may change with that */
} lb_key_change;

typedef struct lb_key {
    const char *path; /* "train.optimizer.lr" */
    lb_key_type type;
    size_t offset, count_offset; /* in lb_config */
    size_t capacity;
    double min, max; /* of numbers, both included */
    const char *const *choices; /* NULL-terminated */
    const char *fallback; /* the default, written as in YAML */
    const char *when; /* NULL: always read. "KEY=a|b" or "KEY!=a": read only then; "quant": only if anything is quantized */
    const char *help; /* one line for docs/recipes.md */
    lb_key_change change;
} lb_key;

#define LB_KEY_VALUES LB_MAX_MILESTONES /* longest list */
#define LB_KEY_FORMAT (5 * LB_CONFIG_TEXT + 16) /* bytes that hold any formatted value: two bytes of UTF-8 become \U and 8 digits */
#define LB_KEY_WHY 512

/* One YAML scalar. */
typedef struct lb_key_scalar {
    const char *text; /* 0-terminated; may hold zeros before its end, which is an error */
    size_t length;
    bool plain; /* written without quotes */
} lb_key_scalar;

typedef struct lb_key_value {
    int64_t i;
    uint64_t u;
    const char *text; /* borrowed */
    int n;
    float list[LB_KEY_VALUES];
} lb_key_value;

#define LB_MAX_KEYS 256 /* rows of the table */
#define LB_MAX_CHOICES 32 /* of a key */

/* Row i in the order of docs/recipes.md, sections first, NULL after the last. */
const lb_key *lb_recipe_key(size_t i);
const lb_key *lb_key_find(const char *path); /* NULL if unknown */
bool lb_key_is_below(const lb_key *key, const char *section);
const char *lb_key_first(const char *section); /* for messages: the first key in it */
bool lb_key_is_list(const lb_key *key); /* its value is a list of numbers */
bool lb_key_offers(const lb_key *key, const char *choice); /* false for a method or mixer that is not for what the key quantizes */
bool lb_key_is_tensors(const lb_key *key); /* in quant.weights or quant.activations: what a layer rule may say */

/* A key, or a section of keys, that a stage cannot have of its own, and the reason. */
#define LB_KEY_COMMON "the network, the data and the total of epochs stay the same in all stages"
bool lb_key_is_common(const lb_key *key);

/* For messages: "did you mean ...?", or the keys that exist there. `path` is unknown. */
void lb_key_suggest(const char *path, char why[LB_KEY_WHY]);

/* Appends to a reason, silently cut at its end. */
void lb_key_append(char why[LB_KEY_WHY], const char *fmt, ...) LB_PRINTF(2, 3);

/* Checks what was given for a key and converts it; on failure false, with the reason ("must be ..., not ...") in `why`. */
bool lb_key_parse(const lb_key *key, const lb_key_scalar *scalars, int n, bool is_list, lb_key_value *value, char why[LB_KEY_WHY]);

/* As lb_key_parse for one text: a plain scalar, or a list "[1, 2]". `buffer` (LB_CONFIG_TEXT) holds pieces of the list. */
bool lb_key_parse_text(const lb_key *key, const char *text, char buffer[LB_CONFIG_TEXT], lb_key_value *value, char why[LB_KEY_WHY]);

/* Puts a value at the key's place, `base` being what the offsets count from; defaults likewise. */
void lb_key_store(const lb_key *key, const lb_key_value *value, void *base);
void lb_key_store_default(const lb_key *key, void *base);

/* The value as in YAML: loads back to the same bits. Needs the C locale (lb_c_locale). */
void lb_key_format(const lb_key *key, const void *base, char out[LB_KEY_FORMAT]);
bool lb_key_equal(const lb_key *key, const void *a, const void *b);

/* Of keys of floats: multiplies the value; is one `factor` times the other, but for rounding? */
void lb_key_scale(const lb_key *key, void *base, float factor);
bool lb_key_is_scaled(const lb_key *key, const void *was, const void *is, double factor);

/* A safe, short copy of user text for a message. */
const char *lb_key_quote(const char *text, size_t length, char out[80]);

#endif
