/* The epilogue of several accumulators at once. */
#ifndef FINISH_H
#define FINISH_H

#include "epilogue.h"

/* Accumulators v (n) of the channels c, c + next, ... to the elements at, at + step, ... of dst. next is 0 or 1. */
static void finish_some(const epilogue *e, const uint32_t *v, int32_t n, int32_t c, int32_t next, size_t at, size_t step,
                        const void *res, void *dst) {
    const uint32_t flags = e->flags & EPILOGUE_FLAGS;
    const uint32_t *const end = v + n;
    if (flags & LINES) { /* all in registers: the compiler cannot know that dst does not point to it */
        const line *l = e->lines + c;
        const line_form form = e->form;
        uint8_t *to = (uint8_t *)dst + at;
        if (flags & RESIDUAL) {
            const int32_t sign = e->res_type == TYPE_I8 ? 0x80 : 0;
            for (const uint8_t *r = (const uint8_t *)res + at; v < end; to += step, r += step, l += next)
                *to = (uint8_t)line_code(form, *l, (int32_t)*v++, (*r ^ sign) - sign);
        } else {
            for (; v < end; to += step, l += next)
                *to = (uint8_t)line_code(form, *l, (int32_t)*v++, 0);
        }
        return;
    }
    for (; v < end; at += step, c += next)
        finish(e, (int32_t)*v++, c, at, res, dst);
}

#endif
