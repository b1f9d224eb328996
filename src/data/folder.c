/* Image folders, [TOP/]train/CLASS/IMAGE and [TOP/]test/CLASS/IMAGE (or val/), as a directory or inside an archive.
 *
 * First everything is listed and the images' sizes are read, so that mistakes are found and memory is allocated once; then worker
 * threads decode straight to each image's place. Images are ordered by class, then by name, whatever order the directory or archive
 * has. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "data/formats.h"
#include "data/image.h"

enum { TRAIN, TEST, VAL, NSPLITS };
enum { MAX_NAME = 255 }; /* bytes of a file's or a folder's own name, as in Linux' file systems */
static const char *const split_names[NSPLITS] = {"train", "test", "val"};

typedef struct member {
    size_t name_at; /* offset in tree.names while listing */
    const char *name; /* path below tree.path, afterwards */
    int top_length, class_at, class_length; /* parts of the name: above train/, and the class */
    int split, label;
    int h, w, c; /* c = 0: the header could not be read */
    int64_t image; /* index in its split, -1: not wanted */
    int64_t size, seconds, nanoseconds; /* of a file, for the cache */
} member;

typedef struct tree {
    lb_data *data;
    lb_ctx *ctx;
    const char *path;
    bool archive;
    char top[MAX_NAME + 2]; /* common folder above train/, with its slash, or "" */
    bool top_known;
    char *names;
    size_t names_size, names_capacity;
    member *members, *dirs; /* images in the source's order; class folders */
    size_t nmembers, members_capacity, ndirs, dirs_capacity;
    member **sorted; /* (nmembers) by split, class, name */
    int test; /* TEST, or VAL if there is no test/ */
} tree;

/* ---- Names ----------------------------------------------------------------------------------------------------- */

static lb_status fail(tree *t, lb_status status, const char *name, const char *what) {
    char shown[400];
    lb_printable(shown, sizeof shown, name);
    return lb_fail(t->ctx, status, "%s%s%s: %s", t->path, t->archive ? ": " : "/", shown, what);
}

static const char *without_dots(const char *name) {
    while (!strncmp(name, "./", 2))
        name += 2;
    return name;
}

typedef enum name_kind { NAME_OTHER, NAME_IMAGE, NAME_CLASS } name_kind;

/* Takes [TOP/]SPLIT/CLASS[/IMAGE] apart. Absolute paths, "..", hidden files and whatever is not an image are none of ours. */
static name_kind parse(const char *name, member *m) {
    const char *parts[5];
    int lengths[5], n = 0;
    name = without_dots(name);
    if (name[0] == '/')
        return NAME_OTHER;
    for (const char *p = name; *p;) {
        int length = (int)strcspn(p, "/");
        if (n == 4 || length == 0 || length > MAX_NAME || p[0] == '.' || (length == 8 && !memcmp(p, "__MACOSX", 8)))
            return NAME_OTHER;
        parts[n] = p;
        lengths[n++] = length;
        p += length + (p[length] == '/');
    }
    for (int top = 0; top < 2 && top < n; top++)
        for (int split = 0; split < NSPLITS; split++)
            if (lengths[top] == (int)strlen(split_names[split]) && !memcmp(parts[top], split_names[split], (size_t)lengths[top]) &&
                (n == top + 2 || n == top + 3)) {
                *m = (member){.split = split,
                              .image = -1,
                              .top_length = (int)(parts[top] - name),
                              .class_at = (int)(parts[top + 1] - name),
                              .class_length = lengths[top + 1]};
                if (n == top + 2)
                    return NAME_CLASS;
                if (lb_image_extension(name))
                    return NAME_IMAGE;
            }
    return NAME_OTHER;
}

/* Does it lie below the common folder? */
static bool below_top(const tree *t, const char *name, const member *m) {
    return strlen(t->top) == (size_t)m->top_length && !memcmp(t->top, name, (size_t)m->top_length);
}

/* The first image tells the common folder; class folders do not, as one called "test" may also be the common one. */
static lb_status keep(tree *t, const char *name, member m, name_kind kind) {
    if (kind == NAME_IMAGE && !t->top_known) {
        memcpy(t->top, name, (size_t)m.top_length);
        t->top[m.top_length] = 0;
        t->top_known = true;
    } else if (kind == NAME_IMAGE && !below_top(t, name, &m)) {
        char shown[300];
        lb_printable(shown, sizeof shown, t->top);
        char what[400];
        snprintf(what, sizeof what,
                 "lies in another folder than the images before, in \"%.255s\"; one common folder may hold train/ and test/",
                 shown);
        return fail(t, LB_ERR_FORMAT, name, what);
    }
    size_t length = strlen(name);
    if (kind == NAME_CLASS)
        while (length && name[length - 1] == '/')
            length--;
    LB_TRY(lb_grow(t->ctx, &t->names, &t->names_capacity, t->names_size + length + 1, 1));
    m.name_at = t->names_size;
    memcpy(t->names + t->names_size, name, length);
    t->names[t->names_size + length] = 0;
    t->names_size += length + 1;
    if (kind == NAME_CLASS) {
        LB_TRY(lb_grow(t->ctx, &t->dirs, &t->dirs_capacity, t->ndirs + 1, sizeof m));
        t->dirs[t->ndirs++] = m;
    } else {
        LB_TRY(lb_grow(t->ctx, &t->members, &t->members_capacity, t->nmembers + 1, sizeof m));
        t->members[t->nmembers++] = m;
    }
    return LB_OK;
}

/* ---- Listing a directory --------------------------------------------------------------------------------------- */

static lb_status interrupted(tree *t) { return lb_fail(t->ctx, LB_ERR_INTERRUPTED, "%s: interrupted while loading", t->path); }

/* Lists `name` (below t->path, t->top included): the class folders of a split (depth 0), or the images of a class (depth 1). */
static lb_status list_folder(tree *t, const char *name, int depth) {
    char path[LB_PATH], child[LB_PATH];
    LB_TRY(lb_join(t->ctx, path, t->path, name));
    const int top = (int)strlen(t->top);
    DIR *dir = opendir(path);
    if (!dir)
        return fail(t, LB_ERR_IO, name, strerror(errno));
    lb_status status = LB_OK;
    for (struct dirent *entry; status == LB_OK && (entry = readdir(dir));) {
        member m;
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        status = lb_join(t->ctx, child, name, entry->d_name);
        if (status != LB_OK)
            break;
        name_kind kind = parse(child + top, &m); /* behind the common folder, which may be called "test" itself */
        if (kind == NAME_OTHER || (depth == 1) != (kind == NAME_IMAGE))
            continue;
        m.top_length = top;
        m.class_at += top;
        status = lb_join(t->ctx, path, t->path, child);
        if (status != LB_OK)
            break;
        if (stat(path, &st)) {
            status = fail(t, LB_ERR_IO, child, strerror(errno));
        } else if (depth == 0 && S_ISDIR(st.st_mode)) {
            status = keep(t, child, m, kind);
            if (status == LB_OK)
                status = lb_interrupted(t->ctx) ? interrupted(t) : list_folder(t, child, 1);
        } else if (depth == 1 && !S_ISREG(st.st_mode)) {
            status = fail(t, LB_ERR_FORMAT, child, "is called like an image but is no file");
        } else if (depth == 1) {
            m.size = st.st_size;
            m.seconds = st.st_mtim.tv_sec;
            m.nanoseconds = st.st_mtim.tv_nsec;
            status = keep(t, child, m, kind);
        }
    }
    closedir(dir);
    return status;
}

static bool has_folder(const char *path, const char *name) {
    char child[LB_PATH];
    int n = snprintf(child, sizeof child, "%s/%s", path, name);
    return n > 0 && n < LB_PATH && lb_is_dir(child);
}

/* The folder that holds train/: `path` itself ("") or the only one in it that does ("NAME/", which may be "train/"). */
static bool find_top(const char *path, char top[MAX_NAME + 2]) {
    char name[LB_PATH];
    top[0] = 0;
    if (has_folder(path, "train") && (has_folder(path, "test") || has_folder(path, "val") || !has_folder(path, "train/train")))
        return true;
    DIR *dir = opendir(path);
    int found = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        int n = snprintf(name, sizeof name, "%s/train", entry->d_name);
        if (n < 0 || n >= LB_PATH || strlen(entry->d_name) > MAX_NAME || !has_folder(path, name))
            continue;
        snprintf(top, MAX_NAME + 2, "%.*s/", MAX_NAME, entry->d_name);
        found++;
    }
    if (dir)
        closedir(dir);
    return found == 1;
}

static bool has_class_folder(const char *path) {
    DIR *dir = opendir(path);
    bool found = false;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));)
        found = entry->d_name[0] != '.' && has_folder(path, entry->d_name);
    if (dir)
        closedir(dir);
    return found;
}

static lb_status list_directory(tree *t) {
    char path[LB_PATH], name[300];
    t->top_known = find_top(t->path, t->top);
    if (!t->top_known)
        return lb_fail(t->ctx, LB_ERR_FORMAT, "%s: holds no folder train/ (or more than one folder that does)", t->path);
    for (int split = 0; split < NSPLITS; split++) {
        snprintf(name, sizeof name, "%s%s", t->top, split_names[split]);
        LB_TRY(lb_join(t->ctx, path, t->path, name));
        if (split == VAL && t->test == TEST)
            break;
        if (split == TEST)
            t->test = has_class_folder(path) ? TEST : VAL; /* test/ without labels, as ImageNet's, is no use */
        if ((split == TRAIN || split == t->test) && lb_is_dir(path))
            LB_TRY(list_folder(t, name, 0));
    }
    return LB_OK;
}

/* ---- Listing an archive ---------------------------------------------------------------------------------------- */

/* The next image of the archive, parsed; *name is NULL at the end. Class folders are kept if `listing`. */
static lb_status next_image(tree *t, lb_archive *archive, bool listing, const char **name, member *m) {
    for (;;) {
        lb_member_kind kind;
        LB_TRY(lb_archive_next(archive, name, &kind));
        if (!*name)
            return LB_OK;
        name_kind parsed = parse(*name, m);
        *name = without_dots(*name);
        if (parsed == NAME_IMAGE && kind == LB_MEMBER_FILE)
            return LB_OK;
        if (parsed == NAME_IMAGE && kind == LB_MEMBER_LINK)
            return fail(t, LB_ERR_UNSUPPORTED, *name,
                        "is a link; pack the files themselves (tar: --dereference --hard-dereference)");
        if (parsed == NAME_CLASS && kind == LB_MEMBER_DIR && listing)
            LB_TRY(keep(t, *name, *m, NAME_CLASS));
    }
}

static lb_status list_archive(tree *t) {
    lb_archive *archive;
    LB_TRY(lb_archive_open(t->ctx, t->path, &archive));
    lb_decoder decoder;
    lb_decoder_init(&decoder, t->ctx, NULL);
    uint8_t *bytes = NULL;
    size_t capacity = 0, size;
    lb_status status;
    for (;;) {
        const char *name;
        member m;
        status = next_image(t, archive, true, &name, &m);
        if (status != LB_OK || !name)
            break;
        status = keep(t, name, m, NAME_IMAGE);
        if (status == LB_OK)
            status = lb_archive_read(archive, &bytes, &capacity, &size);
        if (status != LB_OK)
            break;
        lb_image_info info;
        if (lb_decoder_info(&decoder, bytes, size, &info) == LB_OK) { /* a bad one is reported when it is decoded */
            member *last = &t->members[t->nmembers - 1];
            last->h = info.h;
            last->w = info.w;
            last->c = info.c;
        }
        if (t->nmembers % 1024 == 0) {
            lb_progress(t->ctx, "listing images", (int64_t)t->nmembers, 0);
            if (lb_interrupted(t->ctx)) {
                status = interrupted(t);
                break;
            }
        }
    }
    lb_free(t->ctx, bytes);
    lb_decoder_free(&decoder);
    lb_archive_close(archive);
    return status;
}

/* ---- Sorting into splits and classes ----------------------------------------------------------------------------- */

static int compare_class(const member *a, const member *b) {
    int order = memcmp(a->name + a->class_at, b->name + b->class_at, (size_t)LB_MIN(a->class_length, b->class_length));
    return order ? order : (a->class_length > b->class_length) - (a->class_length < b->class_length);
}

static int compare_members(const void *a, const void *b) {
    const member *p = *(member *const *)a, *q = *(member *const *)b;
    if (p->split != q->split)
        return p->split < q->split ? -1 : 1;
    int order = compare_class(p, q);
    return order ? order : strcmp(p->name, q->name);
}

static const char *class_name(lb_data *data, const member *m) {
    return lb_pool_printf(&data->pool, "%.*s", m->class_length, m->name + m->class_at);
}

/* Class of m by binary search in the names of the classes; -1: none. */
static int find_class(const lb_data *data, const member *m) {
    int lo = 0, hi = data->classes - 1;
    while (lo <= hi) {
        int mid = (lo + hi) / 2, length = (int)strlen(data->class_names[mid]);
        int order = memcmp(data->class_names[mid], m->name + m->class_at, (size_t)LB_MIN(length, m->class_length));
        if (!order)
            order = (length > m->class_length) - (length < m->class_length);
        if (!order)
            return mid;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid - 1;
    }
    return -1;
}

static lb_status make_classes(tree *t, size_t ntrain) {
    lb_data *data = t->data;
    size_t classes = 0;
    for (size_t i = 0; i < ntrain; i++)
        classes += i == 0 || compare_class(t->sorted[i - 1], t->sorted[i]) != 0;
    if (classes > LB_MAX_CLASSES)
        return lb_fail(t->ctx, LB_ERR_UNSUPPORTED, "%s: %zu classes; at most %d are possible", t->path, classes, LB_MAX_CLASSES);
    data->class_names = lb_pool_alloc(&data->pool, classes, sizeof *data->class_names);
    if (!data->class_names)
        return LB_ERR_MEMORY;
    data->classes = 0;
    for (size_t i = 0; i < ntrain; i++)
        if (i == 0 || compare_class(t->sorted[i - 1], t->sorted[i]) != 0)
            if (!(data->class_names[data->classes++] = class_name(data, t->sorted[i])))
                return LB_ERR_MEMORY;
    return LB_OK;
}

/* Gives n images of one class-ordered split their places. A limit takes the first of each class in turn, so that none is left out
 * early. */
static lb_status choose(tree *t, member **list, size_t n, int limit, int64_t *chosen) {
    int classes = t->data->classes;
    size_t *have = lb_alloc(t->ctx, (size_t)classes, sizeof *have), *want = lb_alloc(t->ctx, (size_t)classes, sizeof *want);
    lb_status status = have && want ? LB_OK : LB_ERR_MEMORY;
    if (status == LB_OK) {
        for (size_t i = 0; i < n; i++)
            have[list[i]->label]++;
        int64_t total = lb_limited((int64_t)n, limit), taken = 0;
        for (size_t round = 0; taken < total; round++)
            for (int k = 0; k < classes && taken < total; k++)
                if (have[k] > round) {
                    want[k]++;
                    taken++;
                }
        *chosen = 0;
        for (size_t i = 0; i < n; i++)
            if (want[list[i]->label] > 0) {
                want[list[i]->label]--;
                list[i]->image = (*chosen)++;
            }
    }
    lb_free(t->ctx, have);
    lb_free(t->ctx, want);
    return status;
}

static lb_status check_empty_classes(tree *t) {
    for (size_t d = 0; d < t->ndirs; d++) {
        member *dir = &t->dirs[d];
        if ((dir->split != TRAIN && dir->split != t->test) || !below_top(t, dir->name, dir))
            continue;
        size_t lo = 0, hi = t->nmembers;
        bool found = false;
        while (lo < hi && !found) {
            size_t mid = lo + (hi - lo) / 2;
            const member *m = t->sorted[mid];
            int order = m->split != dir->split ? (m->split < dir->split ? -1 : 1) : compare_class(m, dir);
            found = order == 0;
            if (order < 0)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (!found)
            return fail(t, LB_ERR_FORMAT, dir->name,
                        "this class's folder holds no .jpg or .png image; add some, or remove the folder");
    }
    return LB_OK;
}

/* Sorts, names the classes, checks them, and chooses the wanted images; counts: (LB_SPLITS). */
static lb_status arrange(tree *t, int64_t counts[LB_SPLITS]) {
    t->sorted = lb_alloc(t->ctx, t->nmembers, sizeof *t->sorted);
    if (!t->sorted)
        return LB_ERR_MEMORY;
    size_t n[NSPLITS] = {0};
    for (size_t i = 0; i < t->nmembers; i++) {
        t->members[i].name = t->names + t->members[i].name_at;
        t->sorted[i] = &t->members[i];
        n[t->members[i].split]++;
    }
    for (size_t i = 0; i < t->ndirs; i++)
        t->dirs[i].name = t->names + t->dirs[i].name_at;
    if (t->nmembers)
        qsort(t->sorted, t->nmembers, sizeof *t->sorted, compare_members);
    if (t->archive)
        t->test = n[TEST] ? TEST : VAL;
    LB_TRY(check_empty_classes(t));
    if (!n[TRAIN])
        return lb_fail(t->ctx, LB_ERR_FORMAT,
                       "%s: no training images; they belong into train/<class>/ and end in .jpg, .jpeg or .png", t->path);
    if (!n[t->test])
        return lb_fail(t->ctx, LB_ERR_FORMAT, "%s: no test images; they belong into test/<class>/ or val/<class>/", t->path);
    for (size_t i = 1; i < t->nmembers; i++)
        if (!strcmp(t->sorted[i - 1]->name, t->sorted[i]->name))
            return fail(t, LB_ERR_FORMAT, t->sorted[i]->name, "is in the archive twice");
    LB_TRY(make_classes(t, n[TRAIN]));
    for (size_t i = 0; i < t->nmembers; i++) {
        member *m = t->sorted[i];
        if (m->split != TRAIN && m->split != t->test)
            continue;
        m->label = find_class(t->data, m);
        if (m->label < 0) {
            char what[400];
            snprintf(what, sizeof what, "is of a class that has no training images; add some in %strain/%.*s/, or remove it",
                     t->top, LB_MIN(m->class_length, 100), m->name + m->class_at);
            return fail(t, LB_ERR_FORMAT, m->name, what);
        }
    }
    LB_TRY(choose(t, t->sorted, n[TRAIN], t->data->config.train_limit, &counts[LB_TRAIN]));
    size_t first = n[TRAIN] + (t->test == VAL ? n[TEST] : 0);
    return choose(t, t->sorted + first, n[t->test], t->data->config.test_limit, &counts[LB_TEST]);
}

/* ---- Workers --------------------------------------------------------------------------------------------------- */

/* Reads headers (probe) or decodes, all members, in parallel. `lock` guards the archive, the allocator, the context's error, and
 * this. */
typedef struct work {
    tree *t;
    bool probe;
    lb_archive *archive;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next, done;
    int running;
    lb_status status;
} work;

/* The file's first `most` bytes into *bytes. */
static lb_status read_file(lb_decoder *decoder, const char *folder, const char *name, size_t most, uint8_t **bytes,
                           size_t *capacity, size_t *size) {
    char path[LB_PATH]; /* long enough: it was when it was listed */
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st)) {
        snprintf(decoder->error, sizeof decoder->error, "cannot be opened: %s", strerror(errno));
        if (file)
            fclose(file);
        return LB_ERR_IO;
    }
    size_t want = (size_t)LB_MIN((uint64_t)st.st_size, most);
    lb_status status = LB_OK;
    *size = 0;
    if ((uint64_t)st.st_size > LB_MEMBER_LIMIT) {
        snprintf(decoder->error, sizeof decoder->error, "larger than %zu MB, the limit of one image file", LB_MEMBER_LIMIT >> 20);
        status = LB_ERR_UNSUPPORTED;
    } else {
        status = lb_decoder_grow(decoder, bytes, capacity, LB_MAX(want, 1));
    }
    if (status == LB_OK)
        *size = fread(*bytes, 1, want, file);
    if (status == LB_OK && ferror(file)) {
        snprintf(decoder->error, sizeof decoder->error, "cannot be read: %s", strerror(errno));
        status = LB_ERR_IO;
    }
    fclose(file);
    return status;
}

static lb_status probe_member(tree *t, member *m, lb_decoder *decoder, uint8_t **bytes, size_t *capacity) {
    static const size_t most[] = {1 << 16, LB_MEMBER_LIMIT}; /* a header may lie behind a long comment or thumbnail */
    for (size_t i = 0; i < LB_COUNT(most); i++) {
        size_t size;
        lb_image_info info;
        LB_TRY(read_file(decoder, t->path, m->name, most[i], bytes, capacity, &size));
        if (lb_decoder_info(decoder, *bytes, size, &info) == LB_OK) {
            m->h = info.h;
            m->w = info.w;
            m->c = info.c;
            return LB_OK;
        }
        if (size < most[i])
            break;
    }
    return LB_OK; /* reported when it is decoded */
}

static lb_status decode_member(tree *t, member *m, lb_decoder *decoder, const uint8_t *bytes, size_t size) {
    lb_images *images = &t->data->split[m->split == TRAIN ? LB_TRAIN : LB_TEST];
    size_t pixels = (size_t)images->h * (size_t)images->w * (size_t)images->c;
    images->labels[m->image] = m->label;
    return lb_decoder_fit(decoder, bytes, size, images->h, images->w, images->c, images->pixels + (size_t)m->image * pixels);
}

/* Under the lock: the archive's next image, which must be member m as listed, into *bytes if it is wanted. */
static lb_status next_bytes(work *w, member *m, uint8_t **bytes, size_t *capacity, size_t *size) {
    const char *name;
    member parsed;
    LB_TRY(next_image(w->t, w->archive, false, &name, &parsed));
    if (!name || strcmp(name, m->name))
        return lb_fail(w->t->ctx, LB_ERR_IO, "%s: changed while it was being read; try again", w->t->path);
    return m->image < 0 ? LB_OK : lb_archive_read(w->archive, bytes, capacity, size);
}

static void *worker(void *arg) {
    work *w = arg;
    tree *t = w->t;
    lb_decoder decoder;
    lb_decoder_init(&decoder, t->ctx, &w->lock);
    uint8_t *bytes = NULL;
    size_t capacity = 0, size = 0;
    pthread_mutex_lock(&w->lock);
    while (w->status == LB_OK && w->next < t->nmembers) {
        if (lb_interrupted(t->ctx)) {
            w->status = interrupted(t);
            break;
        }
        member *m = &t->members[w->next++];
        lb_status status = LB_OK;
        if (w->archive)
            w->status = next_bytes(w, m, &bytes, &capacity, &size);
        if (w->status == LB_OK && m->image >= 0) {
            pthread_mutex_unlock(&w->lock);
            if (w->probe) {
                status = probe_member(t, m, &decoder, &bytes, &capacity);
            } else if (!w->archive) {
                status = read_file(&decoder, t->path, m->name, LB_MEMBER_LIMIT, &bytes, &capacity, &size);
            }
            if (status == LB_OK && !w->probe)
                status = decode_member(t, m, &decoder, bytes, size);
            pthread_mutex_lock(&w->lock);
        }
        if (status != LB_OK && w->status == LB_OK)
            w->status = fail(t, status, m->name, decoder.error);
        w->done++;
    }
    lb_decoder_free(&decoder);
    lb_free(t->ctx, bytes);
    w->running--;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static lb_status run_workers(tree *t, bool probe, const char *what) {
    enum { MOST = 64 };
    pthread_t threads[MOST];
    work w = {.t = t, .probe = probe};
    if (t->archive)
        LB_TRY(lb_archive_open(t->ctx, t->path, &w.archive));
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.changed, NULL);
    int n = 0, most = LB_MIN(LB_MAX(lb_threads(t->ctx), 1), MOST);
    pthread_mutex_lock(&w.lock);
    for (; n < most; n++) {
        w.running++;
        if (pthread_create(&threads[n], NULL, worker, &w)) {
            w.running--;
            break;
        }
    }
    if (n == 0) { /* no threads to be had: here, then */
        w.running = 1;
        pthread_mutex_unlock(&w.lock);
        worker(&w);
        pthread_mutex_lock(&w.lock);
    }
    while (w.running) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w.changed, &w.lock, &until);
        size_t done = w.done;
        pthread_mutex_unlock(&w.lock);
        lb_progress(t->ctx, what, (int64_t)done, (int64_t)t->nmembers);
        pthread_mutex_lock(&w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.lock);
    lb_archive_close(w.archive);
    return w.status;
}

/* ---- The whole ------------------------------------------------------------------------------------------------- */

static lb_status allocate(tree *t, const int64_t counts[LB_SPLITS]) {
    const member *first = NULL;
    int size = t->data->config.size, c = 1;
    for (size_t i = 0; i < t->nmembers; i++) {
        const member *m = t->sorted[i];
        if (m->image < 0 || m->c == 0)
            continue;
        c = LB_MAX(c, m->c);
        if (!first)
            first = m;
        if (!size && (m->h != first->h || m->w != first->w)) {
            char shown[200], what[400];
            lb_printable(shown, sizeof shown, first->name);
            snprintf(what, sizeof what, "%d x %d pixels, but %s has %d x %d; set data.size to resize all images to one size", m->w,
                     m->h, shown, first->w, first->h);
            return fail(t, LB_ERR_FORMAT, m->name, what);
        }
    }
    /* With no sound image at all, decoding the first one says what is wrong. */
    int h = size ? size : first ? first->h : 1, w = size ? size : first ? first->w : 1;
    for (int split = 0; split < LB_SPLITS; split++)
        LB_TRY(lb_images_alloc(t->data, (lb_split)split, t->path, counts[split], h, w, c));
    return LB_OK;
}

static void warn_missing_classes(lb_data *data) {
    int missing = 0, example = 0, k = 0;
    const lb_images *test = &data->split[LB_TEST];
    int64_t i = 0;
    for (; k < data->classes; k++) { /* labels are in order */
        if (i >= test->count || test->labels[i] != k) {
            example = missing++ ? example : k;
            continue;
        }
        while (i < test->count && test->labels[i] == k)
            i++;
    }
    if (missing && !data->config.test_limit) {
        char shown[100];
        lb_printable(shown, sizeof shown, data->class_names[example]);
        lb_warn(data->ctx, "%s: %d class(es) have no test images, e.g. %s", data->source, missing, shown);
    }
}

static lb_status load_tree(tree *t) {
    struct stat st;
    int64_t counts[LB_SPLITS];
    bool hit = false;
    if (stat(t->path, &st))
        return lb_fail(t->ctx, LB_ERR_IO, "%s: %s", t->path, strerror(errno));
    int64_t state[3] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
    uint64_t signature = lb_hash(LB_HASH, state, sizeof state);
    t->archive = !S_ISDIR(st.st_mode);
    if (t->archive && t->data->config.cache) {
        LB_TRY(lb_cache_load(t->data, t->path, signature, &hit));
        if (hit)
            return LB_OK;
    }
    LB_TRY(t->archive ? list_archive(t) : list_directory(t));
    LB_TRY(arrange(t, counts));
    if (!t->archive && t->data->config.cache) {
        signature = LB_HASH;
        for (size_t i = 0; i < t->nmembers; i++) {
            const member *m = t->sorted[i];
            int64_t figures[3] = {m->size, m->seconds, m->nanoseconds};
            signature = lb_hash(lb_hash(signature, m->name, strlen(m->name) + 1), figures, sizeof figures);
        }
        LB_TRY(lb_cache_load(t->data, t->path, signature, &hit));
        if (hit)
            return LB_OK;
    }
    if (!t->archive)
        LB_TRY(run_workers(t, true, "reading sizes"));
    LB_TRY(allocate(t, counts));
    LB_TRY(run_workers(t, false, "decoding images"));
    warn_missing_classes(t->data);
    if (t->data->config.cache)
        lb_cache_store(t->data, t->path, signature);
    return LB_OK;
}

static lb_status load(lb_data *data, const char *path) {
    tree t = {.data = data, .ctx = data->ctx, .path = path, .test = VAL};
    lb_status status = load_tree(&t);
    lb_free(data->ctx, t.names);
    lb_free(data->ctx, t.members);
    lb_free(data->ctx, t.dirs);
    lb_free(data->ctx, t.sorted);
    return status;
}

static bool recognise(const char *path) {
    char top[MAX_NAME + 2];
    return lb_is_dir(path) ? find_top(path, top) : lb_exists(path) && lb_is_archive(path);
}

const lb_data_format lb_format_folder = {recognise, load};
