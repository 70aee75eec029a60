#include "trace/trace-hw_error.h"
