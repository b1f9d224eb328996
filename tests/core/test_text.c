#include "support.h"

static void nearest(void **state) {
    (void)state;
    static const char *const keys[] = {"bits",         "epochs", "steps", "lr",     "momentum",
                                       "weight_decay", NULL,     "lsq",   "dorefa", "fashion-mnist"};
    static const struct {
        const char *word, *want;
    } rows[] = {
        {"bits", "bits"},
        {"bit", "bits"},
        {"Bits", "bits"},
        {"bist", "bits"}, /* neighbours swapped: one edit */
        {"epoch", "epochs"},
        {"momemtum", "momentum"},
        {"weight-decay", "weight_decay"},
        {"weigth_decya", "weight_decay"},
        {"DoReFa", "dorefa"},
        {"fashion_mnsit", "fashion-mnist"},
        {"lp", "lr"},
        {"l", "lr"},
        {"x", NULL},
        {"xy", NULL},
        {"banana", NULL},
        {"", NULL},
        {NULL, NULL},
    };
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        const char *got = lb_nearest(rows[i].word, keys, LB_COUNT(keys));
        if (rows[i].want) {
            assert_non_null(got);
            assert_string_equal(got, rows[i].want);
        } else
            assert_null(got);
    }
    assert_null(lb_nearest("bits", keys, 0));
    char longest[500];
    memset(longest, 'b', sizeof longest);
    longest[sizeof longest - 1] = 0;
    assert_null(lb_nearest(longest, keys, LB_COUNT(keys)));
    const char *const huge[] = {longest};
    assert_null(lb_nearest("b", huge, 1));
    longest[64] = 0;
    const char *const just[] = {"other", longest};
    assert_ptr_equal(lb_nearest(longest, just, 2), longest);
    const char *const order[] = {"abcdef", "abcdeg", "abcdxx"}; /* the best, and of equals the first */
    assert_string_equal(lb_nearest("abcdxy", order, 3), "abcdxx");
    assert_string_equal(lb_nearest("abcdeh", order, 3), "abcdef");
}

static void match(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool want;
    } rows[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "anything", true},
        {"a", "a", true},
        {"a", "b", false},
        {"a", "", false},
        {"?", "a", true},
        {"?", "", false},
        {"??", "a", false},
        {"conv*", "conv1", true},
        {"conv*", "con", false},
        {"*.bn", "b1.bn", true},
        {"*.bn", "b1.b", false},
        {"a*b*c", "aXXbYYc", true},
        {"a*b*c", "aXXcYYb", false},
        {"*ab", "aab", true},
        {"*aab", "aaaab", true},
        {"a**b", "ab", true},
        {"layer?.conv?", "layer3.conv2", true},
        {"*a*", "bbb", false},
        {"a*", "ba", false},
        {"[a]", "a", false},
        {"[a]", "[a]", true},
        {"a?", "a*", true},
        {"*?", "", false},
    };
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        if (lb_match(rows[i].pattern, rows[i].text) != rows[i].want)
            fail_msg("'%s' against '%s'", rows[i].pattern, rows[i].text);
    char text[5000], pattern[200]; /* backtracking must not explode */
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (size_t i = 0; i + 2 < sizeof pattern; i += 2)
        memcpy(pattern + i, "a*", 3);
    strcat(pattern, "b");
    assert_false(lb_match(pattern, text));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nearest), cmocka_unit_test(match)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
