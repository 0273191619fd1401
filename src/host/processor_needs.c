/* processor_needs.c: what the other files were compiled for; see processor.h.  Data only: nothing of it is run. */
#include "src/host/processor.h"

/* A macro that is defined is 1; one that is not stands for itself. */
#define TEXT_OF(x) #x
#define NEEDED(macro, ...) sizeof TEXT_OF(macro) == sizeof "1",

const unsigned char processor_needs[] = {PROCESSOR_EXTENSIONS(NEEDED) 0};
