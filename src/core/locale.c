#include "core/locale.h"

#include <locale.h>

lb_c_locale lb_c_locale_begin(void) {
    locale_t own = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return (lb_c_locale){own, own ? uselocale(own) : NULL};
}

void lb_c_locale_end(lb_c_locale locale) {
    if (!locale.own)
        return;
    uselocale(locale.previous);
    freelocale(locale.own);
}
