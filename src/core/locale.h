/* Numbers are written and read with a point, whatever the locale of the program that uses the library is. */
#ifndef LB_LOCALE_H
#define LB_LOCALE_H

/* This thread's locale, to be given back. */
typedef struct lb_c_locale {
    void *own, *previous;
} lb_c_locale;

/* From here to the end this thread formats and parses numbers as in C. Where there is no memory for that, nothing changes. */
lb_c_locale lb_c_locale_begin(void);
void lb_c_locale_end(lb_c_locale locale);

#endif
