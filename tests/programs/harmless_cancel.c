/* See harmless_cancel.h. */
#include "harmless_cancel.h"
