/* Prints what this machine's instruction sets reach in multiply-adds of few bits on one thread: the measure of the layers that
 * `lowbit bench MODEL --profile` shows. */
#include <stdio.h>

#include "deploy/packed.h"

int main(void) {
    lb_peak peak;
    printf("%-12s %4s %10s  %s\n", "peak", "bits", "GOP/s", "how");
    for (int i = 0; lb_peak_row(i, &peak); i++)
        printf("%-12s %4s %10.0f  %s\n", peak.isa, peak.bits, peak.gops, peak.how);
    return 0;
}
