/* A locale that writes 0,5 for 0.5: an installed one, else one made for this process. */
#ifndef LB_TEST_COMMA_LOCALE_H
#define LB_TEST_COMMA_LOCALE_H

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* setlocale(LC_ALL, "C") ends it. */
static inline bool set_comma_locale(void) {
    char dir[] = "/tmp/lowbit-locale-XXXXXX", command[200];
    if (setlocale(LC_ALL, "de_DE.UTF-8") || setlocale(LC_ALL, "fr_FR.UTF-8"))
        return true;
    if (!mkdtemp(dir))
        return false;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >%s/log 2>&1", dir, dir);
    const bool made = system(command) == 0 && setenv("LOCPATH", dir, 1) == 0 && setlocale(LC_ALL, "de_DE.UTF-8");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0 || !made)
        printf("SKIPPED: no locale with a decimal comma, and localedef makes none (package locales)\n");
    return made;
}

#endif
