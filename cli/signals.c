/* Ctrl-C, SIGTERM and a closed terminal: the running call stops at its next step, so that training saves its state and nothing
 * temporary stays behind. Then the program ends by that signal (main.c), so that a shell's loop ends too. The same signal again
 * kills. */
#define _XOPEN_SOURCE 700 /* sigaction */
#include <signal.h>
#include <string.h>

#include "cli.h"

static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

static lb_ctx *volatile running;
static volatile sig_atomic_t caught;

static void on_signal(int number) {
    caught = number;
    if (running)
        lb_interrupt(running);
}

void cli_catch_signals(lb_ctx *ctx) {
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    running = ctx;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const bool asked_to_ignore = /* nohup */
            numbers[i] == SIGHUP && sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (!asked_to_ignore)
            sigaction(numbers[i], &action, NULL);
    }
}

void cli_release_signals(void) {
    struct sigaction now;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler == on_signal)
            signal(numbers[i], SIG_DFL);
    running = NULL;
}

bool cli_interrupted(void) { return caught != 0; }

void cli_end_by_signal(void) {
    fflush(stdout);
    signal(caught, SIG_DFL);
    raise(caught);
}
