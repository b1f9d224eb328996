/* A Cortex-M board of QEMU (mps2-an385, mps2-an386, mps2-an500): the vector table, and a processor that counts its own
 * instructions. Files and the exit status go through semihosting, which is newlib's (--specs=rdimon.specs). */
#include <stdint.h>

#include "cycles.h"

extern uint32_t stack_top;
extern void _start(void);

/* Reached by whatever goes wrong: QEMU's time limit ends it. */
static void stuck(void) {
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void)) & stack_top, _start, stuck, stuck, stuck, stuck, stuck, 0, 0, 0, 0, stuck, stuck, 0, stuck, stuck,
};

#define SYST_CSR (*(volatile uint32_t *)0xe000e010)
#define SYST_RVR (*(volatile uint32_t *)0xe000e014)
#define SYST_CVR (*(volatile uint32_t *)0xe000e018)
#define TICK 40 /* instructions: 25 MHz, and one instruction a nanosecond under -icount shift=0 */

void start_counting(void) {
    SYST_RVR = 0xffffff;
    SYST_CVR = 0;
    SYST_CSR = 5; /* on, processor clock, no interrupt */
}

int64_t stop_counting(void) {
    const uint32_t value = SYST_CVR, wrapped = SYST_CSR >> 16 & 1;
    SYST_CSR = 0;
    return wrapped ? -1 : (int64_t)(0xffffff - value) * TICK;
}
