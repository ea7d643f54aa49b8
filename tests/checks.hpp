#pragma once

// doctest for every test. libtorch's logging defines CHECK and its kin as well, silently, and whichever header comes
// last wins: a test with libtorch's CHECK aborts instead of failing, and counts no assertion. Included first,
// libtorch's header adds nothing when it is included again.
#include <c10/util/Logging.h>
#undef CHECK
#undef CHECK_EQ
#undef CHECK_NE
#undef CHECK_LE
#undef CHECK_LT
#undef CHECK_GE
#undef CHECK_GT
#include <doctest/doctest.h>
