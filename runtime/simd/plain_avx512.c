/* The loops of the ref kernels, and those over bytes, for the compiler to vectorise: they are compiled once more with the flags of
 * this instruction set, under names of their own. */
#define LBRT_VARIANT avx512

#include "../epilogue.c"
#include "../ref_conv.c"
#include "../ref_int.c"
#include "../ref_mul.c"

#include "../bytes.inc.h"
