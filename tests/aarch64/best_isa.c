/* Prints the instruction set that the runtime finds on this machine. */
#include <stdio.h>

#include "model.h"

int main(void) { return puts(lbrt_isa_name(lbrt_best_isa())) < 0; }
