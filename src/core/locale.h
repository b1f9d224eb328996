/* Numbers are written and read with a point, and names in archives as UTF-8, whatever the locale of the program that uses the
 * library is. */
#ifndef LB_LOCALE_H
#define LB_LOCALE_H

/* This thread's locale, to be given back. */
typedef struct lb_c_locale {
    void *own, *previous;
} lb_c_locale;

/* From here to the end this thread formats and parses numbers as in C. Where there is no memory for that, nothing changes. */
lb_c_locale lb_c_locale_begin(void);
void lb_c_locale_end(lb_c_locale locale);

/* A locale whose characters are UTF-8, for lb_locale_enter, at any time and in any thread. NULL where there is none. */
void *lb_utf8_locale_create(void);
void lb_utf8_locale_destroy(void *locale);

/* This thread's locale from here on; returns the one it had, to be entered again. NULL changes nothing. */
void *lb_locale_enter(void *locale);

#endif
