#include "core/locale.h"

#include <locale.h>

void *lb_locale_enter(void *locale) { return uselocale(locale); }

lb_c_locale lb_c_locale_begin(void) {
    locale_t own = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return (lb_c_locale){own, lb_locale_enter(own)};
}

void lb_c_locale_end(lb_c_locale locale) {
    if (!locale.own)
        return;
    lb_locale_enter(locale.previous);
    freelocale(locale.own);
}

void *lb_utf8_locale_create(void) { return newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); }

void lb_utf8_locale_destroy(void *locale) {
    if (locale)
        freelocale(locale);
}
