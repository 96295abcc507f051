// The stand-in where no kernels are built.
#include "kernels.h"

extern "C" const Kernels *msao_kernels(Instructions) { return nullptr; }
