/* cc-flags: -x c++ -Wl,--no-as-needed -lstdc++ */
/* See harmless_cancel.h. */
#include "harmless_cancel.h"
