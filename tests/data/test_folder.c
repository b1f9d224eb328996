/* Image folders, plain and inside archives; the cache; everything that can be wrong with them. */
#include "fixtures.h"

#include "core/locale.h"

enum { H = 8, W = 6 };

/* Three classes; names chosen so that the order of making differs from the order of sorting. Image number = its place in the sorted
 * order. */
static const struct {
    const char *name;
    int image, label;
} files[] = {
    {"test/dog/b.png", 8, 2},    {"train/dog/x.png", 5, 2},   {"train/cat/10.png", 2, 1},
    {"train/cat/9.png", 3, 1},   {"train/ant/one.png", 0, 0}, {"test/ant/a.PNG.png", 6, 0},
    {"train/ant/two.png", 1, 0}, {"train/dog/w.png", 4, 2},   {"test/cat/c.png", 7, 1},
};
enum { NTRAIN = 6, NTEST = 3 };

static void put_tree(const char *root) {
    for (size_t i = 0; i < LB_COUNT(files); i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", root, files[i].name);
        put_image(path, files[i].image, H, W, 3);
    }
}

/* The same as an archive under `top` ("" or "name/"), with things in it that are none of ours. */
static void pack_tree(const char *path, const char *top) {
    packer p = pack_open(path);
    char name[300];
    pack_entry(p, "../evil.png", AE_IFREG, "x", 1);
    pack_entry(p, "/train/cat/absolute.png", AE_IFREG, "x", 1);
    pack_entry(p, "train/../train/cat/up.png", AE_IFREG, "x", 1);
    pack_entry(p, "README.md", AE_IFREG, "x", 1);
    for (size_t i = 0; i < LB_COUNT(files); i++) {
        snprintf(name, sizeof name, "%s%s", top, files[i].name);
        pack_image(p, name, files[i].image, H, W, 3);
    }
    snprintf(name, sizeof name, "%strain/cat/notes.txt", top);
    pack_entry(p, name, AE_IFREG, "x", 1);
    snprintf(name, sizeof name, "%strain/cat/._9.png", top);
    pack_entry(p, name, AE_IFREG, "x", 1);
    pack_close(p);
}

static void check_split(const lb_images *images, bool test) {
    assert_int_equal(images->count, test ? NTEST : NTRAIN);
    assert_int_equal(images->h, H);
    assert_int_equal(images->w, W);
    assert_int_equal(images->c, 3);
    for (size_t i = 0; i < LB_COUNT(files); i++) {
        int at = files[i].image - (test ? NTRAIN : 0);
        uint8_t expected[H * W * 3];
        if ((files[i].image >= NTRAIN) != test)
            continue;
        pattern_image(files[i].image, H, W, 3, expected);
        assert_memory_equal(images->pixels + at * H * W * 3, expected, sizeof expected);
        assert_int_equal(images->labels[at], files[i].label);
    }
}

static void check(const lb_data *data) {
    assert_int_equal(data->classes, 3);
    assert_string_equal(data->class_names[0], "ant");
    assert_string_equal(data->class_names[1], "cat");
    assert_string_equal(data->class_names[2], "dog");
    check_split(&data->split[LB_TRAIN], false);
    check_split(&data->split[LB_TEST], true);
}

static void load_and_check(scratch *s, const lb_data_config *config) {
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, config, &data));
    check(data);
    lb_data_destroy(data);
}

static void test_everywhere(void **state) {
    scratch *s = *state;
    static const char *const archives[] = {"a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.zip"};
    put_tree("pets");
    put_tree("above/pets");
    mkdir("above/.git", 0777);
    for (int cache = 0; cache < 3; cache++) {
        lb_data_config config = config_of("folder", "pets");
        config.cache = cache > 0;
        load_and_check(s, &config);
        config = config_of("", "above"); /* with one common folder, recognised by content */
        config.cache = cache > 0;
        load_and_check(s, &config);
        for (size_t i = 0; i < LB_COUNT(archives); i++)
            for (int top = 0; top < 2; top++) {
                char path[100];
                snprintf(path, sizeof path, "%s%s", top ? "top-" : "", archives[i]);
                if (cache == 0)
                    pack_tree(path, top ? "pets/" : i ? "./" : "");
                config = config_of("folder", path);
                config.cache = cache > 0;
                load_and_check(s, &config);
            }
        assert_int_equal(s->notes, cache ? 12 : 0); /* a copy is kept the first time only */
    }
    assert_int_equal(s->warnings, 0);
    assert_false(lb_exists("evil.png") || lb_exists("../evil.png"));
}

/* The longest name a folder can have, as the common folder above train/. */
static void test_long_top(void **state) {
    scratch *s = *state;
    char top[260], path[270];
    memset(top, 't', 255);
    strcpy(top + 255, "/");
    snprintf(path, sizeof path, "above/%s", top);
    put_tree(path);
    pack_tree("a.tar", top);
    lb_data_config config = config_of("folder", "above");
    load_and_check(s, &config);
    config = config_of("folder", "a.tar");
    load_and_check(s, &config);
}

/* A common folder that is called like a split, and class folders that are: a folder, and archives without and with folders. */
static void test_tops_like_splits(void **state) {
    scratch *s = *state;
    static const char *const names[] = {"test", "train", "val"};
    static const char *const kinds[] = {"folder", "files.tar", "all.tar"};
    char path[200];
    for (size_t i = 0; i < LB_COUNT(names); i++)
        for (int kind = 0; kind < 3; kind++) {
            packer p = {NULL};
            if (kind)
                p = pack_open(kinds[kind]);
            for (int k = -3; kind == 2 && k < 6; k++) {
                snprintf(path, sizeof path, "%s/%s%s%s", names[i],
                         k < -2  ? ""
                         : k % 2 ? "train/"
                                 : "test/",
                         k < 0 ? "" : names[k / 2], k < 0 ? "" : "/");
                pack_entry(p, path, AE_IFDIR, "", 0);
            }
            for (int k = 0; k < 6; k++) {
                snprintf(path, sizeof path, "%s%s/%s/%s/%d.png", kind ? "" : "folder/", names[i], k % 2 ? "train" : "test",
                         names[k / 2], k);
                if (kind)
                    pack_image(p, path, k, H, W, 3);
                else
                    put_image(path, k, H, W, 3);
            }
            if (kind)
                pack_close(p);
            lb_data_config config = config_of("", kinds[kind]);
            lb_data *data;
            assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
            assert_int_equal(data->classes, 3);
            for (int k = 0; k < 3; k++) {
                assert_string_equal(data->class_names[k], names[k]);
                for (int split = 0; split < LB_SPLITS; split++) {
                    assert_int_equal(data->split[split].labels[k], k);
                    assert_int_equal(data->split[split].pixels[k * H * W * 3], pattern(2 * k + (split == LB_TRAIN), 0, 0, 0));
                }
            }
            lb_data_destroy(data);
            remove_tree("folder");
        }
    assert_int_equal(s->warnings, 0);
}

/* Names in UTF-8, in the "C" locale: libarchive knows of archives that say so and turns their names into the locale's. */
static void test_names_in_utf8(void **state) {
    scratch *s = *state;
    static const char *const classes[] = {"K\xc3\xa4se", "cat", "\xe7\x8b\x97"};
    static const char *const archives[] = {"a.zip", "a.tar", "a.tar.gz"};
    uint8_t bytes[65536];
    char name[100];
    for (size_t i = 0; i < LB_COUNT(archives); i++) {
        void *utf8 = lb_utf8_locale_create();
        assert_non_null(utf8);
        void *before = lb_locale_enter(utf8);
        packer p = pack_open(archives[i]);
        for (size_t k = 0; k < 2 * LB_COUNT(classes); k++) {
            snprintf(name, sizeof name, "%s/%s/%zu.png", k % 2 ? "train" : "test", classes[k / 2], k);
            pack_image(p, name, (int)k, H, W, 3);
        }
        pack_close(p);
        lb_locale_enter(before);
        lb_utf8_locale_destroy(utf8);
        lb_data_config config = config_of("folder", archives[i]);
        lb_data *data;
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        assert_int_equal(data->classes, LB_COUNT(classes));
        for (size_t k = 0; k < LB_COUNT(classes); k++)
            assert_string_equal(data->class_names[k], classes[k]);
        lb_data_destroy(data);
        assert_ptr_equal(lb_locale_enter(NULL), before);
    }

    /* Bytes that are no UTF-8, though the archive says so. */
    size_t size = get_file("a.zip", bytes, sizeof bytes);
    for (size_t n = 0; n + 2 < size; n++)
        if (!memcmp(bytes + n, "K\xc3\xa4", 3))
            bytes[n + 2] = '(';
    put_file("b.zip", bytes, size);
    lb_data_config config = config_of("folder", "b.zip");
    assert_load_fails(s->ctx, &config, "b.zip", "name of member 1 cannot be read (the first); it is not the UTF-8");
}

/* Control characters in the names of classes, which a packed model cannot hold: '?' in their place, the labels as they are. */
static void test_control_characters(void **state) {
    scratch *s = *state;
    static const char *const classes[] = {"a\nb", "a b", "b", "b\x7f\x1b[31m"}; /* in the order of labels */
    static const char *const shown[] = {"a?b", "a b", "b", "b??[31m"};
    char name[100];
    packer p = pack_open("odd.tar");
    for (size_t k = 0; k < 2 * LB_COUNT(classes); k++) {
        snprintf(name, sizeof name, "odd/%s/%s/%zu.png", k % 2 ? "train" : "test", classes[k / 2], k);
        put_image(name, (int)k, H, W, 3);
        pack_image(p, name, (int)k, H, W, 3);
    }
    pack_close(p);
    for (int archive = 0; archive < 2; archive++)
        for (int cached = 0; cached < 3; cached++) {
            lb_data_config config = config_of("folder", archive ? "odd.tar" : "odd");
            config.cache = cached > 0;
            lb_data *data;
            assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
            assert_int_equal(data->classes, LB_COUNT(classes));
            for (int k = 0; k < data->classes; k++) {
                const lb_images *train = &data->split[LB_TRAIN];
                assert_string_equal(data->class_names[k], shown[k]);
                assert_int_equal(train->labels[k], k);
                assert_int_equal(train->pixels[k * H * W * 3], pattern(2 * k + 1, 0, 0, 0));
            }
            lb_data_destroy(data);
        }
    assert_int_equal(s->notes, 2);
    assert_int_equal(s->warnings, 0);
    put_image("odd/train/a?b/1.png", 1, H, W, 3);
    lb_data_config config = config_of("folder", "odd");
    assert_load_fails(s->ctx, &config, "odd: ", "two classes are called a?b but for control characters; rename one");
}

static void test_val_and_limits(void **state) {
    scratch *s = *state;
    put_tree("pets");
    rename("pets/test", "pets/val");
    put_image("pets/test/unlabelled.png", 1, H, W, 3); /* as in ImageNet */
    lb_data_config config = config_of("folder", "pets");
    load_and_check(s, &config);

    config.train_limit = 4; /* one of each class, then the second of the first */
    config.test_limit = 2;
    lb_data *data;
    for (int cache = 0; cache < 3; cache++) {
        config.cache = cache > 0;
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        assert_int_equal(data->split[LB_TRAIN].count, 4);
        assert_int_equal(data->split[LB_TEST].count, 2);
        static const int32_t labels[] = {0, 0, 1, 2};
        assert_memory_equal(data->split[LB_TRAIN].labels, labels, sizeof labels);
        assert_int_equal(data->split[LB_TRAIN].pixels[2 * H * W * 3], pattern(2, 0, 0, 0));
        assert_int_equal(data->split[LB_TRAIN].pixels[3 * H * W * 3], pattern(4, 0, 0, 0));
        lb_data_destroy(data);
    }
}

static void test_sizes_and_grey(void **state) {
    scratch *s = *state;
    put_tree("pets");
    put_image("pets/train/cat/other.png", 9, 12, 14, 1);
    lb_data_config config = config_of("folder", "pets");
    assert_load_fails(s->ctx, &config, "train/cat/other.png: 14 x 12 pixels, but train/ant/one.png has 6 x 8", "data.size");
    config.size = 65535;
    assert_load_fails(s->ctx, &config, "pets: 7 images of 65535 x 65535 x 3", "limit of 64 GB");
    config.size = 6;
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    const lb_images *train = &data->split[LB_TRAIN];
    assert_int_equal(train->count, 7);
    assert_int_equal(train->h, 6);
    assert_int_equal(train->c, 3);
    assert_int_equal(train->pixels[0], pattern(0, 1, 0, 0)); /* 8 x 6 to 6 x 6: cropped in the middle only */
    const uint8_t *grey = train->pixels + 4 * 6 * 6 * 3;
    assert_true(grey[0] == grey[1] && grey[1] == grey[2]);
    lb_data_destroy(data);

    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"g/train/a/1.png", "g/train/b/1.jpg", "g/test/a/1.png", "g/val/a/1.png"};
        put_image(names[i], i, 16, 16, 1);
    }
    config = config_of("folder", "g");
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_int_equal(data->split[LB_TRAIN].c, 1);
    assert_int_equal(data->split[LB_TEST].count, 1);
    assert_int_equal(data->split[LB_TEST].pixels[5], pattern(2, 0, 5, 0));
    assert_int_equal(s->warnings, 1); /* class b has no test images */
    assert_non_null(strstr(s->warning, "b"));
    lb_data_destroy(data);
}

/* ---- What can be wrong ------------------------------------------------------------------------------------------- */

static void test_bad_folders(void **state) {
    scratch *s = *state;
    lb_data_config config = config_of("folder", "pets");
    assert_load_fails(s->ctx, &config, "pets", "no such file or folder");
    config.path[0] = 0;
    assert_load_fails(s->ctx, &config, "data.path", "train/<class>");
    config = config_of("folder", "pets");
    put_file("pets/readme", "", 0);
    assert_load_fails(s->ctx, &config, "pets", "no data set lowbit knows");
    make_parents("pets/train/x");
    assert_load_fails(s->ctx, &config, "pets", "no training images");
    make_parents("pets/train/cat/x");
    assert_load_fails(s->ctx, &config, "pets/train/cat", "no .jpg or .png");
    put_image("pets/train/cat/1.png", 0, H, W, 3);
    assert_load_fails(s->ctx, &config, "pets", "no test images");
    put_tree("pets");
    make_parents("pets/train/empty/x");
    assert_load_fails(s->ctx, &config, "pets/train/empty", "no .jpg or .png");
    rmdir("pets/train/empty");
    make_parents("pets/test/ant2/x");
    assert_load_fails(s->ctx, &config, "pets/test/ant2", "no .jpg or .png");
    put_image("pets/test/ant2/1.png", 0, H, W, 3);
    assert_load_fails(s->ctx, &config, "pets/test/ant2/1.png", "no training images");
    remove_tree("pets/test/ant2");
    remove("pets/train/cat/1.png");

    put_file("pets/train/dog/bad.jpg", "no image at all", 15);
    assert_load_fails(s->ctx, &config, "pets/train/dog/bad.jpg", "not an image");
    put_image("pets/train/dog/bad.jpg", 0, H, W, 3);
    truncate("pets/train/dog/bad.jpg", 300);
    assert_load_fails(s->ctx, &config, "pets/train/dog/bad.jpg", "JPEG");
    truncate("pets/train/dog/bad.jpg", 0);
    assert_load_fails(s->ctx, &config, "pets/train/dog/bad.jpg", "empty");
    truncate("pets/train/dog/bad.jpg", (off_t)LB_MEMBER_LIMIT + 1);
    assert_load_fails(s->ctx, &config, "pets/train/dog/bad.jpg", "limit");
    remove("pets/train/dog/bad.jpg");
    make_parents("pets/train/dog/dir.png/x");
    assert_load_fails(s->ctx, &config, "pets/train/dog/dir.png", "no file");
    rmdir("pets/train/dog/dir.png");
    assert_int_equal(symlink("loop.png", "pets/train/dog/loop.png"), 0);
    assert_load_fails(s->ctx, &config, "pets/train/dog/loop.png", "symbolic links");
    remove("pets/train/dog/loop.png");
    assert_int_equal(symlink("..", "pets/train/zoo"), 0); /* a folder that holds only folders */
    assert_load_fails(s->ctx, &config, "pets/train/zoo", "no .jpg or .png");
    remove("pets/train/zoo");
    put_file("pets/train/dog/line\nbreak.png", "x", 1);
    assert_load_fails(s->ctx, &config, "line?break.png", "not an image");
    remove("pets/train/dog/line\nbreak.png");
    load_and_check(s, &config);
    config.mean[0] = config.mean[1] = .5f;
    config.nmean = 2;
    assert_load_fails(s->ctx, &config, "data.mean", "3 channels");
}

typedef struct bad_entry {
    const char *name, *content, *says;
    unsigned type;
} bad_entry;

static void test_bad_archives(void **state) {
    scratch *s = *state;
    static const bad_entry entries[] = {
        {"train/cat/bad.jpg", "no image", "not an image", AE_IFREG},
        {"train/dog/w.png", NULL, "twice", AE_IFREG},
        {"train/empty/", "", "no .jpg or .png", AE_IFDIR},
        {"test/unicorn/1.png", NULL, "no training images", AE_IFREG},
        {"elsewhere/train/cat/1.png", NULL, "another folder", AE_IFREG},
        {"train/cat/link.png", "../../../../etc/passwd", "link", AE_IFLNK},
    };
    for (int zip = 0; zip < 2; zip++)
        for (size_t i = 0; i < LB_COUNT(entries); i++) {
            const char *path = zip ? "b.zip" : "b.tar.gz";
            packer p = pack_open(path);
            for (size_t k = 0; k < LB_COUNT(files); k++)
                pack_image(p, files[k].name, files[k].image, H, W, 3);
            if (entries[i].content)
                pack_entry(p, entries[i].name, entries[i].type, entries[i].content, strlen(entries[i].content));
            else
                pack_image(p, entries[i].name, 0, H, W, 3);
            pack_close(p);
            lb_data_config config = config_of("folder", path);
            config.cache = true;
            char name[100], says[200];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(entries[i].name, "") - (entries[i].type == AE_IFDIR), entries[i].name);
            snprintf(says, sizeof says, "%s: %s", path, name);
            assert_load_fails(s->ctx, &config, says, entries[i].says);
        }
    assert_int_equal(s->notes, 0);

    lb_data_config config = config_of("folder", "c.tar.gz");
    put_file("c.tar.gz", "this is no archive, however it is called", 40);
    assert_load_fails(s->ctx, &config, "c.tar.gz", "get the archive again");
    put_file("c.tar.gz", "", 0);
    assert_load_fails(s->ctx, &config, "c.tar.gz", "get the archive again");
    packer p = pack_open("c.tar.gz");
    pack_entry(p, "readme", AE_IFREG, "x", 1);
    pack_close(p);
    assert_load_fails(s->ctx, &config, "c.tar.gz", "no training images");

    /* Every length of a truncated archive: an error that names it, and never a crash. */
    static uint8_t bytes[65536];
    pack_tree("d.tar.gz", "");
    size_t size = get_file("d.tar.gz", bytes, sizeof bytes);
    config = config_of("folder", "d.tar.gz");
    for (size_t n = 0; n + 40 < size; n += 61) {
        put_file("d.tar.gz", bytes, n);
        assert_load_fails(s->ctx, &config, "d.tar.gz", "");
    }
    for (size_t n = 12; n < size; n += 37) { /* and damaged ones */
        lb_data *data;
        bytes[n] ^= 0x10;
        put_file("d.tar.gz", bytes, size);
        bytes[n] ^= 0x10;
        if (lb_data_load(s->ctx, &config, &data) == LB_OK)
            lb_data_destroy(data);
    }

    /* A member that unpacks to more than any image may have. */
    uint8_t *zeros = calloc(1, LB_MEMBER_LIMIT + 1);
    p = pack_open("bomb.tar.gz");
    pack_entry(p, "train/cat/bomb.png", AE_IFREG, zeros, LB_MEMBER_LIMIT + 1);
    pack_close(p);
    free(zeros);
    config = config_of("folder", "bomb.tar.gz");
    assert_load_fails(s->ctx, &config, "train/cat/bomb.png", "64 MB");
}

/* A tar that is cut off between two members, which looks whole: once a warning. */
static void test_end_mark(void **state) {
    scratch *s = *state;
    static uint8_t bytes[65536];
    pack_tree("whole.tar", "");
    pack_tree("whole.zip", "");
    size_t size = get_file("whole.tar", bytes, sizeof bytes), end = size;
    assert_true(size < sizeof bytes);
    while (!bytes[end - 1])
        end--;
    end = (end + 511) / 512 * 512;
    assert_true(end + 1024 <= size);
    lb_data_config config = config_of("folder", "cut.tar");
    for (size_t more = 0; more <= 1024; more += 512) { /* one block of zeros is mark enough */
        put_file("cut.tar", bytes, end + more);
        load_and_check(s, &config);
        assert_int_equal(s->warnings, 1);
    }
    assert_string_equal(s->warning, "cut.tar: ends without its end mark, after train/cat/._9.png; perhaps cut off");
    memset(bytes + size, 1, 700); /* behind the mark is nothing of the archive's */
    put_file("cut.tar", bytes, size + 700);
    load_and_check(s, &config);
    put_gz("cut.tar.gz", bytes, size);
    config = config_of("folder", "cut.tar.gz");
    load_and_check(s, &config);
    config = config_of("folder", "whole.zip");
    load_and_check(s, &config);
    assert_int_equal(s->warnings, 1);
    put_gz("cut.tar.gz", bytes, end); /* cut off before it was compressed */
    config = config_of("folder", "cut.tar.gz");
    load_and_check(s, &config);
    assert_int_equal(s->warnings, 2);
}

/* ---- Cache ------------------------------------------------------------------------------------------------------- */

static char cached[512];

static int note_cached(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)ftw;
    if (flag == FTW_F)
        snprintf(cached, sizeof cached, "%s", path);
    return 0;
}

/* Path of the only cached copy. */
static const char *find_cached(void) {
    cached[0] = 0;
    nftw("cache", note_cached, 8, FTW_PHYS);
    assert_true(cached[0] != 0);
    return cached;
}

static void test_cache(void **state) {
    scratch *s = *state;
    static uint8_t copy[65536];
    pack_tree("a.zip", "");
    lb_data_config config = config_of("folder", "a.zip");
    config.cache = true;
    load_and_check(s, &config);
    assert_int_equal(s->notes, 1);

    /* It is really used: a sound copy with other pixels would show. Here: an archive that is gone bad, but looks the same from
     * outside. */
    struct stat st;
    assert_int_equal(stat("a.zip", &st), 0);
    size_t zip = get_file("a.zip", copy, sizeof copy);
    uint8_t *garbage = calloc(1, zip);
    put_file("a.zip", garbage, zip);
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, "a.zip", times, 0), 0);
    load_and_check(s, &config);
    assert_int_equal(s->notes, 1);
    free(garbage);

    /* Another state of the source: not used. */
    put_file("a.zip", copy, zip);
    times[1].tv_sec += 1;
    assert_int_equal(utimensat(AT_FDCWD, "a.zip", times, 0), 0);
    load_and_check(s, &config);
    assert_int_equal(s->notes, 2);

    /* Damaged anywhere, cut anywhere: decoded again, and the copy is good again. */
    size_t size = get_file(find_cached(), copy, sizeof copy);
    assert_true(size < sizeof copy);
    int rebuilt = 2;
    for (size_t at = 0; at < size + 1; at += at < 140 ? 1 : 97) {
        for (int cut = 0; cut < 2; cut++) {
            if (at == size && !cut)
                continue;
            copy[at] ^= 0x40;
            put_file(find_cached(), copy, cut ? (at == size ? size + 1 : at) : size);
            copy[at] ^= 0x40;
            load_and_check(s, &config);
            assert_int_equal(s->notes, ++rebuilt);
        }
    }
    load_and_check(s, &config);
    assert_int_equal(s->notes, rebuilt);

    /* Splits of different shapes, though as many bytes: no copy of an image folder. Who was killed while writing one leaves
     * nothing. */
    char leftover[500];
    uint32_t side[2], sum;
    assert_int_equal(get_file(find_cached(), copy, sizeof copy), size);
    snprintf(leftover, sizeof leftover, "%.480s.tmp.1.0", cached);
    memcpy(side, copy + 64, sizeof side); /* height and width of the second split */
    assert_true(side[0] == H && side[1] == W);
    memcpy(copy + 64, &side[1], sizeof *side), memcpy(copy + 68, &side[0], sizeof *side);
    sum = (uint32_t)crc32(0, copy, 84);
    memcpy(copy + 84, &sum, sizeof sum);
    put_file(cached, copy, size);
    put_file(leftover, "x", 1);
    load_and_check(s, &config);
    assert_int_equal(s->notes, ++rebuilt);
    assert_false(lb_exists(leftover));

    /* An altered or added file of a folder is noticed. */
    put_tree("pets");
    config = config_of("folder", "pets");
    config.cache = true;
    load_and_check(s, &config);
    load_and_check(s, &config);
    assert_int_equal(s->notes, rebuilt + 1);
    put_image("pets/train/cat/zz.png", 20, H, W, 3);
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_int_equal(data->split[LB_TRAIN].count, NTRAIN + 1);
    assert_int_equal(data->classes, 3);
    assert_string_equal(data->class_names[2], "dog");
    lb_data_destroy(data);
    assert_int_equal(s->notes, rebuilt + 2);
    config.size = 4; /* read otherwise: a copy of its own */
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_int_equal(data->split[LB_TRAIN].h, 4);
    lb_data_destroy(data);
    assert_int_equal(s->notes, rebuilt + 3);
    assert_int_equal(s->warnings, 0);
}

/* Figures of the pixels: the same bits for any number of threads; and an interruption is noticed where all else is in the cache. */
static void test_statistics(void **state) {
    scratch *s = *state;
    enum { SIDE = 301 };
    lb_data_config config = config_of("folder", "large.tar");
    float first[8];
    config.cache = true;
    packer p = pack_open("large.tar");
    pack_image(p, "train/cat/0.png", 1, SIDE, SIDE, 3);
    pack_image(p, "train/dog/0.png", 2, SIDE, SIDE, 3);
    pack_image(p, "test/cat/0.png", 3, SIDE, SIDE, 3);
    pack_close(p);
    for (int threads = 1; threads < 6; threads += 2) {
        lb_ctx_options options = {.threads = threads};
        lb_ctx *ctx;
        lb_data *data;
        assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
        assert_ok(ctx, lb_data_load(ctx, &config, &data));
        if (threads == 1) {
            const lb_images *train = &data->split[LB_TRAIN];
            double sum = 0, squares = 0;
            for (int i = 0; i < 2 * SIDE * SIDE; i++) {
                const double x = train->pixels[3 * i + 2];
                sum += x, squares += x * x;
            }
            const double mean = sum / (2 * SIDE * SIDE), variance = squares / (2 * SIDE * SIDE) - mean * mean;
            assert_true(data->mean[2] == (float)(mean / 255) && data->std[2] == (float)(sqrt(variance) / 255));
            memcpy(first, data->mean, sizeof data->mean);
            memcpy(first + 4, data->std, sizeof data->std);
        }
        assert_memory_equal(data->mean, first, sizeof data->mean);
        assert_memory_equal(data->std, first + 4, sizeof data->std);
        lb_data_destroy(data);
        lb_interrupt(ctx);
        assert_int_equal(lb_data_load(ctx, &config, &data), LB_ERR_INTERRUPTED);
        lb_ctx_destroy(ctx);
    }
    assert_int_equal(s->notes, 0);
}

/* Whoever reads the data finds both splits alike. */
static void test_check(void **state) {
    scratch *s = *state;
    put_tree("pets");
    lb_data_config config = config_of("folder", "pets");
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_ok(s->ctx, lb_data_check(data, "net", 3, 3));
    assert_int_equal(lb_data_check(data, "net", 1, 3), LB_ERR_SHAPE);
    assert_int_equal(lb_data_check(data, "net", 3, 2), LB_ERR_SHAPE);
    data->split[LB_TEST].c = 1;
    assert_int_equal(lb_data_check(data, "net", 3, 3), LB_ERR_SHAPE);
    assert_non_null(strstr(lb_error(s->ctx), "its test images have 1 channel, its training images 3"));
    lb_data_destroy(data);
}

static void test_no_cache_possible(void **state) {
    scratch *s = *state;
    pack_tree("a.zip", "");
    put_file("file", "x", 1);
    char path[300];
    snprintf(path, sizeof path, "%s/file", s->dir);
    setenv("XDG_CACHE_HOME", path, 1); /* a file: no folder can be made in it */
    lb_data_config config = config_of("folder", "a.zip");
    config.cache = true;
    load_and_check(s, &config);
    assert_int_equal(s->warnings, 1);
    assert_non_null(strstr(s->warning, "no decoded copy"));
    assert_string_equal(lb_error(s->ctx), "");
}

/* With the cache too, whose copies come and go with the failures. */
static bool memory_cache;
static const char *memory_source;

static lb_status load_with(lb_ctx *ctx, test_allocator *a, long left) {
    lb_data_config config = config_of("folder", memory_source);
    config.cache = memory_cache;
    config.size = 5;
    lb_data *data;
    a->left = left;
    const lb_status status = lb_data_load(ctx, &config, &data);
    lb_data_destroy(data);
    return status;
}

static void test_memory(void **state) {
    (void)state;
    put_tree("pets");
    pack_tree("a.tar.gz", "");
    for (int kind = 0; kind < 4; kind++) {
        memory_source = kind % 2 ? "a.tar.gz" : "pets";
        memory_cache = kind / 2;
        assert_true(test_memory_runs_out(load_with) > 5);
    }
}

static void test_interrupt(void **state) {
    scratch *s = *state;
    put_tree("pets");
    pack_tree("a.tar", "");
    lb_interrupt(s->ctx);
    for (int i = 0; i < 2; i++) {
        lb_data_config config = config_of("folder", i ? "a.tar" : "pets");
        lb_data *data;
        assert_int_equal(lb_data_load(s->ctx, &config, &data), LB_ERR_INTERRUPTED);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_everywhere),
                                       TEST(test_long_top),
                                       TEST(test_tops_like_splits),
                                       TEST(test_names_in_utf8),
                                       TEST(test_control_characters),
                                       TEST(test_val_and_limits),
                                       TEST(test_sizes_and_grey),
                                       TEST(test_bad_folders),
                                       TEST(test_bad_archives),
                                       TEST(test_end_mark),
                                       TEST(test_cache),
                                       TEST(test_no_cache_possible),
                                       TEST(test_memory),
                                       TEST(test_interrupt),
                                       TEST(test_check),
                                       TEST(test_statistics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
